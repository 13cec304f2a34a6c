"""The README's code and commands: every block is run on the shipped weights, or says here why not.

Run: make test, or .venv/bin/python -m pytest tests/test_readme.py    (needs the release binaries)
The Rust blocks are those of examples/readme.rs, which is run.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lenet5 import LeNet5
from mnist import read_mnist
from PIL import Image
from torch import nn

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
PROGRAMS = ROOT / "target" / "release"
# Commands that are not run, by how they begin, and why.
NOT_RUN = {
    "make train": "sets up and trains for minutes: CI does both",
    "make test": "is what runs this",
    "cargo test": "is what runs this",
    "cargo run --release --bin train -- --seed 1": "prints this machine's losses and times",
    "cargo run --release --bin serve": "does not end: the test of curl starts it",
}


def blocks(*languages: str) -> list[str]:
    found = [code for language, code in BLOCKS if language in languages]
    assert found
    return found


def program(name: str, *arguments, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [PROGRAMS / name, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def errors(path: Path) -> int:
    """How many of MNIST's test digits the weights in a file misclassify, and nothing is assumed."""
    result = program("evaluate", "--json", "--weights", path)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return json.loads(result.stdout)["errors"]


class Theirs(nn.Sequential):
    """The same network as an outsider writes it."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 120), nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    @classmethod
    def shipped(cls) -> "Theirs":
        ours, theirs = LeNet5.from_file(ROOT / "weights" / "lenet5.pth"), cls()
        state = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
        shapes = theirs.state_dict()
        theirs.load_state_dict({name: value.reshape(shapes[name].shape) for name, value in state})
        return theirs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the blocks name."""
    for suffix in "pt", "pth", "safetensors":
        shutil.copy(ROOT / "weights" / f"lenet5.{suffix}", tmp_path / f"model.{suffix}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python(folder):
    arguments = ("--init", "model.pth", "--limit", "64", "--epochs", "1", "--out", "runs/1")
    assert program("train", *arguments, cwd=folder).returncode == 0
    images, labels = read_mnist("t10k")
    model = LeNet5.from_file("model.pth")
    names = {
        "torch": torch,
        "safetensors": safetensors,
        "images": images,
        "model": model,
        "theirs": LeNet5("relu", "max"),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    }
    with torch.no_grad():
        for code in blocks("python"):
            exec(code, names)
        assert (names["logits"].argmax(1) != labels).sum() == 45
        inputs = model.prepare(images[:100])
        assert torch.equal(names["script"](inputs).argmax(1), labels[:100])
        assert torch.equal(names["theirs"](inputs).argmax(1), labels[:100])
        assert names["model"] is not model and len(names["optimizer"].state) == 10
    assert errors(folder / "tuned.safetensors") == 45


def test_settings_travel(folder):
    """Fine-tuned in Python, by any of the ways to save, weights come back with their settings."""
    model = LeNet5("relu", "max", mean=0.1307, std=0.3081, input="zero-padded", classes=26)
    model.save("a.pth")
    model.save("b.safetensors")
    torch.save(model.state_dict(), "c.pth")
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, "d.pth")
    torch.save(nn.DataParallel(model).state_dict(), "e.pth")
    for path in sorted(folder.glob("?.*")):
        result = program("inspect", path)
        shown = "relu activation, max pooling, zero-padded input, mean 0.1307, std 0.3081"
        assert shown in result.stdout and "assumed" not in result.stdout, result.stdout
        assert program("convert", path, folder / "back.pt").returncode == 0
        assert LeNet5.from_file("back.pt").settings == model.settings
    again = LeNet5(**model.settings)
    again.load_state_dict(torch.load("c.pth"))
    plain = {name: tensor for name, tensor in model.state_dict().items()}
    LeNet5(classes=26).load_state_dict(plain)  # no settings, nothing to contradict
    with pytest.raises(RuntimeError, match="pooling: these weights need max, this module has avg"):
        LeNet5("relu", classes=26).load_state_dict(torch.load("c.pth"))


def test_a_damaged_file_is_refused(folder):
    whole = bytearray(Path("model.safetensors").read_bytes())
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 40 + 1):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        Path("damaged.safetensors").write_bytes(damaged)
        with pytest.raises(Exception, match=r"."):
            LeNet5.from_file("damaged.safetensors")


def commands() -> list[tuple[str, list[str]]]:
    """Each command with the lines that are shown below it."""
    found = []
    for code in blocks("sh", "text"):
        transcript = "$ " in code
        for line in code.splitlines():
            line = line.rstrip()
            if transcript and not line.startswith("$ "):
                found[-1][1].append(line)
            elif line:
                found.append((re.sub(r"\s+#.*", "", line.removeprefix("$ ")), []))
    return found


@pytest.mark.parametrize(("command", "shown"), commands())
def test_command(command, shown, folder):
    if any(command.startswith(start) for start in NOT_RUN):
        return
    shutil.copytree(ROOT / "tests" / "pictures", folder / "tests" / "pictures")
    seven = Image.fromarray(read_mnist("t10k")[0][0].numpy())
    (folder / "scans").mkdir()
    for name in "7.png", "scans/7.tif":
        seven.save(name)
    torch.save(Theirs.shipped().state_dict(), "theirs.pth")
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    if command.startswith("curl"):
        server = subprocess.Popen(
            [PROGRAMS / "serve", "--addr", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        )
        try:
            address = server.stdout.readline().split("//")[1].strip()
            result = subprocess.run(
                shlex.split(command.replace("127.0.0.1:8080", address)),
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        finally:
            server.terminate()
            server.wait()
    else:
        arguments = shlex.split(command)
        assert arguments[:4] == ["cargo", "run", "--release", "--bin"], command
        arguments = [arguments[4], *arguments[6:]]
        result = subprocess.run(
            arguments, capture_output=True, text=True, check=False, env=environment, timeout=60
        )
    assert result.returncode == 0, result.stderr
    printed = result.stderr + result.stdout
    for line in shown:
        pattern = ".*".join(map(re.escape, line.split("...")))
        assert re.search(pattern, printed), printed


def test_rust(folder):
    """examples/readme.rs has all the Rust code, and runs."""
    example = "".join((ROOT / "examples" / "readme.rs").read_text().split())
    for code in blocks("rust"):
        for line in re.sub(r"\s*//.*", "", code).splitlines():
            # rustfmt breaks lines elsewhere.
            assert "".join(line.split()) in example, line
    build = ["cargo", "build", "--release", "--locked", "--example", "readme"]
    assert subprocess.run(build, cwd=ROOT, check=False).returncode == 0
    shutil.copytree(ROOT / "tests" / "pictures", folder / "tests" / "pictures")
    (folder / "weights").symlink_to(ROOT / "weights")
    (folder / "model.pt").unlink()
    output = subprocess.check_output([PROGRAMS / "examples" / "readme"], cwd=folder, text=True)
    assert re.fullmatch(r"407: 0\.98\d*\n0\.45 %\n", output), output
    assert errors(folder / "model.pt") == 45


def test_languages_are_known():
    assert {language for language, _ in BLOCKS} <= {"python", "rust", "sh", "text", "toml"}
    assert sys.version_info >= (3, 10)
