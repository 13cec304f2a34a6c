"""Draws pieces of ink that are no digits: training data of the reject network.

Run: .venv/bin/python scripts/other_shapes.py OUT PACKAGES
Reads: fonts and icons in PACKAGES/node_modules, which npm installs (reading_packages.txt)
Writes: OUT/others-images (IDX, N x 96 x 96, 0 for paper to 255 for ink) and OUT/others-labels, all
10. Runs with the same seed draw the same shapes.

Letters that are like no digit, signs, icons, curves, polygons, nets, blobs and simple drawings of
things. Each is one connected piece of ink, as the reader finds them. What a person may take for a digit is left out.
"""

import argparse
import re
from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from mnist import write_idx
from pen import curve
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import from_numpy

SIDE = 96
CANVAS = 256
STEPS = 14  # the points that a curve has for each one that is given
# Letters that look like no digit in any hand.
LETTERS = "EFHKMNPRVWXCAacdefkmprtvwxÆæ"
# In joined writing, more letters look like digits.
JOINED = "EHKMNRWXcdkmptvwx"
CYRILLIC_LETTERS = "ЖШЩЮЫМИНКЛПДжшщюымикнХхРрЕе"
SIGNS = "+=#%&@$€*£¥~{}<±\u00d7÷«^†"
HIRAGANA = "あけなぬねはほまむめもゆれわをすかおふネヌキホモヰヱ"
JOINED_FONTS = (
    "playwrite",
    "homemade",
    "la-belle",
    "cedarville",
    "over-the",
    "bad-script",
    "marck",
    "zeyada",
)
# Icons with these words in their names may show digits, or look like one.
DIGIT_LIKE = (
    "numeric|alpha|number|counter|roman|circle|ring|oval|egg|ellips|dice|clock|timer|chevron|angle"
    "|minus|slash|line|caret|sine|than|infinity|eight|seven|nine|zero|two|three|four|five|six|one"
    "|digit|[0-9]|format|letter|cards-|counter|date|today|calendar|hours|rewind|fast-forward|currency"
    "|glasses|record|bed-|minus|drag-v|dots-v|power-on|pipe|ruler|exclam|pencil|pen|slider|equal|rays"
    "|sigma|beta|omega|lambda|theta|phi|gamma|delta|pi-|dollar|euro|ruble|rupee|hryvnia|lira|peso|sign"
    "|arrow|subdirectory|keyboard|corner|call-|trending|border|contrast|radius|toggle|weather-night"
    "|magnet|hook|cane|candy|hockey|needle|iron|feather|crop|step-|skip|level|turn|tally|bars|battery"
    "|thermometer|test-tube|cup|bottle|water|blood|drop|knife|fork|spoon|sword|wand|broom|quote|zip"
    "|bell-sleep|sleep|snooze|sort|code-|code|script|notes|font|text|size|tally|hexagon|octagon|decagon|pentagon"
    "|nonagon|heptagon|blank|billiard|pool|bowling|shape|vector|square|rectangle|moon|hourglass|peanut|google|copyright|registered|phone|key|loupe|search|magnify"
)


class Fonts:
    """The files of fonts and icons."""

    def __init__(self, packages: Path):
        self.packages = packages / "node_modules"
        self.letters = self.files("*/files/*latin-400-normal.woff2")
        self.cyrillic = self.files("*/files/*-cyrillic-400-normal.woff2")
        self.kanji = []
        for name in ("klee-one", "yomogi", "zen-kurenaido"):
            self.kanji += self.files(f"{name}/files/*-400-normal.woff2")[::6]

    def files(self, pattern: str) -> list[str]:
        return sorted(str(path) for path in (self.packages / "@fontsource").glob(pattern))


@cache
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def glyphs(path: str) -> frozenset[int]:
    return frozenset(TTFont(path, lazy=True).getBestCmap())


