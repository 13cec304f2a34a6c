"""Tests that `predict` reads most pictures of each kind of scripts/pictures.py.

Run: pytest tests/test_pictures.py, after `cargo build --release`. `make pictures` reads more of
them, and prints the accuracies in docs/src/reading.md.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import pictures

COUNT = 24


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> dict[str, list[tuple[str, str, str]]]:
    folder = tmp_path_factory.mktemp("pictures")
    pictures.make(folder, list(pictures.KNOWN), COUNT, seed=2)
    return pictures.read(folder, [])


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", pictures.KNOWN)
def test_most_are_read_right(readings, kind):
    found = readings[kind]
    assert len(found) == COUNT
    wrong = [f"{text} as {answer!r}" for text, answer, _ in found if text != answer]
    if kind in pictures.LINES:  # up to 50 digits in a picture
        assert pictures.digits_right(found) >= 0.97, wrong
    else:
        most = {"gap-1": 6, "gap0": 4}.get(kind, 3)
        assert len(wrong) <= most, wrong


def test_distance():
    assert pictures.distance("", "12") == 2
    assert pictures.distance("1234", "134") == 1
    assert pictures.distance("17", "71") == 2
    assert pictures.digits_right([("1234", "134", ""), ("5", "5", "")]) == 0.8
