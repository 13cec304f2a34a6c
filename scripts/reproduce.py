"""Repeats the experiments of the 1998 paper, and prints the results beside the paper's.

Run: make reproduce    (about ten minutes on two cores; continues where it was stopped)
     make reproduce ARGS="--zip-codes DIR"    (the experiments with zip codes, about as long)
Writes: runs/paper/NAME-SEED, one run of `train` each; runs/paper/results.md, the printed tables;
runs/paper/report, the pictures of one network trained with distortions. With zip codes all of this
in runs/zip-codes.
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
# The recipe with the lowest error on MNIST, without its distortions.
BEST_WITHOUT_DISTORTIONS = (
    "--activation=relu",
    "--pooling=max",
    "--nesterov",
    "--weight-decay=5e-4",
)
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


# What differs between the experiments with zip codes.
ZIP_CODES = {
    "1998": ("--preset=paper", "--epochs=20"),
    "1998-distorted": ("--preset=paper", "--epochs=20", "--distort=mild"),
    "modern": (*BEST_WITHOUT_DISTORTIONS, "--batch-size=32", "--epochs=60"),
    "modern-distorted": ("--preset=best", "--batch-size=32", "--epochs=240"),
}
# Published for the same 7,291 and 2,007 digits: error and rejected for 1 % error, in percent.
ZIP_CODES_PUBLISHED = {
    "network of 1989": ("5.0", "12.1"),
    "network of 1990": ("-", "about 9"),
    "people": ("2.5", "-"),
}


def train(folder: Path, arguments: tuple[str, ...], stopped: threading.Event) -> None:
    """Runs `train`, from the folder's checkpoint if there is one."""
    if stopped.is_set():
        return
    done = metrics(folder)
    if (folder / "checkpoint.pth").exists():
        if len(done) == json.loads((folder / "config.json").read_text())["epochs"]:
            return
        arguments = (f"--resume={folder}",)
    else:
        arguments = (*arguments, "--device=cpu", "--threads=1", f"--out={folder}")
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
            "1 % (zip codes, 1990)",
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


def zip_code_tables(folder: Path, seeds: list[int], data: Path) -> str:
    lines = [f"US zip codes of 1988, 2,007 test digits; means over {len(seeds)} seeds."]
    lines += ["", "| | error % | rejected for 1 % error, % |", "|---|---:|---:|"]
    for name, (error, rejected) in ZIP_CODES_PUBLISHED.items():
        lines.append(f"| {name} | {error} | {rejected} |")
    for name in ZIP_CODES:
        found = []
        for seed in seeds:
            model = folder / f"{name}-{seed}" / "model.pt"
            command = [BINARIES / "evaluate", model, "--data", data, "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout))
        keys = ("error_percent", "rejected_percent_for_one_percent_error")
        cells = [spread([result[key] for result in found]) for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of runs of each experiment")
    parser.add_argument("--jobs", type=int, default=torch.get_num_threads(), help="parallel runs")
    parser.add_argument(
        "--zip-codes", type=Path, metavar="DIR", help="instead, those with zip codes"
    )
    parser.add_argument("--out", type=Path, help="folder of the runs")
    arguments = parser.parse_args()
    seeds = list(range(1, arguments.seeds + 1))
    data = arguments.zip_codes and arguments.zip_codes.resolve()
    out = arguments.out or ROOT / "runs" / ("zip-codes" if data else "paper")
    out.mkdir(parents=True, exist_ok=True)
    if data:
        experiments = {name: (*options, f"--data={data}") for name, options in ZIP_CODES.items()}
        pictured, picture_options = "modern-distorted-1", [f"--data={data}"]
    else:
        experiments = {name: (*RECIPE, *options) for name, options in EXPERIMENTS.items()}
        pictured, picture_options = "mild-1", []
    stopped = threading.Event()
    # An ignored SIGINT, as in a script's background job, stays ignored.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: stopped.set())
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = []
        for seed in seeds:
            for name, settings in experiments.items():
                folder = out / f"{name}-{seed}"
                runs.append(pool.submit(train, folder, (*settings, f"--seed={seed}"), stopped))
        for run in runs:
            run.result()
    if stopped.is_set():
        raise SystemExit("stopped; the same command goes on")
    text = zip_code_tables(out, seeds, data) if data else tables(out, seeds)
    (out / "results.md").write_text(text)
    print(text, end="")
    report = [out / pictured / "model.pt", f"--report={out / 'report'}", *picture_options]
    subprocess.run([BINARIES / "evaluate", *report], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
