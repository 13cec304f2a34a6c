"""Draws curves, polygons, simple things, blobs and patterns that are like no digit.

Use: from drawn_shapes import spiral; image = spiral(numpy.random.default_rng(0))

The kinds of shapes for `other_shapes.py`: each function takes a random number generator `r` and
returns an image, with 255 for ink. The order of the random numbers decides what is drawn.
"""

import numpy as np
from canvas import INK, MIDDLE, SIDE, Canvas, affine, enlarged, mask_image, pick, windowed
from pen import curve
from PIL import Image
from scipy import ndimage

STEPS = 14  # points of a smooth curve between two given points

# Outlines in a box of width 100 and height 100, with y downwards.
OUTLINES = {
    "lightning": [(60, 0), (10, 55), (45, 50), (25, 100), (90, 38), (50, 42), (85, 0)],
    "thick arrow": [(0, 35), (60, 35), (55, 10), (100, 50), (55, 90), (60, 65), (0, 65)],
    "thick cross": [
        *((35, 0), (65, 0), (65, 35), (100, 35), (100, 65), (65, 65)),
        *((65, 100), (35, 100), (35, 65), (0, 65), (0, 35), (35, 35)),
    ],
    "house": [
        *((50, 0), (100, 40), (90, 40), (90, 100), (60, 100), (60, 60)),
        *((40, 60), (40, 100), (10, 100), (10, 40), (0, 40)),
    ],
    "boot": [(5, 0), (45, 0), (50, 60), (95, 75), (100, 100), (0, 100)],
    "shirt": [
        *((30, 0), (70, 0), (100, 25), (85, 45), (75, 35)),
        *((75, 100), (25, 100), (25, 35), (15, 45), (0, 25)),
    ],
    "leaf": [(0, 30), (30, 55), (70, 55), (100, 20), (80, 75), (50, 90), (20, 75)],
}


def scribble(r):
    """A long curve that crosses itself many times."""
    points = r.uniform(30, 226, (r.integers(8, 18), 2))
    line = curve(points, STEPS) if r.random() < 0.7 else points
    return one_line(line, r.integers(4, 26))


def spiral(r):
    turns = r.uniform(2, 5)
    angle = np.linspace(0, 2 * np.pi * turns, int(40 * turns))
    radius = 10 + 90 * (angle / angle[-1]) ** r.uniform(0.7, 1.3)
    angle = r.choice([-1, 1]) * angle + r.uniform(0, 7)
    line = polar(radius, angle) * [r.uniform(0.6, 1), 1] + MIDDLE
    return one_line(line, max(3, r.uniform(0.15, 0.55) * 90 / turns))


def wave(r):
    """A horizontal sine wave, zigzag or row of loops, with at least two periods."""
    periods, t = r.uniform(2, 6), np.linspace(0, 1, 400)
    phase = 2 * np.pi * periods * t + r.uniform(0, 6)
    height = r.uniform(15, 80)
    x, y = 200 * t, height * np.sin(phase)
    match r.integers(3):
        case 1:  # a zigzag
            y = height * 2 / np.pi * np.arcsin(np.sin(phase))
        case 2:  # loops
            x = x + 200 / periods * r.uniform(0.3, 0.7) * np.cos(phase)
    y = y * (1 + r.normal(0, 0.2) * t) + r.normal(0, 20) * t
    line = np.stack([28 + x, MIDDLE + y], 1)
    return affine(r, one_line(line, r.integers(4, 22)), 25)


def hatching(r):
    """Parallel lines, drawn back and forth without lifting the pen."""
    count = 2 * r.integers(4, 10)
    points = []
    for i in range(count):
        y = 40 + 176 * i / count + r.normal(0, 2)
        points.append(((40 if i % 2 else 216) + r.normal(0, 8), y))
    line = curve(points, STEPS) if r.random() < 0.5 else points
    return affine(r, one_line(line, r.integers(3, 14)), 180, 0.3)


def dash(r):
    """A horizontal dash, straight or slightly curved, thin or so thick that it is like a dot."""
    half, bend = r.uniform(60, 110), r.normal(0, 12)
    end = (MIDDLE + half, MIDDLE + r.normal(0, 12))
    line = curve([(MIDDLE - half, MIDDLE), (MIDDLE, MIDDLE + bend), end], STEPS)
    return affine(r, one_line(line, r.uniform(8, 60)), 20, 0.2)


def one_line(points, width: float) -> Image.Image:
    canvas = Canvas(width)
    canvas.line(points)
    return canvas.image


def straight_lines(r):
    """Lines that cross in the middle, a T or a similar letter, or a grid."""
    canvas = Canvas(r.integers(5, 30))
    draw = pick(r, [crossing_lines, crossing_lines, letter_t, grid, grid])
    draw(r, canvas)
    return affine(r, canvas.image, 20, 0.15)


