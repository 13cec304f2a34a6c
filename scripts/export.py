"""Exports LeNet-5's weights as a torch.export program and as ONNX, and checks both.

Both formats replace TorchScript, which PyTorch has deprecated. Both files take images
(N, 1, 32, 32), or (N, 1, 28, 28) with "unpadded" input, for any N, and give logits (N, classes).
Both hold the settings as JSON under "lenet5".

Run: .venv/bin/python -m pip install -r scripts/requirements-export.txt
     .venv/bin/python scripts/export.py weights/lenet5.safetensors [lenet5]
IN is any file that `convert` reads. Writes OUT.pt2 and OUT.onnx if they agree with our program
`evaluate` on MNIST's test images: the same predictions, and logits within 1e-4.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from lenet5 import LeNet5
from mnist import read_mnist, to_input
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.export import Dim

BATCH_SIZE = 1000  # as in `evaluate`: the last bits of logits depend on it
TOLERANCE = 1e-4

Forward = Callable[[Tensor], Tensor]


def rust(binary: Path, *arguments) -> None:
    """Runs one of our programs."""
    command = [str(binary), *map(str, arguments)]
    try:
        result = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    except OSError as error:
        hint = "run cargo build --release, or give --bin"
        raise SystemExit(f"error: {binary}: {error.strerror}; {hint}") from None
    if result.returncode != 0:
        raise SystemExit(f"error: {' '.join(command)} failed")


def read_settings(path: Path) -> dict | None:
    """The settings in a safetensors file that our program wrote; None in any other file."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["lenet5"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None  # `convert` reports what is wrong with it, if anything


def make_model(path: Path, settings: dict) -> LeNet5:
    model = LeNet5(**settings)
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()


def export(model: LeNet5, images: Tensor, settings: dict, pt2: Path, onnx: Path) -> int:
    """Writes both files, and returns ONNX's opset version."""
    program = torch.export.export(model, (images,), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, pt2, extra_files={"lenet5": json.dumps(settings)})
    onnx_program = torch.onnx.export(
        program, dynamo=True, input_names=["images"], output_names=["logits"],
        dynamic_shapes=({0: "batch"},), verbose=False,
    )  # fmt: skip
    onnx_program.model.metadata_props["lenet5"] = json.dumps(settings)
    onnx_program.save(onnx)
    return onnx_program.model.opset_imports[""]


def load_pt2(path: Path) -> tuple[Forward, str]:
    extra = {"lenet5": ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module(), extra["lenet5"]


def load_onnx(path: Path) -> tuple[Forward, str]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def forward(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return forward, session.get_modelmeta().custom_metadata_map["lenet5"]


def check(form: str, forward: Forward, images: Tensor, expected: Tensor) -> bool:
    """Prints a row, and returns whether the logits are as expected."""
    with torch.no_grad():
        logits = torch.cat([forward(batch) for batch in images.split(BATCH_SIZE)])
        alone = forward(images[:1])  # another batch size
    close = torch.allclose(alone, expected[:1], rtol=0, atol=TOLERANCE)
    largest = (logits - expected).abs().max().item()
    bits = (logits.view(torch.int32) != expected.view(torch.int32)).sum().item()
    different = (logits.argmax(1) != expected.argmax(1)).sum().item()
    print(f"{form:<5} {largest:>18.3g} {bits:>17} {different:>14}")
    return close and different == 0 and largest < TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="IN", type=Path, help="weights, in any format")
    parser.add_argument("stem", metavar="OUT", nargs="?", help="path without suffix (default: IN)")
    release = Path(__file__).parent.parent / "target" / "release"
    parser.add_argument("--bin", type=Path, default=release, help="folder of our programs")
    arguments = parser.parse_args()
    stem = arguments.stem or arguments.weights.with_suffix("")
    if not Path(stem).parent.is_dir():
        parser.error(f"{Path(stem).parent}: no such folder")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder, weights = Path(temporary), arguments.weights
        if read_settings(weights) is None:
            weights = folder / "weights.safetensors"
            rust(arguments.bin / "convert", arguments.weights, weights)
        settings = {"input": "padded", **read_settings(weights)}  # older files do not name it
        rust(
            arguments.bin / "evaluate", "--device=cpu", "--threads=1", f"--weights={weights}",
            f"--logits={folder / 'logits'}",
        )  # fmt: skip
        expected = load_file(folder / "logits")["logits"]
        preprocessing = {key: settings[key] for key in ("mean", "std", "input")}
        images = to_input(read_mnist("t10k")[0], **preprocessing)

        pt2, onnx = folder / "out.pt2", folder / "out.onnx"
        # The .pt2 stores the example's whole storage: a copy keeps it small.
        opset = export(make_model(weights, settings), images[:2].clone(), settings, pt2, onnx)
        print(f"PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, opset {opset}")
        print("form  largest difference  differing logits  other answers")
        good = True
        for path, (forward, text) in (pt2, load_pt2(pt2)), (onnx, load_onnx(onnx)):
            good &= check(path.suffix, forward, images, expected)
            assert json.loads(text) == settings, f"{path.suffix}: other settings than were stored"
        if not good:
            print("error: not what evaluate computes; nothing is written", file=sys.stderr)
            return 1
        for path in pt2, onnx:
            out = f"{stem}{path.suffix}"
            shutil.move(path, out)
            print(f"wrote {out}, {Path(out).stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    # Hide PyTorch's warnings about its internals, and about torchvision, which is not needed.
    warnings.filterwarnings("ignore", module=r"copyreg|torch\.")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    sys.exit(main())
