"""Repeats the experiments of the 1998 paper, and prints the results beside the paper's.

Run: make reproduce    (about ten minutes on two cores; continues where it was stopped)
Writes: runs/paper/NAME-SEED, one run of `train` each; runs/paper/results.md, the printed tables;
runs/paper/report, the pictures of one network trained with distortions.
"""

import argparse
import csv
import json
import signal
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
BINARIES = ROOT / "target" / "release"
EPOCHS = 20
# Exit codes of `train` after a signal; its checkpoint is then written.
STOPPED = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
RECIPE = ("--preset=paper", f"--epochs={EPOCHS}", "--train-error")
# Options that differ from the paper's training on 60,000 samples.
EXPERIMENTS = {
    "60000": (),
    "30000": ("--limit=30000",),
    "15000": ("--limit=15000",),
    "distorted": ("--distort",),
    "mild": ("--distort=mild",),
}
# The paper's numbers: Fig. 5 by epoch, text of section III.C and Fig. 6.
EPOCH_ERRORS = {
    "test": [2.67, 2.25, 1.48, 1.42, 1.42, 1.08, 1.03, 1.06, 0.98, 0.95],
    "training": [4.94, 3.07, 1.76, 1.48, 1.22, 0.90, 0.76, 0.69, 0.56, 0.47],
}
TEST_ERRORS = {"60000": 0.95, "30000": 1.15, "15000": 1.69, "distorted": 0.8, "mild": 0.8}
TRAINING_ERRORS = {"60000": 0.36, "30000": 0.32, "15000": 0.06}
NAMES = {
    "60000": "60,000 samples",
    "30000": "30,000 samples",
    "15000": "15,000 samples",
    "distorted": "60,000 samples, distorted anew in each pass",
    "mild": "60,000 samples, distorted mildly",
}


def train(folder: Path, arguments: tuple[str, ...], stopped: threading.Event) -> None:
    """Runs `train`, from the folder's checkpoint if there is one."""
    done = metrics(folder)
    if len(done) == EPOCHS or stopped.is_set():
        return
    if (folder / "checkpoint.pth").exists():
        arguments = (f"--resume={folder}",)
    else:
        arguments = (*RECIPE, *arguments, "--device=cpu", "--threads=1", f"--out={folder}")
    command = [BINARIES / "train", *arguments]
    # Ctrl-C and a closed terminal also stop the runs: each writes its checkpoint.
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode in STOPPED:
        stopped.set()
    elif result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{result.stderr}")
    else:
        error = metrics(folder)[-1]["test_error_percent"]
        print(f"{folder.name}: test error {error:.2f} %", file=sys.stderr, flush=True)


def metrics(folder: Path) -> list[dict]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def evaluate(folder: Path) -> dict:
    """Evaluates the last weights of a run on the test images."""
    logits = folder / "logits.safetensors"
    command = [BINARIES / "evaluate", f"--weights={folder / 'model.pt'}", "--json", "--threads=1"]
    command.append(f"--logits={logits}")
    result = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    tensors = load_file(logits)
    best, predictions = tensors["logits"].topk(2)
    order = (best[:, 0] - best[:, 1]).argsort(descending=True)
    wrong = predictions[:, 0] != tensors["labels"]
    accepted = len(order) * 91 // 100
    result["error_at_9_percent"] = 100 * wrong[order[:accepted]].float().mean().item()
    result["misclassified"] = set(wrong.nonzero().flatten().tolist())
    return result