def crossing_lines(r, canvas: Canvas) -> None:
    count = 2 if r.random() < 0.5 else r.integers(3, 6)
    first = r.uniform(0, np.pi)
    for i in range(count):
        angle = first + np.pi * i / count + r.normal(0, 0.08)
        middle = MIDDLE + r.normal(0, 6, 2)
        half = np.array([np.cos(angle), np.sin(angle)]) * r.uniform(70, 110)
        canvas.line([middle - half, middle + half])


def letter_t(r, canvas: Canvas) -> None:
    """A T, with a second bar in half of the cases."""
    bars = [(40, 216)] if r.random() < 0.5 else [(40, 216), (50, 206)]
    for i, (left, right) in enumerate(bars):
        y = 50 + 120 * i + r.normal(0, 6)
        canvas.line([(left, y), (right, y + r.normal(0, 10))])
    canvas.line([(MIDDLE + r.normal(0, 10), 50), (MIDDLE + r.normal(0, 15), 215)])


def grid(r, canvas: Canvas) -> None:
    """A grid, a comb or a fence."""
    canvas.width = min(canvas.width, 14)
    for i in range(r.integers(3, 6)):
        x = 40 + i * r.uniform(38, 46)
        canvas.line([(x + r.normal(0, 5), 40), (x + r.normal(0, 5), 216)])
    for i in range(r.integers(1, 5)):
        y = 60 + i * r.uniform(36, 50)
        canvas.line([(25, y + r.normal(0, 5)), (231, y + r.normal(0, 5))])


def polygon(r):
    """A triangle, a quadrilateral with its diagonals, a star or a jagged polygon; some filled."""
    canvas = Canvas()
    count = r.integers(3, 12)
    if count > 4:
        angle = np.sort(r.uniform(0, 2 * np.pi, count))
        radius = np.where(np.arange(count) % 2, r.uniform(0.25, 0.6), 1)
    else:
        angle = np.arange(count) * 2 * np.pi / count + r.uniform(0, 7)
        radius = r.uniform(0.8, 1, count)
    points = polar(100 * radius, angle) + MIDDLE
    if r.random() < 0.4:
        canvas.polygon(points)
    else:
        canvas.width = r.integers(5, 20)
        canvas.line([*points, *points[:2]])
        if count == 4:
            canvas.line(points[[0, 2]])
        if 4 <= count < 7 and r.random() < 0.7:
            canvas.line(points[[1, 3]])
    return affine(r, canvas.image, 180)


def symbol(r):
    """A heart, a rose curve, an arrow or a square with its diagonals."""
    canvas = Canvas(r.integers(5, 24))
    symbols = [(heart, 40), (rose_curve, 180), (horizontal_arrow, 30), (crossed_square, 45)]
    draw, degrees = pick(r, symbols)
    draw(r, canvas)
    return affine(r, canvas.image, degrees)


def heart(r, canvas: Canvas) -> None:
    t = np.linspace(0, 2 * np.pi, 80)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    draw = canvas.polygon if r.random() < 0.5 else canvas.line
    draw(np.stack([MIDDLE + 6 * x, MIDDLE - 6 * y], 1))


def rose_curve(r, canvas: Canvas) -> None:
    """A flower whose petals are loops."""
    petals = r.integers(3, 8)
    angle = np.linspace(0, 2 * np.pi, 200)
    canvas.width = min(canvas.width, 14)
    canvas.line(polar(100 * np.abs(np.cos(petals * angle / 2)), angle) + MIDDLE)


def horizontal_arrow(r, canvas: Canvas) -> None:
    half, head = r.uniform(60, 100), r.uniform(25, 50)
    for line in arrow(half, head, [1] if r.random() < 0.6 else [-1, 1]):
        canvas.line(line)


def arrow(half: float, head: float, ends: list[int]) -> list[np.ndarray]:
    """Returns the lines of a horizontal arrow with heads at the left (-1) or the right (1) end."""
    lines = [np.array([(MIDDLE - half, MIDDLE), (MIDDLE + half, MIDDLE)])]
    for end in ends:
        tip = MIDDLE + end * half
        back = tip - end * head
        lines.append(np.array([(back, MIDDLE - head), (tip, MIDDLE), (back, MIDDLE + head)]))
    return lines


def crossed_square(r, canvas: Canvas) -> None:
    """A square with one or both diagonals."""
    low, high = 50, 206
    canvas.closed_line([(low, low), (high, low), (high, high), (low, high)])
    canvas.line([(low, low), (high, high)])
    if r.random() < 0.7:
        canvas.line([(high, low), (low, high)])


