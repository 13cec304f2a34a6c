"""Measures LeNet-5 on the CPU: our engines, PyTorch, TensorFlow, JAX, onnxruntime, candle and burn.

Run: make bench    (an hour on two cores; ARGS="--quick" runs one round of the main figures)
Writes: benches/results/DATE-MACHINE.json, all figures; .md, the tables; .png, a chart.

Each measurement is a process of its own. Each round measures all programs in turn, so that a
machine that slows down affects all of them; the best round counts, and the table also shows by how
much the slowest differs. Each round also measures the speed of matrix multiplication (sgemm) on
this machine.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
BINARIES = ROOT / "target" / "release"
PEERS = ROOT / "benches" / "peers"
BATCH_SIZES, MAIN_BATCH = (16, 32, 128, 512), 128
INFERENCE_SIZES = (1, 16, 1000)
# Floating-point operations per image: forward, and gradients of weights and (not in C1) inputs.
OPERATIONS = 2 * (3 * (240_000 + 48_000 + 10_080 + 840) + 2 * 117_600)
# No recipe of three epochs reached 99 % on validation images with every seed.
ACCURACY = {"epochs": 4, "learning-rate": 0.05, "batch-size": 64}
SGEMM = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
def seconds():
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start
print(2 * 2048**3 / min(seconds() for _ in range(8)) / 1e9)
"""


@dataclass(frozen=True)
class Ours:
    """One of this project's engines. An empty `isa` is the widest instruction set."""

    engine: str
    isa: str = ""

    def train(self, batch_size: int, threads: int) -> dict:
        options = ["--epochs=1", "--schedule=constant", f"--batch-size={batch_size}"]
        metrics, process = self.run(options, threads)
        return {"seconds": metrics[-1]["seconds"], **process}

    def infer(self, batch_size: int, threads: int) -> dict:
        program = BINARIES / "examples" / "inference"
        command = [program, self.engine, str(batch_size), str(threads)]
        return last_line(call(command, self.environment()))

    def accuracy(self, threads: int) -> dict:
        options = ["--activation=relu", "--pooling=max", "--schedule=one-cycle"]
        options.append(f"--lr={ACCURACY['learning-rate']}")
        options += [f"--{name}={ACCURACY[name]}" for name in ("epochs", "batch-size")]
        metrics, process = self.run(options, threads)
        seconds = sum(epoch["seconds"] for epoch in metrics)
        error = metrics[-1]["test_error_percent"]
        return {"seconds": seconds, "test_error_percent": error, **process}

    def run(self, options: list[str], threads: int) -> tuple[list[dict], dict]:
        """Runs `train`; returns its metrics, and its time and memory."""
        with tempfile.TemporaryDirectory() as folder:
            options += [f"--engine={self.engine}", f"--threads={threads}", "--device=cpu"]
            command = [BINARIES / "train", *options, f"--out={folder}/run"]
            _, process = call(command, self.environment())
            lines = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
            return [json.loads(line) for line in lines], process

    def environment(self) -> dict[str, str]:
        return {"LENET5_ISA": self.isa} if self.isa else {}


@dataclass(frozen=True)
class Theirs:
    """Another framework, run by scripts/bench_peers.py or by a program of benches/peers."""

    peer: str
    variant: str

    def train(self, batch_size: int, threads: int) -> dict:
        return self.run("train", threads, batch_size)

    def infer(self, batch_size: int, threads: int) -> dict:
        return self.run("infer", threads, batch_size)

    def accuracy(self, threads: int) -> dict:
        more = [f"--{name}={ACCURACY[name]}" for name in ("epochs", "learning-rate")]
        return self.run("accuracy", threads, ACCURACY["batch-size"], *more)

    def run(self, what: str, threads: int, batch_size: int, *more: str) -> dict:
        options = [
            f"--variant={self.variant}",
            f"--batch-size={batch_size}",
            f"--threads={threads}",
        ]
        if self.peer in ("candle", "burn"):
            program = [PEERS / "target" / "release" / f"{self.peer}_peer"]
        else:
            program = [sys.executable, Path(__file__).with_name("bench_peers.py"), self.peer]
        return last_line(call([*program, what, *options, *more]))


ONNX = ROOT / "target" / "lenet5.onnx"
PROGRAMS = {
    "lenet5, fused": Ours("fused"),
    "lenet5, fused, AVX2": Ours("fused", "avx2"),
    "lenet5, fused, plain Rust": Ours("fused", "portable"),
    "lenet5, libtorch": Ours("libtorch"),
    "PyTorch, eager": Theirs("torch", "eager"),
    "PyTorch, channels_last": Theirs("torch", "channels_last"),
    "PyTorch, compile": Theirs("torch", "compile"),
    "TensorFlow": Theirs("tensorflow", "graph"),
    "TensorFlow, XLA": Theirs("tensorflow", "xla"),
    "JAX": Theirs("jax", ""),
    "candle": Theirs("candle", ""),
    "burn, flex": Theirs("burn", "flex"),
    "burn, ndarray": Theirs("burn", "ndarray"),
    "onnxruntime": Theirs("onnxruntime", str(ONNX)),
}
# The fastest of each framework, for the figures besides the main ones.
FASTEST = [
    "lenet5, fused", "lenet5, libtorch", "PyTorch, eager", "PyTorch, channels_last",
    "TensorFlow", "JAX",
]  # fmt: skip


