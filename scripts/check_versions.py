"""Tests the exchange of weights with other PyTorch versions, both ways, bit by bit.

Run: .venv/bin/python scripts/check_versions.py                  (the versions in VERSIONS)
     .venv/bin/python scripts/check_versions.py 1.13.1 newest    (any that pip offers)
Not part of CI: each version is installed into a temporary environment of up to 6 GB in TMPDIR, or
into FOLDER/VERSION with --keep FOLDER, which the next run uses again. Prints a table: a row is "ok"
if its check passes with all SETTINGS. Fails if any row is not.

Rust to Python: files of `train` and `convert` load strictly into scripts/lenet5.py, hold the same
tensors in each format, and give the logits of `evaluate`; training continues from the checkpoint.
Python to Rust: `convert` reads the files that this version saves, and finds the same tensors.
"""

import argparse
import contextlib
import inspect
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lenet5 import LeNet5
from mnist import read_mnist, to_input, write_idx
from safetensors.torch import load_file, save_file
from torch import Tensor

OURS = torch.__version__.split("+")[0]
# 1.13 is the first version for Python 3.11; since 2.6 torch.load has weights_only by default.
VERSIONS = ["1.13.1", "2.6.0", OURS, "newest"]
NUMPY_1 = ("1.", "2.0.", "2.1.", "2.2.")  # versions that do not work with NumPy 2

PREPROCESSING = ("mean", "std", "input")  # also arguments of to_input
# Options of `train`.
SETTINGS = {
    "default": {},
    "linear": {"activation": "relu", "pooling": "max", "c5": "linear", "optimizer": "adam"},
    "sigmoid": {"activation": "sigmoid", "classes": 47, "mean": 0.1307, "std": 0.3081},
    "paper": {"activation": "scaled-tanh", "input": "zero-padded", "mean": 0.1, "std": 0.5},
    "resized": {"input": "resized", "optimizer": "adamw"},
    "unpadded": {"c5": "linear", "input": "unpadded"},
}
IMAGES = 100  # number of images whose logits are compared
TOLERANCE = 1e-5  # for logits: versions may sum in different orders

State = dict[str, Tensor]


def make_model(settings: dict) -> LeNet5:
    return LeNet5(**{key: value for key, value in settings.items() if key != "optimizer"})


def check_same(found: State, expected: State) -> None:
    assert set(found) == set(expected), f"tensors {sorted(found)}"
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, f"{name} is {found[name].dtype}"
        assert found[name].shape == tensor.shape, f"{name} is {tuple(found[name].shape)}"
        a, b = (t.detach().contiguous().view(torch.int32) for t in (found[name], tensor))
        assert torch.equal(a, b), f"other bits in {name}"


def outcome(check: Callable[[str], None]) -> str:
    """Returns "ok" if the check passes with all SETTINGS, else the first failure."""
    failures = []
    for name in SETTINGS:
        try:
            check(name)
        except Exception as error:  # versions raise different errors
            lines = str(error).strip().splitlines() or [""]
            failures.append(f"{name}: {type(error).__name__}: {lines[0]}")
    return f"{len(failures)} of {len(SETTINGS)} fail; {failures[0]}" if failures else "ok"


# ---- In each environment: --inside FOLDER -------------------------------------------------------


# With weights_only=True 1.13 cannot read floats, not even from its own checkpoints.
SAFE = not torch.__version__.startswith("1.")


def load(path: Path, **options) -> State:
    return torch.load(path.with_suffix(".pth"), **options)


def load_checkpoint(path: Path) -> dict:
    return torch.load(path / "checkpoint.pth", weights_only=SAFE)


# Each takes the path FOLDER/NAME.
READERS = {
    "safetensors": lambda path: load_file(path.with_suffix(".safetensors")),
    "state dict": lambda path: load(path, weights_only=True),
    "state dict, mmap": lambda path: load(path, weights_only=True, mmap=True),
    "state dict, weights_only=False": lambda path: load(path, weights_only=False),
    f"checkpoint, weights_only={SAFE}": lambda path: load_checkpoint(path)["model"],
    "TorchScript": lambda path: torch.jit.load(str(path.with_suffix(".pt"))).state_dict(),
}
if "mmap" not in inspect.signature(torch.load).parameters:
    del READERS["state dict, mmap"]  # versions before 2.1 lack it

# Each takes a model, an input, and the file to write.
SAVERS = {
    "safetensors": lambda model, _, path: save_file(model.state_dict(), path),
    "state dict": lambda model, _, path: torch.save(model.state_dict(), path),
    "state dict, legacy": lambda model, _, path: save_legacy(model.state_dict(), path),
    "module": lambda model, _, path: torch.save(model, path),
    "module, legacy": lambda model, _, path: save_legacy(model, path),
    "traced": lambda model, images, path: torch.jit.trace(model, images).save(str(path)),
    "scripted": lambda model, _, path: torch.jit.script(model).save(str(path)),
}


