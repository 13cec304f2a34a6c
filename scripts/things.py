"""Draws things and symbols that are no digits, as lines.

Use: from things import THINGS; thing = random.choice(THINGS)(numpy.random.default_rng(0))

A thing is a list of parts, from the back to the front. A part is an array of points (N, 2), with y
downwards, and whether the line through them is closed. Random numbers move the points a little.
"""

import numpy as np
from pen import curve

Thing = list[tuple[np.ndarray, bool]]


def oval(x, y, w, h=None, start=0, end=360) -> tuple[np.ndarray, bool]:
    """An oval with this centre, or an arc of it, in degrees, clockwise from the right."""
    a = np.radians(np.linspace(start, end, 40))
    points = np.stack([x + w * np.cos(a), y + (h or w) * np.sin(a)], 1)
    return points, end - start == 360


def shape(*points) -> tuple[np.ndarray, bool]:
    """Straight lines, closed."""
    return np.array(points, float), True


def line(*points) -> tuple[np.ndarray, bool]:
    """Straight lines."""
    return np.array(points, float), False


def soft(*points) -> tuple[np.ndarray, bool]:
    """A smooth line; at a point that is repeated it has a corner."""
    return curve(list(points)), False


def softshape(*points) -> tuple[np.ndarray, bool]:
    """A smooth line, closed."""
    return curve([*points, points[0]]), True


def box(left, top, right, bottom) -> tuple[np.ndarray, bool]:
    return shape((left, top), (right, top), (right, bottom), (left, bottom))


def mirrored(parts: Thing, x: float) -> Thing:
    """The parts and their mirror images on the other side of a vertical line."""
    return [*parts, *((points * [-1, 1] + [2 * x, 0], closed) for points, closed in parts)]


def cat(r) -> Thing:
    ear = r.uniform(25, 35)
    sides = [
        shape((25, 35), (28, 35 - ear), (48, 25)),
        oval(38, 45, r.uniform(4, 7)),
        line((40, 62), (8, 55)),
        line((40, 65), (8, 68)),
    ]
    body = softshape((50, 70), (75, 100), (78, 135), (50, 140), (22, 135), (25, 100))
    tail = soft((76, 130), (105, 125), (110, 100), (100, 85))
    return [
        body,
        tail,
        oval(50, 50, 32, 28),
        *mirrored(sides, 50),
        shape((45, 57), (55, 57), (50, 63)),
    ]


def banana(r) -> Thing:
    bow = r.uniform(25, 45)
    peel = softshape((0, 10), (20, 40 + bow / 2), (60, 50 + bow / 2), (100, 20), (60, 30), (20, 20))
    return [peel, soft((10, 20), (50, 45 + bow / 4), (90, 25)), shape((98, 22), (104, 10), (96, 8))]


def boot(r) -> Thing:
    high = r.uniform(50, 90)
    leather = softshape(
        (20, -high),
        (20, -high),
        (55, -high),
        (55, -high),
        (58, -25),
        (95, -15),
        (105, 8),
        (105, 8),
        (20, 8),
        (20, 8),
    )
    laces = [line((45, y), (62, y + 5)) for y in np.linspace(-high + 15, -20, 4)]
    return [leather, box(18, 8, 107, 18), *laces]


def face(r) -> Thing:
    eye = [oval(35, 42, r.uniform(4, 8), r.uniform(3, 6)), soft((26, 30), (35, 26), (44, 30))]
    mouth = soft((32, 70), (50, 70 + r.uniform(5, 18)), (68, 70))
    hair = [soft((x, 12), (x + r.uniform(-8, 8), -5)) for x in np.linspace(25, 75, 7)]
    nose = soft((50, 45), (44, 60), (52, 61))
    return [oval(50, 50, 40, 48), *mirrored(eye, 50), mouth, nose, *hair]


def house(r) -> Thing:
    roof = shape((-8, 40), (50, r.uniform(-15, 10)), (108, 40))
    window = [box(60, 55, 85, 80), line((72, 55), (72, 80)), line((60, 67), (85, 67))]
    return [box(70, -10, 82, 25), box(0, 40, 100, 110), roof, box(18, 65, 40, 110), *window]


def tree(r) -> Thing:
    if r.random() < 0.5:
        steps = [shape((50, y), (50 - w, y + 35), (50 + w, y + 35)) for y, w in ((40, 40), (0, 28))]
        return [box(44, 75, 56, 100), *steps]
    crown = [oval(50 + x, 30 + y, 25, 22) for x, y in ((-22, 5), (22, 5), (0, -14), (0, 12))]
    return [shape((42, 100), (46, 40), (54, 40), (58, 100)), *crown]


