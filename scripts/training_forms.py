"""The forms of digits in the training data: paths of a pen, as many people write them.

Use: from training_forms import FORMS; strokes = FORMS[1](numpy.random.default_rng(0))

A form is a list of strokes, and a stroke is a list of points in a box of about width 1 and height
1, with y downwards, as in pen.py. These paths are others than those of pen.py, which measure the
result: no code that chooses points is shared.
"""

import numpy as np

Points = list[tuple[float, float]]


def oval(x, y, width, height, start, turns, count=10) -> Points:
    """Returns points on an oval around (x, y), from the angle `start` in degrees, clockwise."""
    angles = np.radians(start) + np.linspace(0, 2 * np.pi * turns, count)
    return [(x + width * np.cos(a), y + height * np.sin(a)) for a in angles]


def zero(r) -> list[Points]:
    """Narrow or wide; the ends may not meet, may cross, or may have a tail."""
    direction = -1 if r.random() < 0.75 else 1
    turns = direction * (r.uniform(0.88, 1.1) if r.random() < 0.85 else r.uniform(0.75, 0.9))
    path = oval(0.5, 0.5, r.uniform(0.22, 0.5), 0.5, r.uniform(-150, -30), turns, 12)
    tail = r.random()
    (first_x, first_y), (last_x, last_y) = path[0], path[-1]
    if tail < 0.15:
        path[0] = (first_x + r.normal(0, 0.15), first_y - r.uniform(0, 0.15))
    elif tail < 0.25:
        path.append((last_x + r.normal(0, 0.2), last_y + r.normal(0, 0.12)))
    return [path]


def one(r) -> list[Points]:
    """A stem; an upstroke of any length, which may start at the base line; a base line."""
    foot = (0.5 + r.normal(0, 0.05), 1.0)
    stem = [(0.5, 0.0), ((0.5 + foot[0]) / 2 + r.normal(0, 0.02), 0.5), foot]
    kind = r.random()
    if kind < 0.25:
        strokes = [stem]
    elif kind < 0.35:  # a small curved start
        width = r.uniform(0.05, 0.2)
        start = [(0.5 - width, r.uniform(0.05, 0.18)), (0.5 - 0.4 * width, 0.01), (0.5, 0.06)]
        strokes = [[*start, *stem[1:]]]
    else:
        strokes = upstroke(r, stem, from_base=kind > 0.85)
    end = r.random()
    if end < 0.28:  # a base line
        left, right, tilt = r.uniform(0.08, 0.4), r.uniform(0.08, 0.4), r.normal(0, 0.03)
        if r.random() < 0.3:
            left, right, tilt = r.uniform(0.2, 0.6), r.uniform(0.2, 0.6), r.uniform(-0.05, 0.2)
        y = 1 - r.uniform(0, 0.04)
        strokes.append([(foot[0] - left, y + tilt), (foot[0] + right, y - tilt)])
    elif end < 0.45:  # the foot bends
        side = 1 if end < 0.4 else -1
        bend = (foot[0] + side * r.uniform(0.04, 0.2), 1 - r.uniform(0, 0.05))
        strokes[-1] = [*strokes[-1][:-1], (foot[0], 0.92), bend]
    return strokes