def tick_or_arrow(r):
    """A tick, or an arrow that points up or anywhere."""
    canvas = Canvas(r.integers(3, 22))
    if r.random() < 0.5:
        start = (MIDDLE - 90 * r.uniform(0.25, 0.6), MIDDLE + r.uniform(0, 50))
        end = (MIDDLE + r.uniform(50, 100), r.uniform(30, 80))
        canvas.line([start, (MIDDLE - 10, 218), end])
        return affine(r, canvas.image, 8)
    head, half = r.uniform(25, 60), r.uniform(70, 100)
    for line in arrow(half, head, [-1]):
        canvas.line(line[:, ::-1])
    return affine(r, canvas.image, pick(r, [20, 180]))


def outline(r):
    """One of OUTLINES, distorted, often mirrored or rotated, some filled, some with lines in it."""
    points = np.array(pick(r, list(OUTLINES.values()))) / 100 + r.normal(0, 0.03, (1, 2))
    points = points + r.normal(0, 0.025, points.shape)
    if r.random() < 0.5:
        points[:, 0] = 1 - points[:, 0]
    size = r.uniform(120, 200, 2)
    canvas = Canvas(r.integers(3, 18))
    line = (points - 0.5) * size + MIDDLE
    if r.random() < 0.3:
        line = curve([*line, line[0]], STEPS)
    draw = canvas.polygon if r.random() < 0.5 else canvas.closed_line
    draw(line)
    for _ in range(r.integers(0, 4) if r.random() < 0.4 else 0):
        a, b = line[r.integers(len(points), size=2)]
        canvas.line([a, (a + b) / 2])
    return affine(r, canvas.image, pick(r, [15, 15, 180]))


def symmetric(r):
    """A thing with equal sides, such as a vase, a dress, trousers, a leaf or a bell."""
    count, top, bottom = r.integers(3, 8), 28, r.uniform(110, 228)
    y = np.linspace(top, bottom, count) + r.normal(0, 8, count)
    x = r.uniform(45, 100) * r.uniform(0.15, 1, count) ** r.uniform(0.5, 1.2)
    right = np.stack([x, y], 1)
    if r.random() < 0.5:
        right = curve(right, STEPS)
    canvas = Canvas(r.integers(3, 18))
    levels = [y[r.integers(count)] for _ in range(r.integers(0, 4))]
    notch = np.zeros((0, 2))
    if r.random() < 0.4:  # a cut from below, as between the legs of trousers
        notch = [(0, bottom - r.uniform(0.2, 0.7) * (bottom - top))]
    points = np.concatenate([right, notch, (right * [-1, 1])[::-1]])
    draw = canvas.polygon if r.random() < 0.5 else canvas.closed_line
    draw(points + np.array([MIDDLE, 0]))
    for level in levels:
        half = np.interp(level, right[:, 1], right[:, 0])
        canvas.line([(MIDDLE - half, level), (MIDDLE + half, level)])
    return affine(r, canvas.image, 25)


def face(r):
    """A round line with small marks in it, such as eyes, and often with hairs around it."""
    radii = r.uniform(60, 100, 2)
    canvas = Canvas(r.integers(3, 13))
    uneven = 1 + r.uniform(0, 0.15) * smooth_waves(r, 40)
    canvas.closed_line(ellipse(0, 0, *radii) * uneven[:, None] + MIDDLE)
    for _ in range(r.integers(2, 7)):
        angle, distance = r.uniform(0, 2 * np.pi), r.uniform(0.1, 0.65)
        x, y = MIDDLE + radii * distance * [np.cos(angle), np.sin(angle)]
        mark = ellipse(x, y, *r.uniform(2, 14, 2))
        match r.integers(3):
            case 0:
                canvas.polygon(mark)
            case 1:
                canvas.line(mark)
            case _:
                canvas.line(mark[: r.integers(10, 25)])
    for angle in r.uniform(-np.pi, 0, r.integers(0, 9)):
        root = radii * [np.cos(angle), np.sin(angle)]
        canvas.line([MIDDLE + root, MIDDLE + root * r.uniform(1.1, 1.3)])
    return affine(r, canvas.image, 20)


def smooth_waves(r, count: int) -> np.ndarray:
    """Returns values around 0 that vary smoothly. The last is equal to the first."""
    angle = np.linspace(0, 2 * np.pi, count)
    return sum(r.normal() / k * np.cos(k * angle + r.uniform(0, 7)) for k in range(1, 4))


def graph(r):
    """Three or more rings or dots, joined by lines, as the nodes and edges of a graph."""
    count, canvas = r.integers(3, 8), Canvas(r.integers(3, 12))
    nodes = np.stack([r.uniform(40, 216, count), r.uniform(60, 196, count)], 1)
    for i in range(1, count):
        for j in {int(r.integers(i)), int(r.integers(i))}:
            canvas.line([nodes[i], nodes[j]])
    radius = r.uniform(8, 28)
    fill = INK if r.random() < 0.4 else 0
    for x, y in nodes:
        canvas.ellipse(x, y, radius, radius, fill)
    return affine(r, canvas.image, 20)


