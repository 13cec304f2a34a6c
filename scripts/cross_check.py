"""Runs the Rust programs and PyTorch side by side on MNIST, and compares them bit by bit.

Run: make cross-check                                   (about ten minutes on two cores)
     .venv/bin/python scripts/cross_check.py --quick    (a few seconds, few images)
Prints a table: each row shows the largest difference and the number of differing bits. Fails if
any bit differs. Keeps no files: the Rust programs work in a temporary folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from lenet5 import LeNet5
from mnist import read_mnist, to_input, write_idx
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from train_reference import make_optimizer, steps

BINARIES = Path(__file__).parent.parent / "target" / "release"
SEED = 7
BATCH_SIZE = 128
# Settings that both torch.optim and `train` take.
OPTIMIZERS = {
    "sgd": {"lr": 0.05, "momentum": 0.9},
    "adam": {"lr": 1e-3},
    "adamw": {"lr": 1e-3, "weight_decay": 0.01},
}

Tensors = dict[str, Tensor]


class Table:
    """Prints each row at once, and counts the rows that differ."""

    def __init__(self):
        self.rows = self.different = 0
        print(f"{'threads':>7}  {'optimizer':<9}  {'what':<36} {'largest difference':>18}  bits")

    def row(self, threads: int, optimizer: str, what: str, ours: Tensor, reference: Tensor) -> None:
        if ours.dtype != reference.dtype or ours.shape != reference.shape:
            raise SystemExit(
                f"{what}: {ours.dtype} {ours.shape}, {reference.dtype} {reference.shape}"
            )
        ours, reference = ours.detach().flatten(), reference.detach().flatten()
        largest = (ours.double() - reference.double()).abs().max().item()
        a, b = ours.view(torch.uint8), reference.view(torch.uint8)
        bits = sum(((a ^ b) >> shift & 1).sum().item() for shift in range(8))
        self.rows += 1
        self.different += bits > 0
        print(
            f"{threads:>7}  {optimizer:<9}  {what:<36} {largest:>18.3g}  {bits}",
            flush=True,
        )

    def state(self, threads: int, optimizer: str, what: str, ours: Tensors, reference: Tensors):
        if list(ours) != list(reference):
            raise SystemExit(f"{what}: expected {list(reference)}, found {list(ours)}")
        joined = [torch.cat([t.detach().flatten() for t in s.values()]) for s in (ours, reference)]
        self.row(threads, optimizer, what, *joined)


def rust(binary: str, *arguments) -> str:
    """Runs one of our programs, and returns its stdout."""
    command = [str(BINARIES / binary), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    return result.stdout


def rust_train(folder: Path, threads: int, optimizer: str, *more) -> dict:
    """Trains in Rust from SEED with a constant learning rate; returns the checkpoint."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIMIZERS[optimizer].items()]
    rust(
        "train", "--engine=libtorch", "--device=cpu", f"--threads={threads}", f"--seed={SEED}",
        f"--out={folder}", f"--batch-size={BATCH_SIZE}", f"--optimizer={optimizer}",
        "--schedule=constant", *flags, *more,
    )  # fmt: skip
    return torch.load(folder / "checkpoint.pth", weights_only=True)


def python_start(optimizer: str) -> tuple[LeNet5, torch.optim.Optimizer]:
    torch.manual_seed(SEED)
    model = LeNet5()
    return model, make_optimizer(optimizer, model, **OPTIMIZERS[optimizer])


def python_train(optimizer: str, images: Tensor, labels: Tensor) -> LeNet5:
    """Trains one epoch in PyTorch from SEED."""
    model, optimizer = python_start(optimizer)
    list(steps(model, optimizer, images, labels, BATCH_SIZE))
    return model