def call(command: list, environment: dict[str, str] | None = None) -> tuple[str, dict]:
    """Runs a program; returns its stdout, and its total seconds and peak memory."""
    environment = os.environ | (environment or {})
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(map(str, command))}\n{errors.read()}")
    return output, {"program_seconds": seconds, "peak_memory_mb": usage.ru_maxrss / 1024}


def last_line(called: tuple[str, dict]) -> dict:
    """Returns the figures of a program that prints them as JSON on its last line."""
    output, process = called
    return {**json.loads(output.splitlines()[-1]), **process}


def sgemm(threads: int) -> float:
    """Measures PyTorch's product of two 2048x2048 matrices, in GFLOP/s."""
    output, _ = call([sys.executable, "-c", SGEMM, str(threads)])
    return float(output)


def machine() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    find = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vectors = [
        name for name in ("avx512f", "avx2", "asimd") if name in find.get("flags", "").split()
    ]
    cpu = find.get("model name", platform.processor() or platform.machine())
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "vectors": (vectors or ["none"])[0]}


def versions() -> dict:
    names = ("torch", "tensorflow-cpu", "jax", "onnxruntime", "numpy")
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    found = {name: importlib.metadata.version(name) for name in names}
    crates = tomllib.loads((PEERS / "Cargo.lock").read_text())["package"]
    crates = {crate["name"]: crate["version"] for crate in crates}
    found |= {"candle": crates["candle-core"], "burn": crates["burn"]}
    return {"python": platform.python_version(), "rustc": rust.stdout.split()[1], **found}


def plan(quick: bool, threads: list[int], vectors: str) -> list[tuple]:
    """Lists a round's measurements, main figures first: (kind, program, batch size, threads)."""
    # On other CPUs AVX2 is what the first program uses, or is missing.
    programs = [name for name in PROGRAMS if "AVX2" not in name or vectors == "avx512f"]
    trains = [name for name in programs if name != "onnxruntime"]
    steps = [("train", name, MAIN_BATCH, n) for n in threads for name in trains]
    # A single image is fastest on one thread.
    for size, n in zip(INFERENCE_SIZES, (1, threads[-1], threads[-1]), strict=True):
        steps += [("infer", name, size, n) for name in programs]
    steps += [("accuracy", name, ACCURACY["batch-size"], threads[-1]) for name in FASTEST]
    if not quick:
        sizes = [size for size in BATCH_SIZES if size != MAIN_BATCH]
        steps += [("train", name, size, threads[-1]) for size in sizes for name in FASTEST]
    return steps


def measure(kind: str, name: str, size: int, threads: int) -> dict:
    program = PROGRAMS[name]
    match kind:
        case "train":
            return program.train(size, threads)
        case "infer":
            return program.infer(size, threads)
        case _:
            return program.accuracy(threads)


def find(figures: list[dict], kind: str, name: str, size: int, threads: int) -> list[dict]:
    """Returns the results of all rounds."""
    key = (kind, name, size, threads)
    return [figure["result"] for figure in figures if tuple(figure["key"]) == key]


def best(figures: list[dict], *key) -> dict | None:
    """Returns the best value of each metric over all rounds; for the test error, the mean."""
    rounds = find(figures, *key)
    if not rounds:
        return None
    choose = {"images_per_second": max, "test_error_percent": statistics.mean}
    return {metric: choose.get(metric, min)(r[metric] for r in rounds) for metric in rounds[0]}


def seconds(figures: list[dict], *key) -> str:
    """Returns the seconds of the best round, and by how many percent the slowest is slower."""
    rounds = [result["seconds"] for result in find(figures, *key)]
    if len(rounds) < 2:
        return f"{rounds[0]:.2f}" if rounds else ""
    return f"{min(rounds):.2f} (+{100 * max(rounds) / min(rounds) - 100:.0f})"