@cache
def emoji() -> list[tuple[str, str]]:
    """Returns (file pattern, character) of every emoji that shows and resembles no digit."""
    bad = {
        *range(0x1F550, 0x1F568),
        *range(0x2648, 0x2654),
        0x27B0,
        0x27BF,
        0x3030,
        0x267E,
        0x1F51E,
    }
    bad |= {0x1F51F, 0x1F522, 0x1F4AF, 0x1F3B1, 0x1F4C5, 0x1F4C6, 0x1F5D3, 0x2B55, 0x1F573, 0x1F95A}
    bad |= {
        0x1F319,
        0x1F318,
        0x1F312,
        0x1F40D,
        0x1FA70,
        0x1F48D,
        0x1FA9D,
        0x1F523,
        0x1F521,
        0x1F520,
    }
    bad |= {0x1F550, 0x231A, 0x23F1, 0x1F311, 0x1F315, 0x26AB, 0x26AA, 0x2796, 0x1F39F, 0x1F3AB}
    bad |= {*range(0x1F311, 0x1F31F), 0x1F3C5, *range(0x1F947, 0x1F94A), 0x1F489, 0x1F3D1, 0x1F9AF}
    bad |= {*range(0x1F534, 0x1F536), *range(0x1F7E0, 0x1F7F0), *range(0x1F170, 0x1F1FF), 0x1F99A}
    bad |= {
        0x2660,
        0x26D4,
        0x1F6AB,
        0x1F4B2,
        0x1F4B0,
        0x1FA99,
        0x1F9A2,
        0x1F9A9,
        0x1F3F8,
        0x1F94D,
        0x231B,
        0x23F3,
        0x1F95C,
        0x1F50D,
        0x1F50E,
        0x1F3B3,
    }
    found = []
    for path in FONTS.files("noto-emoji/files/*-300-normal.woff2"):
        if path.split("noto-emoji-")[-1][0] in "0123456789":
            found += [
                (path, chr(c)) for c in glyphs(path) if c > 0x2100 and c not in bad and c < 0xE0000
            ]
    return sorted(found)


@cache
def mdi(outline: bool) -> list[str]:
    names = TTFont(
        f"{FONTS.packages}/@mdi/font/fonts/materialdesignicons-webfont.ttf"
    ).getBestCmap()
    kept = [
        chr(c)
        for c, name in names.items()
        if not re.search(f"(^|-)({DIGIT_LIKE})", name) and ("outline" in name) == outline
    ]
    return sorted(kept)


@cache
def awesome() -> list[tuple[str, str]]:
    text = (FONTS.packages / "@fortawesome/fontawesome-free/metadata/icons.yml").read_text()
    names = re.findall(r"^'?([a-z0-9-]+)'?:\n(?:  .*\n)*?  unicode: '?([0-9a-f]+)'?$", text, re.M)
    codes = {int(code, 16) for name, code in names if not re.search(f"(^|-)({DIGIT_LIKE})", name)}
    found = []
    for style in ("regular-400", "solid-900"):
        path = f"{FONTS.packages}/@fortawesome/fontawesome-free/webfonts/fa-{style}.woff2"
        found += [(path, chr(c)) for c in sorted(glyphs(path)) if c in codes and c > 0x2100]
    return found


def pick(r, items):
    return items[int(r.integers(len(items)))]


def blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (CANVAS, CANVAS))
    return image, ImageDraw.Draw(image)