def upstroke(r, stem: Points, from_base: bool) -> list[Points]:
    """Adds an upstroke to a stem. It may meet the stem below its top, or make a loop there."""
    if from_base:
        x, y = 0.5 - r.uniform(0.25, 0.8), r.uniform(0.7, 1.02)
    else:
        length, angle = r.uniform(0.12, 1.0), np.radians(r.uniform(10, 75))
        x = max(0.5 - length * np.cos(angle), 0.5 - r.uniform(0.6, 0.75))
        y = min(length * np.sin(angle), 1.0)
    below = 0.0 if r.random() < 0.65 else r.uniform(0.02, 0.35)
    meet = (0.5 + (stem[-1][0] - 0.5) * below, below)
    bend = r.normal(0, 0.05)
    sag = abs(bend) if r.random() < 0.67 else -0.6 * abs(bend)
    middle = ((x + meet[0]) / 2 + 0.3 * bend, (y + meet[1]) / 2 + sag)
    lead = [(x, y), middle]
    if r.random() < 0.25:  # a small hook where it starts
        lead = [(x - r.uniform(0, 0.1), y + r.normal(0, 0.06)), (x + 0.02, y + 0.02), middle]
    if below > 0:
        return [[*lead, meet], stem]
    kind = r.random()
    if kind < 0.15:
        w = r.uniform(0.03, 0.1)
        return [[*lead, (0.5 + w, 0.12), (0.5 + w / 2, 0.0), (0.5 - 0.6 * w, 0.08), *stem[1:]]]
    corner = [stem[0]] if kind < 0.83 else []
    return [[*lead, *corner, *stem]]


def two(r) -> list[Points]:
    """With a plain corner, a round corner or a loop at the foot."""
    left = (r.uniform(0, 0.25), r.uniform(0.1, 0.35))
    head = [
        left,
        (r.uniform(0.3, 0.5), r.uniform(-0.02, 0.04)),
        (r.uniform(0.7, 1.0), r.uniform(0.15, 0.32)),
        (r.uniform(0.45, 0.7), r.uniform(0.5, 0.68)),
    ]
    if r.random() < 0.2:  # a curl at the start
        head = [(left[0] + r.uniform(0.02, 0.12), left[1] + r.uniform(0.05, 0.15)), *head]
    x = r.uniform(-0.05, 0.15)
    end = (r.uniform(0.8, 1.15), r.uniform(0.82, 1.02))
    kind = r.random()
    if kind < 0.35:
        s = r.uniform(0.06, 0.18)
        loop = [(x + s, 0.97), (x, 0.95), (x + 0.9 * s, 0.96 - 2 * s)]
        return [[*head, *loop, (r.uniform(0.4, 0.55), r.uniform(0.86, 0.98)), end]]
    foot = (x, r.uniform(0.9, 1.0))
    corner = [foot] if kind < 0.8 else []
    return [[*head, foot, *corner, ((x + end[0]) / 2, 0.95 + r.normal(0, 0.06)), end]]


def three(r) -> list[Points]:
    """With a round or a flat top; the waist is a corner, a curve or a loop."""
    waist = (r.uniform(0.3, 0.55), r.uniform(0.4, 0.52))
    lower = [
        (r.uniform(0.8, 1.02), r.uniform(0.65, 0.76)),
        (r.uniform(0.35, 0.55), 1.0),
        (r.uniform(-0.05, 0.2), r.uniform(0.75, 0.97)),
    ]
    if r.random() < 0.2:
        corner = (r.uniform(0.75, 1), r.uniform(-0.02, 0.04))
        return [[(r.uniform(0, 0.2), r.uniform(0, 0.08)), corner, corner, waist, waist, *lower]]
    kind = r.random()
    x, y = waist
    middle = [waist, waist] if kind < 0.55 else [waist]
    if kind > 0.8:
        middle = [waist, (x - 0.1, y - 0.03), (x - 0.02, y - 0.06), (x + 0.08, y + 0.01)]
    top = [
        (r.uniform(0, 0.25), r.uniform(0.02, 0.25)),
        (r.uniform(0.35, 0.55), 0.0),
        (r.uniform(0.68, 0.92), r.uniform(0.15, 0.27)),
    ]
    return [[*top, *middle, *lower]]


