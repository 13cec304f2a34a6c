"""Measures the HTTP service's requests per second, and tests it under mixed load.

Run: make load-test    (half a minute; ARGS="--soak 60" sends good, bad, slow, cut-off requests too)
Needs: oha (cargo install oha), on the PATH or by --oha FILE.
Prints a Markdown table of requests per second, and the results of the soak test; exit code 1 if a
check failed.

Service and load generator run on the same machine, over the loopback address, and share its cores.
The request body is a test image of MNIST as PNG. It also prints the engine's own limit: images per
second of the fused engine in batches, without HTTP, PNG or the search for digits.
"""

import argparse
import base64
import gzip
import io
import json
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
CONNECTIONS = (1, 16, 256)
SOAK_CLIENTS = 24
# Status codes that /v1/predict may return for each kind of request.
EXPECTED = {
    "good": {200},
    "good, original": {200},
    "good, json": {200},
    "good, multipart": {200},
    # It may exceed the timeout on a busy machine.
    "large": {200, 422, 503},
    "garbage": {422},
    "truncated": {400, 422},
    "wrong type": {200},
    "broken json": {400},
    "broken base64": {400},
    "broken multipart": {400},
    "bomb": {413},
    "large body": {413},
    "no route": {404},
}
MAX_BODY = 1 << 20
# Allowed growth of memory in the soak's second half (allocators keep some): fraction, and MiB.
GROWTH, GROWTH_MIB = 0.1, 16