def text(path: str, character: str, size: int, stroke: int = 0) -> Image.Image | None:
    """Draws a character in the middle."""
    image, draw = blank()
    # A font is loaded in one size only, as loading takes long.
    stroke = round(stroke * 160 / size)
    try:
        draw.text(
            (CANVAS // 2, CANVAS // 2), character, 255, font(path, 160), "mm", stroke_width=stroke
        )
    except OSError:
        return None
    return image.reduce(2)


def bent(r, image: Image.Image, turn: float, slant: float) -> Image.Image:
    """Turns an image by up to `turn` degrees and slants it."""
    a, s = np.radians(r.uniform(-turn, turn)), r.normal(0, slant)
    m = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.array([[1, s], [0, 1]])
    m = m @ np.diag([r.uniform(0.85, 1.25), r.uniform(0.95, 1.1)])
    middle = image.width / 2
    offset = middle - m @ [middle, middle]
    data = (*m[0], offset[0], *m[1], offset[1])
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def wobbled(r, image: Image.Image, strength: float) -> Image.Image:
    """Moves the pixels by a smooth random field, as a hand that shakes."""
    if r.random() < 0.5:
        return image
    strength /= 2
    steps = 5
    field = r.normal(0, strength, (2, steps, steps))
    zoomed = [
        np.asarray(
            Image.fromarray(f.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
        )
        for f in field
    ]
    y, x = np.mgrid[: image.height, : image.width]
    y = np.clip(np.rint(y + zoomed[0]), 0, image.height - 1).astype(int)
    x = np.clip(np.rint(x + zoomed[1]), 0, image.width - 1).astype(int)
    return Image.fromarray(np.asarray(image)[y, x])


# Each kind returns an image of CANVAS x CANVAS, or None.


def letter(r):
    path = pick(r, FONTS.letters)
    joined = any(name in path for name in JOINED_FONTS)
    character = pick(r, JOINED if joined else LETTERS)
    image = text(
        path, character, int(r.integers(110, 190)), int(r.integers(0, 6)) if r.random() < 0.6 else 0
    )
    return image and wobbled(r, bent(r, image, 12, 0.15), r.uniform(0, 4))


def cyrillic(r):
    path, character = pick(r, FONTS.cyrillic), pick(r, CYRILLIC_LETTERS)
    if ord(character) not in glyphs(path):
        return None
    image = text(path, character, int(r.integers(110, 190)), int(r.integers(0, 4)))
    return image and wobbled(r, bent(r, image, 12, 0.12), r.uniform(0, 4))


def kanji(r):
    """A Chinese or Japanese character."""
    path = pick(r, FONTS.kanji)
    known = glyphs(path)
    allowed = [c for c in known if 0x4E00 <= c < 0xA000] or [
        ord(c) for c in HIRAGANA if ord(c) in known
    ]
    if not allowed:
        return None
    image = text(
        path, chr(pick(r, sorted(allowed))), int(r.integers(110, 190)), int(r.integers(0, 4))
    )
    return image and wobbled(r, bent(r, image, 12, 0.12), r.uniform(0, 4))


def pair(r):
    """Two letters that touch."""
    path = pick(r, FONTS.letters)
    word = pick(r, LETTERS) + pick(r, "aeckmnrtvwxhdp")
    if r.random() < 0.3:
        word += pick(r, "aeckmnrtvwxhdp")
    image = text(path, word, int(r.integers(80, 120)), int(r.integers(1, 6)))
    return image and bent(r, image, 12, 0.15)


def sign(r):
    path = pick(r, FONTS.letters)
    character = pick(r, SIGNS)
    if ord(character) not in glyphs(path):
        return None
    image = text(path, character, int(r.integers(130, 230)), int(r.integers(0, 8)))
    return image and wobbled(r, bent(r, image, 15, 0.12), r.uniform(0, 4))


def drawn_emoji(r):
    path, character = pick(r, emoji())
    weight = pick(r, ["300", "500", "700"])
    image = text(path.replace("-300-", f"-{weight}-"), character, int(r.integers(120, 200)))
    return image and bent(r, image, pick(r, [15, 15, 180]), 0.1)


def icon(r):
    character = pick(r, mdi(outline=r.random() < 0.6))
    path = f"{FONTS.packages}/@mdi/font/fonts/materialdesignicons-webfont.ttf"
    image = text(path, character, int(r.integers(150, 210)))
    return image and bent(r, image, pick(r, [15, 15, 180]), 0.1)


def awesome_icon(r):
    path, character = pick(r, awesome())
    image = text(path, character, int(r.integers(120, 180)))
    return image and bent(r, image, pick(r, [15, 15, 180]), 0.1)


def filled(r):
    """An icon's outline, filled."""
    image = drawn_emoji(r) if r.random() < 0.6 else icon(r)
    if image is None:
        return None
    mask = ndimage.binary_fill_holes(np.asarray(image) > 100)
    return Image.fromarray((255 * mask).astype(np.uint8))


def edges(r):
    """The outline of a filled icon."""
    image = filled(r)
    if image is None:
        return None
    wide = image.filter(ImageFilter.MaxFilter(pick(r, [3, 3, 5, 7])))
    return Image.fromarray(np.asarray(wide) - np.asarray(image))


def cutout(r):
    """A part of a large drawing, cut by a circle or a rectangle."""
    path, character = pick(r, emoji())
    weight = pick(r, ["300", "500"])
    image = Image.new("L", (600, 600))
    ImageDraw.Draw(image).text(
        (300, 300), character, 255, font(path.replace("-300-", f"-{weight}-"), 450), "mm"
    )
    x, y = r.integers(60, 540 - 200, 2)
    part = np.asarray(image)[y : y + CANVAS, x : x + CANVAS].copy()
    if part.shape != (CANVAS, CANVAS):
        return None
    window, draw = blank()
    w, h = r.uniform(50, 120, 2)
    shape = draw.ellipse if r.random() < 0.5 else draw.rectangle
    shape([128 - w, 128 - h, 128 + w, 128 + h], fill=255)
    part[np.asarray(window) == 0] = 0
    return Image.fromarray(part)


def smooth(r, scale: float) -> np.ndarray:
    field = ndimage.gaussian_filter(r.normal(size=(64, 64)), scale)
    field /= field.std()
    return np.asarray(
        Image.fromarray(field.astype(np.float32)).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    )


def blob(r):
    """Thresholded smooth noise."""
    field = smooth(r, r.uniform(1.5, 8))
    return Image.fromarray((255 * (field > r.uniform(0, 1.0))).astype(np.uint8))


def contour(r):
    """The lines of equal height of smooth noise, as on a map."""
    field = smooth(r, r.uniform(3, 6))
    wide = r.uniform(0.1, 0.35)
    return Image.fromarray(
        (255 * (np.abs(np.mod(field * r.uniform(0.8, 1.6), 1) - 0.5) < wide)).astype(np.uint8)
    )


def cells(r):
    """The borders of cells, such as of a net or of dry mud."""
    points = r.uniform(0, CANVAS, (int(r.integers(12, 60)), 2))
    y, x = np.mgrid[:CANVAS:2, :CANVAS:2]
    distances = np.sqrt((x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2)
    two = np.partition(distances, 1, -1)[..., :2]
    image = Image.fromarray((255 * (two[..., 1] - two[..., 0] < r.uniform(3, 12))).astype(np.uint8))
    return windowed(r, image.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR), 40, 110)


def windowed(r, image: Image.Image, low: float, high: float) -> Image.Image:
    window, draw = blank()
    w, h = r.uniform(low, high, 2)
    shape = draw.ellipse if r.random() < 0.5 else draw.rectangle
    shape([128 - w, 128 - h, 128 + w, 128 + h], fill=255)
    return Image.composite(image, Image.new("L", image.size), window)


def pen(draw, points, width):
    points = [tuple(p) for p in points]
    draw.line(points, 255, int(width), "curve")
    for x, y in (points[0], points[-1]):
        draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)


def scribble(r):
    """A long curve that crosses itself many times."""
    image, draw = blank()
    points = r.uniform(30, 226, (int(r.integers(8, 18)), 2))
    line = curve(points, STEPS) if r.random() < 0.7 else points
    pen(draw, line, r.integers(4, 26))
    return image


def spiral(r):
    image, draw = blank()
    turns = r.uniform(2.0, 5)
    a = np.linspace(0, 2 * np.pi * turns, int(40 * turns))
    radius = 10 + 90 * (a / a[-1]) ** r.uniform(0.7, 1.3)
    a = r.choice([-1, 1]) * a + r.uniform(0, 7)
    line = np.stack([128 + radius * np.cos(a) * r.uniform(0.6, 1), 128 + radius * np.sin(a)], 1)
    pen(draw, line, max(3, r.uniform(0.15, 0.55) * 90 / turns))
    return image


def wave(r):
    """A wave or a zigzag of at least two periods, or a row of loops, roughly across."""
    image, draw = blank()
    periods, t = r.uniform(2, 6), np.linspace(0, 1, 400)
    phase = 2 * np.pi * periods * t + r.uniform(0, 6)
    high = r.uniform(15, 80)
    match r.integers(3):
        case 0:
            x, y = 200 * t, high * np.sin(phase)
        case 1:
            x, y = 200 * t, high * 2 / np.pi * np.arcsin(np.sin(phase))
        case _:
            loop = 200 / periods * r.uniform(0.3, 0.7)
            x, y = 200 * t + loop * np.cos(phase), high * np.sin(phase)
    y = y * (1 + r.normal(0, 0.2) * t) + r.normal(0, 20) * t
    pen(draw, np.stack([28 + x, 128 + y], 1), r.integers(4, 22))
    return bent(r, image, 25, 0.1)


def crossing(r):
    """A cross, a star of lines, a T, or a grid, comb or fence of a few lines."""
    image, draw = blank()
    width = int(r.integers(5, 30))
    match r.integers(5):
        case 0 | 1:  # lines that cross in the middle
            count = 2 if r.random() < 0.5 else int(r.integers(3, 6))
            first = r.uniform(0, np.pi)
            for i in range(count):
                a = first + np.pi * i / count + r.normal(0, 0.08)
                middle = 128 + r.normal(0, 6, 2)
                step = np.array([np.cos(a), np.sin(a)]) * r.uniform(70, 110)
                pen(draw, [middle - step, middle + step], width)
        case 2:  # a T or a H, or an E
            tops = [(40, 216)] if r.random() < 0.5 else [(40, 216), (50, 206)]
            for i, (a, b) in enumerate(tops):
                y = 50 + 120 * i + r.normal(0, 6)
                pen(draw, [(a, y), (b, y + r.normal(0, 10))], width)
            pen(draw, [(128 + r.normal(0, 10), 50), (128 + r.normal(0, 15), 215)], width)
        case _:  # a grid or a comb
            width = min(width, 14)
            for i in range(int(r.integers(3, 6))):
                x = 40 + i * r.uniform(38, 46)
                pen(draw, [(x + r.normal(0, 5), 40), (x + r.normal(0, 5), 216)], width)
            for i in range(int(r.integers(1, 5))):
                y = 60 + i * r.uniform(36, 50)
                pen(draw, [(25, y + r.normal(0, 5)), (231, y + r.normal(0, 5))], width)
    return bent(r, image, 20, 0.15)


def hatch(r):
    """Parallel lines, drawn to and fro without lifting the pen."""
    image, draw = blank()
    count = int(r.integers(4, 10))
    points = []
    for i in range(2 * count):
        y = 40 + 176 * i / (2 * count) + r.normal(0, 2)
        points.append((40 + r.normal(0, 8) if i % 2 else 216 + r.normal(0, 8), y))
    line = np.array(points)
    pen(draw, curve(line, STEPS) if r.random() < 0.5 else line, r.integers(3, 14))
    return bent(r, image, 180, 0.3)


def polygon(r):
    """A triangle, a kite with its diagonals, a house, a star, or a jagged shape: line or filled."""
    image, draw = blank()
    count = int(r.integers(3, 12))
    a = (
        np.sort(r.uniform(0, 2 * np.pi, count))
        if count > 4
        else np.arange(count) * 2 * np.pi / count + r.uniform(0, 7)
    )
    radius = (
        np.where(np.arange(count) % 2, r.uniform(0.25, 0.6), 1)
        if count > 4
        else r.uniform(0.8, 1, count)
    )
    points = np.stack([128 + 100 * radius * np.cos(a), 128 + 100 * radius * np.sin(a)], 1)
    if r.random() < 0.4:
        draw.polygon([tuple(p) for p in points], fill=255)
    else:
        width = int(r.integers(5, 20))
        pen(draw, np.concatenate([points, points[:2]]), width)
        if count == 4:
            pen(draw, points[[0, 2]], width)
        if 4 <= count < 7 and r.random() < 0.7:
            pen(draw, points[[1, 3]], width)
    return bent(r, image, 180, 0.1)


def dash(r):
    """A dash or a bar that lies, straight or a little bent, thick or thin; a dot."""
    image, draw = blank()
    long = r.uniform(60, 110)
    bow = r.normal(0, 12)
    points = [(128 - long, 128), (128, 128 + bow), (128 + long, 128 + r.normal(0, 12))]
    pen(draw, curve(points, STEPS), r.uniform(8, 60))
    return bent(r, image, 20, 0.2)


def plain(r):
    """A heart, a flower of loops, an arrow, or a square with its diagonals."""
    image, draw = blank()
    width = int(r.integers(5, 24))
    match r.integers(4):
        case 0:  # a heart
            t = np.linspace(0, 2 * np.pi, 80)
            x, y = (
                16 * np.sin(t) ** 3,
                13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t),
            )
            line = np.stack([128 + 6 * x, 128 - 6 * y], 1)
            if r.random() < 0.5:
                draw.polygon([tuple(p) for p in line], fill=255)
            else:
                pen(draw, line, width)
            return bent(r, image, 40, 0.1)
        case 1:  # a flower of loops
            petals = int(r.integers(3, 8))
            t = np.linspace(0, 2 * np.pi, 200)
            radius = 100 * np.abs(np.cos(petals * t / 2))
            pen(
                draw,
                np.stack([128 + radius * np.cos(t), 128 + radius * np.sin(t)], 1),
                min(width, 14),
            )
            return bent(r, image, 180, 0.1)
        case 2:  # an arrow with two heads or a long shaft, lying
            half = r.uniform(60, 100)
            head = r.uniform(25, 50)
            pen(draw, [(128 - half, 128), (128 + half, 128)], width)
            for end in (1,) if r.random() < 0.6 else (-1, 1):
                tip = 128 + end * half
                pen(
                    draw,
                    [(tip - end * head, 128 - head), (tip, 128), (tip - end * head, 128 + head)],
                    width,
                )
            return bent(r, image, 30, 0.1)
        case _:  # a square with one or both diagonals
            pen(draw, [(50, 50), (206, 50), (206, 206), (50, 206), (50, 50)], width)
            pen(draw, [(50, 50), (206, 206)], width)
            if r.random() < 0.7:
                pen(draw, [(206, 50), (50, 206)], width)
            return bent(r, image, 45, 0.1)