def four(r) -> list[Points]:
    """Open, closed, or in one stroke with a short stem."""
    kind = r.random()
    if kind < 0.6:
        return four_of_two_strokes(r, closed=kind > 0.4)
    left = r.uniform(0, 0.15)
    if kind < 0.8:  # down, to the right, and a short stem down
        top, y = (r.uniform(0.35, 1.0), r.uniform(0, 0.06)), r.uniform(0.55, 0.85)
        middle = ((top[0] + left) / 2 + r.uniform(-0.08, 0.1), y * r.uniform(0.42, 0.6))
        corner = [(left, y)] if r.random() < 0.5 else []
        x, high = r.uniform(0.7, 1.02), y - r.uniform(0, 0.16)
        bar = [((left + x) / 2, y + r.normal(0, 0.03)), (x, high), (x, high)]
        stem_x = x - r.uniform(0, 0.12)
        stem = [(stem_x, (high + 1) / 2), (stem_x - r.uniform(0, 0.15), 1.0)]
        return [[top, middle, (left, y), *corner, *bar, *stem]]
    if kind < 0.9:  # as a flash of lightning: the stem starts near the bar
        y, x = r.uniform(0.55, 0.8), r.uniform(0.55, 0.9)
        top = (r.uniform(0.3, 0.75), 0.0)
        right = (r.uniform(0.85, 1.1), y + r.normal(0, 0.05))
        stem = [(x + r.uniform(0, 0.12), y - r.uniform(0.05, 0.3)), (x, 1.0)]
        return [[top, ((top[0] + left) / 2, y / 2), (left, y), (left, y), right], stem]
    # in one stroke, closed
    x, y = r.uniform(0.6, 0.9), r.uniform(0.5, 0.7)
    top = (x + r.normal(0, 0.02), 0.02)
    first = [(x, r.uniform(0, 0.1)), (x - r.uniform(0.2, 0.35), 0.45 * y), (left, y), (left, y)]
    right = (x + 0.02, y - r.uniform(0, 0.12))
    return [[*first, right, top, top, (x + r.normal(0, 0.05), 1.0)]]


def four_of_two_strokes(r, closed: bool) -> list[Points]:
    """A corner and a stem that crosses its lower side."""
    bar, x = r.uniform(0.5, 0.8), r.uniform(0.5, 0.85)
    left = (r.uniform(-0.02, 0.15), bar + r.normal(0, 0.05))
    right = (max(x + r.uniform(0.02, 0.4), 0.75), bar + r.normal(0, 0.05))
    foot = (x + r.normal(0, 0.08), 1.0)
    if closed:
        top = (x + r.normal(0, 0.03), 0.0)
        corner = [top, ((top[0] + left[0]) / 2 + r.normal(0, 0.03), bar / 2), left, left, right]
        return [corner, [(top[0] + r.normal(0, 0.02), r.uniform(-0.03, 0.08)), (x, 0.6), foot]]
    top = (r.uniform(0.1, 0.5), r.uniform(0, 0.1))
    middle = ((top[0] + left[0]) / 2 + r.normal(0, 0.03), bar * r.uniform(0.4, 0.6))
    turn = [left, left]
    if r.random() < 0.3:
        turn = [(left[0] + 0.02, bar - 0.06), (left[0] + 0.2, bar + 0.03)]
    start = r.uniform(0, 0.5)
    stem = [(x + r.normal(0, 0.05), start), (x, (start + 1) / 2), foot]
    return [[top, middle, *turn, right], stem]


