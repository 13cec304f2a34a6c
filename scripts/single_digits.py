"""Measures how well `predict` reads single digits of many hands, and whether its confidences hold.

Run: .venv/bin/python scripts/single_digits.py zip.test.gz
The data are MNIST's test digits as they are, Optdigits (8x8 pixels, from scikit-learn, if it is
installed), and US zip codes of 1988. The zip codes' file accompanies the book "The Elements of
Statistical Learning": a line holds a label and 16x16 grey values from -1 to 1. Digits of 8x8 and
16x16 are enlarged to 128x128, dark ink on white paper. Prints three tables.
"""

import argparse
import gzip
import importlib.util
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from mnist import read_mnist
from pictures import readings
from PIL import Image

SIDE, MARGIN = 128, 32
LIMITS = (0, 0.3, 0.5, 0.7, 0.9, 0.97)
BINS = (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)

# For each digit: its confidence, 0 if it is not read as one digit, and whether it is read right.
Results = tuple[np.ndarray, np.ndarray]


def enlarged(ink: np.ndarray) -> Image.Image:
    """Creates a picture of one digit from its ink: 0 to 1, (rows, columns)."""
    digit = Image.fromarray(np.uint8(np.round(255 * ink)))
    digit = digit.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    sheet = Image.new("L", (SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), 255)
    sheet.paste(Image.fromarray(255 - np.asarray(digit)), (MARGIN, MARGIN))
    return sheet


def mnist() -> Iterator[tuple[int, Image.Image]]:
    images, labels = read_mnist("t10k")
    for image, label in zip(images.numpy(), labels.tolist(), strict=True):
        yield label, Image.fromarray(image)


def optdigits() -> Iterator[tuple[int, Image.Image]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for ink, label in zip(digits.images, digits.target, strict=True):
        yield int(label), enlarged(ink / 16)


def zip_codes(path: Path) -> Iterator[tuple[int, Image.Image]]:
    with gzip.open(path, "rt") as lines:
        for label, *values in (map(float, line.split()) for line in lines):
            yield int(label), enlarged((np.reshape(values, (16, 16)) + 1) / 2)


def read(digits: Iterator[tuple[int, Image.Image]]) -> Results:
    """Reads pictures of one digit each."""
    confidences, right = [], []
    with tempfile.TemporaryDirectory() as folder:
        for index, (label, picture) in enumerate(digits):
            picture.save(Path(folder) / f"{index:05d}-{label}.png")
        for path, reading in readings(Path(folder), ["--reject-below", "0"]):
            found = reading.get("digits", [])
            confidences.append(found[0]["confidence"] if len(found) == 1 else 0.0)
            right.append(reading.get("text") == path.stem.partition("-")[2])
    return np.array(confidences), np.array(right)


def percent(part: np.ndarray) -> str:
    return f"{100 * part.mean():.2f}"


def error(results: Results, rejected: float) -> str:
    """The error in percent of the digits that remain if this part is rejected."""
    confidences, right = results
    most = np.argsort(-confidences, kind="stable")[: round((1 - rejected) * len(right))]
    return percent(~right[most])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zip", type=Path, nargs="?", help="zip.test.gz, to read zip codes too")
    arguments = parser.parse_args()
    results = {"MNIST, test digits": read(mnist())}
    if importlib.util.find_spec("sklearn"):
        results["Optdigits"] = read(optdigits())
    if arguments.zip:
        results["zip codes, test part"] = read(zip_codes(arguments.zip))

    print("| data | digits | wrong % | wrong % if 9 % are rejected |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in results.items():
        print(f"| {name} | {len(found[0])} | {error(found, 0)} | {error(found, 0.09)} |")

    print("\n| data | confidence below | rejected % | wrong % of the others |")
    print("| --- | ---: | ---: | ---: |")
    for name, (confidences, right) in results.items():
        for limit in LIMITS:
            kept = confidences >= limit
            print(f"| {name} | {limit} | {percent(~kept)} | {percent(~right[kept])} |")

    print("\n| data | confidence | digits | mean confidence % | right % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    others = [found for name, found in results.items() if not name.startswith("MNIST")]
    groups = {"MNIST": [results["MNIST, test digits"]], "other hands": others}
    for name, parts in groups.items():
        if not parts:
            continue
        confidences, right = (np.concatenate(column) for column in zip(*parts, strict=True))
        bins = np.digitize(confidences, BINS[1:-1])
        for index, (low, high) in enumerate(pairwise(BINS)):
            inside = (bins == index) & (confidences > 0)
            if inside.any():
                means = f"{percent(confidences[inside])} | {percent(right[inside])}"
                print(f"| {name} | {low} to {high} | {inside.sum()} | {means} |")


if __name__ == "__main__":
    main()
