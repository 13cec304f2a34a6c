"""The LeNet-5 of the 1998 paper, in plain PyTorch: the reference for the Rust program.

Use: from lenet5_1998 import LeNet5, curvature, discriminative, sdlm_step, to_input
"""

from pathlib import Path

import torch
from lenet5 import WithSettings
from lenet5 import scaled_tanh as squash
from mnist import to_input as normalised
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

# The maps of s2 that each map of c3 is connected to: the paper's Table I.
C3_TABLE = [
    *([0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [0, 4, 5], [0, 1, 5]),
    *([0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [0, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 5]),
    *([0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5]),
]

# Settings that are stored for both networks, but variable in the modern one only.
FIXED = {
    "network": "original",
    "activation": "scaled-tanh",
    "pooling": "avg",
    "c5": "convolution",
}


class Subsampling(nn.Module):
    """The sum of each 2x2 block, times a coefficient, plus a bias: (N, C, H, W) -> half H and W."""

    def __init__(self, maps: int):
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(maps).uniform_(-2.4 / 4, 2.4 / 4))
        self.bias = nn.Parameter(torch.empty(maps).uniform_(-2.4 / 4, 2.4 / 4))

    def forward(self, x: Tensor) -> Tensor:
        sums = F.avg_pool2d(x, 2, divisor_override=1)
        return sums * self.coefficient.reshape(-1, 1, 1) + self.bias.reshape(-1, 1, 1)


class Codes(nn.Module):
    """Squared distances from the codes: (N, 84) -> (N, classes)."""

    def __init__(self, codes: Tensor, trained: bool):
        super().__init__()
        if trained:
            self.weight = nn.Parameter(codes)
        else:
            self.register_buffer("weight", codes)

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) - self.weight).square().sum(-1)


def read_codes(classes: int) -> Tensor:
    """Reads codes (classes, 84), 1 for ink, else -1: ten digits, or characters from the space."""
    path = Path(__file__).parent.parent / "core" / "data" / "codes_1998.txt"
    lines = path.read_text().splitlines()[1:]
    first = ord("0") - ord(" ") if classes == 10 else 0
    codes = [[int(pixel) for pixel in line] for line in lines[first : first + classes]]
    return torch.tensor(codes) * 2.0 - 1.0


