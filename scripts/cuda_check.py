"""Checks and measures CUDA; run by cuda_check.sh, which sets the Rust programs' library path.

Run: scripts/cuda_check.sh [FOLDER [RESULTS.json]]
Prints a line for each check and figure, then "cuda check: PASS" or "cuda check: FAIL"; writes the
figures to RESULTS.json. With `--device cpu` it runs the same steps without a GPU on a hundredth of
the data, to test this script only.
"""

import argparse
import datetime
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median, stdev

import torch
from cuda_peers import PEERS, Eager, Recipe, synchronize
from lenet5 import LeNet5
from mnist import read_mnist, to_input, write_idx
from torch.nn import functional as F
from train_reference import evaluate, make_optimizer, steps

SEED = 7
BATCH_SIZE = 128
RATE = 0.05
EPOCHS = 2
# After one step the devices differ only by the rounding of float32 sums. Over the 469 steps of an
# epoch these differences grow, so only the test error is compared then.
STEP_TOLERANCE = 1e-5
ERROR_TOLERANCE = 0.5
# Comparison with float64: the weights change by 0.1 to 1 in 52 steps on random images.
RANDOM_IMAGES = 1650
RANDOM_BATCH = 64
RANDOM_TOLERANCE = 1e-4

BATCH_SIZES = (128, 512, 2048)
# Many epochs, because an idle GPU takes a while to reach its full clock.
TIMED_EPOCHS = {"fused": 30, "graph": 30}
TIMED_EPOCHS_OF_OTHERS = 8
# The network and training of PEERS, except for a constant learning rate.
PLAIN = ("--activation=relu", "--pooling=max", "--schedule=constant", "--lr=0.02")
SEEDS = 20
# Time limits in seconds, for all and for each engine and goal; if one is reached, fewer seeds run.
SECONDS = 450
SECONDS_EACH = {"fused": 60}
SECONDS_OF_OTHERS = 25
# Time limit in seconds of one program.
TIMEOUT = 90
# Optimizer, rate and batch size were chosen on held-out training images. The epochs are just enough
# to reach the goal on the test images (2 and 3 seeds, on the CPU).
RECIPES = {
    99.0: Recipe(batch_size=512, optimizer="adam", rate=0.012, epochs=5),
    99.4: Recipe(batch_size=256, optimizer="adam", rate=0.006, epochs=40, distort="best"),
}


class Report:
    """Prints checks and figures, and writes both to a file after each one."""

    def __init__(self, results: Path | None):
        self.failed = False
        self.results, self.machine, self.figures = results, {}, []
        self.start = time.perf_counter()

    def check(self, what: str, ok: bool, figure: str) -> None:
        self.failed |= not ok
        print(f"{'ok' if ok else 'FAIL':<5} {what:<58} {figure}", flush=True)
        self.keep({"check": what, "ok": ok, "figure": figure})

    def figure(self, what: str, text: str, **values) -> None:
        print(f"      {what:<58} {text}", flush=True)
        self.keep({"figure": what, **values})

    def keep(self, entry: dict) -> None:
        self.figures.append(entry)
        if self.results:
            text = json.dumps({"machine": self.machine, "figures": self.figures}, indent=1)
            self.results.write_text(text + "\n")

    def seconds_left(self) -> float:
        return SECONDS - (time.perf_counter() - self.start)

    def leaves_out(self, what: str) -> bool:
        """Returns whether the time is up, and reports it."""
        if self.seconds_left() > 0:
            return False
        self.figure(what, "left out: no time left")
        return True

    @contextmanager
    def guarded(self, what: str, ours: bool = True) -> Iterator[None]:
        """Catches and reports exceptions; in our own code they are failed checks."""
        try:
            yield
        except Exception:
            message = traceback.format_exc().strip()[-3000:]
            if ours:
                self.check(what, False, message)
            else:
                self.figure(what, f"failed: {message}", error=message)


