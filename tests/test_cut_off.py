"""Tests that `predict` reads pictures written by Pillow, and rejects those that are cut off.

Run: pytest tests/test_cut_off.py, after `cargo build --release`.
"""

import json
import struct
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PREDICT = ROOT / "target" / "release" / "predict"

JPEG = {
    "4:4:4": {"subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "grey": {},
    "cmyk": {},
    "restarts": {"restart_marker_blocks": 4},
    "progressive": {"progressive": True},
    "progressive grey": {"progressive": True},
}
OTHERS = {
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "gif interlaced": ("GIF", {"interlace": 1}),
    "tiff": ("TIFF", {}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff jpeg": ("TIFF", {"compression": "jpeg"}),
    "tiff packbits": ("TIFF", {"compression": "packbits"}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "qoi": ("QOI", {}),
}


def picture(mode: str) -> Image.Image:
    return Image.open(ROOT / "tests" / "pictures" / "407.png").convert(mode)


def encoded(picture: Image.Image, form: str, options: dict) -> bytes:
    file = BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def jpeg(name: str) -> bytes:
    mode = {"grey": "L", "progressive grey": "L", "cmyk": "CMYK"}.get(name, "RGB")
    return encoded(picture(mode), "JPEG", JPEG[name])


def with_height(data: bytes, height: int) -> bytes:
    """Returns the JPEG with another height in its header."""
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return data[: at + 5] + struct.pack(">H", height) + data[at + 7 :]


def read(folder: Path, files: list[bytes]) -> list[dict]:
    paths = [folder / str(number) for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    command = [PREDICT, "--json", *paths]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("name", JPEG)
def test_jpegs(tmp_path, name):
    data = jpeg(name)
    height = picture("L").height
    end = b"\xff\xd9"
    good = [data, data[:-2], data + b"more", data + data]
    cut = [data[: len(data) * percent // 100] for percent in (30, 50, 90, 99)]
    # Cut off, but with an end marker; a progressive JPEG then ends within a scan.
    cut += [part + end for part in cut] + [data[:-6] + end]
    cut += [with_height(data, tall) for tall in (height + 16, 7000)]
    answers = read(tmp_path, good + cut)
    assert [answer.get("text") for answer in answers[: len(good)]] == ["407"] * len(good)
    for answer in answers[len(good) :]:
        assert answer["error"].endswith("found a JPEG that ends early"), answer


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats(tmp_path, name):
    form, options = OTHERS[name]
    data = encoded(picture("RGB"), form, options)
    cut = [data[: len(data) * percent // 100] for percent in (30, 50, 90)]
    whole, *others = read(tmp_path, [data, *cut])
    assert whole["text"] == "407"
    for answer in others:
        assert "expected a whole picture, found a" in answer["error"], answer
