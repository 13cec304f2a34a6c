"""Tests of the README and the book: links, code and commands.

Run: make test, or .venv/bin/python -m pytest tests/test_docs.py    (needs the release binaries)

Commands run in a folder with the files that the pages name. Python blocks run page by page, in the
order of the page. Complete Rust programs are built and run as programs of other people's packages;
of other Rust blocks each line must be in a file of examples/.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lenet5 import LeNet5
from mnist import read_mnist

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "target" / "release"
BOOK = ROOT / "docs" / "src"
PAGES = sorted([*ROOT.glob("*.md"), *BOOK.glob("*.md"), ROOT / "fuzz" / "README.md"])
# Commands that are not run, as patterns, and the reason.
NOT_RUN = {
    "make .*": "test_make_targets checks that the target exists",
    "cargo install .*": "takes minutes",
    "cargo run --manifest-path .*": "downloads libtorch",
    "cargo run --release --bin train( -- --preset paper| -- --seed 1)?": "takes minutes",
    "cargo run --release --bin serve": "does not end; the test of curl starts it",
    "cargo test --release -p lenet5-core": "is a part of `make test`",
    "scripts/cuda_check.sh .*": "needs a GPU",
    "srun .*": "needs Slurm",
    "torchrun --nnodes=2 .*": "needs two machines; test_ranks.py starts two nodes on one",
}


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in these languages."""
    found = re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [code for language, code in found if language in languages]


def with_blocks(*languages: str):
    pages = [page for page in PAGES if blocks(page, *languages)]
    assert pages
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and mdBook form it."""
    text = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the pages name."""
    for name in "scripts", "weights", "core", "data":
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "tests" / "pictures", tmp_path / "tests" / "pictures")
    (tmp_path / "target").mkdir()
    model = LeNet5.from_file(ROOT / "weights" / "lenet5.pth")
    torch.save(model.state_dict(), tmp_path / "target" / "theirs.pth")
    for suffix in "pt", "pth", "safetensors":
        weights = ROOT / "weights" / f"lenet5.{suffix}"
        shutil.copy(weights, tmp_path / "target" / f"model.{suffix}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    """Every relative link leads to a file and, if it has one, to a heading there."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`\(", "", page.read_text(), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_book():
    listed = set(re.findall(r"\]\((\S+\.md)\)", (BOOK / "SUMMARY.md").read_text()))
    assert listed == {page.name for page in BOOK.glob("*.md")} - {"SUMMARY.md"}
    for picture in BOOK.glob("*.png"):
        assert any(picture.name in page.read_text() for page in PAGES), picture


def test_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_versions_are_those_of_cargo_toml():
    cargo = (ROOT / "Cargo.toml").read_text()
    oldest = re.search(r'^rust-version = "(.*)"', cargo, re.M)[1]
    tch = re.search(r'^tch = \{ version = "=(.*?)"', cargo, re.M)[1]
    torch_version = torch.__version__.partition("+")[0]
    for page in PAGES:
        text = page.read_text()
        for found in re.findall(r"Rust(?:\]\(\S+\))? (1\.\d+) or newer", text):
            assert found == oldest, page
        for found in re.findall(r"tch (0\.\d+\.\d+)", text):
            assert found == tch, page
        for found in re.findall(r"libtorch (\d+\.\d+\.\d+)", text):
            assert found == torch_version, page


def test_make_targets():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M):
            assert target in targets, f"{page}: make {target}"


def test_options_exist():
    """Every option that a page names belongs to one of the programs."""
    names = ["train", "evaluate", "convert", "summary", "predict", "serve", "inspect"]
    help_texts = [run([PROGRAMS / name, "--help"]).stdout for name in names]
    known = set(re.findall(r"--[a-z][a-z0-9-]*", "".join(help_texts)))
    known |= {
        "--release",
        "--bin",
        "--example",
        "--path",
        "--manifest-path",
        "--features",
        "--open",
    }
    known |= {"--soak", "--zip-codes", "--index-url", "--man", "--completions"}
    # These are options of torchrun and srun.
    known |= {"--nproc-per-node", "--no-python", "--nnodes", "--node-rank", "--master-addr"}
    known |= {"--master-port", "--rdzv-backend", "--rdzv-endpoint", "--max-restarts", "--ntasks"}
    # These are options of tensorboard: --logdir and --samples_per_plugin.
    known |= {"--logdir", "--samples"}
    for page in PAGES:
        # The changelog names options of older versions too.
        if page.name != "CHANGELOG.md":
            found = set(re.findall(r"(?<=[\s`\"])--[a-z][a-z0-9-]*", page.read_text()))
            assert found <= known, f"{page}: {found - known}"


def run(command, **others) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **others
    )


def commands() -> list[tuple[str, list[str]]]:
    """Each command of all pages, with the output that is shown below it."""
    found = []
    for page in PAGES:
        for code in blocks(page, "sh", "console"):
            transcript = "$ " in code
            for line in map(str.rstrip, code.splitlines()):
                if transcript and not line.startswith("$ "):
                    found[-1][1].append(line)
                elif line:
                    found.append((re.sub(r"\s+#.*", "", line.removeprefix("$ ")), []))
    unique = {}
    for command, shown in found:
        unique.setdefault(command, []).extend(shown)
    return list(unique.items())


