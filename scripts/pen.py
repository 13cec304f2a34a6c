"""Draws digits as people write them, along the path of a pen.

Use: from pen import draw; image = draw(1, numpy.random.default_rng(0))

Each digit has several forms: a 1 with or without an upstroke and a base line, a 7 with or without a
bar, and so on. A form is a list of strokes, and a stroke is a list of points in a box of width 1
and height 1, with y downwards. A smooth curve through the points is drawn with a round pen. If a
point is repeated, the curve has a corner there. Random numbers decide the form, the points and the
pen.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Points = list[tuple[float, float]]
Form = Callable[[np.random.Generator], list[Points]]
SIDE = 28
ENLARGED = 8  # the curve is drawn at this scale, and then reduced


def one(r) -> list[Points]:
    """A stem, in half of the cases with an upstroke, which may be long; a base line in some."""
    top = (r.uniform(0.45, 0.6), r.uniform(0.0, 0.05))
    lean = r.normal(0, 0.06)
    stem = [top, (top[0] + lean / 2, 0.5), (top[0] + lean, 1.0)]
    strokes = [stem]
    if r.random() < 0.65:
        length, angle = r.uniform(0.12, 0.9), np.radians(r.uniform(22, 70))
        start = (top[0] - length * np.cos(angle), top[1] + length * np.sin(angle))
        bend = r.normal(0, 0.04)
        middle = ((start[0] + top[0]) / 2, (start[1] + top[1]) / 2 + bend)
        strokes = [[start, middle, top, top, *stem[1:]]]
        if r.random() < 0.3:
            width = r.uniform(0.15, 0.35)
            foot, tilt = stem[-1], r.normal(0, 0.03)
            strokes.append([(foot[0] - width, foot[1] + tilt), (foot[0] + width, foot[1] - tilt)])
    return strokes


def seven(r) -> list[Points]:
    """A straight or curved stem, in many cases with a bar or with a serif at the start."""
    left, right = (
        (r.uniform(0.05, 0.2), r.uniform(0.0, 0.12)),
        (r.uniform(0.8, 1), r.uniform(0, 0.1)),
    )
    foot = (r.uniform(0.2, 0.5), 1.0)
    middle = ((right[0] + foot[0]) / 2 + r.uniform(-0.16, 0.05), 0.5)
    roof = [left, ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2 + r.normal(0, 0.03)), right]
    if r.random() < 0.3:
        roof = [(left[0] - r.uniform(0, 0.05), left[1] + r.uniform(0.1, 0.25)), left, *roof]
    corner = [right] if r.random() < 0.75 else []
    strokes = [[*roof, *corner, middle, foot]]
    if r.random() < 0.5:
        width, y, tilt = r.uniform(0.15, 0.35), r.uniform(0.42, 0.6), r.normal(0, 0.05)
        x = middle[0]
        strokes.append([(x - width, y + tilt), (x + width, y - tilt)])
    return strokes


def nine(r) -> list[Points]:
    """A loop, and a leg that is straight, curved or ends in a flag."""
    x, y = r.uniform(0.45, 0.55), r.uniform(0.24, 0.3)
    width, height = r.uniform(0.26, 0.38), r.uniform(0.2, 0.3)
    start = np.radians(r.uniform(-60, 10))
    angles = start - np.linspace(0, 2 * np.pi * r.uniform(0.92, 1.05), 9)
    loop = [(x + width * np.cos(a), y + height * np.sin(a)) for a in angles]
    right = x + width
    match r.integers(3):
        case 0:
            foot = (right + r.normal(-0.05, 0.06), 1.0)
            leg = [((right + foot[0]) / 2, 0.6), foot]
        case 1:
            leg = [(right - 0.02, 0.6), (right - r.uniform(0.1, 0.25), 0.88)]
            leg.append((x - r.uniform(0.1, 0.3), r.uniform(0.92, 1.0)))
        case _:
            leg = [(right, 0.65), (right - 0.06, 0.92), (x, 1.0), (x - width, r.uniform(0.8, 0.9))]
    return [[*loop, (right, y), *leg]]


def four(r) -> list[Points]:
    """Open, or closed at the top."""
    bar = r.uniform(0.55, 0.7)
    stem = r.uniform(0.6, 0.75)
    right = (r.uniform(0.9, 1.05), bar + r.normal(0, 0.03))
    left = (r.uniform(0.0, 0.12), bar + r.normal(0, 0.03))
    if r.random() < 0.5:
        top = (r.uniform(0.15, 0.4), r.uniform(0.0, 0.1))
        first = [top, ((top[0] + left[0]) / 2 + r.normal(0, 0.02), bar / 2), left, left, right]
        start = r.uniform(0.0, 0.35)
    else:
        top = (stem + r.normal(0, 0.02), 0.0)
        first = [top, ((top[0] + left[0]) / 2, bar / 2), left, left, right]
        start = r.uniform(-0.02, 0.05)
    return [
        first,
        [(stem, start), (stem + r.normal(0, 0.03), 0.6), (stem + r.normal(0, 0.06), 1.0)],
    ]


def two(r) -> list[Points]:
    """With a plain corner or a loop at the foot."""
    left = (r.uniform(0.05, 0.2), r.uniform(0.15, 0.3))
    head = [left, (0.45, 0.0), (r.uniform(0.75, 0.9), r.uniform(0.18, 0.3)), (0.55, 0.62)]
    foot = (r.uniform(0.0, 0.12), r.uniform(0.9, 0.98))
    end = (r.uniform(0.85, 1.05), r.uniform(0.88, 1.0))
    if r.random() < 0.4:
        size = r.uniform(0.08, 0.16)
        loop = [(foot[0] + size, 0.98), foot, (foot[0] + size, 0.98 - 2 * size), (0.45, 0.93), end]
        return [[*head, *loop]]
    wave = r.normal(0, 0.04)
    return [[*head, foot, foot, ((foot[0] + end[0]) / 2, 0.95 + wave), end]]


def three(r) -> list[Points]:
    """With a round or a flat top."""
    waist = (r.uniform(0.35, 0.5), r.uniform(0.42, 0.5))
    lower = [
        (r.uniform(0.8, 0.95), 0.72),
        (0.45, 1.0),
        (r.uniform(0.0, 0.15), r.uniform(0.8, 0.92)),
    ]
    if r.random() < 0.15:
        return [[(0.1, 0.02), (0.85, 0.0), (0.85, 0.0), waist, waist, *lower]]
    left = (r.uniform(0.05, 0.2), r.uniform(0.08, 0.22))
    corner = [waist] if r.random() < 0.6 else []
    return [[left, (0.45, 0.0), (r.uniform(0.72, 0.85), 0.2), waist, *corner, *lower]]


def five(r) -> list[Points]:
    """In one stroke, or broken: the roof is a stroke of its own, which may not touch."""
    left = r.uniform(0.12, 0.25)
    neck = (left - r.uniform(0, 0.06), r.uniform(0.38, 0.5))
    belly = [(0.5, 0.36 + r.normal(0, 0.02)), (r.uniform(0.8, 0.95), 0.66), (0.5, 1.0)]
    end = (r.uniform(0.0, 0.12), r.uniform(0.82, 0.95))
    roof = [(left, 0.02), (r.uniform(0.75, 0.95), r.normal(0.0, 0.03))]
    if r.random() < 0.5:
        return [[roof[1], (0.5, 0.01), roof[0], roof[0], neck, neck, *belly, end]]
    apart, lift = r.uniform(-0.03, 0.12), r.normal(0, 0.03)
    first = [(left, 0.05), neck, neck, *belly, end]
    return [first, [(left + apart, 0.02 + lift), roof[1]]]


def six(r) -> list[Points]:
    """A straight or curved back, and a loop that may stay open."""
    x, y = r.uniform(0.45, 0.55), r.uniform(0.68, 0.74)
    width, height = r.uniform(0.3, 0.42), r.uniform(0.22, 0.3)
    top = (r.uniform(0.45, 0.85), 0.0)
    back = [top, (x - width * r.uniform(0.6, 0.95), r.uniform(0.32, 0.42))]
    angles = np.pi - np.linspace(0, 2 * np.pi * r.uniform(0.85, 1.05), 9)
    return [[*back, *[(x + width * np.cos(a), y + height * np.sin(a)) for a in angles]]]


def eight(r) -> list[Points]:
    """In one stroke, or as two circles."""
    upper, lower = r.uniform(0.2, 0.34), r.uniform(0.28, 0.42)
    if r.random() < 0.25:

        def circle(y, width, height):
            start = r.uniform(0, 2 * np.pi)
            angles = start + np.linspace(0, 2 * np.pi * r.uniform(0.97, 1.06), 10)
            return [(0.5 + width * np.cos(a), y + height * np.sin(a)) for a in angles]

        return [circle(0.23, upper, 0.23), circle(0.74, lower, 0.26)]
    start = (0.5 + upper, r.uniform(0.05, 0.15))
    left, right = (0.5 - upper, 0.22), (0.5 + lower, 0.76)
    back = (0.5 + upper, 0.24)
    gap = (r.normal(0, 0.06), r.normal(0, 0.04))
    end = (start[0] + gap[0], start[1] + gap[1])
    return [
        [
            start,
            (0.5, 0.0),
            left,
            (0.5, 0.48),
            right,
            (0.5, 1.0),
            (0.5 - lower, 0.76),
            (0.5, 0.5),
            back,
            end,
        ]
    ]


def zero(r) -> list[Points]:
    """A narrow or wide oval, whose ends may not meet or may cross."""
    width = r.uniform(0.25, 0.45)
    start = np.radians(r.uniform(-130, -40))
    angles = start - np.linspace(0, 2 * np.pi * r.uniform(0.93, 1.06), 10)
    return [[(0.5 + width * np.cos(a), 0.5 + 0.5 * np.sin(a)) for a in angles]]


DIGITS = [zero, one, two, three, four, five, six, seven, eight, nine]


def curve(points: Points, steps: int = 16) -> np.ndarray:
    """Returns a smooth curve through the points (a Catmull-Rom spline): (N, 2)."""
    p = np.array(points, float)
    if len(p) < 3:
        return p
    p = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    t = np.linspace(0, 1, steps)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        if np.allclose(b, c):
            continue
        # At a corner, both sides end straight.
        a = b - (c - b) if np.allclose(a, b) else a
        d = c + (c - b) if np.allclose(c, d) else d
        parts.append(
            0.5
            * (
                2 * b
                + (c - a) * t
                + (2 * a - 5 * b + 4 * c - d) * t**2
                + (3 * b - a - 3 * c + d) * t**3
            )
        )
    return np.concatenate(parts)


def render(lines: list[np.ndarray], widths: np.ndarray, side: int) -> Image.Image:
    """Draws lines (N, 2) on (side, side) pixels with a round pen, 255 on 0. `widths` are those of
    the pen in pixels, at equal distances from the start to the end of each line."""
    scale = 2  # drawn larger, and then reduced
    image = Image.new("L", (scale * side, scale * side))
    pen = ImageDraw.Draw(image)
    for line in lines:
        own = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(widths)), widths)
        points = [tuple(point) for point in scale * line]
        for start, end, width in zip(points, points[1:], own, strict=False):
            pen.line([start, end], fill=255, width=max(1, round(scale * width)))
        for (x, y), radius in zip(points, scale * own / 2, strict=True):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    return image.resize((side, side), Image.Resampling.BOX)


def draw(digit: int, random: np.random.Generator, forms: list[Form] = DIGITS) -> np.ndarray:
    """Returns an image of a digit: (112, 112), uint8, 0 for paper to 255 for ink. `forms` draws the
    strokes of each digit."""
    strokes = [curve(points) for points in forms[digit](random)]
    everything = np.concatenate(strokes)
    low, high = everything.min(0), everything.max(0)
    # Narrow digits stay narrow.
    aspect = random.uniform(0.5, 0.85)
    slant, turn = random.normal(0, 0.18), np.radians(random.normal(0, 5))
    cos, sin = np.cos(turn), np.sin(turn)
    shape = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, -slant], [0, 1]])
    shape = shape @ np.diag([aspect, 1.0])
    side = SIDE * ENLARGED // 2  # 112
    wobble = random.normal(0, 0.012, 2)
    middle = (low + high) / 2
    scale = 0.62 * side
    lines = [((stroke - middle + wobble) @ shape.T) * scale + side / 2 for stroke in strokes]
    width = scale * random.choice([0.04, 0.07, 0.1, 0.14]) * random.uniform(0.8, 1.25)
    return np.asarray(render(lines, np.array([width]), side))
