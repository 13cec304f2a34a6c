"""Measures how well `predict` reads pictures of many kinds, made from MNIST's test digits.

Run: make pictures    (ARGS="--count 1000 --kinds shadow thin": more pictures, two kinds)
Writes: FOLDER/KIND/NUMBER-TEXT.SUFFIX with --keep FOLDER; prints a table of accuracies. In TEXT,
an underscore separates lines.

Each picture shows a digit, a string of five, or several lines, with random position, size and
colours. Runs with the same seed draw the same pictures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mnist import read_mnist
from pen import draw
from PIL import Image, ImageFilter

ROOT = Path(__file__).parent.parent
GAPS = range(-1, 5)


def enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """Enlarges a 28x28 digit to (side, side), with sharp strokes as of a pen: 0 to 1."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.asarray(large.filter(ImageFilter.GaussianBlur(side / 100)), float) / 255
    return np.clip((ink - 0.4) * 5, 0, 1)


def stroked(ink: np.ndarray, grow: float) -> np.ndarray:
    """Makes strokes wider by `grow` pixels on each side, or thinner if it is negative."""
    radius = round(abs(grow))
    large = Image.fromarray((255 * ink).astype(np.uint8))
    pick = ImageFilter.MaxFilter if grow > 0 else ImageFilter.MinFilter
    for _ in range(radius):
        large = large.filter(pick(3))
    return np.asarray(large, float) / 255