def save_legacy(value, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def check_logits(folder: Path, name: str, forward: Callable[[Tensor], Tensor]) -> None:
    batch = load_file(folder / f"{name}-logits.safetensors")
    for _ in range(3):  # TorchScript profiles the first calls, and optimises the later ones
        largest = (forward(batch["images"]) - batch["logits"]).abs().max().item()
        assert largest < TOLERANCE, f"logits differ by {largest:.3g}"


def train_on(checkpoint: dict, settings: dict) -> None:
    """Trains one step from a checkpoint, as a user would."""
    model = make_model(settings)
    model.load_state_dict(checkpoint["model"], strict=True)
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = optimizers[settings.get("optimizer", "sgd")](model.parameters(), lr=1)
    optimizer.load_state_dict(checkpoint["optimizer"])
    assert len(optimizer.state) == 10, f"optimizer state for {len(optimizer.state)} tensors"
    torch.set_rng_state(checkpoint["rng_state"])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def check_inside(folder: Path) -> None:
    """Prints outcomes as JSON, and writes FOLDER/saved/NAME/FORM."""
    torch.set_num_threads(1)
    outcomes = {}
    for form, read in READERS.items():

        def check_read(name: str, read=read) -> None:
            state = read(folder / name)
            check_same(state, load_file(folder / f"{name}.safetensors"))
            model = make_model(SETTINGS[name])
            model.load_state_dict(state, strict=True)
            check_logits(folder, name, model)

        outcomes[f"Rust to Python: {form}"] = outcome(check_read)

    def check_run(name: str) -> None:
        script = torch.jit.load(str(folder / f"{name}.pt"))
        check_logits(folder, name, script)
        check_logits(folder, name, torch.jit.freeze(script.eval()))

    def check_checkpoint(name: str) -> None:
        train_on(load_checkpoint(folder / name), SETTINGS[name])

    outcomes["Rust to Python: TorchScript runs"] = outcome(check_run)
    outcomes["Rust to Python: checkpoint trains on"] = outcome(check_checkpoint)
    for form, save in SAVERS.items():

        def check_save(name: str, form=form, save=save) -> None:
            out = folder / "saved" / name
            out.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(1)
            model = make_model(SETTINGS[name]).eval()
            save_file(model.state_dict(), out / "expected")
            images = load_file(folder / f"{name}-logits.safetensors")["images"]
            save(model, images, out / form)

        outcomes[f"Python saves: {form}"] = outcome(check_save)
    print(json.dumps({"version": torch.__version__, "outcomes": outcomes}))


# ---- In our own environment ---------------------------------------------------------------------


def run(*command) -> str:
    """Runs a program, and returns its stdout."""
    command = [str(part) for part in command]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except OSError as error:
        raise RuntimeError(f"{command[0]}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        ours = [line for line in lines if line.startswith("error: ")]
        raise RuntimeError(f"{Path(command[0]).name}: {(ours or lines)[-1]}") from None


def write_rust_files(binaries: Path, folder: Path) -> None:
    """Writes, for each NAME in SETTINGS: NAME/checkpoint.pth; NAME.pt, .pth and .safetensors; and
    NAME-logits.safetensors, which holds an input and Rust's logits for it."""
    data = folder / "data"
    data.mkdir()
    images, labels = (tensor[:IMAGES] for tensor in read_mnist("t10k"))
    write_idx(data / "t10k-images-idx3-ubyte", images)
    write_idx(data / "t10k-labels-idx1-ubyte", labels.byte())
    for name, settings in SETTINGS.items():
        options = [f"--{key}={value}" for key, value in settings.items()]
        out, script = folder / name, folder / f"{name}.pt"
        run(
            binaries / "train", "--device=cpu", "--threads=1", "--epochs=1", "--limit=64",
            f"--out={out}", *options,
        )  # fmt: skip
        (out / "model.pt").rename(script)
        for suffix in ".pth", ".safetensors":
            run(binaries / "convert", out / "checkpoint.pth", script.with_suffix(suffix))
        logits = folder / f"{name}-logits.safetensors"
        run(
            binaries / "evaluate", "--device=cpu", "--threads=1", f"--data={data}",
            f"--weights={script}", f"--logits={logits}",
        )  # fmt: skip
        preprocessing = {key: settings[key] for key in PREPROCESSING if key in settings}
        batch = to_input(images, **preprocessing)
        save_file({"images": batch, "logits": load_file(logits)["logits"]}, logits)


@contextlib.contextmanager
def environment(version: str, keep: Path | None) -> Iterator[Path]:
    """Yields the Python of a virtual environment with this PyTorch version."""
    if version == OURS:
        yield Path(sys.executable)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (keep or Path(temporary)) / version
        python = folder / "bin" / "python"
        run(sys.executable, "-m", "venv", folder)
        run(
            python, "-m", "pip", "install", "--no-cache-dir", "--upgrade", "safetensors",
            "numpy<2" if version.startswith(NUMPY_1) else "numpy",
            "torch" if version == "newest" else f"torch=={version}",
        )  # fmt: skip
        yield python


def check_version(binaries: Path, python: Path, folder: Path) -> bool:
    """Prints the rows of a version, and returns whether all are ok."""
    shutil.rmtree(folder / "saved", ignore_errors=True)
    inside = json.loads(run(python, __file__, "--inside", folder))
    outcomes = inside["outcomes"]
    for form in SAVERS:

        def check_convert(name: str, form=form) -> None:
            saved = folder / "saved" / name
            converted = saved / "converted.safetensors"
            run(binaries / "convert", saved / form, converted)
            check_same(load_file(converted), load_file(saved / "expected"))

        saved = outcomes.pop(f"Python saves: {form}")
        outcomes[f"Python to Rust: {form}"] = saved if saved != "ok" else outcome(check_convert)
    for form, text in outcomes.items():
        print(f"{inside['version']:<13} {form:<46} {text}", flush=True)
    return all(text == "ok" for text in outcomes.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", default=VERSIONS, help=f"default: {VERSIONS}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep environments in FOLDER")
    release = Path(__file__).parent.parent / "target" / "release"
    parser.add_argument("--bin", type=Path, default=release, help="folder of our programs")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        check_inside(arguments.inside)
        return 0
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            write_rust_files(arguments.bin, folder)
        except RuntimeError as error:
            raise SystemExit(f"error: {error}") from None
        for version in arguments.versions:
            try:
                with environment(version, arguments.keep) as python:
                    good &= check_version(arguments.bin, python, folder)
            except RuntimeError as error:
                print(f"{version:<13} {'all':<46} {error}", flush=True)
                good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
