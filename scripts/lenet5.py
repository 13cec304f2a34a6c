"""The modern LeNet-5, as any PyTorch user would write it: the reference for the Rust program.

Use: from lenet5 import LeNet5
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def scaled_tanh(x: Tensor) -> Tensor:
    """The paper's activation."""
    return torch.tanh(x * (2 / 3)) * 1.7159


ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "scaled-tanh": scaled_tanh,
}
POOLINGS = {"avg": F.avg_pool2d, "max": torch.max_pool2d}


class LeNet5(nn.Module):
    """Images (N, 1, 32, 32) -> logits (N, classes); 61,706 parameters with 10 classes.

    With `input_size=28`, for images without padding, s4 is 4x4 and c5 has 16 x 4 x 4 inputs a unit.
    """

    def __init__(
        self, activation="tanh", pooling="avg", c5="convolution", classes=10, input_size=32
    ):
        super().__init__()
        s4 = ((input_size - 4) // 2 - 4) // 2
        self.activation = ACTIVATIONS[activation]
        self.pooling = POOLINGS[pooling]
        self.c1 = nn.Conv2d(1, 6, 5)
        self.c3 = nn.Conv2d(6, 16, 5)
        linear = c5 == "linear"
        self.c5 = nn.Linear(16 * s4 * s4, 120) if linear else nn.Conv2d(16, 120, s4)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.c1(x))  # (N, 6, 28, 28)
        x = self.pooling(x, 2)  # s2: (N, 6, 14, 14)
        x = self.activation(self.c3(x))  # (N, 16, 10, 10)
        x = self.pooling(x, 2)  # s4: (N, 16, 5, 5)
        if isinstance(self.c5, nn.Linear):
            x = x.flatten(1)  # (N, 400)
        x = self.activation(self.c5(x)).flatten(1)  # (N, 120)
        x = self.activation(self.f6(x))  # (N, 84)
        return self.output(x)  # (N, classes)
