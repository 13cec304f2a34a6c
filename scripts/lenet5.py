"""The modern LeNet-5, as any PyTorch user would write it: the reference for the Rust program.

Use: from lenet5 import LeNet5; model = LeNet5.from_file("weights/lenet5.pth")
"""

import json
import zipfile
import zlib
from pathlib import Path

import torch
from mnist import to_input
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
KEY = "lenet5"  # key of the settings in every file, as in the Rust program
CHECKSUM_KEY = "lenet5.crc32"
# Settings of files that do not store them.
WHERE_ABSENT = {"layer_order": "activation-first", "hidden_activation": "same"}
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}


class WithSettings(nn.Module):
    """A network whose settings travel with its weights, in state dicts and in files.

    A subclass puts the arguments of its `__init__` by name into `self.settings`; the Rust program
    stores the same names and values.
    """

    @classmethod
    def from_file(cls, path):
        """Loads a network in evaluation mode from a state dict, a checkpoint of `train`,
        safetensors, or TorchScript (which runs the file's code, as `torch.jit.load` does)."""
        state, settings = read(Path(path))
        try:
            model = cls(**settings)
        except TypeError:
            found = settings.get("network", "modern")
            raise ValueError(
                f"{path}: expected weights for {cls.__module__}, found the {found} network"
            ) from None
        model.load_state_dict(state)
        return model.eval()

    def save(self, path) -> None:
        """Writes weights and settings: safetensors if that is the suffix, else a state dict."""
        state = self.state_dict()
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import save_file

            state = {name: tensor.contiguous() for name, tensor in state.items()}
            metadata = {"format": "pt", KEY: json.dumps(self.settings)}
            save_file(state, path, {**metadata, CHECKSUM_KEY: checksum(state, metadata)})
        else:
            torch.save(state, path)

    def prepare(self, images: Tensor) -> Tensor:
        """Converts bytes (N, 28, 28), 0 for background, to the input (N, 1, S, S), float32."""
        return to_input(images, *(self.settings[key] for key in ("mean", "std", "input")))

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Any module can load this, as modules ignore unknown metadata.
        destination._metadata[prefix[:-1]][KEY] = json.dumps(self.settings)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)
        stored = json.loads(local_metadata.get(KEY, "{}"))
        if not stored:
            return
        settings = WHERE_ABSENT | self.settings
        for key, needed in (WHERE_ABSENT | stored).items():
            if (ours := settings.get(key)) != needed:
                error = f"{key}: these weights need {needed}, this module has {ours}; use from_file"
                others[-1].append(error)


class LeNet5(WithSettings):
    """Images (N, 1, 32, 32) -> logits (N, classes); 61,706 parameters with 10 classes.

    `input`, `mean` and `std` say how a picture becomes the input. With `input="unpadded"` it is
    (N, 1, 28, 28), s4 is 4x4, and each unit of c5 has 16 x 4 x 4 inputs.
    `layer_order="pooling-first"` pools before the activation; `hidden_activation="none"` leaves c5
    and f6 without one.
    """

    def __init__(
        self,
        activation="tanh",
        pooling="avg",
        c5="convolution",
        classes=10,
        mean=0.0,
        std=1.0,
        input="padded",
        layer_order="activation-first",
        hidden_activation="same",
    ):
        super().__init__()
        self.settings = {
            "activation": activation,
            "pooling": pooling,
            "c5": c5,
            "classes": classes,
            "mean": mean,
            "std": std,
            "input": input,
            "layer_order": layer_order,
            "hidden_activation": hidden_activation,
        }
        s4 = 4 if input == "unpadded" else 5
        self.activation = ACTIVATIONS[activation]
        self.pooling = POOLINGS[pooling]
        self.pooling_first = layer_order == "pooling-first"
        self.hidden_activation = self.activation if hidden_activation == "same" else nn.Identity()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.c3 = nn.Conv2d(6, 16, 5)
        linear = c5 == "linear"
        self.c5 = nn.Linear(16 * s4 * s4, 120) if linear else nn.Conv2d(16, 120, s4)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activate_and_pool(self.c1(x))  # s2: (N, 6, 14, 14)
        x = self.activate_and_pool(self.c3(x))  # s4: (N, 16, 5, 5)
        if isinstance(self.c5, nn.Linear):
            x = x.flatten(1)  # (N, 400)
        x = self.hidden_activation(self.c5(x)).flatten(1)  # (N, 120)
        x = self.hidden_activation(self.f6(x))  # (N, 84)
        return self.output(x)  # (N, classes)

    def activate_and_pool(self, x: Tensor) -> Tensor:
        """(N, maps, H, W) -> (N, maps, H / 2, W / 2)."""
        if self.pooling_first:
            return self.activation(self.pooling(x, 2))
        return self.pooling(self.activation(x), 2)


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Reads the state dict and the settings from a file; settings are empty if it has none."""
    if zipfile.is_zipfile(path) and any(
        name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()
    ):
        module = torch.jit.load(path, map_location="cpu")
        return module.state_dict(), json.loads(getattr(module, KEY, "{}"))
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
            metadata = dict(file.metadata() or {})
        stored = metadata.pop(CHECKSUM_KEY, None)
        if stored and stored != checksum(state, metadata):
            raise ValueError(f"{path}: the file is damaged: its checksum is not {stored}")
        return state, json.loads(metadata.get(KEY, "{}"))
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("model", content)
    stored = getattr(state, "_metadata", {}).get("", {}).get(KEY, "{}")
    return state, json.loads(stored)


def checksum(state: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Returns the CRC-32 of metadata and tensors, each sorted by name, in hexadecimal."""
    crc = 0
    for key, value in sorted(metadata.items()):
        crc = zlib.crc32(f"{key}={value}\n".encode(), crc)
    for name, tensor in sorted(state.items()):
        crc = zlib.crc32(f"{name} {DTYPES[tensor.dtype]} {list(tensor.shape)}\n".encode(), crc)
        crc = zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().tobytes(), crc)
    return f"{crc:08x}"
