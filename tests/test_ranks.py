"""Tests jobs of several ranks of `train`: started by torchrun, killed, stopped, and cut off.

Run: pytest tests/test_ranks.py, after `cargo build --release`; -m exhaustive for the random faults
and the network that is cut. The latter needs root and `ip netns`.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
TRAIN = ROOT / "target" / "release" / "train"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--no-python"]
SETTINGS = ["--device=cpu", "--threads=1", "--limit=1000"]
# Seconds after which a rank that does not answer is given up, and what may come on top.
TIMEOUT, SLACK = 3, 17

pytestmark = pytest.mark.skipif(not TRAIN.exists(), reason="run cargo build --release")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoint.pth", weights_only=True)["model"]


def same_bits(a: Path, b: Path) -> bool:
    a, b = weights(a), weights(b)
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def torchrun(out: Path, *options: str, more: tuple[str, ...] = ()) -> subprocess.Popen:
    """Starts `train` by torchrun."""
    command = [*TORCHRUN, *options, TRAIN, *SETTINGS, f"--timeout={TIMEOUT}", f"--out={out}", *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str, str]:
    """Waits for a process; returns its exit code and its output."""
    try:
        out, errors = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, errors


def ranks_of(agent: subprocess.Popen) -> list[int]:
    """The processes that torchrun has started."""
    found = subprocess.run(
        ["pgrep", "-P", str(agent.pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Six epochs of two ranks."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    code, _, errors = ended(torchrun(out, "--standalone", "--nproc-per-node=2", more=EPOCHS))
    assert code == 0, errors
    return out


EPOCHS = ("--epochs=6", "--batch-size=8")


def test_rank_0_writes_the_event_files(tmp_path):
    out = tmp_path / "run"
    settings = ("--epochs=1", "--tensorboard")
    code, _, errors = ended(torchrun(out, "--standalone", "--nproc-per-node=2", more=settings))
    assert code == 0, errors
    assert len(list(out.glob("*tfevents*"))) == 1


def test_two_nodes_find_each_other(tmp_path, undisturbed):
    for backend in ("static", "c10d"):
        port, out = free_port(), tmp_path / backend
        options = ["--nnodes=2", "--nproc-per-node=1"]
        if backend == "static":
            options += ["--master-addr=127.0.0.1", f"--master-port={port}"]
            nodes = [["--node-rank=0"], ["--node-rank=1"]]
        else:
            options += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=7"]
            nodes = [[], []]
        agents = [torchrun(out, *options, *node, more=EPOCHS) for node in nodes]
        for agent in agents:
            code, _, errors = ended(agent)
            assert code == 0, errors
        assert same_bits(out, undisturbed)


def test_a_restarted_job_goes_on(tmp_path, undisturbed):
    out = tmp_path / "run"
    agent = torchrun(
        out, "--standalone", "--nproc-per-node=2", "--max-restarts=2", "--monitor-interval=0.1",
        more=EPOCHS,
    )  # fmt: skip
    while not (out / "metrics.jsonl").exists():
        assert agent.poll() is None, agent.communicate()
        time.sleep(0.01)
    os.kill(ranks_of(agent)[-1], signal.SIGKILL)
    code, _, errors = ended(agent)
    assert code == 0, errors
    assert "rank 1 does not answer" in errors or "rank 0" in errors
    assert same_bits(out, undisturbed)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_torchrun_shows_the_error(tmp_path):
    agent = torchrun(
        tmp_path / "run", "--standalone", "--nproc-per-node=2", more=("--data", "/no/such/folder")
    )
    code, _, errors = ended(agent)
    assert code == 1
    assert "/no/such/folder" in errors.split("Root Cause")[1], errors


def job(size: int, out: Path) -> list[subprocess.Popen]:
    """Starts ranks without torchrun, which train for long."""
    port = free_port()
    settings = [*SETTINGS, "--epochs=100000", "--lr=0.0001", f"--timeout={TIMEOUT}"]

    def start(rank: int) -> subprocess.Popen:
        place = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return subprocess.Popen(
            [TRAIN, *settings, f"--out={out}"],
            env=os.environ | {name: str(value) for name, value in place.items()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return [start(rank) for rank in range(size)]


# Jobs that run side by side: most of their time they wait for a timeout.
AT_ONCE = 3


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(10))
def test_ranks_lost_at_random_moments(tmp_path, seed):
    r = random.Random(seed)
    jobs = [job(r.randint(2, 4), tmp_path / f"run{i}") for i in range(AT_ONCE)]
    try:
        lost = []
        for ranks in jobs:
            time.sleep(r.uniform(0, 3))
            lost.append(r.randrange(len(ranks)))
            ranks[lost[-1]].send_signal(r.choice([signal.SIGKILL, signal.SIGSTOP]))
        start = time.monotonic()
        for ranks, lost_rank in zip(jobs, lost, strict=True):
            for rank in (rank for rank in range(len(ranks)) if rank != lost_rank):
                _, errors = ranks[rank].communicate(timeout=TIMEOUT + SLACK)
                assert ranks[rank].returncode == 1, errors
                assert f"error: rank {rank}: " in errors
                assert f"rank {lost_rank}" in errors.split(f"error: rank {rank}: ")[1], errors
        assert time.monotonic() - start < TIMEOUT + SLACK
    finally:
        for rank in (rank for ranks in jobs for rank in ranks):
            rank.kill()
            rank.communicate()


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(4))
def test_restarts_at_random_moments(tmp_path, undisturbed, seed):
    r = random.Random(seed)
    agents = [
        torchrun(
            tmp_path / f"run{i}", "--standalone", "--nproc-per-node=2", "--max-restarts=3",
            "--monitor-interval=0.1", more=EPOCHS,
        )
        for i in range(AT_ONCE)
    ]  # fmt: skip
    for i, agent in enumerate(agents):
        while len(ranks_of(agent)) < 2:
            assert agent.poll() is None, agent.communicate()
            time.sleep(0.01)
        time.sleep(r.uniform(0, 1.5))
        kind = signal.SIGSTOP if (seed + i) % 6 == 0 else signal.SIGKILL
        running = ranks_of(agent)
        if running:
            os.kill(r.choice(running), kind)
    for i, agent in enumerate(agents):
        code, _, errors = ended(agent)
        assert code == 0, errors
        assert same_bits(tmp_path / f"run{i}", undisturbed)


@pytest.mark.exhaustive
def test_a_network_that_is_cut(tmp_path):
    names = ["lenet5-a", "lenet5-b"]

    def ip(*arguments: str) -> bool:
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0

    if not shutil.which("ip") or not ip("netns", "add", names[0]):
        pytest.skip("no network namespaces here: ip netns add failed")
    ranks = []
    try:
        ip("netns", "add", names[1])
        assert ip("link", "add", "lenet5-0", "type", "veth", "peer", "name", "lenet5-1")
        for i, name in enumerate(names):
            assert ip("link", "set", f"lenet5-{i}", "netns", name)
            assert ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", f"lenet5-{i}")
            assert ip("-n", name, "link", "set", f"lenet5-{i}", "up")
            assert ip("-n", name, "link", "set", "lo", "up")
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500"}
        ranks = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, TRAIN, *SETTINGS, "--epochs=100000", "--lr=0.0001",
                 f"--timeout={TIMEOUT}", f"--out={tmp_path / 'run'}"],
                env=os.environ | place | {"RANK": str(i), "GLOO_SOCKET_IFNAME": f"lenet5-{i}"},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for i, name in enumerate(names)
        ]  # fmt: skip
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            for rank in ranks:
                assert rank.poll() is None, rank.communicate()
            time.sleep(0.01)
        assert ip("-n", names[0], "link", "set", "lenet5-0", "down")
        errors = [rank.communicate(timeout=TIMEOUT + SLACK)[1] for rank in ranks]
        assert "error: rank 0: rank 1 does not answer" in errors[0]
        assert "error: rank 1: rank 0, which holds the store, does not answer" in errors[1]
    finally:
        for rank in ranks:
            rank.kill()
        for name in names:
            ip("netns", "del", name)
