"""Tests that TensorBoard's own reader finds in a run's event files what the run computed.

Run: pytest tests/test_tensorboard.py, after `cargo build --release`.
"""

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from lenet5 import LeNet5
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

TRAIN = Path(__file__).parent.parent / "target" / "release" / "train"
SETTINGS = ("--device=cpu", "--threads=1", "--limit=2000", "--train-error")


def train(*arguments) -> subprocess.CompletedProcess:
    if not TRAIN.exists():
        pytest.skip("there is no target/release/train; run cargo build --release")
    return subprocess.run(
        [TRAIN, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def trained(folder: Path, *settings: str) -> Path:
    result = train(*SETTINGS, *settings, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder


def resumed(folder: Path, epochs: int, *settings: str) -> None:
    result = train("--resume", folder, f"--epochs={epochs}", *settings)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two epochs with event files."""
    return trained(tmp_path_factory.mktemp("runs") / "1", "--epochs=2", "--tensorboard")


def event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*tfevents*"))


def read(folder: Path) -> EventAccumulator:
    kinds = "scalars", "images", "histograms", "tensors"
    return EventAccumulator(str(folder), size_guidance=dict.fromkeys(kinds, 0)).Reload()


def steps(folder: Path) -> dict[str, list[int]]:
    """The steps of each chart."""
    charts = read(folder)
    tags = charts.Tags()
    found = {tag: charts.Scalars(tag) for tag in tags["scalars"]}
    found |= {tag: charts.Histograms(tag) for tag in tags["histograms"]}
    found |= {tag: charts.Images(tag) for tag in tags["images"]}
    return {tag: [event.step for event in events] for tag, events in found.items()}


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors = LeNet5.from_file(folder / "model.pt").state_dict()
    return {f"parameters/{name}": tensor for name, tensor in tensors.items()}


def assert_scalars(folder: Path, names: dict[str, str]) -> None:
    charts = read(folder)
    assert set(charts.Tags()["scalars"]) == set(names)
    lines = metrics(folder)
    for tag, name in names.items():
        events = charts.Scalars(tag)
        assert [event.step for event in events] == [line["epoch"] for line in lines]
        for event, line in zip(events, lines, strict=True):
            assert event.value == np.float32(line[name]), tag


def assert_histograms(charts: EventAccumulator, step: int, tensors: dict) -> None:
    assert set(charts.Tags()["histograms"]) == set(tensors)
    for name, tensor in tensors.items():
        (histogram,) = [e.histogram_value for e in charts.Histograms(name) if e.step == step]
        values = tensor.double().flatten()
        assert histogram.min == values.min() and histogram.max == values.max()
        assert histogram.num == len(values) == sum(histogram.bucket)
        assert histogram.sum == pytest.approx(values.sum().item(), rel=1e-9, abs=1e-9)
        assert histogram.sum_squares == pytest.approx((values**2).sum().item(), rel=1e-9)
        limits = np.array(histogram.bucket_limit)
        assert (np.diff(limits) > 0).all() and limits[-1] == histogram.max
        counts, _ = np.histogram(values, np.concatenate([[histogram.min], limits]))
        # A number on the border of two buckets may be in either of them.
        assert np.abs(counts - histogram.bucket).sum() <= 2


SCALARS = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "error/train": "train_error_percent",
    "error/test": "test_error_percent",
    "training/learning rate": "learning_rate",
    "training/images per second": "images_per_second",
}


def test_scalars_are_those_of_the_metrics(finished):
    assert_scalars(finished, SCALARS)


def test_histograms_are_those_of_the_weights(finished, tmp_path):
    charts = read(finished)
    assert_histograms(charts, 2, weights(finished))
    assert_histograms(charts, 0, weights(trained(tmp_path / "initial", "--epochs=0")))


def test_misclassified_images(finished):
    charts = read(finished)
    assert [event.step for event in charts.Images("misclassified")] == [1, 2]
    event = charts.Images("misclassified")[-1]
    picture = Image.open(io.BytesIO(event.encoded_image_string))
    assert picture.format == "PNG" and picture.mode == "RGB"
    assert picture.size == (event.width, event.height) == (596, 760)
    assert np.array(picture).std() > 20


def test_the_current_format_has_the_same_values(finished):
    """TensorBoard's pages use this reader, which converts events to the format of TensorFlow 2."""
    (path,) = event_files(finished)
    plugins = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            plugins.setdefault(value.metadata.plugin_data.plugin_name, set()).add(value.tag)
    assert plugins == {
        "scalars": set(SCALARS),
        "histograms": set(weights(finished)),
        "images": {"misclassified"},
    }


def assert_each_epoch_once(folder: Path, epochs: int) -> None:
    found = steps(folder)
    assert set(SCALARS) <= set(found)
    for tag, its_steps in found.items():
        first = 0 if tag in weights(folder) else 1
        assert its_steps == list(range(first, epochs + 1)), tag


def test_a_resumed_run_goes_on(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    resumed(folder, 2)  # no epoch is left, and no file is written
    assert len(event_files(folder)) == 1
    resumed(folder, 3)
    assert len(event_files(folder)) == 2
    assert_each_epoch_once(folder, 3)
    assert_scalars(folder, SCALARS)
    assert_histograms(read(folder), 3, weights(folder))


@pytest.mark.parametrize("torn", [0, 10])
def test_an_epoch_whose_checkpoint_is_missing_is_replaced(finished, tmp_path, torn):
    """As after a run that was killed before its checkpoint, perhaps while it wrote the events."""
    folder = shutil.copytree(finished, tmp_path / "run")
    checkpoint = (folder / "checkpoint.pth").read_bytes()
    resumed(folder, 4)
    (folder / "checkpoint.pth").write_bytes(checkpoint)
    last = event_files(folder)[-1]
    content = last.read_bytes()
    last.write_bytes(content[: len(content) - torn])
    resumed(folder, 4)
    assert len(event_files(folder)) == 3
    assert_each_epoch_once(folder, 4)
    assert_scalars(folder, SCALARS)


def test_event_files_change_no_result(finished, tmp_path):
    folder = trained(tmp_path / "run", "--epochs=2")
    assert event_files(folder) == []
    assert "tensorboard" not in json.loads((folder / "config.json").read_text())
    assert (folder / "model.pt").read_bytes() == (finished / "model.pt").read_bytes()
    measured = {"seconds", "images_per_second", "run"}
    for ours, theirs in zip(metrics(folder), metrics(finished), strict=True):
        assert {k: ours[k] for k in ours.keys() - measured} == {
            k: theirs[k] for k in theirs.keys() - measured
        }
    resumed(folder, 3, "--tensorboard")
    assert steps(folder)["loss/test"] == [3]


def test_each_run_of_a_sweep_has_its_own(tmp_path):
    result = train(
        *SETTINGS[:2],
        *("--limit=500", "--validation=1000", "--epochs=1", "--seeds=1..2", "--tensorboard"),
        *("--out", tmp_path / "sweep"),
    )
    assert result.returncode == 0, result.stderr
    folders = [tmp_path / "sweep" / f"seed={seed}" for seed in (1, 2)]
    for folder in folders:
        assert len(event_files(folder)) == 1
        names = {tag.replace("test", "validation"): name for tag, name in SCALARS.items()}
        del names["error/train"]
        assert_scalars(folder, names)


def test_other_event_files_are_not_mixed_with_those_of_a_run(tmp_path):
    (tmp_path / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"")
    result = train(*SETTINGS, "--epochs=1", "--tensorboard", "--out", tmp_path)
    assert result.returncode == 1
    assert "holds a run already" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["events.out.tfevents.1700000000.host.1.0"]
