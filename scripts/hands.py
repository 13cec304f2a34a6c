"""Draws digits of many hands: training data of the networks that read pictures.

Run: .venv/bin/python scripts/hands.py OUT --fonts FOLDER --semeion semeion.data.gz
Writes: OUT/NAME-images (IDX, N x 80 x 80, 0 for paper to 255 for ink) and OUT/NAME-labels for the
sources pen, fonts, mnist, semeion and zip. Runs with the same seed draw the same digits.

- pen: strokes along the path of a pen, in the forms of training_forms.py
- fonts: fonts that imitate handwriting, `FOLDER/**/*-latin-{400,700}-normal.woff2`
- mnist: MNIST's training digits, reshaped as data sets and people do: wider, narrower, thicker
- semeion: digits of 80 Italian writers (UCI, CC BY 4.0), a line for each: 256 pixels, then a
  column for each class
- zip: digits of US zip codes, a line for each: the label, then 256 pixels from -1 to 1

All are slanted, turned and warped a little. Some are drawn as a picture of few pixels would show
them, or out of focus.
"""

import argparse
import gzip
from collections.abc import Callable
from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from mnist import read_mnist, write_idx
from pen import curve, render
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import from_numpy
from training_forms import FORMS

SIDE = 80
MARGIN = 4
COUNTS = {"pen": 70_000, "fonts": 30_000, "mnist": 60_000, "semeion": 16_000, "zip": 30_000}
# The digits 1, 4, 5, 7 and 9 have more forms than the others.
SHARES = np.array([0.07, 0.16, 0.09, 0.08, 0.14, 0.1, 0.08, 0.11, 0.07, 0.1])


def pen(digit: int, r: np.random.Generator) -> Image.Image:
    """Draws the path of a pen."""
    jitter = r.choice([0, 0.008, 0.016, 0.03])
    lines = [curve(jittered(points, jitter, r)) for points in FORMS[digit](r)]
    lines = [line + waves(line, 0.02, r) for line in lines]
    aspect = np.exp(r.normal(np.log(0.68), 0.25))
    aspect = {1: min(aspect, 0.95), 7: max(aspect, 0.5)}.get(digit, aspect)
    shape = turned(r, slant=0.2, degrees=6) @ np.diag([aspect, 1])
    lines = [line @ shape.T for line in lines]
    width, height = np.ptp(np.concatenate(lines), axis=0)
    if r.random() < 0.25:  # as wide as high, as in data sets whose digits fill a square
        wider = np.clip(r.uniform(0.6, 1) * height / max(width, 0.12), 0.5, 3.5)
        if digit == 1:
            wider = min(wider, max(1, 0.8 * height / width))
        lines = [line * [wider, 1] for line in lines]
    everything = np.concatenate(lines)
    low, high = everything.min(0), everything.max(0)
    thickness = np.exp(r.uniform(np.log(0.045), np.log(0.2)))
    scale = (SIDE - 2 * MARGIN) / (max(high - low) + thickness)
    lines = [(line - (low + high) / 2) * scale + SIDE / 2 for line in lines]
    widths = np.full(max(map(len, lines)), thickness * scale)
    if r.random() < 0.3:  # the pressure changes
        phase = np.linspace(0, 1, len(widths)) * r.uniform(1, 6) + r.uniform(0, 6)
        widths *= 1 + 0.35 * np.sin(phase)
    return render(lines, widths, SIDE)


def jittered(points: list, deviation: float, r: np.random.Generator) -> list:
    """Moves points at random; a repeated point, which is a corner, stays repeated."""
    moved = []
    for index, (x, y) in enumerate(points):
        if index > 0 and points[index - 1] == (x, y):
            moved.append(moved[-1])
        else:
            moved.append((x + r.normal(0, deviation), y + r.normal(0, deviation)))
    return moved


def waves(points: np.ndarray, height: float, r: np.random.Generator) -> np.ndarray:
    """Returns small displacements of points (..., 2) that vary smoothly over the unit square."""
    moves = np.zeros(points.shape)
    for axis in range(2):
        for _ in range(3):
            phase = points @ r.uniform(0.5, 2, 2) + r.uniform(0, 1)
            moves[..., axis] += r.normal(0, height) * np.sin(2 * np.pi * phase)
    return moves


def turned(r: np.random.Generator, slant: float, degrees: float) -> np.ndarray:
    """Returns the matrix of a random slant and a random rotation."""
    angle = np.radians(r.normal(0, degrees))
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, -r.normal(0, slant)], [0, 1]])