def tables(report: dict) -> str:
    """Returns the report's tables in Markdown."""
    figures, threads, rates = report["figures"], report["threads"], report["sgemm_gflops"]
    lines = [f"{report['date']}, {describe(report)}.", ""]

    def limit(n: int) -> str:
        return f"{60_000e-9 * OPERATIONS / max(rates[str(n)]):.2f}"

    lines += header(f"seconds per epoch, batch {MAIN_BATCH}", [plural(n) for n in threads])
    for name in PROGRAMS:
        cells = [seconds(figures, "train", name, MAIN_BATCH, n) for n in threads]
        if any(cells):
            lines.append(row(name, *cells))
    lines.append(row("*all operations at the rate of sgemm*", *(limit(n) for n in threads)))
    found = (f"{max(rates[str(n)]):.0f} GFLOP/s on {plural(n)}" for n in threads)
    if any("(" in line for line in lines[3:]):
        lines += ["", "In brackets: by how many percent the slowest round is slower."]
    lines += ["", f"sgemm: {', '.join(found)}.", ""]

    if find(figures, "train", FASTEST[0], BATCH_SIZES[0], threads[-1]):
        heads = [f"batch {size}" for size in BATCH_SIZES]
        lines += header(f"seconds per epoch, {plural(threads[-1])}", heads)
        for name in FASTEST:
            cells = [seconds(figures, "train", name, size, threads[-1]) for size in BATCH_SIZES]
            if any(cells):
                lines.append(row(name, *cells))
        lines.append("")

    heads = ["µs for one image, 1 thread"]
    heads += [f"{size:,} at a time, {plural(threads[-1])}" for size in INFERENCE_SIZES[1:]]
    lines += header("images per second", heads)
    for name in PROGRAMS:
        one = best(figures, "infer", name, 1, 1)
        more = [best(figures, "infer", name, size, threads[-1]) for size in INFERENCE_SIZES[1:]]
        if one and all(more):
            cells = (f"{cell['images_per_second']:,.0f}" for cell in more)
            lines.append(row(name, f"{1e6 / one['images_per_second']:.0f}", *cells))
    lines.append("")

    heads = ["s from the program's start", "s of training", "test error %", "peak MB"]
    lines += header(f"{ACCURACY['epochs']} epochs, to 99 %, {plural(threads[-1])}", heads)
    for name in FASTEST:
        if cell := best(figures, "accuracy", name, ACCURACY["batch-size"], threads[-1]):
            times = (f"{cell[metric]:.1f}" for metric in ("program_seconds", "seconds"))
            error, memory = cell["test_error_percent"], cell["peak_memory_mb"]
            lines.append(row(name, *times, f"{error:.2f}", f"{memory:.0f}"))
    return "\n".join(lines) + "\n"


def header(first: str, heads: list[str]) -> list[str]:
    return [row(first, *heads), row("---", *["---:"] * len(heads))]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def plural(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def describe(report: dict) -> str:
    machine, versions = report["machine"], report["versions"]
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['vectors']}; {found}"


def draw(report: dict, path: Path) -> None:
    """Draws seconds per epoch: a bar for each program and number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = {key[1] for key in (figure["key"] for figure in report["figures"])}
    names = [name for name in PROGRAMS if name in measured and name != "onnxruntime"]
    figure, axes = pyplot.subplots(figsize=(8, 6), layout="constrained")
    for i, threads in enumerate(report["threads"]):
        cells = [best(report["figures"], "train", name, MAIN_BATCH, threads) for name in names]
        positions = [row + 0.4 * i for row in range(len(names))]
        seconds = [cell["seconds"] for cell in cells]
        bars = axes.barh(positions, seconds, 0.38, label=plural(threads))
        axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_yticks([row + 0.2 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"seconds per epoch of 60,000 images, batches of {MAIN_BATCH}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="one round, training at batch 128 only"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "results")
    arguments = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    threads = sorted({1, cores})
    export = [sys.executable, Path(__file__).with_name("export.py")]
    call([*export, ROOT / "tests" / "tanh.pth", ONNX.with_suffix("")])
    # Not by --manifest-path: cargo reads the settings of the folder that it runs in.
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=PEERS, check=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "threads": threads,
        "sgemm_gflops": {str(n): [] for n in threads},
        "figures": [],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{report['date']}-{slug(report['machine'])}.json"
    steps = plan(arguments.quick, threads, report["machine"]["vectors"])
    rounds = 1 if arguments.quick else arguments.rounds
    for number in range(1, rounds + 1):
        for n in threads:
            report["sgemm_gflops"][str(n)].append(sgemm(n))
        for i, key in enumerate(steps, 1):
            result = measure(*key)
            report["figures"].append({"key": key, "round": number, "result": result})
            path.write_text(json.dumps(report, indent=1) + "\n")
            metric, value = next(iter(result.items()))
            what = f"{key[0]} {key[1]}, batch {key[2]}, {plural(key[3])}: {value:.4g} {metric}"
            print(f"round {number}/{rounds}, {i}/{len(steps)}: {what}", file=sys.stderr)
    path.with_suffix(".md").write_text(tables(report))
    draw(report, path.with_suffix(".png"))
    print(tables(report), end="")


def slug(machine: dict) -> str:
    words = "".join(c if c.isalnum() else " " for c in machine["cpu"].lower()).split()
    return "-".join([*words[:3], f"{machine['cores']}-cores", machine["vectors"]])


if __name__ == "__main__":
    main()
