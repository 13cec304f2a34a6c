"""Tests that every package can be published: what its archive holds, and how large it is.

Run: make test-all, or .venv/bin/python -m pytest -m exhaustive tests/test_packages.py
"""

import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_BYTES = 10_000_000  # the registry's limit is a little higher


@pytest.mark.exhaustive
def test_packages(tmp_path):
    command = ["cargo", "package", "--locked", "--no-verify", "--allow-dirty", "--workspace"]
    command += ["--exclude", "lenet5-programs", "--target-dir", tmp_path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    archives = {path.name: path for path in (tmp_path / "package").glob("*.crate")}
    version = "0.1.0"
    names = ["lenet5", "lenet5-cli", "lenet5-core", "lenet5-mnist", "lenet5-reader", "lenet5-web"]
    assert set(archives) == {f"{name}-{version}.crate" for name in [*names, "libtorch-check"]}
    for name, path in archives.items():
        assert path.stat().st_size < MAX_BYTES, name

    def files_of(name):
        """Returns the files in the archive of the package `name`: from path to member."""
        with tarfile.open(archives[f"{name}-{version}.crate"]) as archive:
            return {member.name.partition("/")[2]: member for member in archive.getmembers()}

    files = files_of("lenet5-core")
    # The weights are files there, not links out of the package.
    for name in ["lenet5", "lenet5-1998", "lenet5-reading", "lenet5-reject"]:
        assert files[f"weights/{name}.safetensors"].size > 200_000
    assert "data/codes_1998.txt" in files
    # The page and its module are in the package that embeds them.
    assert files_of("lenet5-web")["page/lenet5/lenet5.wasm.gz"].size > 1_000_000
