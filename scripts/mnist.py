"""MNIST from IDX files, as tensors.

Use: from mnist import read_mnist, to_input
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

EMBEDDED = Path(__file__).parent.parent / "data" / "mnist"


def read_idx(path: Path) -> Tensor:
    """An IDX file of unsigned bytes, gzip, as uint8."""
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    return torch.from_numpy(
        np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).copy()
    ).reshape(shape)


def write_idx(path: Path, array: Tensor) -> None:
    """Writes uint8 as an IDX file, not compressed."""
    header = np.array([0x0800 + array.dim(), *array.shape], ">u4")
    path.write_bytes(header.tobytes() + array.numpy().tobytes())


def read_mnist(split: str, folder: Path = EMBEDDED) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28), uint8, and labels (N), int64, of "train" or "t10k"."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    return images, labels.long()


def to_input(images: Tensor) -> Tensor:
    """Bytes (N, 28, 28) -> the network's input (N, 1, 32, 32), 0..1, padded with background."""
    return F.pad(images.unsqueeze(1).float() / 255, (2, 2, 2, 2))