def outlined(r, draw, points: np.ndarray, width: int) -> None:
    """Draws a closed line, or fills it."""
    if r.random() < 0.5:
        draw.polygon([tuple(p) for p in points], fill=255)
    else:
        pen(draw, np.concatenate([points, points[:1]]), width)


def symmetrical(r):
    """A thing with equal sides, such as a vase, a dress, trousers, a leaf or a bell."""
    image, draw = blank()
    count, low = int(r.integers(3, 8)), r.uniform(110, 228)
    y = np.linspace(28, low, count) + r.normal(0, 8, count)
    half = r.uniform(45, 100) * r.uniform(0.15, 1, count) ** r.uniform(0.5, 1.2)
    side = np.stack([half, y], 1)
    if r.random() < 0.5:
        side = curve(side, STEPS)
    width = int(r.integers(3, 18))
    lines = [y[r.integers(count)] for _ in range(r.integers(0, 4))]
    foot = [(0, low - r.uniform(0.2, 0.7) * (low - 28))] if r.random() < 0.4 else []
    whole = np.concatenate([side, np.array(foot).reshape(-1, 2), (side * [-1, 1])[::-1]])
    outlined(r, draw, whole + [128, 0], width)
    for level in lines:
        reach = np.interp(level, side[:, 1], side[:, 0])
        pen(draw, [(128 - reach, level), (128 + reach, level)], width)
    return bent(r, image, 25, 0.1)


