"""Measures LeNet-5 in WebAssembly: its speed in Node and in Chromium, and how fast the page reads.

Run: make bench-browser    (eight minutes; needs Node, npm and Chromium; ARGS="--quick")
Writes: benches/results/DATE-MACHINE-browser.json, all figures; .md, the tables.

The peer is onnxruntime-web, with the same network and the same digits. Each round measures all
programs in turn; the best round counts. The page is measured while a mouse writes on it.
"""

import argparse
import datetime
import functools
import gzip
import http.server
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bench
from page_driver import CHROMIUM, FLAGS, on_sheet, serving
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = bench.ROOT
NETWORK = ROOT / "tests" / "tanh.pth"
SIZES = [1, 16, 1000]
PROGRAMS = {"lenet5": "lenet5", "onnxruntime": "onnxruntime-web"}
STROKES = 200
EVENT_MS = 17  # a mouse or pen moves about so often


def fill(folder: Path) -> None:
    """Puts all files that scripts/bench_web.mjs needs into a folder."""
    packages = ROOT / "target" / "bench-web"
    packages.mkdir(exist_ok=True)
    for name in ["package.json", "package-lock.json"]:
        shutil.copy(ROOT / "scripts" / "bench_web" / name, packages)
    install = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=packages, check=True)
    (folder / "onnxruntime-web").symlink_to(packages / "node_modules" / "onnxruntime-web")
    (folder / "lenet5").symlink_to(ROOT / "web" / "page" / "lenet5")
    shutil.copy(ROOT / "scripts" / "bench_web.mjs", folder)
    shutil.copy(NETWORK, folder / "weights.pth")
    export = [sys.executable, Path(__file__).with_name("export.py")]
    bench.call([*export, NETWORK, folder / "network"])
    images = gzip.decompress((ROOT / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    (folder / "digits").write_bytes(images[16:])


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A handler that logs nothing."""

    def log_message(self, *_) -> None:
        pass


@contextmanager
def host(folder: Path) -> Iterator[str]:
    """Sends the files of a folder by HTTP, from the address that it yields."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


IN_BROWSER = """async ([program, sizes]) => {
    const bytes = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());
    const { measure } = await import("./bench_web.mjs");
    const files = {
        lenet5: await import("./lenet5/index.js"),
        onnxruntime: await import("./onnxruntime-web/dist/ort.wasm.bundle.min.mjs"),
        module: await bytes("lenet5/lenet5.wasm.gz"),
        weights: await bytes("weights.pth"),
        onnx: await bytes("network.onnx"),
    };
    return measure(program, files, await bytes("digits"), sizes);
}"""


def measure_programs(folder: Path, address: str, browser: Browser) -> dict[str, dict]:
    """Returns the labels and the images per second of each program, in Node and in Chromium."""
    results = {"native": {"rates": [bench.Ours("fused").infer(n, 1) for n in SIZES]}}
    results["native"]["rates"] = [r["images_per_second"] for r in results["native"]["rates"]]
    for program, name in PROGRAMS.items():
        command = ["node", folder / "bench_web.mjs", program, folder, *map(str, SIZES)]
        results[f"{name}, Node"] = json.loads(bench.call(command)[0])
        page = browser.new_page()
        page.goto(f"{address}/lenet5/README.md")  # any file of the same origin
        page.goto(f"{address}/")
        results[f"{name}, Chromium"] = page.evaluate(IN_BROWSER, [program, SIZES])
        page.close()
    labels = [result.pop("labels") for name, result in results.items() if name != "native"]
    assert all(found == labels[0] for found in labels), "the programs do not read the same"
    return results


# Notes how long each reading takes while `timing` is true: from the event of the pointer until the
# page has the answer, with all layers, and until the next frame has been painted with it.
WATCH = """() => {
    const sheet = document.getElementById("sheet"), reading = document.getElementById("reading");
    Object.assign(window, { times: [], timing: false });
    let event = 0, start = 0;
    sheet.addEventListener("pointermove", () => { event = performance.now(); }, true);
    new MutationObserver(() => {
        const now = performance.now();
        if (reading.ariaBusy === "true") { start = window.timing ? event : 0; return; }
        if (!start) return;
        const time = { answer: now - start };
        const from = start;
        const channel = new MessageChannel();
        channel.port1.onmessage = () => { time.painted = performance.now() - from; };
        requestAnimationFrame(() => channel.port2.postMessage(0));
        window.times.push(time);
    }).observe(reading, { attributes: true, attributeFilter: ["aria-busy"] });
}"""


def write(page: Page, text: str) -> int:
    """Writes a line of digits, the last of them slowly, and returns its number of strokes."""
    sheet = page.locator("#sheet").bounding_box()
    *_, last = digits = list(on_sheet(text))
    for strokes in digits:
        slowly = strokes is last
        for stroke in strokes:
            points = [
                (sheet["x"] + sheet["width"] * x, sheet["y"] + sheet["height"] * y)
                for x, y in [*stroke[:-1:3], stroke[-1]]
            ]
            page.mouse.move(*points[0])
            page.mouse.down()
            page.evaluate(f"window.timing = {json.dumps(slowly)}")
            for point in points[1:]:
                page.mouse.move(*point)
                page.wait_for_timeout(EVENT_MS if slowly else 0)
            page.wait_for_selector("#reading[aria-busy=false]")
            page.evaluate("window.timing = false")
            page.mouse.up()
            page.wait_for_selector("#reading[aria-busy=false]")
    return len(last)


def measure_page(address: str, browser: Browser, before: str) -> dict[str, list[float]]:
    """Returns the milliseconds of each reading, while a digit is written after `before`."""
    page = browser.new_page(reduced_motion="reduce")
    page.goto(address)
    page.evaluate(WATCH)
    strokes = digit = 0
    while strokes < STROKES:
        strokes += write(page, before + str(digit % 10))
        digit += 1
        page.keyboard.press("Escape")
        page.wait_for_selector("#reading[aria-busy=false]")
    times = page.evaluate("window.times")
    page.close()
    return {kind: [round(time[kind], 1) for time in times] for kind in ["answer", "painted"]}


# Writes an example as soon as the page has been loaded, and notes the time of the first answer.
FIRST = """addEventListener("load", () => {
    const loaded = performance.now();
    const text = document.getElementById("text");
    new MutationObserver(() => {
        if (text.textContent) window.first ??= performance.now() - loaded;
    }).observe(text, { subtree: true, childList: true, characterData: true });
    document.querySelector("#examples button:nth-of-type(8)").click();
})"""


def measure_first_answer(address: str, browser: Browser) -> float:
    """Returns the milliseconds from the load event of the page to its first answer."""
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.add_init_script(FIRST)
    page.goto(address)
    page.locator("#text button").wait_for()
    first = page.evaluate("window.first")
    context.close()
    return first


def measure(rounds: int) -> dict:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving() as (page, _),
        sync_playwright() as playwright,
    ):
        fill(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with host(Path(folder)) as files:
            programs = [measure_programs(Path(folder), files, browser) for _ in range(rounds)]
        return {
            "chromium": browser.version,
            "programs": programs,
            "first_answer": [measure_first_answer(page, browser) for _ in range(10)],
            "page": {
                "one digit": measure_page(page, browser, ""),
                "four digits": measure_page(page, browser, "407"),
            },
        }


def tables(report: dict) -> str:
    """Returns the report's tables in Markdown."""
    machine = report["machine"]
    lines = [f"{report['date']}, {machine['cpu']}, {machine['cores']} cores; {report['versions']}."]
    heads = ["one at a time", *(f"{size:,} at a time" for size in SIZES[1:])]
    lines += ["", *bench.header("images per second, one thread", heads)]
    for name in report["programs"][0]:
        rates = zip(*(found[name]["rates"] for found in report["programs"]), strict=True)
        lines.append(bench.row(name, *(f"{max(rate):,.0f}" for rate in rates)))
    heads = ["readings", "median", "95th percentile", "most"]
    lines += ["", *bench.header("milliseconds after the pointer's event", heads)]
    for digits, found in report["page"].items():
        for kind, times in found.items():
            p95 = statistics.quantiles(times, n=20)[-1]
            cells = [statistics.median(times), p95, max(times)]
            what = {"answer": "the answer is there", "painted": "the frame is painted"}[kind]
            cells = [len(times), *(f"{cell:.1f}" for cell in cells)]
            lines.append(bench.row(f"{digits}, {what}", *map(str, cells)))
    first = report["first_answer"]
    lines += ["", f"First answer after the page has been loaded: {statistics.median(first):.0f} ms"]
    lines[-1] += f" (at most {max(first):.0f} ms of {len(first)})."
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "results")
    arguments = parser.parse_args()
    if not (CHROMIUM and shutil.which("node") and shutil.which("npm")):
        print("without Node, npm and Chromium the module is not measured", file=sys.stderr)
        return
    report = {"date": datetime.date.today().isoformat(), "machine": bench.machine()}
    report |= measure(1 if arguments.quick else arguments.rounds)
    node = bench.call(["node", "--version"])[0].strip()
    package = json.loads((ROOT / "scripts/bench_web/package.json").read_text())
    peer = package["dependencies"]["onnxruntime-web"]
    chromium = report.pop("chromium")
    report["versions"] = f"Node {node}, Chromium {chromium}, onnxruntime-web {peer}"
    path = arguments.out / f"{report['date']}-{bench.slug(report['machine'])}-browser.json"
    path.write_text(json.dumps(report) + "\n")
    path.with_suffix(".md").write_text(tables(report))
    print(tables(report), end="")


if __name__ == "__main__":
    main()
