"""What the tests and the benchmark of the page share: the service, the browser, and handwriting.

Use: from page_driver import CHROMIUM, FLAGS, on_sheet, serving; with serving() as (address, _): ...
"""

import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVE = ROOT / "target" / "release" / "serve"
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextmanager
def serving(*options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Starts the service; yields its address and its process."""
    command = [SERVE, "--addr", "127.0.0.1:0", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), line
        yield line.split()[-1], process
    finally:
        process.terminate()
        process.wait(timeout=30)


def arc(x: float, y: float, width: float, height: float, start: int, end: int) -> list:
    """Returns points of an ellipse; angles are in degrees, 0 is right and 90 is down."""
    steps = max(2, abs(end - start) // 12)
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + width * math.cos(a), y + height * math.sin(a)) for a in angles]


# Strokes of handwritten digits, in a square of side 1.
DIGITS = {
    "0": [arc(0.5, 0.5, 0.3, 0.45, -80, 285)],
    "1": [[(0.38, 0.24), (0.55, 0.05), (0.52, 0.95)]],
    "2": [[*arc(0.48, 0.28, 0.27, 0.22, -170, 50), (0.2, 0.93), (0.8, 0.92)]],
    "3": [arc(0.46, 0.28, 0.26, 0.22, -150, 85) + arc(0.45, 0.72, 0.31, 0.24, -85, 150)],
    "4": [[(0.32, 0.06), (0.18, 0.56), (0.84, 0.53)], [(0.68, 0.1), (0.6, 0.96)]],
    "5": [[(0.74, 0.07), (0.34, 0.08), (0.29, 0.45), *arc(0.47, 0.68, 0.28, 0.26, -120, 145)]],
    "6": [[(0.64, 0.05), (0.42, 0.26), (0.27, 0.56), *arc(0.5, 0.72, 0.24, 0.22, -180, 160)]],
    "7": [[(0.2, 0.1), (0.8, 0.08), (0.58, 0.45), (0.45, 0.95)]],
    "8": [
        [
            (0.5 + 0.27 * math.sin(2 * t), 0.5 - 0.45 * math.cos(t))
            for t in (2 * math.pi * i / 36 for i in range(37))
        ]
    ],
    "9": [[*arc(0.48, 0.3, 0.25, 0.24, -10, -370), (0.71, 0.6), (0.64, 0.96)]],
}


def on_sheet(text: str) -> Iterator[list[list[tuple[float, float]]]]:
    """Yields the strokes of each digit of a line that fills the sheet, whose sides count as 1."""
    across = 0.94 / max(len(text), 2)
    start = 0.5 - across * len(text) / 2
    height = min(0.8, across * 4 / 3)
    for i, digit in enumerate(text):
        left, top = start + across * (i + 0.06), 0.5 - height / 2
        yield [
            [(left + across * 0.88 * x, top + height * y) for x, y in stroke]
            for stroke in DIGITS[digit]
        ]
