"""Reads MNIST's IDX files as tensors.

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
    """Reads a gzip-compressed IDX file of unsigned bytes, as uint8."""
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    return torch.from_numpy(
        np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).copy()
    ).reshape(shape)


def write_idx(path: Path, array: Tensor) -> None:
    """Writes uint8 as an uncompressed IDX file."""
    header = np.array([0x0800 + array.dim(), *array.shape], ">u4")
    path.write_bytes(header.tobytes() + array.numpy().tobytes())


def read_mnist(split: str, folder: Path = EMBEDDED) -> tuple[Tensor, Tensor]:
    """Reads images (N, 28, 28), uint8, and labels (N), int64, of "train" or "t10k"."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    return images, labels.long()


def to_input(images: Tensor, mean=0.0, std=1.0, input="padded") -> Tensor:
    """Bytes (N, 28, 28) -> the network's input (N, 1, 32, 32), or (N, 1, 28, 28) if unpadded.

    Pixels are scaled to 0..1, then normalised. `input` is "padded" with background, "zero-padded"
    after the normalisation, "resized" as by torchvision's Resize, or "unpadded".
    """
    padding = (2, 2, 2, 2)
    if input == "resized":
        images = torch.stack([resize(image) for image in images])
    pixels = images.unsqueeze(1).float() / 255
    if input == "padded":
        pixels = F.pad(pixels, padding)
    if (mean, std) != (0.0, 1.0):
        pixels = (pixels - mean) / std
    return F.pad(pixels, padding) if input == "zero-padded" else pixels


def resize(image: Tensor) -> Tensor:
    """Bytes (28, 28) -> (32, 32), by Pillow's bilinear filter."""
    from PIL import Image

    picture = Image.fromarray(image.numpy()).resize((32, 32), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture))