def warped(
    image: Image.Image, r: np.random.Generator, stretch: float, waviness: float, digit: int
) -> Image.Image:
    """Slants, turns and warps a drawn digit, makes it wider or narrower, and fills the frame."""
    left, top, right, bottom = image.point(lambda grey: 255 * (grey > 20)).getbbox()
    width, height = right - left, bottom - top
    wider = np.exp(r.normal(0, stretch))
    if r.random() < 0.25:
        wider = np.clip(r.uniform(0.6, 1) * height / max(width, 0.12 * height), 0.5, 3.5)
    if digit == 1:  # not so wide that it is a 7
        wider = min(wider, 1.25, max(1, 0.6 * height / width))
    if digit == 7:  # not so narrow that it is a 1
        wider = max(wider, min(1, 0.42 * height / width))
    shape = turned(r, slant=0.15, degrees=5) @ np.diag([wider, 1])
    box = np.array([[-width, -height], [width, -height], [-width, height], [width, height]]) / 2
    shape *= (SIDE - 2 * MARGIN) / max(np.ptp(box @ shape.T, axis=0))
    grid = np.moveaxis(np.mgrid[:SIDE, :SIDE][::-1], 0, -1) + 0.5 - SIDE / 2
    source = grid @ np.linalg.inv(shape).T
    side = max(width, height)
    source += side * waves(source / side, 0.02 * waviness, r)
    source += [(left + right) / 2, (top + bottom) / 2]
    return sampled(image, source)


def sampled(image: Image.Image, points: np.ndarray) -> Image.Image:
    """Returns the image's values at points (H, W, 2), interpolated linearly."""
    values = np.pad(np.asarray(image, float), 1)
    high = np.array(values.shape[::-1]) - 1.001
    x, y = np.moveaxis(np.clip(points + 0.5, 0, high), -1, 0)
    column, row = x.astype(int), y.astype(int)
    across, down = x - column, y - row
    upper = values[row, column] * (1 - across) + values[row, column + 1] * across
    lower = values[row + 1, column] * (1 - across) + values[row + 1, column + 1] * across
    return Image.fromarray((upper * (1 - down) + lower * down).astype(np.uint8))


def sharpened(image: Image.Image, r: np.random.Generator) -> Image.Image:
    """Draws a small image's digit large, with sharp strokes of random width."""
    side = SIDE - 2 * MARGIN
    large = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), float) / 255
    ink = np.clip(4 * (large - r.uniform(0.3, 0.58)) + 0.5, 0, 1)
    return Image.fromarray(np.pad((255 * ink).astype(np.uint8), MARGIN))


def coarse(image: Image.Image, r: np.random.Generator) -> Image.Image:
    """Shows some digits as a picture of few pixels does, enlarged or small, or out of focus."""
    kind = r.random()
    if kind < 0.2:
        image = of_few_pixels(image, r)
    elif kind < 0.32:  # so small that the reader does not redraw its strokes
        side = int(r.integers(15, 31)) + 2
        small = np.asarray(image.resize((side, side), Image.Resampling.BOX))
        image = Image.fromarray(np.pad(small, (0, SIDE - side)))
    elif kind < 0.42:
        image = image.filter(ImageFilter.GaussianBlur(r.uniform(1, 3.5)))
    grey = np.asarray(image, float)
    level = np.quantile(grey[grey > 0.3 * grey.max()], 0.6)
    return Image.fromarray(np.clip(grey * 255 / level, 0, 255).astype(np.uint8))


def of_few_pixels(image: Image.Image, r: np.random.Generator) -> Image.Image:
    """Reduces a digit to 8 to 20 pixels, in some cases of black and white, and enlarges it."""
    if r.random() < 0.3:
        image = image.filter(ImageFilter.MaxFilter(5))
    digit = image.crop(image.getbbox())
    count = int(r.choice([8, 8, 8, 10, 12, 16, 16, 20]))
    width, height = (max(2, round(count * side / max(digit.size))) for side in digit.size)
    if r.random() < 0.5 and 2.2 * min(digit.size) > max(digit.size):
        width = height = count  # the digit fills a square
    grey = np.asarray(digit.resize((width, height), Image.Resampling.BOX))
    if r.random() < 0.4 and grey.max() > 150:
        grey = np.where(grey > 110, 255, 0).astype(np.uint8)
    scale = (SIDE - 2 * MARGIN) / max(width, height)
    smooth = Image.Resampling.BICUBIC if r.random() < 0.8 else Image.Resampling.NEAREST
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return centred(Image.fromarray(grey).resize(size, smooth))


