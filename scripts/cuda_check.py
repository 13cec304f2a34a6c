"""The comparisons of cuda_check.sh, which sets the library path for the Rust programs.

Run: scripts/cuda_check.sh [FOLDER]
Prints a table, then "cuda check: PASS" or "cuda check: FAIL"; writes nothing that stays.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from lenet5 import LeNet5
from mnist import read_mnist
from train_reference import evaluate, make_optimizer, steps

SEED = 7
BATCH_SIZE = 128
RATE = 0.05
EPOCHS = 2
# After one step the devices differ by the rounding of float32 sums alone; by the end of an epoch
# rounding has grown through 469 steps, so there it is the test error that has to agree.
STEP_TOLERANCE = 1e-5
ERROR_TOLERANCE = 0.5


class Check:
    """Prints a line per check, and remembers failures."""

    def __init__(self):
        self.failed = False

    def __call__(self, what: str, ok: bool, figure: str) -> None:
        self.failed |= not ok
        print(f"{'ok' if ok else 'FAIL':<5} {what:<52} {figure}", flush=True)


def run(binaries: Path, name: str, *arguments, hide_gpu: bool = False) -> str:
    """Runs one of the Rust programs, and gives its stdout."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if hide_gpu else None
    command = [str(binaries / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}\ncuda check: FAIL")
    return result.stdout


def train(binaries: Path, folder: Path, device: str, *more) -> tuple[dict, list[dict]]:
    """Trains in Rust from SEED; gives the weights and the metrics by epoch."""
    run(
        binaries, "train", "--engine=libtorch", f"--device={device}", f"--seed={SEED}",
        f"--out={folder}",
        f"--batch-size={BATCH_SIZE}", f"--lr={RATE}", "--schedule=constant", *more,
    )  # fmt: skip
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    weights = torch.load(folder / "checkpoint.pth", weights_only=True)["model"]
    return weights, [json.loads(line) for line in lines]


def train_eager(device: str, images, labels, epochs: int) -> tuple[LeNet5, list[float]]:
    """The same in PyTorch eager; the model and the seconds of each epoch."""
    torch.manual_seed(SEED)
    model = LeNet5().to(device)
    optimizer = make_optimizer("sgd", model, lr=RATE, momentum=0.9)
    images, labels = images.to(device), labels.to(device)
    seconds = []
    for _ in range(epochs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        list(steps(model, optimizer, images, labels, BATCH_SIZE))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return model, seconds


def difference(a: dict, b: dict) -> float:
    return max((a[name].cpu() - b[name].cpu()).abs().max().item() for name in a)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=Path)
    binaries = parser.parse_args().binaries
    check = Check()
    check("torch sees a GPU", torch.cuda.is_available(), f"torch {torch.__version__}")
    if check.failed:
        print("cuda check: FAIL")
        return 1
    print(f"      {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    # float32 means float32, as in the Rust program.
    torch.backends.cudnn.allow_tf32 = False
    images, labels = read_mnist("train")
    test = [part.cuda() for part in read_mnist("t10k")]

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        one_step = (f"--limit={BATCH_SIZE}", "--epochs=1")
        cpu, _ = train(binaries, folder / "cpu-1", "cpu", *one_step)
        gpu, _ = train(binaries, folder / "gpu-1", "cuda", *one_step)
        eager, _ = train_eager("cuda", images[:BATCH_SIZE], labels[:BATCH_SIZE], 1)
        for what, other in (
            ("CPU", cpu),
            ("PyTorch eager on the GPU", eager.state_dict()),
        ):
            largest = difference(gpu, other)
            name = f"weights after 1 step, against {what}"
            check(name, largest <= STEP_TOLERANCE, f"largest difference {largest:.2e}")

        epochs = f"--epochs={EPOCHS}"
        cpu, cpu_metrics = train(binaries, folder / "cpu", "cpu", epochs)
        gpu, gpu_metrics = train(binaries, folder / "gpu", "cuda", epochs)
        eager, eager_seconds = train_eager("cuda", images, labels, EPOCHS)
        eager_error = evaluate(eager, *test)[1]
        errors = [m[-1]["test_error_percent"] for m in (cpu_metrics, gpu_metrics)]
        for what, other, error in (
            ("CPU", cpu, errors[0]),
            ("PyTorch eager on the GPU", eager.state_dict(), eager_error),
        ):
            ok = abs(errors[1] - error) <= ERROR_TOLERANCE
            figure = f"{errors[1]:.2f} % and {error:.2f} %"
            figure += f"; weights differ by {difference(gpu, other):.2e}"
            check(f"test error after {EPOCHS} epochs, against {what}", ok, figure)

        # Weights saved on the GPU load where there is none, in Rust and in Python.
        model = folder / "gpu" / "model.pt"
        arguments = ("--json", f"--weights={model}")
        on_gpu = json.loads(run(binaries, "evaluate", "--device=cuda", *arguments))
        without = json.loads(run(binaries, "evaluate", *arguments, hide_gpu=True))
        figures = f"{on_gpu['errors']} and {without['errors']} errors"
        agree = abs(on_gpu["errors"] - without["errors"]) <= 2
        check("model.pt of the GPU, evaluated with the GPU hidden", agree, figures)
        script = ("--json", f"--torchscript={model}")
        on_gpu = json.loads(run(binaries, "evaluate", "--device=cuda", *script))
        figures = f"{on_gpu['errors']} and {without['errors']} errors"
        agree = abs(on_gpu["errors"] - without["errors"]) <= 2
        check("model.pt of the GPU, run as TorchScript on it", agree, figures)
        state = torch.jit.load(model, map_location="cpu").state_dict()
        check(
            "model.pt holds CPU tensors, equal to the checkpoint",
            difference(state, gpu) == 0,
            "",
        )

        last = [m[-1]["seconds"] for m in (gpu_metrics, cpu_metrics)]
        print(
            f"      seconds per epoch, batch {BATCH_SIZE}: Rust on the GPU {last[0]:.3f}, ",
            end="",
        )
        print(f"PyTorch eager on the GPU {eager_seconds[-1]:.3f}, Rust on the CPU {last[1]:.3f}")
    print(f"cuda check: {'FAIL' if check.failed else 'PASS'}")
    return int(check.failed)


if __name__ == "__main__":
    sys.exit(main())