class Rust:
    """The Rust programs."""

    def __init__(self, binaries: Path, folder: Path, device: str):
        self.binaries, self.folder, self.device, self.runs = binaries, folder, device, 0
        # Stdout of the last training run.
        self.printed = ""

    def peers(self) -> list:
        """Returns PyTorch's ways to train on this device."""
        return [peer for peer in PEERS.items() if self.device == "cuda" or peer[1] is Eager]

    def run(self, name: str, *arguments, hide_gpu: bool = False) -> str:
        """Runs one of the programs, and returns its stdout."""
        variables = {"CUDA_VISIBLE_DEVICES": ""} if hide_gpu else {}
        command, process = self.start(name, *arguments, **variables)
        return self.end(command, process)

    def start(self, name: str, *arguments, **variables: str) -> tuple[list, subprocess.Popen]:
        command = [str(self.binaries / name), *map(str, arguments)]
        environment = {**os.environ, "RUST_BACKTRACE": "1", **variables}
        return command, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def end(self, command: list, process: subprocess.Popen) -> str:
        with process:
            try:
                output, errors = process.communicate(timeout=TIMEOUT)
            finally:
                process.kill()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{errors}")
        return output

    def ranks(self, size: int, *arguments) -> tuple[Path, str]:
        """Trains in several processes on one device; returns the folder and rank 0's stdout."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.runs += 1
        out = self.folder / str(self.runs)
        job = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        options = ("--engine=libtorch", f"--device={self.device}", f"--out={out}", *arguments)
        started = [self.start("train", *options, **job, RANK=str(rank)) for rank in range(size)]
        printed = [self.end(*rank) for rank in started]
        return out, printed[0]

    def train(self, *arguments, engine="libtorch", device="") -> tuple[Path, list[dict]]:
        """Trains; returns the run's folder and its metrics by epoch."""
        self.runs += 1
        out = self.folder / str(self.runs)
        device = device or self.device
        self.printed = self.run(
            "train", f"--engine={engine}", f"--device={device}", f"--out={out}", *arguments
        )  # fmt: skip
        return out, [json.loads(line) for line in (out / "metrics.jsonl").open()]