def centred(digit: Image.Image) -> Image.Image:
    """Puts a digit into the middle of an empty frame."""
    frame = Image.new("L", (SIDE, SIDE))
    frame.paste(digit, ((SIDE - digit.width) // 2, (SIDE - digit.height) // 2))
    return frame


@cache
def loaded(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, 90)


def font(digit: int, path: Path, r: np.random.Generator) -> Image.Image:
    """Draws a digit of a font, in some cases with thicker or thinner strokes."""
    frame = Image.new("L", (200, 200))
    ImageDraw.Draw(frame).text((60, 20), str(digit), font=loaded(path), fill=255)
    left, top, right, bottom = frame.getbbox()
    image = frame.crop((left - 4, top - 4, right + 4, bottom + 4))
    kind = r.random()
    if kind < 0.3:
        for _ in range(int(r.integers(1, 4))):
            image = image.filter(ImageFilter.MaxFilter(3))
    elif kind < 0.4:
        thinner = image.filter(ImageFilter.MinFilter(3))
        if np.asarray(thinner, float).sum() > 0.4 * np.asarray(image, float).sum():
            image = thinner
    scale = (SIDE - 2 * MARGIN) / max(image.size)
    size = (max(1, round(side * scale)) for side in image.size)
    return warped(centred(image.resize(tuple(size), Image.Resampling.BICUBIC)), r, 0.25, 1, digit)


def redrawn(pixels: np.ndarray, r: np.random.Generator) -> Image.Image:
    """Draws a digit of 16x16 values, 0 to 1, large and sharp."""
    small = Image.fromarray((255 * pixels).astype(np.uint8).reshape(16, 16))
    large = small.resize((64, 64), Image.Resampling.BICUBIC)
    return sharpened(large.filter(ImageFilter.GaussianBlur(r.uniform(0.4, 2))), r)


class Source:
    """A source of digits: `draw(index, r)` returns the digit with this index and its image."""

    def __init__(self, arguments: argparse.Namespace):
        self.images, self.labels = (array.numpy() for array in read_mnist("train"))
        self.files = (
            sorted(arguments.fonts.glob("**/*-latin-[47]00-normal.woff2"))
            if arguments.fonts
            else []
        )
        if arguments.semeion:
            with gzip.open(arguments.semeion, "rt") as lines:
                self.semeion_rows = np.loadtxt(lines)
        if arguments.zip:
            with gzip.open(arguments.zip, "rt") as lines:
                self.zip_rows = np.loadtxt(lines)

    def pen(self, _, r):
        digit = int(r.choice(10, p=SHARES))
        return digit, pen(digit, r)

    def fonts(self, _, r):
        digit = int(r.integers(10))
        return digit, font(digit, self.files[r.integers(len(self.files))], r)

    def mnist(self, index, r):
        digit = int(self.labels[index % len(self.labels)])
        ink = sharpened(Image.fromarray(self.images[index % len(self.labels)]), r)
        return digit, warped(ink, r, 0.2, 0.6, digit)

    def semeion(self, index, r):
        row = self.semeion_rows[index % len(self.semeion_rows)]
        digit = int(row[256:266].argmax())
        ink = redrawn(row[:256], r)
        if r.random() < 0.7:  # these digits fill a square: make it as narrow as it may have been
            ink = centred(ink.resize((round(SIDE * r.uniform(0.45, 1)), SIDE)))
        return digit, warped(ink, r, 0.12, 0.6, digit)

    def zip(self, index, r):
        row = self.zip_rows[index % len(self.zip_rows)]
        digit = int(row[0])
        return digit, warped(redrawn((row[1:257] + 1) / 2, r), r, 0.12, 0.6, digit)


def drawn(draw: Callable, seed: list[int], index: int) -> tuple[int, np.ndarray]:
    """Draws the digit with this index: its class and its pixels."""
    r = np.random.default_rng([*seed, index])
    digit, image = draw(index, r)
    return digit, np.asarray(coarse(image, r))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--fonts", type=Path, help="folder of WOFF2 fonts")
    parser.add_argument("--semeion", type=Path, help="semeion.data.gz")
    parser.add_argument("--zip", type=Path, help="zip.train.gz")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    source = Source(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, count in COUNTS.items():
        if name in ("fonts", "semeion", "zip") and not getattr(arguments, name):
            continue
        draw = partial(drawn, getattr(source, name), [arguments.seed, *name.encode()])
        # The data travel to the processes once for each chunk.
        with Pool() as pool:
            digits, images = zip(*pool.imap(draw, range(count), chunksize=1000), strict=True)
        write_idx(arguments.out / f"{name}-images", from_numpy(np.stack(images)))
        write_idx(arguments.out / f"{name}-labels", from_numpy(np.array(digits, np.uint8)))
        print(f"{name}: {count} digits")


if __name__ == "__main__":
    main()