def fish(r) -> Thing:
    fins = [shape((92, 50), (125, 30), (118, 50), (125, 70)), soft((40, 26), (55, 10), (70, 28))]
    scales = [oval(x, 50, 10, 12, -60, 60) for x in (40, 55, 70)]
    return [*fins, oval(50, 50, 46, r.uniform(20, 32)), oval(20, 45, 4), *scales]


def cup(r) -> Thing:
    steam = [soft((x, 5), (x + 6, -5), (x - 4, -16), (x + 4, -28)) for x in (30, 50)]
    side = shape((0, 15), (80, 15), (r.uniform(60, 75), 80), (12, 80))
    return [oval(82, 42, 20, 18, -100, 110), side, oval(40, 15, 40, 7), *steam]


def star(r) -> Thing:
    count = int(r.integers(5, 9))
    a = np.pi * np.arange(2 * count) / count
    radius = np.where(np.arange(2 * count) % 2, r.uniform(18, 26), 50)
    points = np.stack([radius * np.sin(a), -radius * np.cos(a)], 1)
    return [shape(*points)]


def flower(r) -> Thing:
    count = int(r.integers(5, 9))
    petals = []
    for i in range(count):
        a = 2 * np.pi * i / count
        petals.append(oval(50 + 26 * np.cos(a), 26 * np.sin(a), 13))
    leaf = softshape((50, 90), (50, 90), (75, 70), (92, 72), (75, 88))
    return [soft((50, 10), (47, 60), (52, 120)), leaf, *petals, oval(50, 0, 15)]


def car(r) -> Thing:
    body = shape((0, 40), (22, 38), (38, 12), (85, 12), (102, 38), (120, 42), (120, 62), (0, 62))
    wheels = [part for x in (28, 95) for part in (oval(x, 62, 14), oval(x, 62, 5))]
    windows = [shape((30, 37), (42, 18), (58, 18), (58, 37)), shape((64, 37), (64, 18), (92, 37))]
    return [body, *windows, *wheels]


def umbrella(r) -> Thing:
    edge = [(50 - 50 * np.cos(a), 50 - 45 * np.sin(a)) for a in np.linspace(0, np.pi, 20)]
    ribs = [soft((50, 5), (50 + x, 25), (50 + 1.4 * x, 50)) for x in (-14, 14)]
    return [line((50, 0), (50, 90)), oval(43, 90, 7, 8, 0, 180), shape(*edge), *ribs]


def bird(r) -> Thing:
    wing = softshape((38, 48), (38, 48), (60, 38), (82, 55), (60, 62))
    legs = [line((x, 72), (x, 90), (x - 6, 92), (x, 90), (x + 7, 92)) for x in (48, 60)]
    tail = shape((88, 45), (120, 35), (116, 52), (92, 58))
    beak = shape((6, 28), (-10, 33), (7, 37))
    return [tail, oval(58, 52, 36, 22), oval(20, 30, 16), oval(16, 27, 3), beak, wing, *legs]


def ship(r) -> Thing:
    hull = shape((0, 70), (110, 70), (92, 95), (18, 95))
    sails = [shape((58, 60), (58, 0), (100, 60)), shape((50, 60), (50, 10), (12, 60))]
    return [hull, line((54, 70), (54, -6)), *sails, soft((-10, 100), (20, 94), (50, 102), (90, 96))]


def butterfly(r) -> Thing:
    upper = softshape((50, 40), (50, 40), (15, -5), (-5, 20), (12, 45))
    lower = softshape((50, 50), (50, 50), (15, 52), (8, 80), (30, 88))
    feeler = soft((50, 25), (44, 8), (34, 2))
    return [*mirrored([upper, lower, oval(18, 25, 7), feeler], 50), oval(50, 48, 4, 26)]


def apple(r) -> Thing:
    fruit = softshape((50, 20), (50, 20), (75, 8), (98, 35), (80, 85), (50, 92))
    leaf = softshape((52, 5), (52, 5), (65, -15), (85, -12), (72, 2))
    half = softshape((50, 20), (50, 20), (25, 8), (2, 35), (20, 85), (50, 92), (75, 88), (98, 40))
    return [half, fruit, soft((50, 22), (50, 8), (46, -5)), leaf][0 if r.random() < 0.5 else 1 :]


def trousers(r) -> Thing:
    wide = r.uniform(10, 20)
    legs = shape((20, 0), (80, 0), (80 + wide / 2, 120), (62, 120), (50, 40), (38, 120), (15, 120))
    return [legs, box(20, 0, 80, 10), line((50, 10), (50, 40))]


def bag(r) -> Thing:
    return [
        oval(50, 30, r.uniform(22, 34), r.uniform(25, 45), 180, 360),
        shape((0, 30), (100, 30), (r.uniform(95, 110), 100), (-5, 100)),
        line((0, 50), (104, 50)),
        box(42, 44, 58, 58),
    ]