def oval(x: float, y: float, w: float, h: float) -> np.ndarray:
    a = np.linspace(0, 2 * np.pi, 40)
    return np.stack([x + w * np.cos(a), y + h * np.sin(a)], 1)


def face(r):
    """A round line with small marks in it, such as eyes, and often hairs around it."""
    image, draw = blank()
    w, h = r.uniform(60, 100, 2)
    width = int(r.integers(3, 13))
    ring = oval(0, 0, w, h) * (1 + r.uniform(0, 0.15) * smooth_steps(r, 40))[:, None]
    pen(draw, np.concatenate([ring, ring[:1]]) + 128, width)
    for _ in range(int(r.integers(2, 7))):
        a, away = r.uniform(0, 2 * np.pi), r.uniform(0.1, 0.65)
        x, y = 128 + w * away * np.cos(a), 128 + h * away * np.sin(a)
        mark = oval(x, y, *r.uniform(2, 14, 2))
        match r.integers(3):
            case 0:
                draw.polygon([tuple(p) for p in mark], fill=255)
            case 1:
                pen(draw, mark, width)
            case _:
                pen(draw, mark[: int(r.integers(10, 25))], width)
    for a in r.uniform(-np.pi, 0, int(r.integers(0, 9))):
        edge = np.array([w * np.cos(a), h * np.sin(a)])
        pen(draw, [128 + edge, 128 + edge * r.uniform(1.1, 1.3)], width)
    return bent(r, image, 20, 0.1)