def check_first_batch(table: Table, temporary: Path, threads: int, images: Tensor, labels: Tensor):
    """Compares the initial weights, and the first batch's logits, loss and gradients."""
    model, _ = python_start("sgd")
    initial = rust_train(temporary / "initial", threads, "sgd", "--epochs=0")
    table.state(threads, "", "initial weights", initial["model"], model.state_dict())

    batch = torch.randperm(BATCH_SIZE)
    logits = model(to_input(images[batch]))
    loss = F.cross_entropy(logits, labels[batch])
    loss.backward()
    # The batch is a data set of its own, so that `evaluate` computes it as one batch too.
    data = temporary / "batch"
    data.mkdir()
    write_idx(data / "t10k-images-idx3-ubyte", images[batch])
    write_idx(data / "t10k-labels-idx1-ubyte", labels[batch].byte())
    rust(
        "evaluate", "--device=cpu", f"--threads={threads}", f"--data={data}", "--json",
        f"--weights={temporary / 'initial' / 'model.pt'}",
        f"--logits={data / 'logits.safetensors'}",
    )  # fmt: skip
    table.row(threads, "", "logits", load_file(data / "logits.safetensors")["logits"], logits)
    # After one step the momentum buffer is the gradient, and the epoch's loss is the batch's.
    folder = temporary / "first"
    first = rust_train(folder, threads, "sgd", f"--limit={BATCH_SIZE}", "--epochs=1")
    metrics = json.loads((folder / "metrics.jsonl").read_text())
    table.row(threads, "", "loss", torch.tensor(metrics["train_loss"]), loss)
    for i, (name, parameter) in enumerate(model.named_parameters()):
        gradient = first["optimizer"]["state"][i]["momentum_buffer"]
        table.row(threads, "", f"gradient of {name}", gradient, parameter.grad)


def check_training(table, temporary: Path, threads: int, optimizer: str, images, labels):
    """Compares the weights after 1 step, 20 steps, 1 epoch and 2 epochs."""
    for count in (1, 20):
        limit = count * BATCH_SIZE
        folder = temporary / f"{optimizer}-{count}"
        ours = rust_train(folder, threads, optimizer, f"--limit={limit}", "--epochs=1")["model"]
        reference = python_train(optimizer, images[:limit], labels[:limit]).state_dict()
        table.state(threads, optimizer, f"weights after {count} step(s)", ours, reference)
    # A second process runs the second epoch, from the checkpoint.
    folder = temporary / f"{optimizer}-epochs"
    limit = f"--limit={len(labels)}"
    ours = rust_train(folder, threads, optimizer, limit, "--epochs=1")["model"]
    model, stock_optimizer = python_start(optimizer)
    list(steps(model, stock_optimizer, images, labels, BATCH_SIZE))
    table.state(threads, optimizer, "weights after 1 epoch", ours, model.state_dict())
    rust("train", f"--resume={folder}", "--epochs=2")
    ours = torch.jit.load(folder / "model.pt").state_dict()
    list(steps(model, stock_optimizer, images, labels, BATCH_SIZE))
    table.state(threads, optimizer, "weights after 2 epochs", ours, model.state_dict())


def check_ranks(table: Table, temporary: Path, images: Tensor) -> None:
    """Compares two ranks with DistributedDataParallel. The last batch is not full."""
    limit = min(len(images), 20 * BATCH_SIZE + 40)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    settings = [f"--batch-size={BATCH_SIZE}", f"--seed={SEED}", f"--limit={limit}", "--lr=0.05"]
    ours, reference = temporary / "ranks", temporary / "ddp.pth"
    script = Path(__file__).parent / "ddp_reference.py"
    for command in (
        [
            "--no-python", BINARIES / "train", *settings, f"--out={ours}", "--engine=libtorch",
            "--device=cpu", "--threads=1", "--epochs=1", "--schedule=constant",
        ],
        [script, *settings, f"--out={reference}"],
    ):  # fmt: skip
        result = subprocess.run([*launch, *command], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise SystemExit(result.stderr)
    weights = torch.load(ours / "checkpoint.pth", weights_only=True)["model"]
    reference = torch.load(reference, weights_only=True)
    table.state(1, "sgd", "weights of 2 ranks, 21 steps, and DDP", weights, reference)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3,000 training images instead of all")
    images, labels = read_mnist("train")
    if parser.parse_args().quick:
        images, labels = images[:3000], labels[:3000]  # 23 batches of 128 and one of 56
    table = Table()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as temporary:
            check_first_batch(table, Path(temporary), threads, images, labels)
            for optimizer in OPTIMIZERS:
                check_training(table, Path(temporary), threads, optimizer, images, labels)
    with tempfile.TemporaryDirectory() as temporary:
        check_ranks(table, Path(temporary), images)
    print(f"{table.rows} rows, {table.different} differ")
    return 1 if table.different else 0


if __name__ == "__main__":
    sys.exit(main())