@pytest.mark.parametrize(("command", "shown"), commands(), ids=lambda value: str(value)[:60])
def test_command(command, shown, folder):
    if any(re.fullmatch(pattern, command) for pattern in NOT_RUN):
        return
    command, _, output = command.partition(" > ")
    words = shlex.split(command)
    if words[0] == "cargo":
        match words[1:]:
            case ["run", "--release", "--bin", name, *arguments]:
                words = [PROGRAMS / name, *arguments[1:]]
            case ["run", "--release", *_, "--example", name]:
                words = [PROGRAMS / "examples" / name]
            case _:
                pytest.fail(f"unknown cargo command: {command}")
    elif words[0] == "torchrun":
        words[0:1] = [sys.executable, "-m", "torch.distributed.run"]
        words = [PROGRAMS / "train" if word == "target/release/train" else word for word in words]
    elif words[0] == "lenet5":
        words[0] = PROGRAMS / "lenet5"
    server = None
    if words[0] == "curl":
        serve = [PROGRAMS / "serve", "--addr", "127.0.0.1:0"]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        address = server.stdout.readline().split("//")[1].strip()
        words = [word.replace("127.0.0.1:8080", address) for word in words]
    try:
        result = run(words, timeout=120)
    finally:
        if server:
            server.terminate()
            server.wait()
    assert result.returncode == 0, result.stderr
    if output:
        assert len(result.stdout) > 1000
    printed = result.stderr + result.stdout
    for line in shown:
        pattern = ".*".join(map(re.escape, line.split("...")))
        assert re.search(pattern, printed), printed


@with_blocks("python")
def test_python(page, folder):
    images, labels = read_mnist("t10k")
    model = LeNet5.from_file("weights/lenet5.pth")
    names = {
        "torch": torch, "safetensors": safetensors, "json": json, "LeNet5": LeNet5,
        "images": images, "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    }  # fmt: skip
    if "runs/1" in page.read_text():
        arguments = "--init", "weights/lenet5.pth", "--limit", "64", "--epochs", "1"
        result = run([PROGRAMS / "train", *arguments, "--out", "runs/1"])
        assert result.returncode == 0, result.stderr
    path = list(sys.path)
    try:
        with torch.no_grad():
            for code in blocks(page, "python"):
                exec(code, names)
            if "logits" in names:
                assert (names["logits"].argmax(1) != labels).sum() == 45
    finally:
        sys.path[:] = path
    for tuned in folder.glob("target/tuned.safetensors"):
        result = run([PROGRAMS / "evaluate", "--json", "--weights", tuned])
        assert json.loads(result.stdout)["errors"] == 45 and not result.stderr


def squeezed(text: str) -> str:
    """Code without whitespace: rustfmt may break its lines elsewhere."""
    return re.sub(r"\s|(?<=\W),(?=\s*[)\]}])", "", text)


@with_blocks("rust")
def test_rust_fragments_are_in_examples(page):
    examples = [squeezed(path.read_text()) for path in ROOT.glob("examples/*.rs")]
    for code in blocks(page, "rust"):
        if "fn main" not in code:
            lines = [squeezed(re.sub(r"//.*", "", line)) for line in code.splitlines()]
            assert any(all(line in example for line in lines) for example in examples), code


@pytest.mark.exhaustive
def test_rust_programs(folder):
    """Builds the programs of all pages in a package of their own, as crate.md describes it."""
    page = BOOK / "crate.md"
    build_script = next(code for code in blocks(page, "rust") if "rustc-link-arg" in code)
    manifest = next(code for code in blocks(page, "toml") if "torch-sys" in code)
    config = next(code for code in blocks(page, "toml") if "[env]" in code)
    package = folder / "my-program"
    for path in "src/bin", ".cargo":
        (package / path).mkdir(parents=True)
    manifest = manifest.replace("../lenet5", str(ROOT))
    # The profile is that of the tests, so that cargo uses again what it compiled for them.
    profile = tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"]["release"]
    lines = [f"{name} = {json.dumps(value)}" for name, value in profile.items()]
    manifest += "\n[profile.release]\n" + "\n".join(lines) + "\n"
    (package / "Cargo.toml").write_text(manifest)
    shutil.copy(ROOT / "Cargo.lock", package)
    (package / "build.rs").write_text(build_script)
    config = config.replace("../lenet5", str(ROOT))
    (package / ".cargo" / "config.toml").write_text(config)
    programs = [
        code
        for page in PAGES
        for code in blocks(page, "rust")
        if "fn main" in code and code != build_script
    ]
    programs = list(dict.fromkeys(programs))
    for index, code in enumerate(programs):
        (package / "src" / "bin" / f"page{index}.rs").write_text(code)
    # Another target folder would compile libtorch's bindings again.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")}
    environment.pop("LIBTORCH", None)
    environment.pop("LD_LIBRARY_PATH", None)
    result = run(["cargo", "build", "--release"], cwd=package, env=environment)
    assert result.returncode == 0, result.stderr
    printed = ""
    for index in range(len(programs)):
        program = ROOT / "target" / "release" / f"page{index}"
        result = run([program], cwd=folder, env=environment)
        assert result.returncode == 0, result.stderr
        printed += result.stdout
    assert "predictions [7, 2, 1, 0, 4, 1, 4, 9]" in printed
    assert "0.45 % of the test images are misclassified" in printed
    model = torch.jit.load(folder / "target" / "model.pt")
    images, labels = read_mnist("t10k")
    inputs = LeNet5.from_file(folder / "target" / "model.pth").prepare(images[:100])
    assert torch.equal(model(inputs).argmax(1), labels[:100])