def placed(ink: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Puts ink at a random position on a sheet of (rows, columns)."""
    sheet = np.zeros(size)
    rows, columns = ink.shape
    top, left = (
        rng.integers(0, whole - part + 1) for whole, part in zip(size, ink.shape, strict=True)
    )
    sheet[top : top + rows, left : left + columns] = ink
    return sheet


def coloured(ink: np.ndarray, pen: tuple, paper: tuple) -> np.ndarray:
    """Gives ink and paper their colours: (H, W, 3), 0 to 1."""
    return ink[..., None] * np.array(pen) + (1 - ink[..., None]) * np.array(paper)


def light(shape: tuple, rng: np.random.Generator, darkest: float) -> np.ndarray:
    """Returns light that decreases across the picture in a random direction: (H, W, 1)."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    slope = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)
    return (darkest + (1 - darkest) * (slope + 1) / 2)[..., None]


def shadow(shape: tuple, rng: np.random.Generator) -> np.ndarray:
    """Returns a shadow with an edge, such as a hand's or a phone's: (H, W, 1)."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / max(shape)
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + rng.uniform(-0.2, 0.2)
    return (1 - 0.45 * np.clip(across * 25 + 0.5, 0, 1))[..., None]


def noisy(picture: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    return picture + rng.normal(0, deviation, picture.shape)


def image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * np.clip(picture, 0, 1)).round().astype(np.uint8))


BLACK, WHITE = (0.1, 0.1, 0.12), (0.95, 0.95, 0.93)


class Maker:
    """Creates pictures; the method of each kind returns an image, its suffix and save options."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def drawn(self, digit: np.ndarray, grow: float = 0) -> np.ndarray:
        # The sheet is less than 160 pixels wider and higher than the digit.
        side = int(self.rng.integers(220, 420))
        ink = stroked(enlarged(digit, side), grow * side / 28)
        rows, columns = (side + int(self.rng.integers(0, 160)) for _ in range(2))
        return placed(ink, (rows, columns), self.rng)

    def mnist(self, digit):
        """28x28, as in MNIST"""
        return Image.fromarray(digit), "png", {}

    def inverted(self, digit):
        """32x32, dark on white"""
        return Image.fromarray(255 - np.pad(digit, 2)), "bmp", {}

    def enlarged(self, digit):
        """enlarged, black on white"""
        return image(coloured(self.drawn(digit), BLACK, WHITE)), "png", {}

    def small(self, digit):
        """10 to 16 pixels high"""
        side = int(self.rng.integers(14, 23))
        ink = Image.fromarray(digit).resize((side, side), Image.Resampling.LANCZOS)
        sheet = placed(np.asarray(ink) / 255, (40, 60), self.rng)
        return image(1 - sheet), "png", {}

    def chalk(self, digit):
        """white on black"""
        sheet = coloured(self.drawn(digit), (0.9, 0.9, 0.85), (0.1, 0.14, 0.12))
        return image(noisy(sheet, self.rng, 0.03)), "jpg", {}

    def green_on_yellow(self, digit):
        """green on yellow"""
        return image(coloured(self.drawn(digit), (0.1, 0.5, 0.15), (0.95, 0.9, 0.3))), "webp", {}

    def blue_on_grey(self, digit):
        """blue pen on grey"""
        sheet = coloured(self.drawn(digit), (0.2, 0.25, 0.6), (0.6, 0.6, 0.58))
        return image(noisy(sheet, self.rng, 0.02)), "jpg", {}

    def red_on_blue(self, digit):
        """red on blue, equally bright"""
        return image(coloured(self.drawn(digit), (0.8, 0.2, 0.2), (0.2, 0.35, 0.8))), "png", {}

    def faint(self, digit):
        """faint pencil"""
        sheet = coloured(self.drawn(digit), (0.72, 0.72, 0.72), (0.9, 0.9, 0.88))
        return image(noisy(sheet, self.rng, 0.015)), "jpg", {}

    def uneven(self, digit):
        """uneven light"""
        sheet = coloured(self.drawn(digit), BLACK, WHITE)
        sheet = sheet * light(sheet.shape, self.rng, 0.25)
        return image(noisy(sheet, self.rng, 0.01)), "jpg", {}

    def shadow(self, digit):
        """a shadow's edge"""
        sheet = coloured(self.drawn(digit), BLACK, WHITE)
        sheet = sheet * shadow(sheet.shape, self.rng) * light(sheet.shape, self.rng, 0.7)
        return image(noisy(sheet, self.rng, 0.01)), "jpg", {}

    def thin(self, digit):
        """thin strokes"""
        ink = self.drawn(digit)
        large = ink > 0.5
        sheet = skeleton(large)
        return image(coloured(stroked(sheet, 1), BLACK, WHITE)), "png", {}

    def thick(self, digit):
        """thick strokes"""
        return image(coloured(self.drawn(digit, 0.7), BLACK, WHITE)), "png", {}

    def blurred(self, digit):
        """out of focus"""
        sheet = image(coloured(self.drawn(digit), BLACK, WHITE))
        return sheet.filter(ImageFilter.GaussianBlur(self.rng.uniform(4, 9))), "jpg", {}

    def compressed(self, digit):
        """JPEG of quality 10"""
        return image(coloured(self.drawn(digit), BLACK, WHITE)), "jpg", {"quality": 10}

    def turned(self, digit):
        """turned by EXIF"""
        orientation = int(self.rng.integers(2, 9))
        transpose = Image.Transpose
        undo = {
            2: transpose.FLIP_LEFT_RIGHT,
            3: transpose.ROTATE_180,
            4: transpose.FLIP_TOP_BOTTOM,
            5: transpose.TRANSPOSE,
            6: transpose.ROTATE_90,
            7: transpose.TRANSVERSE,
            8: transpose.ROTATE_270,
        }[orientation]
        exif = Image.Exif()
        exif[0x112] = orientation
        sheet = image(coloured(self.drawn(digit), BLACK, WHITE))
        return sheet.transpose(undo), "jpg", {"exif": exif}

    def slanted(self, digit):
        """turned by up to 10 degrees"""
        sheet = Image.fromarray((255 * self.drawn(digit)).astype(np.uint8))
        sheet = sheet.rotate(self.rng.uniform(-10, 10), Image.Resampling.BICUBIC)
        return image(1 - np.asarray(sheet) / 255), "png", {}

    def transparent(self, digit):
        """on nothing (alpha)"""
        alpha = self.drawn(digit)
        sheet = np.dstack([np.zeros((*alpha.shape, 3)), alpha])
        return image(sheet), "png", {}

    def deep(self, digit):
        """16-bit grey"""
        sheet = (1 - 0.9 * self.drawn(digit)) * 9000
        return Image.fromarray(sheet.astype(np.uint16)), "png", {}

    def palette(self, digit):
        """GIF with a palette"""
        return image(coloured(self.drawn(digit), (0.5, 0.1, 0.4), WHITE)), "gif", {}

    def ruled(self, digit):
        """ruled paper"""
        return image(self.on_paper(digit, squares=False)), "jpg", {}

    def squared(self, digit):
        """squared paper"""
        return image(self.on_paper(digit, squares=True)), "jpg", {}

    def on_paper(self, digit, squares: bool) -> np.ndarray:
        ink = self.drawn(digit)
        sheet = coloured(np.zeros_like(ink), BLACK, WHITE)
        step, rule = int(self.rng.integers(50, 90)), np.array((0.65, 0.75, 0.9))
        for at in range(int(self.rng.integers(0, step)), sheet.shape[0], step):
            sheet[at : at + 3] = rule
        for at in range(int(self.rng.integers(0, step)), sheet.shape[1], step) if squares else ():
            sheet[:, at : at + 3] = rule
        return sheet * (1 - ink[..., None]) + ink[..., None] * np.array((0.1, 0.15, 0.45))

    def photo(self, digit):
        """a photo: small on a page, light, blur, noise"""
        ink = enlarged(digit, int(self.rng.integers(120, 260)))
        sheet = coloured(placed(ink, (900, 1200), self.rng), (0.15, 0.15, 0.3), (0.85, 0.83, 0.78))
        sheet = sheet * light(sheet.shape, self.rng, 0.5) * shadow(sheet.shape, self.rng)
        blurred = image(noisy(sheet, self.rng, 0.02)).filter(ImageFilter.GaussianBlur(1.5))
        return blurred, "jpg", {"quality": 80}


def skeleton(ink: np.ndarray) -> np.ndarray:
    """Thins strokes to their middle lines: Zhang and Suen 1984."""
    ink = np.pad(ink, 1)
    while True:
        before = ink.sum()
        for odd in (0, 1):
            p = [
                np.roll(ink, shift, (0, 1))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            count = sum(q.astype(int) for q in p)
            turns = sum((~p[i] & p[(i + 1) % 8]).astype(int) for i in range(8))
            north, east, south, west = p[0], p[2], p[4], p[6]
            if odd:
                kept = (north & east & west) | (north & south & west)
            else:
                kept = (north & east & south) | (east & south & west)
            ink = ink & ~((count >= 2) & (count <= 6) & (turns == 1) & ~kept)
        if ink.sum() == before:
            return ink[1:-1, 1:-1].astype(float)


def string(digits: list[np.ndarray], gap: int) -> np.ndarray:
    """Joins 28x28 digits, with `gap` columns between the ink of each and the next."""
    margin = 8
    spans = [np.flatnonzero(digit.any(0))[[0, -1]] for digit in digits]
    width = sum(int(right - left) + 1 + gap for left, right in spans) - gap + 2 * margin
    sheet = np.zeros((28 + 2 * margin, width), np.uint8)
    at = margin
    for digit, (left, right) in zip(digits, spans, strict=True):
        part = sheet[margin : margin + 28, at : at + right - left + 1]
        np.maximum(part, digit[:, left : right + 1], out=part)
        at += int(right - left) + 1 + gap
    return sheet


class LinesMaker:
    """Creates pictures of several lines; the method of each kind returns an image and its text."""

    def __init__(self, rng: np.random.Generator, images: np.ndarray, labels: np.ndarray):
        self.rng, self.images, self.labels = rng, images, labels

    def digit(self) -> tuple[np.ndarray, str]:
        index = self.rng.integers(len(self.images))
        return self.images[index], str(self.labels[index])

    def line(self, count: int, height: float, heights=(0.9, 1.1), gaps=(0.1, 0.5)):
        """Draws digits on a base line. The ranges are relative to `height` in pixels."""
        inks, text = [], ""
        for _ in range(count):
            digit, label = self.digit()
            ink = enlarged(digit, round(height * self.rng.uniform(*heights) * 28 / 20))
            rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
            inks.append(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
            text += label
        base = max(len(ink) for ink in inks) + round(0.1 * height)
        parts = []
        for ink in inks:
            gap = round(height * self.rng.uniform(*gaps))
            bottom = base - round(height * self.rng.uniform(0, 0.1))
            part = np.zeros((base, ink.shape[1] + gap))
            part[bottom - len(ink) : bottom, gap:] = ink
            parts.append(part)
        return np.hstack(parts), text

    def page(self, lines: list[tuple[np.ndarray, str]], height: float, aligned: bool = True):
        """Draws lines below each other; if they are not aligned, the last one starts anywhere."""
        width = max(ink.shape[1] for ink, _ in lines)
        margin = round(height)
        parts = []
        for number, (ink, _) in enumerate(lines):
            free = width - ink.shape[1]
            last = number + 1 == len(lines)
            left = 0 if aligned or not last else int(self.rng.integers(0, free + 1))
            gap = round(height * self.rng.uniform(0.2, 0.8))
            parts.append(np.pad(ink, ((gap, 0), (left, free - left))))
        return np.pad(np.vstack(parts), margin), "_".join(text for _, text in lines)

    def plain(self, line_counts=(2, 5), **ranges):
        height = self.rng.uniform(40, 100)
        counts = self.rng.integers(3, 8, self.rng.integers(*line_counts))
        return self.page([self.line(count, height, **ranges) for count in counts], height)

    def heights(self):
        """2 to 4 lines, digits of different heights"""
        height, lines = self.rng.uniform(40, 100), []
        for count in self.rng.integers(3, 8, self.rng.integers(2, 5)):
            lines.append(self.line(count, height * self.rng.uniform(0.6, 1.4), (0.7, 1.3)))
        return self.on_white(*self.page(lines, height))

    def apart(self):
        """2 to 4 lines, digits 1 to 4 widths apart"""
        return self.on_white(*self.plain(gaps=(0.7, 2.8)))

    def last(self):
        """2 to 4 lines, the last one short"""
        height = self.rng.uniform(40, 100)
        counts = [*self.rng.integers(4, 8, self.rng.integers(1, 4)), self.rng.integers(1, 3)]
        lines = [self.line(count, height) for count in counts]
        return self.on_white(*self.page(lines, height, aligned=False))

    def sloping(self):
        """2 to 4 lines that slope by up to 8 degrees"""
        ink, text = self.plain()
        sheet = Image.fromarray((255 * ink).astype(np.uint8))
        angle = self.rng.uniform(-8, 8)
        sheet = sheet.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        return self.on_white(np.asarray(sheet) / 255, text)

    def cells(self):
        """50 digits in cells of 28 pixels, without rules"""
        digits = [[self.digit() for _ in range(10)] for _ in range(5)]
        sheet = np.vstack([np.hstack([image for image, _ in row]) for row in digits])
        if self.rng.random() < 0.5:
            sheet = 255 - sheet
        return Image.fromarray(sheet), "_".join("".join(text for _, text in row) for row in digits)

    def table(self):
        """ruled tables of numbers"""
        height = self.rng.uniform(30, 60)
        rows, columns = self.rng.integers(2, 6, 2)
        rule = int(self.rng.integers(2, 5))
        cells = [
            [self.line(self.rng.integers(1, 3), height) for _ in range(columns)]
            for _ in range(rows)
        ]
        inks = [ink for row in cells for ink, _ in row]
        size = [max(ink.shape[axis] for ink in inks) + round(0.4 * height) for axis in (0, 1)]
        sheet = np.vstack(
            [
                np.hstack([ruled(placed(ink, size, self.rng), rule) for ink, _ in row])
                for row in cells
            ]
        )
        text = "_".join("".join(text for _, text in row) for row in cells)
        return self.on_white(np.pad(sheet, round(height)), text)

    def side(self):
        """1 to 3 lines in a picture on its side"""
        ink, text = self.plain(line_counts=(1, 4))
        return self.on_white(np.rot90(ink, self.rng.choice([1, 3])), text)

    def on_white(self, ink: np.ndarray, text: str) -> tuple[Image.Image, str]:
        return image(noisy(coloured(ink, BLACK, WHITE), self.rng, 0.01)), text


def ruled(cell: np.ndarray, rule: int) -> np.ndarray:
    """Draws rules around a cell of a table; those of neighbours join."""
    cell = cell.copy()
    for side in (cell[:rule], cell[-rule:], cell[:, :rule], cell[:, -rule:]):
        side[:] = 1
    return cell


METHODS = {name: method for name, method in vars(Maker).items() if callable(method)}
KINDS = {name: method.__doc__ for name, method in METHODS.items() if method.__doc__}
LINES = {
    name: vars(LinesMaker)[name].__doc__
    for name in ("heights", "apart", "last", "sloping", "cells", "table", "side")
}
STRINGS = {f"gap{gap}": f"strings of 5, {gap} columns apart" for gap in GAPS}
STRINGS["gap-1"] = "strings of 5, overlapping by 1 column"
PENS = {"pen1479": (1, 4, 7, 9), "pen": range(10)}
PEN_TITLES = {
    "pen1479": "1, 4, 7 and 9 in many forms, drawn with a pen",
    "pen": "all digits in many forms, drawn with a pen",
}
KNOWN = {**KINDS, **PEN_TITLES, **STRINGS, **LINES}


def make(folder: Path, kinds: list[str], count: int, seed: int) -> None:
    """Writes `count` pictures of each kind; the name of a file ends with its text."""
    images, labels = (array.numpy() for array in read_mnist("t10k"))
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, *kind.encode()])
        maker = Maker(int(rng.integers(1 << 32)))
        for number in range(count):
            if kind in PENS:
                digit = int(rng.choice(PENS[kind]))
                path = folder / kind / f"{number:05}-{digit}.png"
                Image.fromarray(255 - draw(digit, rng)).save(path)
                continue
            if kind in LINES:
                picture, text = getattr(LinesMaker(rng, images, labels), kind)()
                picture.save(folder / kind / f"{number:05}-{text}.png")
                continue
            if kind.startswith("gap"):
                chosen = rng.integers(0, len(images), 5)
                sheet = string([images[i] for i in chosen], int(kind.removeprefix("gap")))
                picture, suffix, options = Image.fromarray(sheet), "png", {}
            else:
                chosen = [
                    number % len(images) if count >= len(images) else rng.integers(len(images))
                ]
                picture, suffix, options = getattr(maker, kind)(images[chosen[0]])
            text = "".join(str(labels[i]) for i in chosen)
            picture.save(folder / kind / f"{number:05}-{text}.{suffix}", **options)


def readings(folder: Path, arguments: list[str]) -> Iterator[tuple[Path, dict]]:
    """Runs `predict` on a folder; yields each picture's path and what `--json` prints about it."""
    program = ROOT / "target" / "release" / "predict"
    command = [program, "--json", *arguments, folder]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    for line in output.splitlines():
        reading = json.loads(line)
        yield Path(reading["file"]), reading


def read(folder: Path, arguments: list[str]) -> dict[str, list[tuple[str, str, str]]]:
    """Returns, by kind, each picture's text, the text that `predict` reads, and the text with a
    question mark for each rejected digit."""
    found = {}
    for path, reading in readings(folder, arguments):
        text = path.stem.partition("-")[2].replace("_", "\n")
        answers = (reading.get("text", ""), reading.get("accepted", ""))
        found.setdefault(path.parent.name, []).append((text, *answers))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KNOWN, default=list(KNOWN))
    parser.add_argument(
        "--count", type=int, default=300, help="pictures of each kind (default 300)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the pictures in FOLDER")
    parser.add_argument("--model", default="modern", help="modern or original")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "pictures"
        make(folder, arguments.kinds, arguments.count, arguments.seed)
        found = read(folder, ["--model", arguments.model])
        told = {}
        for kind in STRINGS.keys() & set(arguments.kinds):
            told |= read(folder / kind, ["--model", arguments.model, "--digits", "5"])
    print("| pictures | right % | digits found right % | wrong without a `?` % | told % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind in arguments.kinds:
        readings = found[kind]
        sure = sum(text != answer and "?" not in accepted for text, answer, accepted in readings)
        values = (right(readings), digits_right(readings), sure / len(readings))
        figures = " | ".join(f"{100 * value:.1f}" for value in values)
        figure_told = f"{100 * right(told[kind]):.1f}" if kind in told else ""
        print(f"| {KNOWN[kind]} | {figures} | {figure_told} |")
    print("told: the strings read with --digits 5")
    sys.stdout.flush()


def right(readings: list[tuple[str, str, str]]) -> float:
    """Returns the fraction of pictures read correctly."""
    return sum(text == answer for text, answer, _ in readings) / len(readings)


def digits_right(readings: list[tuple[str, str, str]]) -> float:
    """Returns the fraction of digits read correctly, by the edit distance of each string."""
    wrong = sum(min(distance(text, answer), len(text)) for text, answer, _ in readings)
    return 1 - wrong / sum(len(text) for text, _, _ in readings)


def distance(a: str, b: str) -> int:
    """Returns the edit distance: insertions, deletions and replacements from `a` to `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


if __name__ == "__main__":
    main()