def animal(r):
    """Two or three ellipses on top of each other, with ears, arms and legs. Two ellipses are always
    filled, so that they are like no 8."""
    filled, canvas = r.random() < 0.6, Canvas(r.integers(3, 14))
    draw = canvas.polygon if filled else canvas.line
    top, x = 50 + r.uniform(0, 20), MIDDLE + r.normal(0, 15)
    for _ in range(2 if filled and r.random() < 0.5 else 3):
        w, h = r.uniform(30, 70), r.uniform(22, 45)
        draw(ellipse(x, top + h, w, h))
        for side in (-1, 1):
            if r.random() < 0.6:
                root = (x + side * w * 0.7, top + h * r.uniform(0.2, 1))
                limb(r, canvas, root, side)
        top += 2 * h - r.uniform(2, 10)
        x += r.normal(0, 10)
    for side in (-1, 1):
        canvas.line([(x + side * 20, top - 10), (x + side * 22, top + r.uniform(10, 30))])
    return affine(r, canvas.image, 15)


def limb(r, canvas: Canvas, root: tuple[float, float], side: int) -> None:
    """An ear or an arm, on the left (-1) or the right (1) side: a triangle or a line."""
    x, y = root
    tip = (x + side * r.uniform(5, 50), y + r.uniform(-50, 30))
    other = (x - side * r.uniform(10, 25), y)
    if r.random() < 0.5:
        canvas.polygon([root, tip, other])
    else:
        canvas.line([root, tip])


def solids(r):
    """Filled ellipses, rectangles and triangles that overlap, in half of the cases cut off."""
    canvas = Canvas()
    for _ in range(r.integers(1, 5)):
        middle, half = r.uniform(80, 176, 2), r.uniform(25, 90, 2)
        match r.integers(3):
            case 0:
                canvas.ellipse(*middle, *half)
            case 1:
                canvas.rectangle(*middle, *half)
            case _:
                canvas.polygon(middle + r.uniform(-1, 1, (3, 2)) * half)
    image = affine(r, canvas.image, 180)
    return windowed(r, image, 40, 110) if r.random() < 0.5 else image


def blob(r):
    """Smooth noise above a threshold."""
    return mask_image(noise(r, r.uniform(1.5, 8)) > r.uniform(0, 1))


def contour_lines(r):
    """Lines of equal height of smooth noise, as on a map."""
    height = noise(r, r.uniform(3, 6))
    width = r.uniform(0.1, 0.35)
    return mask_image(np.abs(np.mod(height * r.uniform(0.8, 1.6), 1) - 0.5) < width)


def voronoi(r):
    """The borders of Voronoi cells, as in a net or in dry mud."""
    points = r.uniform(0, SIDE, (r.integers(12, 60), 2))
    y, x = np.mgrid[:SIDE:2, :SIDE:2]
    distances = np.sqrt((x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2)
    nearest, second = np.moveaxis(np.partition(distances, 1)[..., :2], -1, 0)
    borders = mask_image(second - nearest < r.uniform(3, 12))
    return windowed(r, borders.resize((SIDE, SIDE), Image.Resampling.BILINEAR), 40, 110)


def shaded(r):
    """A round thing with light and shade, such as a flower or a ball with a pattern."""
    x, y = np.meshgrid(np.arange(SIDE) - MIDDLE, np.arange(SIDE) - MIDDLE)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    rings = np.cos(radius / r.uniform(4, 16)) * np.cos(r.integers(3, 16) * angle + radius / 9)
    pattern = pick(r, [0, 0.4, 1]) * rings + noise(r, r.uniform(1, 4)) + r.uniform(-0.3, 1)
    edge = r.uniform(60, 110) * (1 + 0.06 * np.cos(r.integers(3, 16) * angle))
    light = r.normal(0, 0.012, 2) @ np.stack([x, y]).reshape(2, -1)
    return mask_image((pattern + light.reshape(x.shape) > 0) & (radius < edge))


def noise(r, scale: float) -> np.ndarray:
    """Returns smooth noise: (SIDE, SIDE), with a standard deviation near 1."""
    field = ndimage.gaussian_filter(r.normal(size=(64, 64)), scale)
    return enlarged(field / field.std(), (SIDE, SIDE))


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    """Returns points on an ellipse around (x, y): (40, 2)."""
    return polar(1, np.linspace(0, 2 * np.pi, 40)) * [radius_x, radius_y] + [x, y]


def polar(radius, angle: np.ndarray) -> np.ndarray:
    """Returns the points with these polar coordinates: (N, 2)."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
