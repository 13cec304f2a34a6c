"""Draws letters, signs, emoji and icons of fonts that are like no digit.

Use: from font_shapes import Fonts, letter, use; use(Fonts(PACKAGES)); image = letter(r)

The kinds of shapes for `other_shapes.py`: each function takes a random number generator `r` and
returns an image, with 255 for ink, or None if the font lacks the character that was picked.
"""

import re
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from canvas import SIDE, THRESHOLD, affine, elastic, mask_image, pick, windowed
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

# Letters that look like no digit in any handwriting.
LETTERS = "EFHKMNPRVWXCAacdefkmprtvwxÆæ"
NEXT_LETTERS = "aeckmnrtvwxhdp"  # after another letter
# In cursive handwriting, more letters look like digits.
CURSIVE_LETTERS = "EHKMNRWXcdkmptvwx"
CURSIVE_FONTS = "playwrite homemade la-belle cedarville over-the bad-script marck zeyada".split()
CYRILLIC_LETTERS = "ЖШЩЮЫМИНКЛПДжшщюымикнХхРрЕе"
SIGNS = "+=#%&@$€*£¥~{}<±\u00d7÷«^†"
KANA = "あけなぬねはほまむめもゆれわをすかおふネヌキホモヰヱ"
CHINESE = range(0x4E00, 0xA000)

# Emoji that show digits, or that may look like one.
DIGIT_LIKE_EMOJI = {
    *map(chr, range(0x1F550, 0x1F568)),  # clocks
    *map(chr, range(0x1F170, 0x1F1FF)),  # letters
    *map(chr, range(0x1F7E0, 0x1F7F0)),  # circles and squares
    *"♈♉♊♋♌♍♎♏♐♑♒♓⌚⌛⏱⏳📅📆🗓🎟🎫",
    *"🌑🌒🌓🌔🌕🌖🌗🌘🌙🌚🌛🌜🌝🌞⚪⚫🔴🔵⭕🕳🚫⛔",
    *"🔞🔟🔠🔡🔢🔣💯💰💲🪙🏅🥇🥈🥉♠♾\u2796➰➿〰",
    *"🎱🎳🏑🏸🥍🐍🦚🦢🦩🥚🥜💉💍🔍🔎🦯🩰🪝",
}
# An icon may look like a digit, or show one, if a word in its name begins with one of these.
DIGIT_LIKE_WORDS = """
[0-9] digit number numeric counter tally zero one two three four five six seven eight nine roman
letter alpha beta gamma delta theta lambda sigma phi omega pi- text font format script notes quote
currency dollar euro ruble rupee hryvnia lira peso sign copyright registered google exclam
minus equal slash line caret sine than infinity code pipe vector level
circle ring oval egg ellips shape square rectangle hexagon heptagon octagon nonagon decagon
pentagon border corner radius contrast blank
clock timer date today calendar hours hourglass rewind fast-forward record power-on skip step-
arrow chevron angle trending turn subdirectory sort toggle slider drag-v dots-v rays bars crop
size ruler pen feather key phone call- zip search magnify loupe glasses peanut
moon weather-night sleep snooze water blood drop battery thermometer test-tube magnet iron needle
cup bottle knife fork spoon sword wand broom hook cane candy hockey billiard pool bowling dice
cards- bed-
""".split()
DIGIT_LIKE_NAME = re.compile(f"(^|-)({'|'.join(DIGIT_LIKE_WORDS)})")

FONT_SIZE = 160  # each size of a font takes long to load, so there is only this one
LARGE_SIDE, LARGE_FONT_SIZE = 600, 450  # of what `cutout` cuts
SYMBOLS_START = 0x2100  # fonts of icons have digits and letters below this code point
SYMBOLS_END = 0xE0000  # from here on, characters show nothing


class Fonts:
    """The files of fonts in PACKAGES/node_modules, and the characters of them that are drawn."""

    def __init__(self, packages: Path):
        self.packages = packages / "node_modules"
        self.latin = self.files("*/files/*latin-400-normal.woff2")
        self.cyrillic = self.files("*/files/*-cyrillic-400-normal.woff2")
        self.japanese = []
        for name in ("klee-one", "yomogi", "zen-kurenaido"):
            self.japanese += self.files(f"{name}/files/*-400-normal.woff2")[::6]
        self.material = f"{self.packages}/@mdi/font/fonts/materialdesignicons-webfont.ttf"

    def files(self, pattern: str) -> list[str]:
        return sorted(str(path) for path in (self.packages / "@fontsource").glob(pattern))

    @cached_property
    def emoji(self) -> list[tuple[str, str]]:
        """The emoji, as (file of the light weight, character)."""
        return sorted(
            (path, chr(code))
            for path in self.files("noto-emoji/files/noto-emoji-[0-9]*-300-normal.woff2")
            for code in code_points(path)
            if SYMBOLS_START < code < SYMBOLS_END and chr(code) not in DIGIT_LIKE_EMOJI
        )

    @cached_property
    def material_icons(self) -> dict[bool, list[str]]:
        """The characters of Material Design Icons, with the key True for outlined icons."""
        icons = {True: [], False: []}
        for code, name in sorted(TTFont(self.material).getBestCmap().items()):
            if not DIGIT_LIKE_NAME.search(name):
                icons["outline" in name].append(chr(code))
        return icons

    @cached_property
    def awesome_icons(self) -> list[tuple[str, str]]:
        """The icons of Font Awesome, as (file, character)."""
        folder = self.packages / "@fortawesome/fontawesome-free"
        text = (folder / "metadata/icons.yml").read_text()
        icon = r"^'?([a-z0-9-]+)'?:\n(?:  .*\n)*?  unicode: '?([0-9a-f]+)'?$"
        names = re.findall(icon, text, re.M)
        kept = {int(code, 16) for name, code in names if not DIGIT_LIKE_NAME.search(name)}
        paths = [f"{folder}/webfonts/fa-{style}.woff2" for style in ("regular-400", "solid-900")]
        return [
            (path, chr(code))
            for path in paths
            for code in sorted(kept & code_points(path))
            if code > SYMBOLS_START
        ]


