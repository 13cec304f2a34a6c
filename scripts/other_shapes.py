"""Draws pieces of ink that are no digits: training data of the reject network.

Run: .venv/bin/python scripts/other_shapes.py OUT PACKAGES
Reads: fonts and icons in PACKAGES/node_modules, which npm installs (reading_packages.txt)
Writes: OUT/others-images (IDX, N x 96 x 96, 0 for paper to 255 for ink) and OUT/others-labels, all
10. Runs with the same seed draw the same shapes.

`font_shapes.py` draws letters, signs and icons that are like no digit, and `drawn_shapes.py` draws
curves, polygons, things and patterns. Each shape is one connected piece of ink, as the reader finds
them. A shape that a person may take for a digit is left out.
"""

import argparse
from collections.abc import Callable
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import drawn_shapes as drawn
import font_shapes as fonts
import numpy as np
from canvas import SIDE as CANVAS_SIDE
from canvas import THRESHOLD
from mnist import write_idx
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import from_numpy

SIDE = 96
CLASS = 10  # after the digits 0 to 9
MIN_PIXELS = 40  # at half the size of a canvas
NEIGHBOURS = np.ones((3, 3))  # pixels that touch at a corner are connected

# How often each kind is drawn, relative to the others.
KINDS = {
    fonts.letter: 26,
    fonts.cyrillic: 4,
    fonts.japanese: 3,
    fonts.joined_letters: 5,
    fonts.sign: 9,
    fonts.emoji: 10,
    fonts.material_icon: 7,
    fonts.awesome_icon: 5,
    fonts.silhouette: 4,
    fonts.contour: 4,
    fonts.cutout: 4,
    drawn.blob: 2,
    drawn.contour_lines: 2,
    drawn.voronoi: 2,
    drawn.scribble: 3,
    drawn.spiral: 1,
    drawn.wave: 2,
    drawn.straight_lines: 2.5,
    drawn.hatching: 1.5,
    drawn.polygon: 1.5,
    drawn.dash: 1,
    drawn.symbol: 1.5,
    drawn.symmetric: 16,
    drawn.face: 10,
    drawn.outline: 16,
    drawn.tick_or_arrow: 5,
    drawn.graph: 6,
    drawn.animal: 8,
    drawn.solids: 8,
    drawn.shaded: 8,
}
# Kinds in which a part may look like a digit: the largest part must be most of the shape.
ONE_PART = {fonts.letter, fonts.cyrillic, fonts.japanese, fonts.sign}
# Kinds in which a small shape may look like anything.
NOT_SMALL = {fonts.cutout, fonts.contour, drawn.blob, drawn.contour_lines, drawn.voronoi}
# Kinds whose rings are kept.
RINGS = {drawn.polygon, drawn.face}
# The least length of all lines, relative to the longer side of the shape: a short stroke may look
# like any digit, and so do simple Chinese characters, such as 日.
MIN_LENGTH = {fonts.cutout: 2.4, drawn.contour_lines: 2.4, drawn.voronoi: 2.4, fonts.japanese: 5.5}


def example(seed: int, index: int) -> np.ndarray:
    """Draws the shape with this index: (SIDE, SIDE)."""
    r = np.random.default_rng([seed, index])
    kinds, weights = list(KINDS), np.array(list(KINDS.values()))
    kind = kinds[r.choice(len(kinds), p=weights / weights.sum())]
    while True:
        image = kind(r)
        ink = largest_piece(image, kind) if image else None
        if ink is not None:
            return placed(r, ink)


def largest_piece(image: Image.Image, kind: Callable) -> np.ndarray | None:
    """Returns the ink of the largest connected piece, of a face all pieces; or None if it is too
    small or may look like a digit."""
    grey = np.asarray(image if image.width < CANVAS_SIDE else image.reduce(2))
    labels, count = ndimage.label(grey > THRESHOLD, NEIGHBOURS)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    if sizes.max() < MIN_PIXELS or (kind in ONE_PART and sizes.max() < 0.75 * sizes.sum()):
        return None
    mask = labels > 0 if kind is drawn.face else labels == sizes.argmax() + 1
    box = ndimage.find_objects(mask.astype(int))[0]
    mask = mask[box]
    if like_digit(mask, kind):
        return None
    # The pixels beside the piece are a part of its soft border.
    return np.where(ndimage.binary_dilation(mask, NEIGHBOURS), grey[box], 0).astype(np.uint8)


def like_digit(mask: np.ndarray, kind: Callable) -> bool:
    """Whether a shape of this kind may look like a digit."""
    height, width = mask.shape
    longer, shorter = max(mask.shape), min(mask.shape)
    border = mask & ~ndimage.binary_erosion(mask)
    return (
        height > 2.6 * width  # like a 1, as are the next two
        or (mask.mean() > 0.6 and height > 1.6 * width)
        or (height > 0.7 * width and is_bar(mask))
        or (kind not in RINGS and shorter > 5 and is_ring(mask))
        or (kind in NOT_SMALL and longer < 20)
        or border.sum() / 2 < MIN_LENGTH.get(kind, 0) * longer
    )


def is_bar(mask: np.ndarray) -> bool:
    """Whether a mask is like a 1: its pixels are near one line, by their principal components."""
    y, x = np.nonzero(mask)
    short, long = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([x, y]))))
    return short * 3.2 < long


def is_ring(mask: np.ndarray) -> bool:
    """Whether a mask is like a 0: convex and mostly one large hole."""
    filled = ndimage.binary_fill_holes(mask)
    holes = filled & ~mask
    if holes.sum() < 0.3 * filled.sum():
        return False
    labels, _ = ndimage.label(holes)
    largest = np.bincount(labels.ravel())[1:].max()
    hull = ConvexHull(np.argwhere(filled & ~ndimage.binary_erosion(filled))).volume
    return largest > 0.8 * holes.sum() and filled.sum() > 0.88 * hull


def placed(r, ink: np.ndarray) -> np.ndarray:
    """Scales ink to a random size and puts it at a random position: (SIDE, SIDE)."""
    image = Image.fromarray(ink)
    scale = r.integers(56, 91) / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    if r.random() < 0.15:  # as from a picture of few pixels
        scale = r.uniform(0.25, 0.5)
        few = tuple(max(1, round(side * scale)) for side in size)
        image = image.resize(few, Image.Resampling.BOX)
    sheet = Image.new("L", (SIDE, SIDE))
    left, top = (int(r.integers(2, SIDE - 1 - side)) for side in size)
    sheet.paste(image.resize(size, Image.Resampling.BILINEAR), (left, top))
    return np.asarray(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("packages", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Pool(initializer=fonts.use, initargs=[fonts.Fonts(arguments.packages)]) as pool:
        draw = partial(example, arguments.seed)
        images = np.stack(list(pool.imap(draw, range(arguments.count), chunksize=100)))
    write_idx(arguments.out / "others-images", from_numpy(images))
    labels = np.full(arguments.count, CLASS, np.uint8)
    write_idx(arguments.out / "others-labels", from_numpy(labels))
    print(f"others: {arguments.count} shapes")


if __name__ == "__main__":
    main()
