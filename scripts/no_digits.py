"""Measures how often `predict` reads digits in pictures that show none.

Run: make no-digits    (ARGS="--count 100 --kinds words --keep FOLDER": more pictures, to look at)
Writes: FOLDER/KIND/NUMBER.SUFFIX with --keep FOLDER; prints a table and the names of the pictures
in which a digit was accepted.

The drawings come from `things.py`. Each picture has a size, colours and a place of its own, from
28x28 to 1000x800 pixels. Runs with the same seed draw the same pictures, if the same fonts are
installed.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
from pictures import readings
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from things import CLOTHES, SYMBOLS, THINGS, Thing

FONTS = sorted(Path("/usr/share/fonts/truetype/dejavu").glob("*.ttf"))
WORDS = """apple banana cat dog elephant forest garden house island jungle kitchen lemon mountain
night ocean paper queen river sunshine table umbrella valley window yellow zebra Lieber Freund
Grüße aus Wien merci beaucoup bonjour adresse straße Name Vorname Datum Summe invoice total signed
please return to sender do not bend fragile open closed exit coffee bread butter milk sugar HELLO
WORLD LENET READER ZEBRA SILO BOSS GOOGLE OBOE LOLLIPOP BIZZ SOS OIL TOOL GLOBE QUIZ""".split()

Random = np.random.Generator
Colour = tuple[int, int, int]


def size(r: Random, smallest: int = 28) -> tuple[int, int]:
    """Returns a width and a height."""
    width = round(np.exp(r.uniform(np.log(smallest), np.log(1000))))
    return width, round(np.clip(width * r.uniform(0.6, 1.2), smallest, 800))


def colour(r: Random, low: int = 0, high: int = 256) -> Colour:
    return tuple(int(value) for value in r.integers(low, high, 3))


def ink_and_paper(r: Random) -> tuple[Colour, Colour]:
    """Returns a dark and a light colour, in a fifth of the cases in reverse."""
    pair = colour(r, 0, 110), colour(r, 190, 256)
    return pair if r.random() < 0.8 else pair[::-1]


def image(values: np.ndarray) -> Image.Image:
    """Returns values from 0 to 1 as a picture."""
    return Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8))


def sheet(r: Random, paper: Colour, smallest: int = 28) -> Image.Image:
    return Image.new("RGB", size(r, smallest), paper)


def photographed(r: Random, picture: Image.Image) -> Image.Image:
    """Adds light that changes across the picture, blur and noise to half of the pictures."""
    if r.random() < 0.5:
        return picture
    pixels = np.asarray(picture, float) / 255
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    a = r.uniform(0, 7)
    light = 0.8 + 0.2 * (x * np.cos(a) + y * np.sin(a)) / 1.5
    noisy = image(pixels * light[..., None] + r.normal(0, r.uniform(0, 0.03), pixels.shape))
    return noisy.filter(ImageFilter.GaussianBlur(r.uniform(0, 0.003) * max(picture.size)))


def place(r: Random, thing: Thing, area: tuple[int, int], largest: float = 0.9) -> Thing:
    """Turns a thing a little and puts it somewhere in an area of (width, height)."""
    everything = np.concatenate([points for points, _ in thing])
    low, high = everything.min(0), everything.max(0)
    turn, slant = r.normal(0, 0.12), r.normal(0, 0.1)
    shape = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shape = shape @ np.array([[r.uniform(0.85, 1.15), slant], [0, 1]])
    side = min(area) * r.uniform(0.55, largest)
    moved = (everything - (low + high) / 2) @ shape.T * side / max(high - low)
    room = np.maximum(np.array(area) - np.ptp(moved, 0) - 4, 0)
    offset = 2 + room * r.uniform(0, 1, 2) - moved.min(0)
    parts = np.split(moved + offset, np.cumsum([len(points) for points, _ in thing])[:-1])
    return [(points, closed) for points, (_, closed) in zip(parts, thing, strict=True)]


def outline(draw: ImageDraw.ImageDraw, thing: Thing, pen: float, ink: Colour) -> None:
    for points, closed in thing:
        line = [tuple(point) for point in (*points, points[0])[: len(points) + closed]]
        draw.line(line, ink, max(1, round(pen)), "curve")


def drawn(r: Random, things: list, pens: tuple[float, float]) -> Image.Image:
    """Draws one of the things in lines. `pens` is the range of the pen's width, relative to the
    shorter side of the picture."""
    ink, paper = ink_and_paper(r)
    picture = sheet(r, paper, 40)
    thing = place(r, r.choice(things)(r), picture.size)
    outline(ImageDraw.Draw(picture), thing, min(picture.size) * r.uniform(*pens), ink)
    return photographed(r, picture)


def outlines(r: Random) -> Image.Image:
    """drawings of things, in outline"""
    return drawn(r, THINGS, pens=(0.008, 0.04))


def coloured(r: Random) -> Image.Image:
    """drawings of things, in colour"""
    picture = sheet(r, colour(r, 170), 40)
    draw = ImageDraw.Draw(picture)
    pen = min(picture.size) * r.uniform(0.005, 0.02)
    edge = colour(r, 0, 80) if r.random() < 0.5 else None
    for points, closed in place(r, r.choice(THINGS)(r), picture.size):
        if closed:
            draw.polygon([tuple(point) for point in points], colour(r, 20, 230))
        if edge or not closed:
            outline(draw, [(points, closed)], pen, edge or colour(r, 0, 80))
    return photographed(r, picture)


def clothes(r: Random) -> Image.Image:
    """28x28, boots, trousers and bags, as in Fashion-MNIST"""
    large = Image.new("L", (224, 224))
    draw = ImageDraw.Draw(large)
    for points, closed in place(r, r.choice(CLOTHES)(r), large.size, 0.95):
        if closed:
            draw.polygon([tuple(point) for point in points], int(r.integers(90, 256)))
        else:
            draw.line([tuple(point) for point in points], int(r.integers(0, 90)), 10)
    cloth = np.asarray(large.resize((28, 28), Image.Resampling.BOX), float)
    return Image.fromarray(np.clip(cloth * r.normal(1, 0.08, (28, 28)), 0, 255).astype(np.uint8))


def symbols(r: Random) -> Image.Image:
    """arrows, notes, smileys, crosses, plots"""
    return drawn(r, SYMBOLS, pens=(0.01, 0.06))


def font(r: Random, height: float) -> ImageFont.FreeTypeFont:
    """Returns Pillow's own font, or in half of the cases one of the system."""
    if FONTS and r.random() < 0.5:
        return ImageFont.truetype(r.choice(FONTS), round(height))
    return ImageFont.load_default(round(height))


