"""Tests of the Python side: the reference network, its training, and the cross-check.

Run: make test, or .venv/bin/python -m pytest tests    (needs the release binaries)
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import lenet5_1998
import pytest
import torch
from lenet5 import LeNet5
from mnist import read_idx, read_mnist, to_input, write_idx
from torch import Tensor

ROOT = Path(__file__).parent.parent


def run(*command, **environment):
    """Runs a command and captures its output. OpenMP's idle threads sleep, as cores may be few."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session", autouse=True)
def binaries():
    """Builds the programs from the current sources; quick after `cargo test`."""
    result = run("cargo", "build", "--release", "--locked")
    assert result.returncode == 0, result.stderr


def test_parameters():
    counts = [p.numel() for p in LeNet5().parameters()]
    weights_and_biases = [sum(counts[i : i + 2]) for i in range(0, 10, 2)]
    assert weights_and_biases == [156, 2416, 48120, 10164, 850]


def test_curvature():
    """For C5 and F6 it is exactly the Gauss-Newton diagonal: each output of F6 has one path."""
    torch.manual_seed(1)
    model = lenet5_1998.LeNet5(rbf_scale=0.02).double()
    image, label = torch.rand(1, 1, 32, 32).double(), torch.tensor([3])
    names = [name for name, _ in model.named_parameters()]
    h = dict(zip(names, lenet5_1998.curvature(model, image, label), strict=True))
    inputs = {}
    model.output.register_forward_pre_hook(lambda _, args: inputs.update(f6=args[0]))

    def f6(**parameters: Tensor) -> Tensor:
        torch.func.functional_call(model, parameters, image)
        return inputs["f6"][0]

    def loss(f6: Tensor) -> Tensor:
        return lenet5_1998.discriminative(model.output(f6[None]) * -model.scale, label)

    by_f6 = torch.func.hessian(loss)(f6()).diagonal()
    for name in "c5.weight", "c5.bias", "f6.weight", "f6.bias":
        value = model.get_parameter(name).detach()
        jacobian = torch.func.jacrev(lambda value, name=name: f6(**{name: value}))(value)
        gauss_newton = (jacobian.flatten(1) ** 2 * by_f6[:, None]).sum(0).reshape(value.shape)
        torch.testing.assert_close(h[name], gauss_newton, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("c5", ["convolution", "linear"])
def test_forward(c5):
    assert LeNet5("relu", "max", c5, classes=26)(torch.zeros(3, 1, 32, 32)).shape == (
        3,
        26,
    )


def test_mnist_and_idx(tmp_path):
    images, labels = read_mnist("t10k")
    assert images.shape == (10000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    inputs = to_input(images[:2])
    assert inputs.shape == (2, 1, 32, 32) and inputs.max() == 1.0
    write_idx(tmp_path / "images", images[:7])
    header = (tmp_path / "images").read_bytes()[:16]
    assert header.hex() == "00000803000000070000001c0000001c"
    with pytest.raises(OSError):  # not gzip
        read_idx(tmp_path / "images")


@pytest.mark.exhaustive
def test_cross_check_has_no_differing_bit():
    result = run(sys.executable, "scripts/cross_check.py", "--quick")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "51 rows, 0 differ" in result.stdout


@pytest.mark.exhaustive
def test_train_reference(tmp_path):
    """The reference's state dict has the same error in Rust as in Python."""
    out = tmp_path / "reference.pth"
    limited = ("--epochs=1", "--limit=2000", "--threads=1", f"--out={out}")
    result = run(sys.executable, "scripts/train_reference.py", *limited)
    assert result.returncode == 0, result.stderr
    evaluation = run("target/release/evaluate", "--json", f"--weights={out}", "--threads=1")
    assert evaluation.returncode == 0, evaluation.stderr
    printed = result.stdout.splitlines()[-1].split()[3]
    assert f"{json.loads(evaluation.stdout)['error_percent']:.2f}" == printed


def test_cuda_check_without_a_gpu_fails_plainly():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = run("scripts/cuda_check.sh", PYTHON=sys.executable)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "cuda check: FAIL"


def test_the_embedded_mnist_is_the_known_one():
    """The files equal those of the usual sources of MNIST."""
    for name, expected in {
        "t10k-images-idx3-ubyte.gz": (
            "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b"
        ),
        "train-images-idx3-ubyte.gz": (
            "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971"
        ),
        "train-labels-idx1-ubyte.gz": (
            "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203"
        ),
    }.items():
        content = (ROOT / "data/mnist" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected, name
