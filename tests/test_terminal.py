"""Tests `train` on a terminal of 40 columns, and after that terminal is closed.

Run: pytest tests/test_terminal.py, after `cargo build --release`.
"""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest

TRAIN = Path(__file__).parent.parent / "target" / "release" / "train"
COLUMNS = 40
SETTINGS = ("--device=cpu", "--threads=1", "--engine=libtorch", "--batch-size=16", "--epochs=2")


def start(folder: Path, limit: int, prepare=lambda: None) -> tuple[subprocess.Popen, int]:
    """Starts `train` in a new session; returns it and the other side of its new terminal."""
    if not TRAIN.exists():
        pytest.skip("there is no target/release/train; run cargo build --release")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))

    def controlled() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        prepare()

    command = [TRAIN, *SETTINGS, f"--limit={limit}", "--out", folder / "run"]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=controlled,
    )
    os.close(slave)
    return process, master


def read(master: int, until=lambda text: False) -> str:
    """Reads what the program writes, to its end or until `until` holds."""
    text = b""
    while not until(text):
        try:
            more = os.read(master, 4096)
        except OSError:  # The other side is closed.
            break
        if not more:
            break
        text += more
    return text.decode()


def test_nothing_wraps(tmp_path):
    process, master = start(tmp_path, 2000)
    text = read(master)
    os.close(master)
    assert process.wait(timeout=60) == 0, text
    # Each piece begins at the start of a terminal line.
    pieces = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", text))
    table = next(i for i, piece in enumerate(pieces) if piece.startswith("epoch  "))
    assert max(map(len, pieces[table:])) <= COLUMNS, pieces
    assert pieces[table] == "epoch  train loss   test error %"
    rows = [
        piece for piece in pieces[table + 1 :] if re.fullmatch(r" +[12] +[\d.]+ +[\d.]+", piece)
    ]
    assert len(rows) == 2 and all(len(row) == 32 for row in rows), pieces
    bars = [piece for piece in pieces if re.match(r"epoch 1/2 [\d,]+/2,000, \d+s left *$", piece)]
    assert bars, pieces


def test_a_closed_terminal_ends_no_training_under_nohup(tmp_path):
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process, master = start(tmp_path, 2000, ignore)
    read(master, lambda text: b"left" in text)
    os.close(master)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "run" / "curve.png").exists()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_closed_terminal_stops_training_otherwise(tmp_path):
    process, master = start(tmp_path, 60_000)
    read(master, lambda text: b"left" in text)
    os.close(master)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert (tmp_path / "run" / "checkpoint.pth").exists()
