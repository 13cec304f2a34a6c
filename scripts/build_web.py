"""Builds the WebAssembly module of the page, which the repository holds in its built form.

Run: make web. It needs Rust's target wasm32-unknown-unknown, which it installs with rustup; where
rustup reaches no server, it unpacks Debian's Rust for WebAssembly into target/, with apt-get. It
installs the command wasm-bindgen into target/tools if there is none of the right version.

Writes to web/page/lenet5: lenet5.js, lenet5.d.ts, lenet5.wasm.gz, and built-from.json with a
checksum of the sources and the versions of the tools. The same sources and tools give the same
bytes.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import zopfli.gzip

ROOT = Path(__file__).parent.parent
MODULE = ROOT / "web" / "page" / "lenet5"
TARGET = "wasm32-unknown-unknown"
STACK_BYTES = 8 << 20
TOOLS = ROOT / "target" / "tools"
DEBIAN = ROOT / "target" / "debian-rust"
DEBIAN_PACKAGES = ["rustc-web", "rust-web-src", "libstd-rust-web-dev"]
WEIGHTS = ["lenet5-reading", "lenet5-1998", "lenet5-reject"]


def sources() -> list[Path]:
    """Returns all files that the module is compiled from, apart from other people's crates."""
    files = [ROOT / "web/Cargo.toml", ROOT / "core/Cargo.toml", ROOT / "scripts/build_web.py"]
    files += (ROOT / "web/src" / name for name in ["lib.rs", "recognizer.rs", "types.d.ts"])
    files += (ROOT / "core/src").rglob("*.rs")
    files += (ROOT / f"weights/{name}.safetensors" for name in WEIGHTS)
    return sorted(files)


def checksum() -> str:
    """Returns a checksum of the sources, the versions of all crates, and the build's settings."""
    tree = ["cargo", "tree", "--locked", "-p", "lenet5-web", "--target", TARGET]
    tree += ["-e", "normal,build", "--prefix", "none", "--format", "{p} {f}"]
    crates = subprocess.run(tree, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    crates = sorted({line.replace(f" ({ROOT}", " (").strip() for line in crates.splitlines()})
    profile = (ROOT / "Cargo.toml").read_text().partition("[profile.web]")[2]
    result = hashlib.sha256("\n".join([*crates, profile]).encode())
    for file in sources():
        result.update(f"\n{file.relative_to(ROOT)}\n".encode())
        result.update(file.read_bytes())
    return result.hexdigest()


def output_of(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def say(text: str) -> None:
    print(f"build_web: {text}", file=sys.stderr)


def toolchain() -> tuple[dict[str, str], list[str], list[str]]:
    """Returns the environment, the options of rustc and those of cargo for the target."""
    sysroot = Path(output_of("rustc", "--print", "sysroot").strip())
    if not (sysroot / "lib/rustlib" / TARGET / "lib").exists():
        added = subprocess.run(["rustup", "target", "add", TARGET], cwd=ROOT, capture_output=True)
        if added.returncode != 0:
            say("rustup cannot install the target; taking Debian's packages")
            return debian_toolchain(sysroot)
    return {}, [], []


def debian_toolchain(sysroot: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Unpacks Debian's Rust for WebAssembly, which compiles its standard library from source."""
    rustc = DEBIAN / "usr/bin/rustc"
    if not rustc.exists():
        unpack_debian_packages()
    host = re.search(r"host: (\S+)", output_of("rustc", "-vV"))[1]
    libraries = [*DEBIAN.glob("usr/lib/*-linux-gnu*"), *DEBIAN.glob("usr/lib/llvm-*/lib")]
    environment = {
        "RUSTC": str(rustc),
        "RUSTC_BOOTSTRAP": "1",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
    }
    flags = [f"-Clinker={sysroot}/lib/rustlib/{host}/bin/rust-lld", "-Clinker-flavor=wasm-ld"]
    flags += [f"--remap-path-prefix={DEBIAN}/usr/lib/rustlib/src/rust=/rust"]
    return environment, flags, ["-Zbuild-std=std,panic_abort"]


def unpack_debian_packages() -> None:
    needed = output_of("apt-cache", "depends", "--recurse", "--no-suggests", *DEBIAN_PACKAGES)
    extra = re.findall(r"^(libstd-rust-web-[\d.]+|libllvm\d+)$", needed, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["apt-get", "download", *DEBIAN_PACKAGES, *sorted(set(extra))], cwd=folder, check=True
        )
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, DEBIAN], check=True)


def wasm_bindgen() -> Path:
    """Returns the command wasm-bindgen of the version that Cargo.lock has, installed if need be."""
    lock = (ROOT / "Cargo.lock").read_text()
    version = re.search(r'name = "wasm-bindgen"\nversion = "(.+)"', lock)[1]
    for command in [TOOLS / "bin" / "wasm-bindgen", shutil.which("wasm-bindgen")]:
        if command and Path(command).exists() and output_of(command, "-V").split()[1] == version:
            return Path(command)
    say(f"installing wasm-bindgen {version} into target/tools")
    install = ["cargo", "install", "wasm-bindgen-cli", "--version", version, "--root", TOOLS]
    subprocess.run(install, cwd=ROOT, check=True)
    return TOOLS / "bin" / "wasm-bindgen"


def build() -> None:
    bindgen = wasm_bindgen()
    environment, flags, options = toolchain()
    environment = os.environ | environment
    cargo_home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    # The paths of this machine would make a difference to the module, by the messages of panics.
    flags += [f"--remap-path-prefix={cargo_home}=/cargo", f"--remap-path-prefix={ROOT}=/lenet5"]
    # A shard of a batch is on the stack for a moment, and needs more than the usual 1 MiB.
    flags += ["-Ctarget-feature=+simd128", f"-Clink-arg=-zstack-size={STACK_BYTES}"]
    environment["RUSTFLAGS"] = " ".join(flags)
    command = ["cargo", "rustc", "--locked", "--profile", "web", "-p", "lenet5-web", "--lib"]
    command += ["--crate-type", "cdylib", "--target", TARGET, *options]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    with tempfile.TemporaryDirectory() as folder:
        module = ROOT / "target" / TARGET / "web" / "lenet5_web.wasm"
        bindings = [bindgen, "--target", "web", "--out-name", "lenet5", "--out-dir", folder]
        bindings += ["--remove-name-section", "--remove-producers-section", module]
        subprocess.run(bindings, check=True)
        for name in ["lenet5.js", "lenet5.d.ts"]:
            shutil.copyfile(Path(folder) / name, MODULE / name)
        bare = (Path(folder) / "lenet5_bg.wasm").read_bytes()
    packed = zopfli.gzip.compress(bare)  # 2 % smaller than gzip's best
    (MODULE / "lenet5.wasm.gz").write_bytes(packed)
    rustc = subprocess.run(
        [environment.get("RUSTC", "rustc"), "-V"], env=environment, capture_output=True, text=True
    )
    stamp = {
        "sources": checksum(),
        "rustc": rustc.stdout.strip(),
        "wasm-bindgen": output_of(bindgen, "-V").strip(),
    }
    (MODULE / "built-from.json").write_text(json.dumps(stamp, indent=2) + "\n")
    print(f"web/page/lenet5/lenet5.wasm.gz: {len(packed)} bytes, unpacked {len(bare)}")


if __name__ == "__main__":
    build()