def weights(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pth", weights_only=True)["model"]


def difference(a: dict, b: dict) -> float:
    # The tensor's max keeps NaN, Python's max may drop it.
    largest = [(a[name].cpu() - b[name].cpu()).abs().max() for name in a]
    return torch.stack(largest).max().item()


def train_eager(device: str, images, labels, epochs: int) -> LeNet5:
    torch.manual_seed(SEED)
    model = LeNet5().to(device)
    optimizer = make_optimizer("sgd", model, lr=RATE, momentum=0.9)
    images, labels = images.to(device), labels.to(device)
    for _ in range(epochs):
        list(steps(model, optimizer, images, labels, BATCH_SIZE))
    return model


def agree(report: Report, rust: Rust, engines: tuple[str, ...], images, labels, test) -> None:
    """Compares libtorch on GPU and CPU with PyTorch; checks other engines for determinism."""
    device = rust.device
    settings = (f"--seed={SEED}", f"--batch-size={BATCH_SIZE}", f"--lr={RATE}")
    settings += ("--schedule=constant",)
    one = (*settings, f"--limit={BATCH_SIZE}", "--epochs=1")
    cpu, gpu = (weights(rust.train(*one, device=where)[0]) for where in ("cpu", device))
    eager = train_eager(device, images[:BATCH_SIZE], labels[:BATCH_SIZE], 1).state_dict()
    for what, other in (("CPU", cpu), ("PyTorch eager", eager)):
        largest = difference(gpu, other)
        name = f"weights after 1 step, against {what}"
        report.check(name, largest <= STEP_TOLERANCE, f"largest difference {largest:.2e}")

    more = (*settings, f"--limit={len(labels)}", f"--epochs={EPOCHS}")
    (_, cpu), (folder, gpu) = (rust.train(*more, device=where) for where in ("cpu", device))
    eager = train_eager(device, images, labels, EPOCHS)
    error = gpu[-1]["test_error_percent"]
    others = {"CPU": cpu[-1]["test_error_percent"], "PyTorch eager": evaluate(eager, *test)[1]}
    for what, other in others.items():
        ok = abs(error - other) <= ERROR_TOLERANCE
        name = f"test error after {EPOCHS} epochs, against {what}"
        report.check(name, ok, f"{error:.2f} % and {other:.2f} %")

    # One GPU takes one rank over NCCL; two ranks that share it are connected over gloo.
    short = (*settings, f"--limit={5 * BATCH_SIZE}", "--epochs=1")
    alone = weights(rust.train(*short)[0])
    for size in (1, 2):
        backend = "NCCL" if device == "cuda" and size == 1 else "gloo"
        with report.guarded(f"{size} ranks"):
            folder, printed = rust.ranks(size, *short)
            largest = difference(alone, weights(folder))
            ok = largest <= RANDOM_TOLERANCE and f"over {backend}" in printed
            name = f"{size} rank(s) over {backend}, against one process"
            report.check(name, ok, f"largest difference {largest:.2e}")

    # Two runs of an engine give the same bits; libtorch is the reference and not checked.
    for engine in engines[1:]:
        with report.guarded(f"--deterministic, {engine}"):
            again = [rust.train(*more, "--deterministic", engine=engine)[0] for _ in range(2)]
            equal = difference(*map(weights, again)) == 0
            report.check(f"--deterministic, {engine}: the same bits twice", equal, "")

    # Weights saved on the GPU load without a GPU, in Rust and in Python.
    model = folder / "model.pt"

    def errors(how: str, where: str, **more) -> int:
        arguments = ("--json", f"--device={where}", f"--{how}={model}")
        return json.loads(rust.run("evaluate", *arguments, **more))["errors"]

    without = errors("weights", "cpu", hide_gpu=True)
    for name, how in (("evaluated", "weights"), ("run as TorchScript", "torchscript")):
        found = errors(how, device)
        name = f"model.pt of the GPU, {name} there and with the GPU hidden"
        report.check(name, abs(found - without) <= 2, f"{found} and {without} errors")
    state = torch.jit.load(model, map_location="cpu").state_dict()
    equal = difference(state, weights(folder)) == 0
    report.check("model.pt holds CPU tensors, equal to the checkpoint", equal, "")


def against_float64(report: Report, rust: Rust, engines: tuple[str, ...]) -> None:
    """Compares each engine, on new random images, with PyTorch in float64 on the CPU."""
    seed = int(time.time())
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (RANDOM_IMAGES, 28, 28), generator=generator).to(torch.uint8)
    labels = torch.randint(10, (RANDOM_IMAGES,), generator=generator)
    data = rust.folder / "random"
    data.mkdir()
    for split in ("train", "t10k"):
        write_idx(data / f"{split}-images-idx3-ubyte", images)
        write_idx(data / f"{split}-labels-idx1-ubyte", labels.to(torch.uint8))
    inputs = to_input(images).double()
    for name, rate, settings in (
        ("sgd", 0.01, {"momentum": 0.9}),
        ("adamw", 0.001, {"weight_decay": 0.01}),
    ):
        torch.manual_seed(seed)
        model = LeNet5().double()
        optimizer = make_optimizer(name, model, lr=rate, **settings)
        for _ in range(2):
            for batch in torch.randperm(len(labels)).split(RANDOM_BATCH):
                loss = F.cross_entropy(model(inputs[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for engine in engines:
            what = f"{engine}, {name}: weights after 52 steps, against float64"
            with report.guarded(what):
                folder, _ = rust.train(
                    f"--data={data}", "--epochs=2", f"--batch-size={RANDOM_BATCH}",
                    f"--optimizer={name}", f"--lr={rate}", "--schedule=constant",
                    f"--seed={seed}", engine=engine,
                )  # fmt: skip
                largest = difference(weights(folder), model.state_dict())
                ok = largest <= RANDOM_TOLERANCE
                report.check(what, ok, f"largest difference {largest:.2e}, seed {seed}")


def time_epochs(report: Report, rust: Rust, engines: tuple[str, ...], images, labels) -> None:
    """Measures seconds per epoch: the median without the first three, which prepare kernels."""
    for batch_size in (size for size in BATCH_SIZES if size <= len(labels)):

        def tell(what: str, seconds: list[float], more="", batch_size=batch_size) -> None:
            middle, least = median(seconds[3:]), min(seconds)
            values = {"batch_size": batch_size, "seconds": middle, "least": least}
            text = f"{1000 * middle:8.2f} ms, {1000 * least:.2f} at best{more}"
            report.figure(what, text, **values)

        base = (f"--batch-size={batch_size}", f"--limit={len(labels)}", *PLAIN)
        variants = [(engine, ()) for engine in engines]
        for option in ("--precision=tf32", "--precision=bf16", "--deterministic"):
            if "graph" in engines:
                variants.append(("graph", (option,)))
        for engine, options in variants:
            what = " ".join([f"epoch, batch {batch_size}: lenet5, {engine}", *options])
            if report.leaves_out(what):
                continue
            with report.guarded(what):
                epochs = TIMED_EPOCHS.get(engine, TIMED_EPOCHS_OF_OTHERS)
                _, metrics = rust.train(*base, f"--epochs={epochs}", *options, engine=engine)
                error = metrics[-1]["test_error_percent"]
                tell(what, [epoch["seconds"] for epoch in metrics], f", {error:.2f} %")
        for name, peer in rust.peers():
            what = f"epoch, batch {batch_size}: {name}"
            if report.leaves_out(what):
                continue
            with report.guarded(what, ours=False):
                epochs = TIMED_EPOCHS_OF_OTHERS
                recipe = Recipe(batch_size, optimizer="sgd", rate=0.02, epochs=epochs)
                trainer = peer(recipe, images, labels, seed=1)
                tell(what, [trainer.epoch() for _ in range(epochs)])


def launches(report: Report, rust: Rust, data) -> None:
    """Measures the time of each launch in a step, for PyTorch and for the fused engine."""
    batch_size = BATCH_SIZES[1]
    recipe = Recipe(batch_size, optimizer="sgd", rate=0.02, epochs=1)
    what = f"launches of a step, batch {batch_size}"
    with report.guarded(f"{what}: PyTorch, eager", ours=False):
        trainer = Eager(recipe, *data, seed=1)
        trainer.epoch()
        indices = torch.arange(batch_size, device=data[1].device)
        with torch.profiler.profile() as profile:
            trainer.step(indices)
            synchronize(indices)
        kind = torch.autograd.DeviceType.CUDA if rust.device == "cuda" else None
        events = [event for event in profile.events() if kind in (None, event.device_type)]
        # Events such as "Optimizer.step" are not launches.
        events = [event for event in events if not getattr(event, "is_user_annotation", False)]
        each = [(event.name[:60], event.time_range.elapsed_us()) for event in events]
        total = sum(time for _, time in each)
        report.figure(
            f"{what}: PyTorch, eager", f"{len(each)} launches, {total:.0f} us", launches=each
        )
    with report.guarded(f"{what}: lenet5, fused"):
        arguments = (f"--batch-size={batch_size}", "--epochs=3", f"--limit={len(data[1])}")
        rust.train(*arguments, *PLAIN, "--profile", engine="fused")
        report.figure(f"{what}: lenet5, fused", "", table=rust.printed)
        print(rust.printed)


def seeds_within(report: Report, seconds: float, most: int) -> Iterator[int]:
    """Yields seeds from 1, until the time is up."""
    end = max(report.seconds_left() - seconds, 0)
    for seed in range(1, most + 1):
        if seed > 1 and report.seconds_left() < end:
            return
        yield seed


def time_to_accuracy(report, rust, engines, data, test, seeds: int) -> None:
    """Measures the training time of a recipe whose mean accuracy over all seeds reaches the goal.
    The "warm" time assumes that all epochs take as long as the median one, without loading."""
    for goal, recipe in RECIPES.items():

        def tell(what, accuracies, epochs, programs=(), goal=goal) -> None:
            seconds = [sum(times) for times in epochs]
            warm = [len(times) * median(times) for times in epochs]
            (accuracy, a), (time_, b) = spread(accuracies), spread(seconds)
            text = f"{accuracy:.2f} ± {a:.2f} % in {time_:.3f} ± {b:.3f} s"
            text += f" (warm {mean(warm):.3f}), {len(seconds)} seeds"
            if programs:
                text += f", {mean(programs):.2f} s from the program's start"
            values = {"accuracy": accuracies, "seconds": seconds, "warm": warm}
            values["programs"] = list(programs)
            report.figure(what, text, goal=goal, **values)

        # The slowest engine comes last.
        for engine in reversed(engines):
            what = f"to {goal} %: lenet5, {engine}"
            if report.leaves_out(what):
                continue
            with report.guarded(what):
                accuracies, epochs, programs = [], [], []
                each = SECONDS_EACH.get(engine, SECONDS_OF_OTHERS)
                for seed in seeds_within(report, each, seeds):
                    start = time.perf_counter()
                    arguments = (*recipe.arguments(), f"--seed={seed}", f"--limit={len(data[1])}")
                    _, metrics = rust.train(*arguments, engine=engine)
                    programs.append(time.perf_counter() - start)
                    accuracies.append(100 - metrics[-1]["test_error_percent"])
                    epochs.append([epoch["seconds"] for epoch in metrics])
                tell(what, accuracies, epochs, programs)
        if recipe.distort:  # the peers have no distortions
            continue
        for name, peer in rust.peers():
            what = f"to {goal} %: {name}"
            if report.leaves_out(what):
                continue
            with report.guarded(what, ours=False):
                accuracies, epochs = [], []
                for seed in seeds_within(report, SECONDS_OF_OTHERS, seeds):
                    trainer = peer(recipe, *data, seed=seed)
                    epochs.append([trainer.epoch() for _ in range(recipe.epochs)])
                    accuracies.append(100 - evaluate(trainer.model, *test)[1])
                tell(what, accuracies, epochs)


def spread(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def driver_version() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "unknown: no nvidia-smi"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    device = arguments.device
    report = Report(arguments.results)
    report.check(
        "torch sees a GPU",
        device == "cpu" or torch.cuda.is_available(),
        f"torch {torch.__version__}",
    )
    if report.failed:
        print("cuda check: FAIL")
        return 1
    machine = {"torch": torch.__version__, "date": datetime.date.today().isoformat()}
    if device == "cuda":
        machine |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        machine["driver"] = driver_version()
    report.machine = machine
    print(f"      {', '.join(f'{name} {value}' for name, value in machine.items())}")
    # No TensorFloat-32, as in the Rust program.
    torch.backends.cudnn.allow_tf32 = False
    images, labels = read_mnist("train")
    if device == "cpu":
        images, labels = images[:640], labels[:640]
    test = [part.to(device) for part in read_mnist("t10k")]
    engines = ("libtorch", "graph", "fused") if device == "cuda" else ("libtorch", "fused")
    data = (images.to(device), labels.to(device))

    with tempfile.TemporaryDirectory() as temporary:
        rust = Rust(arguments.binaries, Path(temporary), device)
        with report.guarded("agreement"):
            agree(report, rust, engines, images, labels, test)
        against_float64(report, rust, engines)
        time_epochs(report, rust, engines, *data)
        launches(report, rust, data)
        time_to_accuracy(report, rust, engines, data, test, SEEDS if device == "cuda" else 2)
    print(f"cuda check: {'FAIL' if report.failed else 'PASS'}")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