def smooth_steps(r, count: int) -> np.ndarray:
    """A smooth closed curve of values around 0."""
    a = np.linspace(0, 2 * np.pi, count)
    return sum(r.normal() / k * np.cos(k * a + r.uniform(0, 7)) for k in range(1, 4))


# Closed lines in a box of width 1 and height 1: a bolt, a thick arrow, a thick cross, a house, a
# boot, a shirt, and a leaf that lies.
CLOSED = [
    [(0.6, 0), (0.1, 0.55), (0.45, 0.5), (0.25, 1), (0.9, 0.38), (0.5, 0.42), (0.85, 0)],
    [(0, 0.35), (0.6, 0.35), (0.55, 0.1), (1, 0.5), (0.55, 0.9), (0.6, 0.65), (0, 0.65)],
    [(0.35, 0), (0.65, 0), (0.65, 0.35), (1, 0.35), (1, 0.65), (0.65, 0.65), (0.65, 1), (0.35, 1)]
    + [(0.35, 0.65), (0, 0.65), (0, 0.35), (0.35, 0.35)],
    [(0.5, 0), (1, 0.4), (0.9, 0.4), (0.9, 1), (0.6, 1), (0.6, 0.6), (0.4, 0.6), (0.4, 1)]
    + [(0.1, 1), (0.1, 0.4), (0, 0.4)],
    [(0.05, 0), (0.45, 0), (0.5, 0.6), (0.95, 0.75), (1, 1), (0, 1)],
    [(0.3, 0), (0.7, 0), (1, 0.25), (0.85, 0.45), (0.75, 0.35), (0.75, 1), (0.25, 1)]
    + [(0.25, 0.35), (0.15, 0.45), (0, 0.25)],
    [(0, 0.3), (0.3, 0.55), (0.7, 0.55), (1, 0.2), (0.8, 0.75), (0.5, 0.9), (0.2, 0.75)],
]


def sign_in_outline(r):
    """One of `CLOSED`, often mirrored or turned, with lines across in some."""
    image, draw = blank()
    points = np.array(pick(r, CLOSED)) + r.normal(0, 0.03, (1, 2))
    points = points + r.normal(0, 0.025, points.shape)
    if r.random() < 0.5:
        points[:, 0] = 1 - points[:, 0]
    size = r.uniform(120, 200, 2)
    width = int(r.integers(3, 18))
    line = (points - 0.5) * size + 128
    if r.random() < 0.3:
        line = curve(np.concatenate([line, line[:1]]), STEPS)
    outlined(r, draw, line, width)
    for _ in range(int(r.integers(0, 4)) if r.random() < 0.4 else 0):
        a, b = r.integers(len(points), size=2)
        pen(draw, [line[a], (line[a] + line[b]) / 2], width)
    return bent(r, image, pick(r, [15, 15, 180]), 0.1)