def shirt(r) -> Thing:
    sleeve = r.uniform(35, 90)
    half = [(60, 0), (85, 8), (105, sleeve), (85, sleeve + 8), (78, 35), (78, 105)]
    other = [(100 - x, y) for x, y in reversed(half)]
    buttons = [oval(50, y, 2) for y in (30, 50, 70)]
    return [shape(*half, *other), soft((40, 0), (50, 12), (60, 0)), *buttons]


def dress(r) -> Thing:
    half = [(58, 0), (68, 0), (66, 25), (62, 45), (r.uniform(75, 100), 125)]
    other = [(100 - x, y) for x, y in reversed(half)]
    return [shape(*half, *other), line((38, 45), (62, 45))]


def shoe(r) -> Thing:
    points = [(0, 25), (0, 25), (20, 25), (35, 28), (r.uniform(60, 75), 45), (100, 55), (105, 70)]
    upper = softshape(*points, (105, 70), (0, 70), (0, 70))
    return [
        upper,
        box(-2, 68, 107, 76),
        *(line((40 + x, 38 + x / 2), (50 + x, 28)) for x in (0, 9)),
    ]


THINGS = [
    *(cat, banana, boot, face, house, tree, fish, cup, star, flower, car, umbrella, bird, ship),
    *(butterfly, apple, trousers, bag, shirt, dress, shoe),
]
CLOTHES = [boot, trousers, bag, shirt, dress, shoe]


def arrow(r) -> Thing:
    """Across, with one or two heads; or a thick one in outline."""
    if r.random() < 0.4:
        points = [(0, 35), (60, 35), (60, 10), (100, 50), (60, 90), (60, 65), (0, 65)]
        return [shape(*points)]
    heads = [line((100 - 25, 25), (100, 50), (100 - 25, 75))]
    shaft = [line((0, 50), (100, 50))]
    return [*shaft, *(mirrored(heads, 50) if r.random() < 0.4 else heads)]


def note(r) -> Thing:
    """One or two notes of music on lines."""
    lines = [line((-10, y), (120, y)) for y in range(0, 101, 20)] if r.random() < 0.5 else []
    heads = [oval(20, 80, 13, 10), oval(80, 72, 13, 10)]
    return [*lines, *heads, line((33, 80), (33, 10), (93, 2), (93, 72)), line((33, 20), (93, 12))]


def smiley(r) -> Thing:
    mouth = oval(50, 55, 26, 24, 20, 160) if r.random() < 0.6 else oval(50, 85, 26, 20, 200, 340)
    return [oval(50, 50, 48), *mirrored([oval(34, 38, 4, 7)], 50), mouth]


def check(r) -> Thing:
    mark = line((20, 50), (45, 78), (r.uniform(90, 110), r.uniform(-5, 15)))
    return [mark] if r.random() < 0.5 else [mark, box(0, 10, 90, 100)]


def cross(r) -> Thing:
    return [line((0, 0), (100, 100)), line((100, 0), (0, 100))]


def plus(r) -> Thing:
    return [line((0, 50), (100, 50)), line((50, 0), (50, 100))]


def heart(r) -> Thing:
    half = [(50, 25), (50, 25), (70, 0), (98, 15), (90, 50), (50, 95), (50, 95)]
    return [softshape(*half, *((100 - x, y) for x, y in reversed(half[2:5])))]


def plot(r) -> Thing:
    """Axes with a curve or with bars."""
    axes = [line((0, -5), (0, 100), (140, 100))]
    x = np.linspace(5, 135, 12)
    if r.random() < 0.5:
        y = 50 + np.cumsum(r.normal(0, 15, 12)).clip(-45, 40)
        return [*axes, line(*zip(x, y, strict=True))]
    return [*axes, *(box(a, r.uniform(0, 85), a + 8, 100) for a in x[::2])]


def network(r) -> Thing:
    """Circles that are joined by lines, as in a drawing of a graph."""
    at = [np.array([x, y]) + r.normal(0, 8, 2) for x in (0, 60, 120) for y in (0, 60)]
    joined = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)]
    lines = [line(at[a] * 0.8 + at[b] * 0.2, at[a] * 0.2 + at[b] * 0.8) for a, b in joined]
    return [*lines, *(oval(*place, 13) for place in at)]


def sun(r) -> Thing:
    rays = np.linspace(0, 2 * np.pi, int(r.integers(8, 16)), endpoint=False)
    direction = [np.array([np.cos(a), np.sin(a)]) for a in rays]
    return [oval(0, 0, 22), *(line(20 * d, 50 * d) for d in direction)]


def lightning(r) -> Thing:
    return [shape((40, 0), (75, 0), (58, 35), (85, 35), (25, 105), (42, 55), (15, 55))]


SYMBOLS = [arrow, note, smiley, check, cross, plus, heart, plot, network, sun, lightning]