def use(fonts: Fonts) -> None:
    """Sets the fonts of this process."""
    global FONTS
    FONTS = fonts


def letter(r):
    path = pick(r, FONTS.latin)
    cursive = any(name in path for name in CURSIVE_FONTS)
    character = pick(r, CURSIVE_LETTERS if cursive else LETTERS)
    size = r.integers(110, 190)
    stroke = r.integers(0, 6) if r.random() < 0.6 else 0
    return elastic(r, affine(r, rendered(path, character, size, stroke), 12, 0.15))


def cyrillic(r):
    return augmented(r, pick(r, FONTS.cyrillic), pick(r, CYRILLIC_LETTERS))


def sign(r):
    """A sign, such as a plus sign or a percent sign."""
    return augmented(r, pick(r, FONTS.latin), pick(r, SIGNS), (130, 230), (0, 8), 15)


def japanese(r):
    """A Chinese character; or a kana, if the font's file has no Chinese characters."""
    path = pick(r, FONTS.japanese)
    codes = sorted(code_points(path))
    characters = [chr(code) for code in codes if code in CHINESE]
    characters = characters or [chr(code) for code in codes if chr(code) in KANA]
    return augmented(r, path, pick(r, characters)) if characters else None


def augmented(r, path: str, character: str, sizes=(110, 190), strokes=(0, 4), degrees=12):
    """Draws a character with a random width of its strokes, and distorts it. Returns None if the
    font lacks it."""
    if ord(character) not in code_points(path):
        return None
    image = rendered(path, character, r.integers(*sizes), r.integers(*strokes))
    return elastic(r, affine(r, image, degrees, 0.12))


def joined_letters(r):
    """Two or three letters that touch."""
    path = pick(r, FONTS.latin)
    letters = pick(r, LETTERS) + pick(r, NEXT_LETTERS)
    if r.random() < 0.3:
        letters += pick(r, NEXT_LETTERS)
    return affine(r, rendered(path, letters, r.integers(80, 120), r.integers(1, 6)), 12, 0.15)


def emoji(r):
    path, character = random_emoji(r, ["300", "500", "700"])
    return icon(r, path, character, (120, 200))


def material_icon(r):
    character = pick(r, FONTS.material_icons[r.random() < 0.6])
    return icon(r, FONTS.material, character, (150, 210))


def awesome_icon(r):
    return icon(r, *pick(r, FONTS.awesome_icons), (120, 180))


def icon(r, path: str, character: str, sizes: tuple[int, int]):
    # This number is not used, but without it all later ones, and so the shapes, would change.
    r.integers(*sizes)
    return affine(r, rendered(path, character), pick(r, [15, 15, 180]))


def random_emoji(r, weights: list[str]) -> tuple[str, str]:
    """Returns an emoji's file, of one of these weights, and its character."""
    path, character = pick(r, FONTS.emoji)
    return path.replace("-300-", f"-{pick(r, weights)}-"), character


def silhouette(r):
    """An emoji or an icon whose holes are filled."""
    image = emoji(r) if r.random() < 0.6 else material_icon(r)
    return mask_image(ndimage.binary_fill_holes(np.asarray(image) > THRESHOLD))


def contour(r):
    """The outline of a silhouette."""
    image = silhouette(r)
    dilated = image.filter(ImageFilter.MaxFilter(pick(r, [3, 3, 5, 7])))
    return Image.fromarray(np.asarray(dilated) - np.asarray(image))


def cutout(r):
    """A part of a large emoji, cut out with an ellipse or a rectangle."""
    image = text_image(*random_emoji(r, ["300", "500"]), LARGE_SIDE, LARGE_FONT_SIZE)
    left, top = r.integers(60, 340, 2)
    return windowed(r, image.crop((left, top, left + SIDE, top + SIDE)), 50, 120)


def rendered(path: str, text: str, size: int = FONT_SIZE, stroke: int = 0) -> Image.Image:
    """Draws text of FONT_SIZE. Its strokes are wider on each side, as by `stroke` pixels if the
    font had this `size`."""
    return text_image(path, text, SIDE, FONT_SIZE, round(stroke * FONT_SIZE / size)).reduce(2)


def text_image(path: str, text: str, side: int, size: int, stroke: int = 0) -> Image.Image:
    """Draws text in the middle of an image of side x side."""
    image = Image.new("L", (side, side))
    middle = (side // 2, side // 2)
    ImageDraw.Draw(image).text(middle, text, 255, font(path, size), "mm", stroke_width=stroke)
    return image


@cache
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def code_points(path: str) -> frozenset[int]:
    """Returns the code points of all characters of a font."""
    return frozenset(TTFont(path, lazy=True).getBestCmap())
