"""Data sets in the forms in which NumPy, Pillow and others write them: the same images come out."""

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mnist import read_mnist
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
TRAIN, TEST = 200, 100

Part = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def mnist() -> tuple[Part, Part]:
    """The first images of MNIST: (N, 28, 28) and labels of both parts."""
    parts = [[tensor.numpy() for tensor in read_mnist(name)] for name in ("train", "t10k")]
    return tuple((x[:count], y[:count]) for (x, y), count in zip(parts, (TRAIN, TEST), strict=True))


def evaluate(data: Path, out: Path, *options: str) -> tuple[np.ndarray, np.ndarray, str]:
    """The logits and labels of a data set, and the notes about it."""
    command = [ROOT / "target/release/evaluate", "--data", data, "--logits", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    tensors = load_file(out)
    return tensors["logits"], tensors["labels"], done.stderr


def write_idx(path: Path, array: np.ndarray, magic: int) -> None:
    words = [magic, *array.shape]
    path.write_bytes(gzip.compress(np.array(words, ">u4").tobytes() + array.tobytes()))


def idx(folder: Path, parts: tuple[Part, Part]) -> Path:
    for name, (images, labels) in zip(("train", "t10k"), parts, strict=True):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images, 0x803)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels.astype(np.uint8), 0x801)
    return folder


def qmnist(folder: Path, parts: tuple[Part, Part]) -> Path:
    for name, (images, labels) in zip(("train", "test"), parts, strict=True):
        write_idx(folder / f"qmnist-{name}-images-idx3-ubyte.gz", images, 0x803)
        rows = np.zeros((len(labels), 8), ">i4")
        rows[:, 0] = labels
        write_idx(folder / f"qmnist-{name}-labels-idx2-int.gz", rows, 0xC02)
    return folder


def emnist(folder: Path, parts: tuple[Part, Part]) -> Path:
    for name, (images, labels) in zip(("train", "test"), parts, strict=True):
        turned = np.ascontiguousarray(images.transpose(0, 2, 1))
        write_idx(folder / f"emnist-digits-{name}-images-idx3-ubyte.gz", turned, 0x803)
        write_idx(folder / f"emnist-digits-{name}-labels-idx1-ubyte.gz", labels.astype("u1"), 0x801)
    return folder


def unpacked(folder: Path, parts: tuple[Part, Part]) -> Path:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in idx(folder, parts).glob("*.gz"):
        name = path.stem.replace("-idx", ".idx")
        (raw / name).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    return folder


def keras(folder: Path, parts: tuple[Part, Part]) -> Path:
    (x_train, y_train), (x_test, y_test) = parts
    path = folder / "mnist.npz"
    np.savez(path, x_test=x_test, x_train=x_train, y_train=y_train, y_test=y_test)
    return path


def two_npz(folder: Path, parts: tuple[Part, Part]) -> Path:
    for name, (images, labels) in zip(("train", "test"), parts, strict=True):
        np.savez_compressed(folder / f"{name}.npz", x=images.astype(np.int64), y=labels)
    return folder


def csv(folder: Path, parts: tuple[Part, Part]) -> Path:
    header = ",".join(["label", *(f"{row}x{column}" for row in range(28) for column in range(28))])
    for name, (images, labels) in zip(("train", "test"), parts, strict=True):
        table = np.c_[labels, images.reshape(-1, 784)]
        path = folder / f"mnist_{name}.csv.gz"
        np.savetxt(path, table, "%d", ",", header=header, comments="")
    return folder


def pictures(folder: Path, parts: tuple[Part, Part]) -> Path:
    for name, (images, labels) in zip(("training", "testing"), parts, strict=True):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / name / str(label) / f"{i:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


FORMS = [idx, qmnist, emnist, unpacked, keras, two_npz, csv, pictures]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("split", ["train", "test"])
def test_each_form_gives_the_same_images(
    form: Callable, split: str, mnist: tuple[Part, Part], tmp_path: Path
):
    (folder := tmp_path / "data").mkdir()
    (plain := tmp_path / "plain").mkdir()
    logits, labels, notes = evaluate(form(folder, mnist), tmp_path / "a", f"--split={split}")
    expected, expected_labels, _ = evaluate(idx(plain, mnist), tmp_path / "b", f"--split={split}")
    assert len(labels) == (TRAIN if split == "train" else TEST)
    # Pictures come in another order.
    order, other = (
        np.lexsort((rows[:, 0], y)) for rows, y in ((logits, labels), (expected, expected_labels))
    )
    assert (labels[order] == expected_labels[other]).all()
    assert np.abs(logits[order] - expected[other]).max() < 1e-4
    assert ("transposed" in notes) == (form is emnist)


def test_pictures_of_other_sizes_are_fitted(mnist: tuple[Part, Part], tmp_path: Path):
    """Enlarged digits, dark on white, in the corner of a sheet, are read as well as MNIST's own."""
    images, labels = mnist[1]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "sheets" / str(label) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet = Image.new("RGB", (300, 260), (250, 245, 230))
        digit = Image.fromarray(255 - image).resize((160, 160), Image.Resampling.BICUBIC)
        sheet.paste(digit.convert("RGB"), (0, 90))
        sheet.save(path, quality=90)
    for options, most in (((), 3), (("--fit=digit",), 3)):
        logits, found, _ = evaluate(tmp_path / "sheets", tmp_path / "out", *options)
        assert len(found) == TEST
        assert (logits.argmax(1) != found).sum() <= most
    # A scaled sheet is another picture.
    logits, found, _ = evaluate(tmp_path / "sheets", tmp_path / "out", "--fit=whole")
    assert (logits.argmax(1) != found).mean() > 0.5


def test_data_without_parts_are_split_by_validation(mnist: tuple[Part, Part], tmp_path: Path):
    images, labels = mnist[0]
    np.savez(tmp_path / "all.npz", images=images, labels=labels)
    command = [ROOT / "target/release/train", "--data", tmp_path / "all.npz", "--epochs=1"]
    out = tmp_path / "run"
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "all.npz: expected training and test images, found 200 images without parts: hold some of "
        "them out, as in --validation 40"
    )
    assert not out.exists()
    done = subprocess.run(
        [*command, "--out", out, "--validation=50"], capture_output=True, text=True, check=True
    )
    assert "150 training and 50 validation images" in done.stdout
    assert json.loads((out / "config.json").read_text())["fit"] == "auto"
