"""Measures how long `predict` takes for a photo of 12 million pixels and a sheet of 400 digits.

Run: make time-pictures    (ARGS="--keep FOLDER" keeps the pictures)
Writes: photo.jpg and sheet.png in FOLDER with --keep; prints a table of times.

The pictures show MNIST's test digits, and are the same in each run. The times are those of whole
processes: wall-clock time, and CPU time of all threads. Each is the median of several runs.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from mnist import read_mnist
from pictures import ROOT, coloured, enlarged, image, light, noisy
from PIL import ImageFilter

Size = tuple[int, int]


def lines(cells: Size, side: int, step: int, size: Size, rng: np.random.Generator) -> np.ndarray:
    """Draws lines of digits in the middle of a sheet of (rows, columns).

    The digits are in cells of `side` pixels, and `step` pixels apart.
    """
    images = read_mnist("t10k")[0].numpy()
    sheet = np.zeros(size, np.float32)
    top, left = ((whole - step * count) // 2 for whole, count in zip(size, cells, strict=True))
    for row, column in np.ndindex(cells):
        y, x = top + step * row, left + step * column
        digit = enlarged(images[rng.integers(len(images))], side)
        part = sheet[y : y + side, x : x + side]
        np.maximum(part, digit, out=part)
    return sheet


def photo(path: Path, rng: np.random.Generator) -> None:
    """Writes a photo of three lines of ten digits on paper, in uneven light."""
    ink = lines((3, 10), 220, 220, (3000, 4000), rng)
    sheet = coloured(ink, (0.15, 0.15, 0.3), (0.85, 0.83, 0.78))
    lit = image(sheet * light(sheet.shape, rng, 0.5)).filter(ImageFilter.GaussianBlur(1.5))
    image(noisy(np.asarray(lit) / 255, rng, 0.012)).save(path, quality=90)


def sheet(path: Path, rng: np.random.Generator) -> None:
    """Writes a scan of 20 lines of 20 digits: A4 at 150 dots per inch."""
    ink = lines((20, 20), 54, 60, (1754, 1240), rng)
    image(noisy(1 - 0.9 * ink, rng, 0.01)).save(path)


def seconds(path: Path) -> tuple[float, float]:
    """Runs `predict`; returns its wall-clock time and its CPU time."""
    before, start = os.times(), time.perf_counter()
    program = ROOT / "target" / "release" / "predict"
    subprocess.run([program, path], check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system
    return wall, used - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=11, help="runs of each picture (default 11)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the pictures in FOLDER")
    arguments = parser.parse_args()
    print("| picture | seconds | CPU seconds |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for make, name in (photo, "photo.jpg"), (sheet, "sheet.png"):
            make(folder / name, np.random.default_rng(1))
            times = [seconds(folder / name) for _ in range(arguments.runs)]
            wall, used = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"| {name} | {wall:.2f} | {used:.2f} |", flush=True)


if __name__ == "__main__":
    main()
