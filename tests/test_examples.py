"""Runs examples/, and compares examples/custom_network.rs with its twin in PyTorch, bit by bit.

Run: make test, or .venv/bin/python -m pytest tests/test_examples.py    (needs the examples built)
"""

import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
import torch
from mnist import read_mnist
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "target" / "release" / "examples"


@pytest.fixture
def folder(tmp_path):
    """A folder in which the examples find what they read, and may write."""
    for name in "weights", "tests":
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "target").mkdir()
    return tmp_path


def run(name: str, folder: Path) -> str:
    return subprocess.check_output([EXAMPLES / name], cwd=folder, text=True)


def test_lengths():
    """They are short enough to copy."""
    for name in (
        "train_and_save", "load_from_python", "export_for_python", "fine_tune", "read_digits",
        "http_handler",
    ):  # fmt: skip
        assert 20 <= len((ROOT / "examples" / f"{name}.rs").read_text().splitlines()) <= 60, name


def test_train_and_save(folder):
    printed = run("train_and_save", folder)
    errors = [float(error) for error in re.findall(r"epoch \d: ([\d.]+) %", printed)]
    assert len(errors) == 2 and errors[1] < errors[0] < 15
    script = torch.jit.load(folder / "target" / "trained.pt")
    assert json.loads(script.lenet5)["activation"] == "tanh"


def test_load_from_python(folder):
    printed = run("load_from_python", folder)
    assert "predictions [7, 2, 1, 0, 4, 1, 4, 9]" in printed
    assert "0.45 % of the test images are misclassified" in printed


def test_export_for_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(run("export_for_python", folder), names)
    expected = load_file(ROOT / "weights" / "lenet5.safetensors")
    assert torch.equal(names["state"]["c1.weight"], expected["c1.weight"])
    assert names["script"](torch.zeros(1, 1, 32, 32)).shape == (1, 10)


def test_fine_tune(folder):
    printed = run("fine_tune", folder)
    before, after = (float(error) for error in re.findall(r": ([\d.]+) % of the turned", printed))
    assert after < 0.8 * before
    assert (folder / "target" / "fine-tuned.pth").exists()


def test_custom_network_is_its_twin_to_the_bit(folder):
    run("custom_network", folder)
    ours = load_file(folder / "target" / "lenet300.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    layers = {"first": nn.Linear(784, 300), "second": nn.Linear(300, 100)}
    layers["output"] = nn.Linear(100, 10)
    first, second, output = layers.values()
    model = nn.Sequential(nn.Flatten(), first, nn.Tanh(), second, nn.Tanh(), output)
    images, labels = read_mnist("train")
    images, labels = images[:2000].float() / 255, labels[:2000]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for indices in torch.randperm(2000).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[indices]), labels[indices]).backward()
        optimizer.step()
    torch.set_num_threads(threads)
    theirs = {f"{n}.{k}": v for n, layer in layers.items() for k, v in layer.state_dict().items()}
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name].view(torch.int32), tensor.view(torch.int32)), name


def test_read_digits(folder):
    printed = run("read_digits", folder)
    assert printed.startswith("tests/pictures/407.png: 407\n  4 at ")


def test_http_handler():
    command = [EXAMPLES / "http_handler", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split(" ")[-1].strip()
        picture = (ROOT / "tests" / "pictures" / "407.png").read_bytes()
        with urllib.request.urlopen(f"{address}/read", picture, timeout=30) as answer:
            assert json.load(answer)["text"] == "407"
        with pytest.raises(urllib.error.HTTPError, match="422"):
            urllib.request.urlopen(f"{address}/read", b"no picture", timeout=30)
    finally:
        server.terminate()
        server.wait()