def tick(r):
    """A tick, or a line with an arrow's head."""
    image, draw = blank()
    width = int(r.integers(3, 22))
    if r.random() < 0.5:
        short = r.uniform(0.25, 0.6)
        start = (128 - 90 * short, 128 + r.uniform(0, 50))
        points = np.array([start, (128 - 10, 218), (128 + r.uniform(50, 100), r.uniform(30, 80))])
        pen(draw, points, width)
        return bent(r, image, 8, 0.1)
    head, half = r.uniform(25, 60), r.uniform(70, 100)
    pen(draw, [(128, 128 - half), (128, 128 + half)], width)
    top = 128 - half
    pen(draw, [(128 - head, top + head), (128, top), (128 + head, top + head)], width)
    return bent(r, image, pick(r, [20, 180]), 0.1)


def joined_rings(r):
    """Three or more rings or dots that are joined by lines, as in a drawing of a graph or a car."""
    image, draw = blank()
    count, width = int(r.integers(3, 8)), int(r.integers(3, 12))
    points = np.stack([r.uniform(40, 216, count), r.uniform(60, 196, count)], 1)
    for i in range(1, count):
        for j in {int(r.integers(i)), int(r.integers(i))}:
            pen(draw, [points[i], points[j]], width)
    radius = r.uniform(8, 28)
    inside = int(r.random() < 0.4) * 255
    for x, y in points:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], inside, 255, width)
    return bent(r, image, 20, 0.1)


def animal(r):
    """Ovals on top of each other, with ears, legs and a tail: two filled ones, which are like no 8,
    or three."""
    image, draw = blank()
    filled, width = r.random() < 0.6, int(r.integers(3, 14))
    low = 50 + r.uniform(0, 20)
    x = 128 + r.normal(0, 15)
    for _ in range(2 if filled and r.random() < 0.5 else 3):
        w, h = r.uniform(30, 70), r.uniform(22, 45)
        body = oval(x, low + h, w, h)
        draw.polygon([tuple(p) for p in body], fill=255) if filled else pen(draw, body, width)
        for side in (-1, 1):
            if r.random() < 0.6:
                root = np.array([x + side * w * 0.7, low + h * r.uniform(0.2, 1)])
                tip = root + [side * r.uniform(5, 50), r.uniform(-50, 30)]
                other = root - [side * r.uniform(10, 25), 0]
                if r.random() < 0.5:
                    draw.polygon([tuple(root), tuple(tip), tuple(other)], fill=255)
                else:
                    pen(draw, [root, tip], width)
        low += 2 * h - r.uniform(2, 10)
        x += r.normal(0, 10)
    for side in (-1, 1):
        pen(draw, [(x + side * 20, low - 10), (x + side * 22, low + r.uniform(10, 30))], width)
    return bent(r, image, 15, 0.1)


def solid(r):
    """Filled ovals, boxes and triangles that overlap, often cut off as by the picture's border."""
    image, draw = blank()
    for _ in range(int(r.integers(1, 5))):
        x, y = r.uniform(80, 176, 2)
        w, h = r.uniform(25, 90, 2)
        match r.integers(3):
            case 0:
                draw.ellipse([x - w, y - h, x + w, y + h], fill=255)
            case 1:
                draw.rectangle([x - w, y - h, x + w, y + h], fill=255)
            case _:
                draw.polygon([tuple(p) for p in [x, y] + r.uniform(-1, 1, (3, 2)) * [w, h]], 255)
    turned = bent(r, image, 180, 0.1)
    return windowed(r, turned, 40, 110) if r.random() < 0.5 else turned


def shaded(r):
    """A round thing with light and shade, such as a flower or a ball with a pattern."""
    a, away = np.meshgrid(np.arange(CANVAS) - 128.0, np.arange(CANVAS) - 128.0)
    radius, angle = np.hypot(a, away), np.arctan2(away, a)
    rings = np.cos(radius / r.uniform(4, 16)) * np.cos(r.integers(3, 16) * angle + radius / 9)
    field = pick(r, [0, 0.4, 1]) * rings + smooth(r, r.uniform(1, 4)) + r.uniform(-0.3, 1)
    edge = r.uniform(60, 110) * (1 + 0.06 * np.cos(r.integers(3, 16) * angle))
    light = r.normal(0, 0.012, 2) @ np.stack([a, away]).reshape(2, -1)
    seen = (field + light.reshape(a.shape) > 0) & (radius < edge)
    return Image.fromarray((255 * seen).astype(np.uint8))