class LeNet5(WithSettings):
    """Images (N, 1, 32, 32) -> (N, classes): -rbf_scale times the distances; 60,000 parameters.

    The codes are small pictures of characters, from the paper's Fig. 3. Pixels go
    from -0.1 for background to 1.175 for ink.
    """

    def __init__(
        self,
        classes=10,
        mean=0.1 / 1.275,
        std=1 / 1.275,
        input="padded",
        rbf_scale=0.025,
        train_rbf=False,
        **fixed,
    ):
        super().__init__()
        if fixed.items() - FIXED.items():
            raise ValueError(f"expected {FIXED}, which the network of 1998 has, found {fixed}")
        self.settings = {
            **FIXED,
            "classes": classes,
            "mean": mean,
            "std": std,
            "input": input,
            "rbf_scale": rbf_scale,
            "train_rbf": train_rbf,
        }
        self.scale = rbf_scale
        mask = torch.tensor([[float(i in maps) for i in range(6)] for maps in C3_TABLE])
        self.register_buffer("c3_mask", mask.reshape(16, 6, 1, 1), persistent=False)
        self.c1 = draw(2.4 / 25, nn.Conv2d, 1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = draw(2.4, nn.Conv2d, 6, 16, 5)
        with torch.no_grad():  # each map has its own fan-in: 75, 100 or 150
            fan_in = self.c3_mask.sum(1, keepdim=True) * 25
            self.c3.weight.div_(fan_in).mul_(self.c3_mask)
            self.c3.bias.div_(fan_in.flatten())
        self.s4 = Subsampling(16)
        self.c5 = draw(2.4 / 400, nn.Conv2d, 16, 120, 5)
        self.f6 = draw(2.4 / 120, nn.Linear, 120, 84)
        self.output = Codes(read_codes(classes), train_rbf)

    def forward(self, x: Tensor) -> Tensor:
        x = squash(self.c1(x))  # (N, 6, 28, 28)
        x = squash(self.s2(x))  # (N, 6, 14, 14)
        x = squash(F.conv2d(x, self.c3.weight * self.c3_mask, self.c3.bias))  # (N, 16, 10, 10)
        x = squash(self.s4(x))  # (N, 16, 5, 5)
        x = squash(self.c5(x)).flatten(1)  # (N, 120)
        x = squash(self.f6(x))  # (N, 84)
        return self.output(x) * -self.scale  # (N, classes)


def draw(bound: float, layer: type[nn.Module], *sizes: int) -> nn.Module:
    """Creates a layer, drawing only its weight, then its bias, uniformly in ±bound."""
    result = nn.utils.skip_init(layer, *sizes)
    with torch.no_grad():
        result.weight.uniform_(-bound, bound)
        result.bias.uniform_(-bound, bound)
    return result


def distance(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of the paper's eq. 8."""
    return (-logits.gather(1, labels.unsqueeze(1)).squeeze(1)).mean()


def discriminative(logits: Tensor, labels: Tensor, j=1.0) -> Tensor:
    """The loss of the paper's eq. 9."""
    everything_else = torch.full((len(logits), 1), -j)
    right = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return (torch.cat([logits, everything_else], 1).logsumexp(1) - right).mean()


def to_input(images: Tensor) -> Tensor:
    """Bytes (N, 28, 28) -> (N, 1, 32, 32), -0.1 for background to 1.175 for ink."""
    return normalised(images, mean=0.1 / 1.275, std=1 / 1.275)


@torch.no_grad()
def curvature(model: LeNet5, images: Tensor, labels: Tensor, loss=discriminative) -> list[Tensor]:
    """Computes the diagonal of the loss's second derivatives, approximated as in appendix C.

    This is the back-propagation of gradients with all factors squared: weights, inputs, slopes.
    Returns for each of `model.parameters()` the mean over images, summed over shared connections.
    """
    sums = {}  # each layer's input and weight

    def convolve(name, x):
        layer = getattr(model, name)
        weight = layer.weight * model.c3_mask if name == "c3" else layer.weight
        sums[name] = x, weight
        return squash(F.conv2d(x, weight, layer.bias))

    def subsample(name, x):
        sums[name] = x, getattr(model, name).coefficient
        return squash(getattr(model, name)(x))

    c1 = convolve("c1", images)
    s2 = subsample("s2", c1)
    c3 = convolve("c3", s2)
    s4 = subsample("s4", c3)
    c5 = convolve("c5", s4)
    f6 = squash(model.f6(c5.flatten(1)))

    def loss_of(x, label):  # the loss of one image, as a function of F6's outputs
        return loss(model.output(x[None]) * -model.scale, label[None])

    h = torch.func.vmap(torch.func.hessian(loss_of))(f6, labels).diagonal(dim1=1, dim2=2)
    h = h * slope(f6) ** 2
    result = [h.sum(0), h.T @ c5.flatten(1) ** 2]
    h = (h @ model.f6.weight**2).reshape(c5.shape)
    for name, output in ("c5", c5), ("s4", s4), ("c3", c3), ("s2", s2), ("c1", c1):
        x, weight = sums[name]
        h = h * slope(output) ** 2
        result.append(h.sum((0, 2, 3)))
        if name in ("s2", "s4"):
            result.append((h * F.avg_pool2d(x**2, 2, divisor_override=1)).sum((0, 2, 3)))
            h = F.interpolate(h * weight.reshape(-1, 1, 1) ** 2, scale_factor=2)
        else:
            by_weight = conv2d_weight(x**2, weight.shape, h)
            result.append(by_weight * model.c3_mask if name == "c3" else by_weight)
            h = conv2d_input(x.shape, weight**2, h)
    return [h / len(images) for h in reversed(result)]


def slope(squashed: Tensor) -> Tensor:
    """Returns the derivative of the squashing function, from its value."""
    return 2 / 3 * (1.7159 - squashed**2 / 1.7159)


@torch.no_grad()
def sdlm_step(model: LeNet5, h: list[Tensor], eta: float, mu: float) -> None:
    """Updates parameters from their gradients by stochastic diagonal Levenberg-Marquardt."""
    for parameter, second in zip(model.parameters(), h, strict=True):
        parameter.addcdiv_(parameter.grad, second + mu, value=-eta)
