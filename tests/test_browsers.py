"""Tests the page of `serve` in Firefox and in Chromium, and programs that use the npm package.

Run: pytest tests/test_browsers.py, after `cargo build --release`; it needs Node, npm, Firefox and
Chromium. Without them the tests are skipped; if LENET5_REQUIRE_BROWSER is set, they fail. The tests
of one browser alone, with much more of the page, are in test_page.py.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import time_pictures
from page_driver import CHROMIUM, FLAGS, ROOT, SERVE
from test_page import expect, need, picture, sync_playwright

BROWSERS = {
    "firefox": next(filter(None, map(shutil.which, ["firefox-esr", "firefox"])), None),
    "chrome": CHROMIUM,
}
PACKAGE = ROOT / "web" / "page" / "lenet5"
OURS = ROOT / "tests" / "browsers"


def run(*command, cwd: Path, timeout: float = 300) -> str:
    options = {"cwd": cwd, "timeout": timeout, "capture_output": True, "text": True}
    result = subprocess.run([str(part) for part in command], **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Returns a folder with puppeteer and TypeScript, and the files that the page is given."""
    need(shutil.which("npm"), "npm is not installed")
    folder = tmp_path_factory.mktemp("browsers")
    for name in ["package.json", "package-lock.json"]:
        shutil.copy(OURS / name, folder)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    time_pictures.photo(folder / "photo.jpg", np.random.default_rng(0))
    (folder / "7.png").write_bytes(picture())
    weights = (ROOT / "tests" / "tanh.pth").read_bytes()
    (folder / "weights.pth").write_bytes(weights)
    (folder / "broken.pth").write_bytes(weights[: len(weights) // 2])
    return folder


@pytest.mark.parametrize("browser", BROWSERS)
def test_the_page_works_in(browser, folder):
    need(BROWSERS[browser], f"{browser} is not installed")
    need(SERVE.exists(), "there is no target/release/serve; run cargo build --release")
    command = ["node", OURS / "page.mjs", browser, BROWSERS[browser], SERVE, folder]
    checks = [json.loads(line) for line in run(*command, cwd=folder).splitlines()]
    assert [check for check in checks if "error" in check] == []
    assert len(checks) == 15


def test_a_program_in_typescript_can_use_the_package(folder):
    archive = json.loads(run("npm", "pack", "--json", PACKAGE, cwd=folder))[0]["filename"]
    run("npm", "install", "--no-save", "--offline", f"./{archive}", cwd=folder)
    shutil.copy(OURS / "types.ts", folder)
    options = ["--noEmit", "--strict", "--module", "esnext", "--moduleResolution", "bundler"]
    options += ["--target", "es2022", "--lib", "es2022,dom"]
    run(folder / "node_modules" / ".bin" / "tsc", *options, "types.ts", cwd=folder)


def test_the_example_page_reads(folder):
    need(sync_playwright and CHROMIUM, "playwright or Chromium is not installed")
    example = (PACKAGE / "example.html").read_text()
    assert len(example.splitlines()) <= 15
    book = (ROOT / "docs" / "src" / "browser.md").read_text()
    assert example.replace("./index.js", "./lenet5/index.js") in book
    host = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen(host, cwd=PACKAGE, **quiet)
    try:
        address = process.stdout.readline().split("(")[1].split("/)")[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page()
            page.goto(f"{address}/example.html")
            page.wait_for_function("file.onchange !== null")
            page.locator("#file").set_input_files(folder / "7.png")
            expect(page.locator("#text")).to_have_text("7")
            browser.close()
    finally:
        process.terminate()
        process.wait(timeout=30)