# How often each kind is drawn.
KINDS = {
    letter: 26,
    cyrillic: 4,
    kanji: 3,
    pair: 5,
    sign: 9,
    drawn_emoji: 10,
    icon: 7,
    awesome_icon: 5,
    filled: 4,
    edges: 4,
    cutout: 4,
    blob: 2,
    contour: 2,
    cells: 2,
    scribble: 3,
    spiral: 1,
    wave: 2,
    crossing: 2.5,
    hatch: 1.5,
    polygon: 1.5,
    dash: 1,
    plain: 1.5,
    symmetrical: 16,
    face: 10,
    sign_in_outline: 16,
    tick: 5,
    joined_rings: 6,
    animal: 8,
    solid: 8,
    shaded: 8,
}


def is_ring(mask: np.ndarray) -> bool:
    """Whether a mask is like a 0: round and mostly one large hole."""
    whole = ndimage.binary_fill_holes(mask)
    holes = whole & ~mask
    if holes.sum() < 0.3 * whole.sum():
        return False
    numbers, _ = ndimage.label(holes)
    largest = np.bincount(numbers.ravel())[1:].max()
    hull = ConvexHull(np.argwhere(whole & ~ndimage.binary_erosion(whole))).volume
    return largest > 0.8 * holes.sum() and whole.sum() > 0.88 * hull


def piece(r, image: Image.Image, kind: str) -> np.ndarray | None:
    """The largest connected part, of a face all parts, in a picture of SIDE x SIDE; None if it is
    like a 1 or a 0."""
    grey = np.asarray(image if image.width < CANVAS else image.reduce(2))
    numbers, count = ndimage.label(grey > 100, np.ones((3, 3)))
    if not count:
        return None
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    if sizes[largest] < 40 or (
        kind in ("letter", "cyrillic", "kanji", "sign") and sizes[largest] < 0.75 * sizes.sum()
    ):
        return None
    if kind == "face":
        numbers, largest = (numbers > 0).astype(int), 1
    rows, columns = ndimage.find_objects(numbers)[largest - 1]
    mask = numbers[rows, columns] == largest
    height, width = mask.shape
    if height > 2.6 * width or (
        kind not in ("polygon", "face") and min(mask.shape) > 5 and is_ring(mask)
    ):
        return None
    if kind in ("cutout", "blob", "contour", "edges", "cells") and max(mask.shape) < 20:
        return None
    filled_share = mask.mean()
    # Simple Chinese characters look like digits, such as 日.
    # Ink whose bounding box is nearly full and upright is a thick 1; a lone simple stroke of a
    # cut-out may be like any digit.
    border = mask & ~ndimage.binary_erosion(mask)
    length = border.sum() / 2
    if kind in ("cutout", "contour", "cells") and length < 2.4 * max(mask.shape):
        return None
    if kind == "kanji" and length < 5.5 * max(mask.shape):
        return None
    if filled_share > 0.6 and height > 1.6 * width:
        return None
    near = ndimage.binary_dilation(mask, np.ones((3, 3)))
    part = np.where(near, grey[rows, columns], 0).astype(np.uint8)
    # A slanted bar has its ink near one line.
    ys, xs = np.nonzero(mask)
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([xs, ys]))))
    if spread[0] * 3.2 < spread[1] and height > 0.7 * width:
        return None
    side = int(r.integers(56, 91))
    scale = side / max(mask.shape)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(part)
    if r.random() < 0.15:  # as from a small picture
        low = r.uniform(0.25, 0.5)
        small = small.resize(
            (max(1, round(size[0] * low)), max(1, round(size[1] * low))), Image.Resampling.BOX
        )
    small = small.resize(size, Image.Resampling.BILINEAR)
    sheet = Image.new("L", (SIDE, SIDE))
    left, top = (
        int(r.integers(2, SIDE - 1 - length)) if length < SIDE - 3 else 1 for length in size
    )
    sheet.paste(small, (left, top))
    return np.asarray(sheet)


def example(seed: int, index: int) -> np.ndarray:
    """Draws the shape with this index."""
    r = np.random.default_rng([seed, index])
    kinds, weights = list(KINDS), np.array(list(KINDS.values()), float)
    kind = kinds[int(r.choice(len(kinds), p=weights / weights.sum()))]
    while True:
        image = kind(r)
        found = None if image is None else piece(r, image, kind.__name__)
        if found is not None:
            return found


def use(fonts: Fonts) -> None:
    """Sets the fonts of a process."""
    global FONTS
    FONTS = fonts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("packages", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Pool(initializer=use, initargs=[Fonts(arguments.packages)]) as pool:
        draw = partial(example, arguments.seed)
        images = np.stack(list(pool.imap(draw, range(arguments.count), chunksize=100)))
    write_idx(arguments.out / "others-images", from_numpy(images))
    labels = np.full(arguments.count, 10, np.uint8)
    write_idx(arguments.out / "others-labels", from_numpy(labels))
    print(f"others: {arguments.count} shapes")


if __name__ == "__main__":
    main()
