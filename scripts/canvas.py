"""A canvas for shapes that are no digits, and random changes of images.

Use: from canvas import Canvas; canvas = Canvas(width=8); canvas.line([(20, 30), (200, 90)])

`font_shapes.py` and `drawn_shapes.py` draw with it. Images have 0 for paper and 255 for ink.
"""

import numpy as np
from PIL import Image, ImageDraw

SIDE = 256
MIDDLE = SIDE // 2
INK = 255
THRESHOLD = 100  # pixels above it count as ink


class Canvas:
    """An empty image of SIDE x SIDE, and a round pen of a width in pixels. Points are (x, y)."""

    def __init__(self, width: float = 1):
        self.image = Image.new("L", (SIDE, SIDE))
        self.draw = ImageDraw.Draw(self.image)
        self.width = width

    def line(self, points) -> None:
        points = [tuple(point) for point in points]
        self.draw.line(points, INK, int(self.width), "curve")
        for end in (points[0], points[-1]):
            self.ellipse(*end, self.width / 2, self.width / 2)

    def closed_line(self, points) -> None:
        self.line([*points, points[0]])

    def polygon(self, points) -> None:
        """Draws a filled polygon."""
        self.draw.polygon([tuple(point) for point in points], INK)

    def ellipse(self, x, y, radius_x, radius_y, fill: int = INK) -> None:
        """Draws an ellipse around (x, y), filled with ink or, if `fill` is 0, with paper."""
        box = [x - radius_x, y - radius_y, x + radius_x, y + radius_y]
        self.draw.ellipse(box, fill, INK, int(self.width))

    def rectangle(self, x, y, half_width, half_height) -> None:
        """Draws a filled rectangle around (x, y)."""
        box = [x - half_width, y - half_height, x + half_width, y + half_height]
        self.draw.rectangle(box, INK)


def pick(r, items):
    """Returns one of the items. Unlike `r.choice`, it does not copy them to an array."""
    return items[r.integers(len(items))]


def mask_image(mask: np.ndarray) -> Image.Image:
    """Returns an image with ink where the mask is true."""
    return Image.fromarray((INK * mask).astype(np.uint8))


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarges an array to (width, height), with bicubic interpolation."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def affine(r, image: Image.Image, degrees: float, shear: float = 0.1) -> Image.Image:
    """Rotates an image by up to `degrees`, shears and scales it: a random affine transformation.
    `shear` is a standard deviation."""
    angle, slope = np.radians(r.uniform(-degrees, degrees)), r.normal(0, shear)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, slope], [0, 1]])
    matrix = matrix @ np.diag([r.uniform(0.85, 1.25), r.uniform(0.95, 1.1)])
    middle = image.width / 2
    offset = middle - matrix @ [middle, middle]
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def elastic(r, image: Image.Image) -> Image.Image:
    """Distorts half of the images by a smooth random field, as if the hand had trembled."""
    strength = r.uniform(0, 4)
    if r.random() < 0.5:
        return image
    field = r.normal(0, strength / 2, (2, 5, 5))
    y, x = np.mgrid[: image.height, : image.width]
    y = np.clip(np.rint(y + enlarged(field[0], image.size)), 0, image.height - 1).astype(int)
    x = np.clip(np.rint(x + enlarged(field[1], image.size)), 0, image.width - 1).astype(int)
    return Image.fromarray(np.asarray(image)[y, x])


def windowed(r, image: Image.Image, low: float, high: float) -> Image.Image:
    """Keeps what is inside an ellipse or a rectangle in the middle, whose radii, or halves of the
    sides, are from `low` to `high`."""
    window = Canvas()
    radii = r.uniform(low, high, 2)
    draw = window.ellipse if r.random() < 0.5 else window.rectangle
    draw(MIDDLE, MIDDLE, *radii)
    return Image.composite(image, Image.new("L", image.size), window.image)