def five(r) -> list[Points]:
    """In one stroke, as an S, or broken: the roof is a stroke of its own, which may not touch."""
    x, y = r.uniform(0.08, 0.35), r.uniform(0.32, 0.52)
    neck = (x - r.uniform(-0.03, 0.12), y)
    right = r.uniform(0.75, 1.02)
    belly = [
        (r.uniform(0.4, 0.6), y - r.uniform(-0.02, 0.12)),
        (right, r.uniform(0.6, 0.74)),
        (r.uniform(0.35, 0.6), 1.0),
        (r.uniform(-0.08, 0.2), r.uniform(0.75, 0.98)),
    ]
    corner = [neck] if r.random() < 0.7 else []
    height = r.uniform(-0.03, 0.05)
    roof = [
        (x + r.uniform(-0.04, 0.06), height + r.normal(0, 0.03)),
        (r.uniform(0.65, 1.15), height + r.normal(0, 0.06)),
    ]
    kind = r.random()
    if kind < 0.45:
        middle = ((roof[0][0] + roof[1][0]) / 2, 0.01)
        return [[roof[1], middle, roof[0], roof[0], neck, *corner, *belly]]
    if kind < 0.6:
        start = [(roof[1][0], r.uniform(0, 0.15)), (r.uniform(0.4, 0.6), 0.0)]
        bend = [(x - 0.03, r.uniform(0.2, 0.28)), (r.uniform(0.4, 0.6), y + 0.05)]
        return [[*start, *bend, (right, r.uniform(0.65, 0.76)), (0.45, 1.0), belly[-1]]]
    lift = r.uniform(-0.08, 0.04)
    roof = [
        (x + r.uniform(-0.08, 0.25), lift),
        (r.uniform(0.7, 1.2), lift + r.normal(0, 0.05)),
    ]
    return [[(x, r.uniform(0.02, 0.12)), neck, *corner, *belly], roof]


def six(r) -> list[Points]:
    """A straight or curved back, and a loop that may stay open, in either direction."""
    x, y = r.uniform(0.42, 0.58), r.uniform(0.64, 0.76)
    width, height = r.uniform(0.28, 0.45), min(r.uniform(0.2, 0.34), 1.02 - y)
    top = (r.uniform(0.35, 1.05), 0.0)
    back = (x - width * r.uniform(0.5, 1.05), r.uniform(0.28, 0.5))
    turns = r.uniform(0.8, 1.12)
    kind = r.random()
    if kind < 0.15:
        return [[top, back, *oval(x, y, width, height, 180, turns)]]
    loop = oval(x, y, width, height, 180, -turns)
    if kind < 0.3:  # a hook at the top
        hook = (top[0] + r.uniform(0, 0.12), r.uniform(0.06, 0.2))
        return [[hook, (top[0] - r.uniform(0.05, 0.15), 0.0), back, *loop]]
    return [[top, back, *loop]]


def seven(r) -> list[Points]:
    """A straight or curved stem, in many cases with a bar, or with a serif at the start."""
    left = (r.uniform(0, 0.25), r.uniform(0, 0.15))
    right = (r.uniform(0.75, 1.05), r.uniform(-0.03, 0.12))
    foot = (r.uniform(0.1, 0.6), 1.0)
    middle = ((right[0] + foot[0]) / 2 + r.uniform(-0.2, 0.08), r.uniform(0.42, 0.58))
    roof = [left, ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2 + r.normal(0, 0.05)), right]
    kind = r.random()
    if kind < 0.35:
        corner = [left] if r.random() < 0.6 else []
        serif = (left[0] + r.normal(-0.02, 0.05), left[1] + r.uniform(0.08, 0.32))
        roof = [serif, left, *corner, *roof[1:]]
    elif kind < 0.42:
        start = (left[0] - r.uniform(0, 0.06), left[1] - r.uniform(0, 0.1))
        roof = [start, (left[0] + 0.05, left[1] + 0.07), *roof[1:]]
    corner = [right] if r.random() < 0.7 else []
    tail = [foot] if r.random() < 0.85 else [(foot[0], 0.92), (foot[0] + r.uniform(0.05, 0.2), 1)]
    strokes = [[*roof, *corner, middle, *tail]]
    if r.random() < 0.5:
        before, after, tilt = r.uniform(0.1, 0.45), r.uniform(0.1, 0.45), r.normal(0, 0.07)
        y = r.uniform(0.36, 0.7)
        x = middle[0] if y < 0.55 else (middle[0] + foot[0]) / 2
        bend = [(x, y + r.normal(0, 0.05))] if r.random() < 0.2 else []
        strokes.append([(x - before, y + tilt), *bend, (x + after, y - tilt)])
    return strokes