def text(r: Random) -> str:
    """Returns one to four lines of words in small, capital or both letters."""
    lines = [" ".join(r.choice(WORDS, r.integers(1, 4))) for _ in range(r.integers(1, 5))]
    change = r.choice([str.lower, str.upper, str.title, str])
    return "\n".join(change(line) for line in lines)


def written(r: Random, ink: Colour, paper: Colour) -> Image.Image:
    """Writes some words on a sheet of their size."""
    words, height = text(r), np.exp(r.uniform(np.log(14), np.log(90)))
    letters = font(r, height)
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox(
        (0, 0), words, letters
    )
    margin = round(height * r.uniform(0.3, 1.5))
    picture = Image.new("RGB", (right - left + 2 * margin, bottom - top + 2 * margin), paper)
    ImageDraw.Draw(picture).text((margin - left, margin - top), words, ink, letters)
    picture.thumbnail((1000, 800))
    return picture


def words(r: Random) -> Image.Image:
    """words, printed"""
    return photographed(r, written(r, *ink_and_paper(r)))


def wobbly(r: Random) -> Image.Image:
    """words, bent as by a hand that shakes"""
    ink, paper = ink_and_paper(r)
    picture = written(r, ink, paper)
    width, height = picture.size
    steps = max(2, width // 60), max(2, height // 60)
    strength = r.uniform(0.01, 0.06) * min(height, 100)
    y, x = np.mgrid[:height, :width]
    for at in (y, x):
        field = r.normal(0, strength, steps[::-1]).astype(np.float32)
        at += np.asarray(Image.fromarray(field).resize((width, height), 3)).astype(int)
    pixels = np.asarray(picture)[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    slanted = (1, r.normal(0, 0.15), 0, 0, 1, 0)
    bent = Image.fromarray(pixels).transform(
        (width, height), Image.Transform.AFFINE, slanted, Image.Resampling.BILINEAR, fillcolor=paper
    )
    return photographed(r, bent)


def waves(x, y, r: Random) -> np.ndarray:
    return np.sin(6.3 * (y + r.uniform(0.1, 0.5) * np.sin(2.5 * x)))


def bricks(x, y, r: Random) -> np.ndarray:
    shifted = x / 2 + 0.5 * (np.floor(y) % 2)
    return np.minimum(np.mod(y, 1) / 2, np.mod(shifted, 1)) * 4 - 0.3


def cloth(x, y, r: Random) -> np.ndarray:
    return np.sin(6.3 * x) * (np.mod(np.floor(x) + np.floor(y), 2) - 0.5) + 0.5 * np.sin(6.3 * y)


def wood(x, y, r: Random) -> np.ndarray:
    knot = np.hypot(x - x.mean(), 3 * (y - y.mean()))
    return np.sin(6.3 * (y + 0.6 * np.sin(0.3 * x) + 2 / (1 + knot)))


def leaves(x, y, r: Random) -> np.ndarray:
    row = np.floor(y)
    across, down = np.mod(x + 0.5 * row, 1) - 0.5, np.mod(y, 1) - 0.5
    turned = across * np.cos(row) + down * np.sin(row)
    beside = down * np.cos(row) - across * np.sin(row)
    return 0.4 - np.abs(turned) - 3 * np.abs(beside) + 0.3 * (np.abs(beside) < 0.02)


PATTERNS = [
    lambda x, y, r: np.sin(6.3 * x) * np.sin(6.3 * y),  # a chess board
    lambda x, y, r: np.minimum(np.mod(x, 1), np.mod(y, 1)) - r.uniform(0.05, 0.2),  # a grid
    lambda x, y, r: np.hypot(np.mod(x, 1) - 0.5, np.mod(y, 1) - 0.5) - r.uniform(0.15, 0.4),  # dots
    lambda x, y, r: np.sin(6.3 * (x + y)),  # hatching
    waves,
    bricks,
    cloth,
    wood,
    leaves,
]


def textures(r: Random) -> Image.Image:
    """textures: checks, bricks, cloth, wood, leaves, waves, dots, hatching"""
    width, height = size(r)
    y, x = np.mgrid[:height, :width] * (r.uniform(3, 25) / max(width, height))
    a = r.choice([0, r.normal(0, 0.1), r.uniform(0, 7)])
    x, y = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    pattern = r.choice(np.array(PATTERNS, object))(x + r.uniform(0, 9), y + r.uniform(0, 9), r)
    share = np.clip(pattern * r.choice([1, 8]) + 0.5, 0, 1)[..., None]
    first, second = (np.array(colour(r)) / 255 for _ in range(2))
    return photographed(r, image(share * first + (1 - share) * second))


def blanks(r: Random) -> Image.Image:
    """blanks: greys, colours, gradients, darker corners"""
    width, height = size(r)
    first, second = (np.array(colour(r)) / 255 for _ in range(2))
    if r.random() < 0.4:
        first, second = np.repeat(r.random((2, 1)), 3, 1)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    a = r.uniform(0, 7)
    share = [
        np.zeros_like(x),
        (x * np.cos(a) + y * np.sin(a)) / 2.9 + 0.5,
        np.hypot(x, y) ** 2 / 2,
    ][r.integers(3)][..., None]
    grain = r.normal(0, r.choice([0, 0.01, 0.03]), (height, width, 1))
    return image((1 - share) * first + share * second + grain)


def smooth(r: Random, width: int, height: int, steps: int) -> np.ndarray:
    """Returns smooth noise with about `steps` hills along the longer side, from 0 to 1."""
    count = [max(2, round(steps * side / max(width, height)) + 1) for side in (height, width)]
    field = image(r.random(count)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field, float) / 255


def noise(r: Random) -> Image.Image:
    """noise: even, normal, salt and pepper, coarse, remains of JPEG"""
    width, height = size(r)
    shape = (height, width, r.choice([1, 3]))
    match r.integers(5):
        case 0:
            values = r.random(shape)
        case 1:
            values = r.normal(r.uniform(0.2, 0.8), r.uniform(0.05, 0.3), shape)
        case 2:
            values = r.uniform(0.3, 0.7) + r.choice([-1, 0, 1], shape, p=[0.05, 0.9, 0.05])
        case 3:
            values = smooth(r, width, height, r.integers(3, 60))[..., None]
        case _:
            values = 0.5 + r.normal(0, 0.15, shape)
    values = np.broadcast_to(values, (height, width, 3))
    return image(values)


def fractal(r: Random, width: int, height: int) -> np.ndarray:
    return sum(smooth(r, width, height, 2**i) / 2**i for i in range(1, 8))


def scenes(r: Random) -> Image.Image:
    """scenes: hills, balls with shadows, lights out of focus"""
    width, height = size(r, 60)
    y, x = np.mgrid[:height, :width] / max(width, height)
    low, high = np.array(colour(r, 0, 128)) / 255, np.array(colour(r, 128)) / 255
    picture = low + (high - low) * smooth(r, width, height, 4)[..., None]
    match r.integers(3):
        case 0:  # hills before the sky
            for layer in range(3):
                ground = fractal(r, width, height)
                top = y.max() * (0.3 + 0.2 * layer) + 0.15 * (ground[0] - 1)
                hill = np.array(colour(r, 20, 160)) / 255 * ground[..., None]
                picture = np.where((y > top)[..., None], hill, picture)
        case 1:  # balls with shadows
            for _ in range(r.integers(1, 8)):
                radius, at = r.uniform(0.05, 0.3), r.random(2) * [x.max(), y.max()]
                shadow = np.hypot(x - at[0] - radius / 2, 2 * (y - at[1] - radius)) / radius
                picture = picture * (1 - 0.5 * np.clip(1.5 - shadow, 0, 1))[..., None]
                light = 1 - np.hypot(x - at[0] + radius / 3, y - at[1] + radius / 3) / (2 * radius)
                ball = np.array(colour(r, 60)) / 255 * light[..., None]
                inside = np.hypot(x - at[0], y - at[1]) < radius
                picture = np.where(inside[..., None], ball, picture)
        case _:  # lights out of focus
            picture = picture * 0.4
            for _ in range(r.integers(3, 30)):
                radius, at = r.uniform(0.02, 0.12), r.random(2) * [x.max(), y.max()]
                distance = np.hypot(x - at[0], y - at[1])
                inside = np.clip((radius - distance) * 60, 0, 1)[..., None]
                picture = picture + 0.5 * inside * np.array(colour(r)) / 255
    grainy = image(picture + r.normal(0, r.uniform(0, 0.03), picture.shape))
    return grainy.filter(ImageFilter.GaussianBlur(r.uniform(0, 0.003) * width))


def photographs(r: Random) -> Image.Image:
    """parts of two photographs, if scikit-learn is installed"""
    folder = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "images"
    photo = Image.open(folder / r.choice(["china.jpg", "flower.jpg"]))
    side = round(r.uniform(0.15, 1) * photo.height)
    left, top = r.integers(0, [photo.width - side + 1, photo.height - side + 1])
    part = photo.crop((left, top, left + side, top + side)).resize((size(r, 28)[0],) * 2)
    return part.convert("L") if r.random() < 0.3 else part


KINDS = [outlines, coloured, clothes, symbols, words, wobbly, textures, blanks, noise, scenes]
if importlib.util.find_spec("sklearn"):
    KINDS.append(photographs)


def make(folder: Path, kinds: list, count: int, seed: int) -> None:
    """Writes `count` pictures of each kind, half of them as JPEG."""
    for kind in kinds:
        name = kind.__name__
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            r = np.random.default_rng([seed, *name.encode(), number])
            picture = kind(r)
            if number % 2:
                picture.save(folder / name / f"{number:05}.jpg", quality=int(r.integers(10, 95)))
            else:
                picture.save(folder / name / f"{number:05}.png")


def read(folder: Path, arguments: list[str]) -> dict[str, dict[str, str]]:
    """Returns, by kind, for each picture the accepted text, such as 4?7; empty for none."""
    found = {}
    for path, reading in readings(folder, arguments):
        accepted = any(not digit["rejected"] for digit in reading.get("digits", []))
        text = reading["accepted"] if accepted else ""
        found.setdefault(path.parent.name, {})[path.name] = text
    return found


def main() -> None:
    names = {kind.__name__: kind for kind in KINDS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=names, default=list(names))
    parser.add_argument("--count", type=int, default=60, help="pictures of each kind (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the pictures in FOLDER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        make(folder, [names[name] for name in arguments.kinds], arguments.count, arguments.seed)
        found = read(folder, [])
    print("| pictures without digits | number | a digit is read in % |\n| --- | ---: | ---: |")
    totals = [0, 0]
    for name in arguments.kinds:
        wrong = {file: text for file, text in found[name].items() if text}
        totals = [totals[0] + len(found[name]), totals[1] + len(wrong)]
        share = 100 * len(wrong) / len(found[name])
        print(f"| {names[name].__doc__} | {len(found[name])} | {share:.1f} |")
        for file, text in wrong.items():
            print(f"{name}/{file}: {text!r}", file=sys.stderr)
    print(f"| all | {totals[0]} | {100 * totals[1] / totals[0]:.1f} |")


if __name__ == "__main__":
    main()
