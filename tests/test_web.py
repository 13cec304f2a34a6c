"""Tests the module for browsers: it is as new as its sources, it reads in Node what `predict`
reads, and it is an npm package.

Run: pytest tests/test_web.py, after `cargo build --release`; it needs Node and npm. Without them
those tests are skipped.
"""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import build_web
import pictures
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PREDICT = ROOT / "target" / "release" / "predict"
PACKAGE = ROOT / "web" / "page" / "lenet5"
# The largest difference of probabilities between the module and the program.
TOLERANCE = 1e-6


def need(command: str) -> str:
    found = shutil.which(command)
    if not found:
        pytest.skip(f"{command} is not installed")
    return found


def test_the_module_is_as_new_as_its_sources():
    built_from = json.loads((PACKAGE / "built-from.json").read_text())
    assert built_from["sources"] == build_web.checksum(), "make web builds the module anew"


def test_each_list_of_files_is_whole():
    """A file that is missing in a list is not sent by `serve`, or not kept for use offline."""
    page = ROOT / "web" / "page"
    unsent = {"README.md", "package.json", "built-from.json", "example.html"}
    unsent |= {"index.d.ts", "lenet5.d.ts"}
    paths = [file.relative_to(page).as_posix() for file in page.rglob("*") if file.is_file()]
    files = {path for path in paths if Path(path).name not in unsent}
    sent = re.findall(r'page_file!\("[^"]*", "([^"]+)"', (ROOT / "web/src/page.rs").read_text())
    assert set(sent) == files
    listed = re.search(r"FILES = \[(.+?)\]", (page / "offline.js").read_text(), re.DOTALL)[1]
    kept = set(re.findall(r'"([^"]+)"', listed)) - {"./"}
    assert kept == files - {"index.html", "offline.js"}


def test_the_page_is_small():
    files = [file for file in (ROOT / "web" / "page").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 1.5e6


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    """Returns a folder with MNIST's test digits as PNG."""
    folder = tmp_path_factory.mktemp("mnist")
    images = gzip.decompress((ROOT / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    for i in range(10_000):
        image = Image.frombytes("L", (28, 28), images[784 * i : 784 * (i + 1)])
        image.save(folder / f"{i:04}.png", compress_level=0)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Returns a folder with a few pictures of each kind, and in several formats."""
    folder = tmp_path_factory.mktemp("drawn")
    pictures.make(folder, list(pictures.KNOWN), 3, seed=5)
    source = Image.open(ROOT / "tests/pictures/407.png").convert("RGB")
    for kind in ["bmp", "gif", "ico", "jpeg", "png", "ppm", "qoi", "tiff", "webp"]:
        source.save(folder / f"407.{kind}")
    (folder / "broken.png").write_bytes((ROOT / "tests/pictures/407.png").read_bytes()[:2000])
    (folder / "text.png").write_bytes(b"no picture")
    return folder


def compare(network: str, folder: Path) -> None:
    """Compares the module's readings of all pictures in a folder with those of `predict`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    node = [need("node"), ROOT / "tests/read_in_node.mjs", network]
    program = [PREDICT, "--json", "--model", network, "--", *files]
    paths = "".join(f"{file}\n" for file in files)
    run = {"capture_output": True, "text": True}
    by_module = subprocess.run(node, check=True, input=paths, **run).stdout.splitlines()
    by_program = subprocess.run(program, **run).stdout.splitlines()
    largest = 0.0
    for file, *lines in zip(files, by_module, by_program, strict=True):
        found, expected = map(json.loads, lines)
        assert expected.pop("file") == str(file)
        if "error" in expected:
            # The program's message begins with the name of the file.
            assert expected["error"].endswith(found["error"]), file
            continue
        for field in ["text", "accepted", "left_out", "other_lines"]:
            assert found[field] == expected[field], (file, field)
        for a, b in zip(found["digits"], expected["digits"], strict=True):
            for field in ["label", "box", "line", "rejected"]:
                assert a[field] == b[field], (file, field)
            pairs = zip(a["probabilities"], b["probabilities"], strict=True)
            largest = max(largest, *(abs(p - q) for p, q in pairs))
    assert largest <= TOLERANCE


@pytest.mark.parametrize("network", ["modern", "original"])
def test_all_test_digits_are_read_as_by_the_program(network, mnist):
    compare(network, mnist)


@pytest.mark.parametrize("network", ["modern", "original"])
def test_pictures_are_read_as_by_the_program(network, drawn):
    compare(network, drawn)


# The errors of the calls in wrong_calls.mjs.
ERRORS = {
    "no content": "Error: the module: expected the module, found no content",
    "not found": "Error: the module: status 404",
    "half a module": "",  # the browser's own words
    "the module": "none",
    "network": "RangeError: network: expected modern or original",
    "weights": "TypeError: weights: expected a Uint8Array",
    "no weights": "WeightsError: expected torch.save's archive",
    "limit": "RangeError: rejectBelow: expected a number from 0 to 1",
    "recognizer": "none",
    "buffer for file": "TypeError: file: expected a Uint8Array",
    "nothing for file": "TypeError: file: expected a Uint8Array",
    "no picture": "PictureError: expected a picture",
    "text for rgba": "TypeError: rgba: expected a Uint8Array",
    "wide pixels": "RangeError: width: expected a whole number of pixels from 1 on",
    "part of a pixel": "RangeError: width: expected a whole number of pixels from 1 on",
    "few pixels": "RangeError: expected 400 bytes of a picture of 10x10 pixels, found 4",
    "clamped pixels": "NoDigitsError: expected digits",
    "a rest": "RangeError: pictures: expected 784 bytes each, found 1 more",
    "numbers for pictures": "TypeError: pictures: expected a Uint8Array",
    "few numbers": "RangeError: pixels: expected 784 bytes, found 100",
    "many pictures": "none",
    "still alive": "none",
}


def test_wrong_calls_have_clear_errors():
    command = [need("node"), ROOT / "tests" / "wrong_calls.mjs"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = dict(line.split(" | ") for line in output.splitlines())
    assert list(found) == list(ERRORS)
    for name, expected in ERRORS.items():
        assert found[name].startswith(expected), (name, found[name])
        assert (found[name] == "none") == (expected == "none"), name


def test_the_package_has_all_files():
    command = [need("npm"), "pack", "--dry-run", "--json"]
    packed = subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, text=True)
    (package,) = json.loads(packed.stdout)
    assert {file["path"] for file in package["files"]} == {
        *("README.md", "package.json", "index.js", "index.d.ts", "lenet5.js", "lenet5.d.ts"),
        *("lenet5.wasm.gz", "example.html"),
    }