def spread(values: list[float], digits=2) -> str:
    """Formats the mean and, of several values, the standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def tables(folder: Path, seeds: list[int]) -> str:
    def runs(name: str) -> list[Path]:
        return [folder / f"{name}-{seed}" for seed in seeds]

    def last(name: str, key: str) -> list[float]:
        return [metrics(run)[-1][key] for run in runs(name)]

    lines = [f"Means ± standard deviations over {len(seeds)} seeds, after {EPOCHS} passes."]
    lines += ["", "| | paper | here |", "|---|---|---|"]

    def row(what: str, paper: str, here: str) -> None:
        lines.append(f"| {what} | {paper} | {here} |")

    for name, words in NAMES.items():
        errors = spread(last(name, "test_error_percent"))
        row(f"test error, {words}", f"{TEST_ERRORS[name]:.2f} %", f"{errors} %")
    for name, words in NAMES.items():
        paper = f"{TRAINING_ERRORS[name]:.2f} %" if name in TRAINING_ERRORS else "-"
        errors = spread(last(name, "train_error_percent"))
        row(f"training error, {words}", paper, f"{errors} %")
    with open(ROOT / "data" / "misread_1998.csv", encoding="utf-8") as file:
        papers = {int(entry["test image"]) for entry in csv.DictReader(file)}
    distortions = {"60000": "", "distorted": ", with distortions", "mild": ", with mild ones"}
    for name, with_distortions in distortions.items():
        found = [evaluate(run) for run in runs(name)]
        key = "rejected_percent_for_half_percent_error"
        row(
            f"rejected for 0.5 % error{with_distortions}",
            "-",
            f"{spread([result[key] for result in found])} %",
        )
        row(
            f"error where 9 % are rejected{with_distortions}",
            "1 % (zip codes, 1989)",
            f"{spread([result['error_at_9_percent'] for result in found])} %",
        )
        both = [float(len(papers & result["misclassified"])) for result in found]
        row(
            f"of the 82 digits that the paper's network misread, misread too{with_distortions}",
            "82",
            spread(both, 0),
        )
    rates = [metrics(run)[0]["parameter_rates"] for run in runs("60000")]
    here = " to ".join(f"{statistics.mean(ends):.1e}" for ends in zip(*rates, strict=True))
    row("learning rates of the weights in the first pass", "7e-5 to 1.6e-2", here)
    seconds = [sum(line["seconds"] for line in metrics(run)) for run in runs("60000")]
    row(f"time of the {EPOCHS} passes", "2 to 3 days", f"{statistics.mean(seconds):.0f} s")

    epochs = [*range(1, 11), 15, 20]
    lines += ["", "| error in %, by pass | " + " | ".join(map(str, epochs)) + " |"]
    lines.append("|---" * (len(epochs) + 1) + "|")
    series = [metrics(run) for run in runs("60000")]
    for kind, key in ("test", "test_error_percent"), ("training", "train_error_percent"):
        paper = [f"{error:.2f}" for error in EPOCH_ERRORS[kind]]
        lines.append(f"| {kind}, paper | " + " | ".join([*paper, "", ""]) + " |")
        here = [
            f"{statistics.mean(run[number - 1][key] for run in series):.2f}" for number in epochs
        ]
        lines.append(f"| {kind}, here | " + " | ".join(here) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of runs of each experiment")
    parser.add_argument("--jobs", type=int, default=torch.get_num_threads(), help="parallel runs")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "paper")
    arguments = parser.parse_args()
    seeds = list(range(1, arguments.seeds + 1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    stopped = threading.Event()
    # An ignored SIGINT, as in a script's background job, stays ignored.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: stopped.set())
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = []
        for seed in seeds:
            for name, settings in EXPERIMENTS.items():
                folder = arguments.out / f"{name}-{seed}"
                runs.append(pool.submit(train, folder, (*settings, f"--seed={seed}"), stopped))
        for run in runs:
            run.result()
    if stopped.is_set():
        raise SystemExit("stopped; the same command goes on")
    text = tables(arguments.out, seeds)
    (arguments.out / "results.md").write_text(text)
    print(text, end="")
    report = [f"--weights={arguments.out / 'mild-1' / 'model.pt'}"]
    report.append(f"--report={arguments.out / 'report'}")
    subprocess.run([BINARIES / "evaluate", *report], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
