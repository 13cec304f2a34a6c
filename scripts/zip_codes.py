"""Measures how well `predict` reads US zip code digits of 1988, data of the 1989 network.

Run: .venv/bin/python scripts/zip_codes.py zip.test.gz
The file accompanies the book "The Elements of Statistical Learning": a line holds
a label and 16x16 grey values from -1 to 1. Each digit becomes a picture: enlarged 8 times, dark ink
on white paper. Prints the error, and the error of the accepted digits if 9 % are rejected.
"""

import argparse
import gzip
import tempfile
from pathlib import Path

import numpy as np
from pictures import readings
from PIL import Image

ENLARGED, MARGIN = 8, 32


def picture(values: np.ndarray) -> Image.Image:
    """Creates a picture of one digit from its 256 values."""
    ink = Image.fromarray(np.uint8(np.round((values.reshape(16, 16) + 1) * 127.5)))
    ink = ink.resize((16 * ENLARGED, 16 * ENLARGED), Image.Resampling.BICUBIC)
    side = 16 * ENLARGED + 2 * MARGIN
    sheet = Image.new("L", (side, side), 255)
    sheet.paste(Image.fromarray(255 - np.asarray(ink)), (MARGIN, MARGIN))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    with gzip.open(arguments.file, "rt") as lines:
        table = np.array([[float(value) for value in line.split()] for line in lines])
    labels = table[:, 0].astype(int)
    with tempfile.TemporaryDirectory() as folder:
        for index, values in enumerate(table[:, 1:257]):
            picture(values).save(Path(folder) / f"{index:05d}.png")
        found = [reading for _, reading in readings(folder, ["--reject-below", "0"])]
    assert len(found) == len(labels)
    right = np.array(
        [reading.get("text") == str(label) for reading, label in zip(found, labels, strict=True)]
    )
    confidences = np.array(
        [min((d["confidence"] for d in r.get("digits", [])), default=0.0) for r in found]
    )
    accepted = np.argsort(-confidences, kind="stable")[: round(0.91 * len(labels))]
    print(f"{len(labels)} digits, {100 * (1 - right.mean()):.2f} % misclassified")
    print(f"of the {len(accepted)} digits with the highest confidence, 91 %: ", end="")
    print(f"{100 * (1 - right[accepted].mean()):.2f} % misclassified")


if __name__ == "__main__":
    main()
