"""Measures how well `train --preset adapt` teaches a network a writer's hand.

Run: make adapt    (about three minutes on two cores)
Writes: target/adapt/SEED, the writer's digits as folders of pictures, and a run for each row

The writer is a pen with forms of its own: a 1 with a long, flat upstroke, which networks that know
MNIST only read as 7; a 7 with a serif and a low bar; a 9 whose leg ends in a wide flag. The network
learns from some digits of each class, and is then tested on 100 others of each class and on MNIST's
test images. Prints a table of means and standard deviations over the seeds.
"""

import argparse
import json
import shutil
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pen
from PIL import Image

ROOT = Path(__file__).parent.parent
BINARIES = ROOT / "target" / "release"
OUT = ROOT / "target" / "adapt"
TESTS = 100

# The rows of the table: the weights, the classes that the writer shows, and pictures of each.
ROWS = [
    ("lenet5", range(10), 10),
    ("lenet5", range(10), 20),
    ("lenet5", range(10), 50),
    ("lenet5", (1, 7), 20),
    ("lenet5-reading", range(10), 20),
]


def one(r: np.random.Generator) -> list[pen.Points]:
    length, angle = r.normal(0.7, 0.04), np.radians(r.normal(32, 3))
    top, foot = (0.55, 0.0), (r.normal(0.55, 0.03), 1.0)
    start = (top[0] - length * np.cos(angle), length * np.sin(angle))
    middle = ((start[0] + top[0]) / 2, start[1] / 2)
    return [[start, middle, top, top, ((top[0] + foot[0]) / 2, 0.5), foot]]


def seven(r: np.random.Generator) -> list[pen.Points]:
    left, right = (r.normal(0.1, 0.03), r.normal(0.08, 0.02)), (r.normal(0.95, 0.03), 0.05)
    foot = (r.normal(0.35, 0.04), 1.0)
    middle = (r.normal(0.6, 0.03), 0.55)
    serif = (left[0] - 0.02, r.normal(0.32, 0.03))
    bar = r.normal(0.68, 0.03)
    return [[serif, left, left, right, right, middle, foot], [(0.2, bar), (0.85, bar - 0.06)]]


def nine(r: np.random.Generator) -> list[pen.Points]:
    x, y, width, height = r.normal(0.55, 0.02), 0.22, r.normal(0.3, 0.02), r.normal(0.2, 0.02)
    angles = np.radians(r.normal(-30, 8)) - np.linspace(0, 2 * np.pi, 9)
    loop = [(x + width * np.cos(a), y + height * np.sin(a)) for a in angles]
    leg = [(x + width, y), (x + width - 0.02, 0.7), (x, 0.98), (x - 0.5, r.normal(0.72, 0.04))]
    return [[*loop, *leg]]


FORMS = [*pen.DIGITS]
FORMS[1], FORMS[7], FORMS[9] = one, seven, nine


def write_digits(folder: Path, classes: range | tuple, count: int, seed: int) -> Path:
    """Draws the writer's digits, dark on white, in a folder for each class."""
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(seed)
    for label in classes:
        (folder / str(label)).mkdir(parents=True)
        for i in range(count):
            ink = pen.draw(label, random, FORMS)
            Image.fromarray(255 - ink).save(folder / str(label) / f"{i:03}.png")
    return folder


def run(program: str, *arguments: str | Path) -> str:
    command = [BINARIES / program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def errors(weights: Path, digits: Path) -> tuple[float, float]:
    """The errors on the writer's digits and on MNIST's test images, in percent."""
    own, mnist = (
        json.loads(run("evaluate", weights, "--json", *data)) for data in (("--data", digits), ())
    )
    return own["error_percent"], mnist["error_percent"]


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--options", default="", help="more options of `train`")
    arguments = parser.parse_args()
    print("| weights | pictures | writer before % | after % | MNIST before % | after % |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    for name, classes, count in ROWS:
        weights = ROOT / "weights" / f"{name}.pt"
        results = []  # for each seed: writer before and after, MNIST before and after
        for seed in range(1, arguments.seeds + 1):
            folder = OUT / str(seed)
            digits = write_digits(folder / "digits", classes, count, seed)
            tests = write_digits(folder / "tests", range(10), TESTS, 1000 + seed)
            shutil.rmtree(folder / "run", ignore_errors=True)
            options = ("--preset=adapt", "--init", weights, "--data", digits, f"--seed={seed}")
            run("train", *options, "--out", folder / "run", *arguments.options.split())
            before, after = errors(weights, tests), errors(folder / "run" / "model.pt", tests)
            results.append([before[0], after[0], before[1], after[1]])
        shown = "each class" if len(classes) == 10 else "1 and 7"
        cells = [spread(list(values)) for values in zip(*results, strict=True)]
        print(f"| {name} | {count} of {shown} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