def eight(r) -> list[Points]:
    """In one stroke, which may start on either side, or as two ovals."""
    upper, lower = r.uniform(0.2, 0.42), r.uniform(0.26, 0.45)
    waist = r.uniform(0.4, 0.54)
    if r.random() < 0.2:
        gap = r.uniform(-0.025, 0.02)

        def ring(x, y, width, height):
            turns = r.choice([-1, 1]) * r.uniform(0.95, 1.08)
            return oval(x, y, width, height - gap, r.uniform(0, 360), turns)

        return [
            ring(0.5 + r.normal(0, 0.05), waist / 2, upper, waist / 2),
            ring(0.5, (1 + waist) / 2, lower, (1 - waist) / 2),
        ]
    off = r.normal(0, 0.04)
    start = (0.5 + upper * r.uniform(0.5, 1.1), r.uniform(0.02, 0.2))
    low = (waist + 1) / 2
    down = [(0.5 - upper, waist / 2), (0.5 + off, waist), (0.5 + lower, low), (0.5, 1.0)]
    back = [(0.5 - lower, low), (0.5 - off, waist + 0.02), (0.5 + upper, 0.55 * waist)]
    end = (start[0] + r.normal(0, 0.1), start[1] + r.normal(0, 0.07))
    path = [start, (0.5, 0.0), *down, *back, end]
    return [[(1 - x, y) for x, y in path]] if r.random() < 0.15 else [path]


def nine(r) -> list[Points]:
    """A round or flat loop, and a leg that is straight, curved, or ends in a flag or a curl; in one
    of 25 cases the loop is on the right."""
    x, y = r.uniform(0.4, 0.55), r.uniform(0.22, 0.32)
    width, height = r.uniform(0.22, 0.42), min(r.uniform(0.16, 0.32), y + 0.02)
    if r.random() < 0.12:  # a flat loop, which a thick pen fills
        height = r.uniform(0.06, 0.15)
        y = height + r.uniform(0, 0.06)
    if r.random() < 0.04:
        left = x - width
        loop = oval(x, y, width, height, 180, r.uniform(0.85, 1.05))
        return [[(left + r.normal(-0.05, 0.1), 1.0), (left, 0.6), *loop]]
    loop = oval(x, y, width, height, r.uniform(-80, 30), -r.uniform(0.85, 1.1))
    right = x + width
    joint = (right, y)
    if r.random() < 0.3:
        joint = (right + r.normal(0, 0.02), r.uniform(0, 0.12))
    kind = r.random()
    if kind < 0.4:
        foot = (right + r.normal(-0.05, 0.1), 1.0)
        corner = [joint] if r.random() < 0.5 else []
        return [[*loop, joint, *corner, ((right + foot[0]) / 2, 0.6), foot]]
    if kind < 0.65:
        leg = [(right - r.uniform(-0.03, 0.08), 0.62), (right - r.uniform(0.1, 0.3), 0.88)]
        return [[*loop, joint, *leg, (x - r.uniform(0, 0.4), r.uniform(0.9, 1.02))]]
    end = [(x - r.uniform(0, 0.2), 1 - r.uniform(0, 0.06))]
    end.append((x - r.uniform(0.25, 0.6), r.uniform(0.72, 1.0)))
    if r.random() < 0.2:
        end.append((x - r.uniform(0, 0.2), r.uniform(0.64, 0.76)))
    if r.random() < 0.3:  # as a g: the leg starts below the loop
        loop = oval(x, y, width, height, 60, -r.uniform(0.9, 1.05))
        leg = [
            (x + 0.6 * width, y + height + 0.06),
            (x + width * r.uniform(1.0, 1.4), r.uniform(0.68, 0.78)),
        ]
        return [[*loop, *leg, (x + 0.05, 1.0), end[1]]]
    leg = [
        (right + r.uniform(-0.05, 0.14), r.uniform(0.6, 0.75)),
        (right - r.uniform(0.05, 0.25), 0.97),
    ]
    return [[*loop, joint, *leg, *end]]


FORMS = [zero, one, two, three, four, five, six, seven, eight, nine]
