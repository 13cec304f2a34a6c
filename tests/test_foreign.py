"""Tests the programs with files of other projects: plain modules, several networks or none.

Run: make test, or .venv/bin/python -m pytest tests/test_foreign.py    (needs the release binaries)
"""

import json
import subprocess
from pathlib import Path

import lenet5_1998
import pytest
import torch
from lenet5 import LeNet5
from torch import nn

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "weights" / "lenet5.pth"


def run(program: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "target" / "release" / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def succeeds(program: str, *arguments) -> subprocess.CompletedProcess:
    result = run(program, *arguments)
    assert result.returncode == 0, result.stderr
    return result


def errors(*arguments) -> int:
    return json.loads(succeeds("evaluate", "--json", *arguments).stdout)["errors"]


def sequential(dropout=0.0) -> nn.Sequential:
    """Returns the shipped network as a plain module, whose layers show ReLU and max pooling."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 120, 5), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout)),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    state = LeNet5.from_file(SHIPPED).state_dict().values()
    model.load_state_dict(dict(zip(model.state_dict(), state, strict=True)))
    return model


@pytest.mark.exhaustive
def test_detect_takes_the_likelier_of_two(tmp_path):
    """With these weights, two settings have almost the same accuracy."""
    torch.save(sequential().state_dict(), tmp_path / "a.pth")
    out = tmp_path / "a.pt"
    result = succeeds("convert", tmp_path / "a.pth", out, "--detect")
    assert "240 settings tried" in result.stdout
    notes = result.stderr.splitlines()
    right = "relu activation, max pooling, padded input, mean 0, std 1"
    assert f"detected: {right}" in notes
    other = "relu activation, avg pooling, padded input, mean 0.1307, std 0.3081"
    options = "--activation relu --pooling avg --input padded --mean 0.1307 --std 0.3081"
    assert f"note: nearly as likely: {other}; for it: {options}" in notes
    assert errors(out) == 45
    # The user's settings are kept.
    result = succeeds("convert", tmp_path / "a.pth", out, "--detect", "--pooling", "avg")
    assert "160 settings tried" in result.stdout and "nearly as likely" not in result.stderr
    assert f"detected: {other}" in result.stderr


def test_detect_keeps_what_a_module_tells(tmp_path):
    torch.save(sequential(), tmp_path / "a.pth")
    result = succeeds("convert", tmp_path / "a.pth", tmp_path / "a.pt", "--detect")
    assert "8 settings tried" in result.stdout, result.stdout
    expected = "detected: relu activation, max pooling, zero-padded input, mean 0, std 1\n"
    assert expected in result.stderr
    assert errors(tmp_path / "a.pt") == 45


def test_an_error_like_chance_names_the_settings(tmp_path):
    torch.save(sequential().state_dict(), tmp_path / "a.pth")
    assert "note: most images" not in succeeds("evaluate", SHIPPED).stderr
    assert errors(tmp_path / "a.pth", "--activation=relu", "--pooling=max") == 45
    result = succeeds("evaluate", tmp_path / "a.pth")
    note = result.stderr.splitlines()[-1]
    assert note.startswith(
        "note: most images are misclassified; these settings were given or assumed: tanh"
    )
    assert "--activation" in note and "--detect" in note


def test_scripts_in_training_mode_are_refused(tmp_path):
    images = torch.rand(8, 1, 28, 28)
    for training in True, False:
        model = sequential(dropout=0.3).train(training)
        torch.jit.trace(model, images, check_trace=False).save(tmp_path / "dropout.pt")
        normal = nn.Sequential(nn.BatchNorm2d(1), *sequential()).train(training)
        torch.jit.trace(normal, images, check_trace=False).save(tmp_path / "norm.pt")
        for name, what in ("dropout", "dropout is active"), ("norm", "it normalises by the batch"):
            result = run("evaluate", "--torchscript", tmp_path / f"{name}.pt", "--json")
            if training:
                assert result.returncode == 1 and not result.stdout
                assert what in result.stderr and "model.eval()" in result.stderr, result.stderr
            else:
                assert result.returncode == 0, result.stderr
                assert json.loads(result.stdout)["errors"] < 200
    # A scripted module checks the mode when it runs.
    torch.jit.script(sequential(dropout=0.3).train()).save(tmp_path / "script.pt")
    assert errors("--torchscript", tmp_path / "script.pt") == 45


@pytest.mark.parametrize("first", ["teacher", "teacher_ema"])
def test_one_of_several_networks(tmp_path, first):
    shipped = LeNet5.from_file(SHIPPED)
    networks = {
        "teacher": shipped.state_dict(),
        "teacher_ema": LeNet5(**shipped.settings).state_dict(),
    }
    order = sorted(networks, key=lambda name: name != first)
    path = tmp_path / "several.pth"
    torch.save({name: networks[name] for name in order}, path)
    result = run("evaluate", path)
    assert result.returncode == 1
    assert f"found others under {', '.join(order)}: choose by --key" in result.stderr
    assert errors(path, "--key", "teacher") == 45
    assert errors(path, "--key=teacher_ema") > 5000
    result = run("evaluate", path, "--key=student")
    assert "expected a LeNet-5 under student, found under: " in result.stderr
    # The network under a usual key is used, and the others are mentioned.
    torch.save({first: networks["teacher_ema"], "model": networks["teacher"]}, path)
    result = succeeds("evaluate", path)
    assert f"other networks under {first}: --key chooses" in result.stderr
    # In a flat state dict, the prefixes of the names separate the networks.
    flat = {f"{name}.{key}": value for name in order for key, value in networks[name].items()}
    torch.save(flat, path)
    settings = ("--activation=relu", "--pooling=max")
    assert errors(path, "--key=teacher", *settings) == 45


def test_trained_codes_are_evaluated_by_every_engine(tmp_path):
    options = "--model=original --train-rbf --optimizer=sgd --lr=0.001 --limit=500 --epochs=1"
    succeeds("train", *options.split(), "--batch-size=16", f"--out={tmp_path}/run")
    weights = tmp_path / "run" / "model.pt"
    assert errors(weights, "--engine=fused") == errors(weights, "--engine=libtorch")
    assert run("predict", "--weights", weights, ROOT / "tests/pictures/407.png").returncode == 0


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 247752\n"
FOREIGN = {
    "a Git LFS pointer in place of the file: run `git lfs pull`": LFS,
    "a web page (HTML), not the file behind it: download it again": b"<!DOCTYPE html>\n<html>",
    "JSON, perhaps a server's error message: download it again": b'{"error": "not found"}',
    "plain text": b"Entry not found",
    "an empty file": b"",
}


@pytest.mark.parametrize(("what", "content"), FOREIGN.items())
def test_files_of_another_kind_are_named(tmp_path, what, content):
    weights = tmp_path / "a.pth"
    weights.write_bytes(content)
    for command in (
        ("evaluate", "--weights"),
        ("convert",),
        ("inspect",),
        ("evaluate", "--torchscript"),
    ):
        result = run(*command, weights)
        assert result.returncode == 1
        assert what in result.stderr and str(weights) in result.stderr, result.stderr
    for suffix in "", ".gz":
        folder = tmp_path / f"data{suffix}"
        folder.mkdir()
        (folder / f"t10k-images-idx3-ubyte{suffix}").write_bytes(content)
        (folder / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(content)
        result = run("evaluate", "--data", folder)
        assert result.returncode == 1 and what in result.stderr, result.stderr


def both(path) -> tuple[str, torch.Tensor]:
    """Returns the text that `predict` reads with these weights, and the probabilities."""
    picture = ROOT / "tests" / "pictures" / "407.png"
    result = succeeds("predict", "--json", "--reject-below=0", "--weights", path, picture)
    reading = json.loads(result.stdout)
    return reading["text"], torch.tensor([digit["probabilities"] for digit in reading["digits"]])


def same(path, plain) -> None:
    """Asserts that two files give the same probabilities."""
    assert torch.allclose(both(path)[1], both(plain)[1], atol=1e-6)


def test_negative_views_have_their_sign(tmp_path):
    state = LeNet5.from_file(SHIPPED).state_dict()
    bias = torch.view_as_complex(torch.stack([torch.ones(6), -state["c1.bias"]], 1).contiguous())
    negative = bias.conj().imag
    assert negative.is_neg() and torch.equal(negative, state["c1.bias"])
    for legacy in False, True:
        state["c1.bias"] = negative
        path = tmp_path / f"{legacy}.pth"
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        same(path, SHIPPED)


def test_settings_of_submodules_and_whole_modules(tmp_path):
    shipped = LeNet5.from_file(SHIPPED)
    both_networks = nn.ModuleDict({"net": shipped, "teacher": LeNet5(**shipped.settings)})
    path = tmp_path / "a.pth"
    torch.save(both_networks.state_dict(), path)
    assert errors(path, "--key=net") == 45  # with the settings in the metadata
    assert "--key chooses one" in run("evaluate", path).stderr
    torch.save(shipped, path)
    assert errors(path) == 45
    torch.save({"epoch": 1, "model": shipped}, path, _use_new_zipfile_serialization=False)
    assert errors(path) == 45
    # A counter beside the parameters.
    torch.save(torch.optim.swa_utils.AveragedModel(shipped).state_dict(), path)
    assert errors(path) == 45


def test_whole_modules_of_1998(tmp_path):
    weights = ROOT / "weights" / "lenet5-1998.pth"
    model = lenet5_1998.LeNet5.from_file(weights)
    path = tmp_path / "a.pth"
    torch.save(model, path)
    assert errors(path) == errors(weights)
    torch.jit.trace(model, torch.zeros(1, 1, 32, 32)).save(path)
    assert errors(path) == errors(weights)


def test_parametrised_weights_are_refused(tmp_path):
    class Clamp(nn.Module):
        def forward(self, x):
            return x.clamp(-0.1, 0.1)

    path = tmp_path / "a.pth"
    model = sequential()
    for layer in model:
        if hasattr(layer, "weight"):
            nn.utils.parametrize.register_parametrization(layer, "weight", Clamp())
    torch.save(model.state_dict(), path)
    assert "expected plain weights, found a parametrization" in run("evaluate", path).stderr
    state = sequential().state_dict()
    state["0.weight_orig"] = state.pop("0.weight")
    torch.save(state, path)
    assert "expected the mask 0.weight_mask of torch.nn.utils" in run("evaluate", path).stderr


def test_reflected_borders_are_not_taken_for_zeros(tmp_path):
    model = sequential()
    model[0] = nn.Conv2d(1, 6, 5, padding=2, padding_mode="reflect")
    torch.save(model, tmp_path / "a.pth")
    assert "input" in succeeds("inspect", tmp_path / "a.pth").stdout.partition("assumed")[2]


def test_equal_biases_beside_a_counter(tmp_path):
    model = LeNet5(classes=84)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    state = {f"net.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({**state, "step": torch.tensor(3)}, tmp_path / "a.pth")
    assert "left out: step" in succeeds("convert", tmp_path / "a.pth", tmp_path / "a.pt").stderr


def test_many_masks_take_no_quadratic_time(tmp_path):
    state = {}
    for index in range(4999):
        state[f"{index}_orig"] = state[f"{index}_mask"] = torch.zeros(1)
    torch.save({"model": {"b": {"c": {"layer" * 180: state}}}}, tmp_path / "a.pth")
    command = [ROOT / "target" / "release" / "inspect", tmp_path / "a.pth"]
    # It took 19 s before, and takes 0.2 s.
    assert subprocess.run(command, capture_output=True, timeout=10).returncode == 0


def test_weights_whose_outputs_overflow_are_refused(tmp_path):
    state = LeNet5.from_file(SHIPPED).state_dict()
    state["output.weight"][3] = 3e38
    torch.save(state, tmp_path / "a.pth")
    picture = ROOT / "tests" / "pictures" / "407.png"
    for arguments in (("--weights", tmp_path / "a.pth"), ("--std=1e-38",)):
        result = run("predict", *arguments, picture)
        assert result.returncode == 1 and not result.stdout
        assert "stay within float32's range" in result.stderr, result.stderr