class Service:
    """A running `serve`."""

    def __init__(self, program: Path, options: list[str], log):
        command = [program, "--addr=127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline().strip()
        if not line.startswith("listening on http://"):
            raise SystemExit(f"{program}: expected it to listen, found {line!r}")
        self.url = line.removeprefix("listening on ")
        self.host, port = self.url.removeprefix("http://").split(":")
        self.port = int(port)

    def memory(self) -> float:
        """Returns the resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextmanager
def serving(program: Path, options: list[str], log=subprocess.DEVNULL):
    service = Service(program, options, log)
    try:
        yield service
    finally:
        service.process.terminate()
        service.process.wait(30)


def read_mnist() -> tuple[np.ndarray, np.ndarray]:
    """Reads the test images (N, 28, 28) and their labels."""
    folder = ROOT / "data" / "mnist"
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    return np.frombuffer(images, np.uint8).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def load(service: Service, oha: str, body: Path, connections: int, seconds: int) -> list[str]:
    """Measures a row of the table."""
    size = service.metric("lenet5_batch_size_sum"), service.metric("lenet5_batch_size_count")
    command = [oha, "--no-tui", "--output-format=json", f"-z{seconds}s", f"-c{connections}"]
    command += ["-mPOST", f"-D{body}", "-Hcontent-type: image/png", service.url + "/v1/predict"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(output)
    sizes = service.metric("lenet5_batch_size_sum") - size[0]
    batches = service.metric("lenet5_batch_size_count") - size[1]
    codes = result["statusCodeDistribution"]
    # Requests cut off by the end of the measurement are not errors.
    others = {k: v for k, v in result["errorDistribution"].items() if "deadline" not in k}
    errors = sum(codes.values()) - codes.get("200", 0) + sum(others.values())
    rate = codes.get("200", 0) / result["summary"]["total"]
    p50, p99 = (f"{1e3 * result['latencyPercentiles'][p]:.2f} ms" for p in ("p50", "p99"))
    return [str(connections), f"{rate:,.0f}", p50, p99, f"{sizes / batches:.1f}", str(errors)]


def engine(batch: int, threads: int) -> float:
    """Measures the engine's images per second."""
    program = ROOT / "target" / "release" / "examples" / "inference"
    command = [program, "fused", str(batch), str(threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)["images_per_second"]


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---:"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Soak:
    """Clients that send random requests for a while, and check each response."""

    def __init__(self, service: Service, seed: int):
        self.service, self.seed = service, seed
        images, labels = read_mnist()
        self.labels = [str(label) for label in labels[:200]]
        self.pngs = [png(image) for image in images[:200]]
        self.right = {model: self.answers(model) for model in ("modern", "original")}
        self.bomb = png(np.zeros((9000, 9000), np.uint8))
        large = np.kron(255 - images[0], np.ones((40, 40), np.uint8))
        self.large = png(large)
        self.counts, self.failures = Counter(), []

    def answers(self, model: str) -> list[str]:
        """Returns the service's text for each image, sent alone; most equal the label."""
        connection = HTTPConnection(self.service.host, self.service.port, timeout=30)
        texts = []
        for body in self.pngs:
            headers = {"Content-Type": "image/png"}
            connection.request("POST", f"/v1/predict?model={model}", body, headers)
            answer = connection.getresponse()
            texts.append(json.loads(answer.read()).get("text"))
        right = sum(a == b for a, b in zip(texts, self.labels, strict=True))
        if right < 0.9 * len(texts):
            raise SystemExit(f"{model}: expected most digits to be read, found {right} of 200")
        return texts

    def run(self, seconds: float):
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self.client, args=(number, end))
            for number in range(SOAK_CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def client(self, number: int, end: float):
        chance = random.Random(f"{self.seed} {number} {end}")
        connection = HTTPConnection(self.service.host, self.service.port, timeout=30)
        kinds = [*EXPECTED, "cut off", "slow"]
        weights = [30 if kind == "good" else 1 if kind == "slow" else 4 for kind in kinds]
        while time.monotonic() < end:
            kind = chance.choices(kinds, weights)[0]
            index = chance.randrange(len(self.pngs))
            try:
                if kind in EXPECTED:
                    found = self.ask(connection, chance, kind, index)
                else:
                    # The service would close it, as it idles meanwhile.
                    connection.close()
                    found = self.break_off(chance, kind, self.pngs[index])
            except (OSError, HTTPException, ValueError) as error:
                connection.close()
                found = f"{type(error).__name__}: {error}"
            self.counts[kind] += 1
            if found:
                self.failures.append(f"{kind}: {found}")

    def ask(self, connection: HTTPConnection, chance, kind: str, index: int) -> str | None:
        """Sends a request; returns what is wrong with the response."""
        path, content, body = self.request(chance, kind, self.pngs[index])
        connection.request("POST", path, body, {"Content-Type": content})
        answer = connection.getresponse()
        text = json.loads(answer.read())
        if answer.status not in EXPECTED[kind]:
            return f"expected {EXPECTED[kind]}, found {answer.status} {text}"
        if answer.status != 200:
            return None if set(text["error"]) == {"code", "message"} else f"{text}"
        if kind != "large" and text["text"] != self.right[text["model"]][index]:
            return f"expected {self.right[text['model']][index]!r}, found {text['text']!r}"
        return None

    def request(self, chance, kind: str, file: bytes) -> tuple[str, str, bytes]:
        """Returns path, content type and body."""
        path, image = "/v1/predict", "image/png"
        form = "multipart/form-data; boundary=XX"
        field = b'--XX\r\ncontent-disposition: form-data; name="f"; filename="f"\r\n\r\n'
        text = base64.b64encode(file).decode()
        cut = chance.randrange(1, len(file) - 20)
        return {
            "good": (path, image, file),
            "good, original": (path + "?model=original", image, file),
            "good, json": (path, "application/json", json.dumps({"image": text}).encode()),
            "good, multipart": (path, form, field + file + b"\r\n--XX--\r\n"),
            "large": (path, image, self.large),
            "garbage": (path, image, chance.randbytes(cut)),
            "truncated": (path, image, file[:cut]),
            "wrong type": (path, "text/plain", file),
            "broken json": (path, "application/json", f'{{"image": "{text}'.encode()),
            "broken base64": (path, "application/json", b'{"image": "?"}'),
            "broken multipart": (path, form, field + file),
            "bomb": (path, image, self.bomb),
            "large body": (path, image, file + bytes(MAX_BODY)),
            "no route": ("/v2/predict", image, file),
        }[kind]

    def break_off(self, chance, kind: str, file: bytes) -> str | None:
        """Sends part of a request, then disconnects or waits for the timeout."""
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(file)}\r\n\r\n"
        request = head.encode() + file
        part = request[: chance.randrange(1, len(request))]
        address = (self.service.host, self.service.port)
        with socket.create_connection(address, timeout=30) as stream:
            stream.sendall(part)
            if kind == "cut off":
                return None
            answer = stream.makefile("rb").read()
            return None if answer.startswith(b"HTTP/1.1 408 ") else f"found {answer[:40]!r}"


def settled(service: Service) -> int:
    """Returns the open file descriptors, once those of disconnected clients are closed."""
    lowest = service.descriptors()
    for _ in range(50):
        time.sleep(0.1)
        lowest = min(lowest, service.descriptors())
    return lowest


def soak(program: Path, seconds: int, seed: int) -> list[str]:
    """Prints the requests sent and the results; returns the failures."""
    options = ["--timeout=2", f"--max-body={MAX_BODY >> 20}", "--max-pixels=4"]
    with tempfile.TemporaryFile("w+") as log, serving(program, options, log) as service:
        test = Soak(service, seed)
        test.run(max(5, seconds / 4))
        descriptors, memory = [settled(service)], [service.memory()]
        for _ in range(4):
            test.run(seconds / 4)
            memory.append(service.memory())
        descriptors.append(settled(service))
        log.seek(0)
        errors = [line.strip() for line in log if " ERROR " in line]
    print(f"\nSoak: {seconds} s after a warm-up, {SOAK_CLIENTS} clients, seed {seed}.\n")
    print(table(["request", "sent"], [[k, f"{n:,}"] for k, n in sorted(test.counts.items())]))
    print("\nMiB resident after each quarter: " + ", ".join(f"{m:.0f}" for m in memory))
    print("File descriptors before and after: " + ", ".join(map(str, descriptors)))
    wrong = [*test.failures, *errors]
    first, second = max(memory[:3]), max(memory[3:])
    if second > first * (1 + GROWTH) + GROWTH_MIB:
        wrong.append(f"memory grew from {first:.0f} to {second:.0f} MiB")
    if descriptors[1] > descriptors[0]:
        wrong.append(f"{descriptors[1] - descriptors[0]} file descriptors were left open")
    if missing := [kind for kind in [*EXPECTED, "cut off", "slow"] if not test.counts[kind]]:
        wrong.append(f"never sent: {', '.join(missing)}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="time of each measurement (5)")
    parser.add_argument("--soak", type=int, metavar="SECONDS", help="also run the soak test")
    parser.add_argument("--seed", type=int, default=1, help="seed of the soak test (default 1)")
    parser.add_argument("--oha", default=shutil.which("oha"), help="the load generator")
    parser.add_argument("--options", default="", help="for `serve`, such as '--batch-wait 500'")
    arguments = parser.parse_args()
    if not arguments.oha:
        parser.error("expected oha on the path or by --oha, found none: cargo install oha")
    program = ROOT / "target" / "release" / "serve"

    cores = os.cpu_count()
    limits = {batch: engine(batch, cores) for batch in (1, 16, 128)}
    rows = []
    with tempfile.NamedTemporaryFile(suffix=".png") as body:
        body.write(png(read_mnist()[0][0]))
        body.flush()
        with serving(program, arguments.options.split()) as service:
            load(service, arguments.oha, Path(body.name), 16, 1)
            for connections in CONNECTIONS:
                path = Path(body.name)
                rows.append(load(service, arguments.oha, path, connections, arguments.seconds))
    print(f"{platform.machine()}, {cores} cores; load generator on the same ones.\n")
    print(table(["connections", "requests/s", "p50", "p99", "pictures a batch", "errors"], rows))
    rates = ", ".join(f"{rate:,.0f} in batches of {batch}" for batch, rate in limits.items())
    print(f"\nThe engine alone, {cores} threads, images/s: {rates}.")

    wrong = [f"{row[0]} connections: {row[-1]} errors" for row in rows if row[-1] != "0"]
    if arguments.soak:
        wrong += soak(program, arguments.soak, arguments.seed)
        print("\nAll answers were right." if not wrong else "")
    for line in wrong[:20]:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
