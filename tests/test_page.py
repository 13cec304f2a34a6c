"""Tests the page of `serve` in headless Chromium: handwriting, pictures, appearance.

Run: pytest tests/test_page.py, after `cargo build --release`; it needs Chromium and the package
playwright. Without them the tests are skipped; if LENET5_REQUIRE_BROWSER is set, they fail.
Screenshots go to the folder that LENET5_SCREENSHOTS names.
"""

import base64
import gzip
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from page_driver import CHROMIUM, DIGITS, FLAGS, SERVE, on_sheet, serving
from PIL import Image, ImageDraw, ImageFont

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

ROOT = Path(__file__).parent.parent
TRAIN = ROOT / "target" / "release" / "train"
if sync_playwright:
    expect.set_options(timeout=10_000)
DESKTOP = {"width": 1400, "height": 1000}
PHONE = {"width": 360, "height": 740}
TIMES = " \N{MULTIPLICATION SIGN} "
PAINTED_LAYERS = ["input", "c1", "s2", "c3", "s4", "c5", "f6"]


def need(condition: object, what: str) -> None:
    if condition:
        return
    if os.environ.get("LENET5_REQUIRE_BROWSER"):
        pytest.fail(f"{what}, and LENET5_REQUIRE_BROWSER is set")
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser():
    need(sync_playwright, "the package playwright is not installed")
    need(CHROMIUM, "no Chromium was found, and CHROMIUM names none")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address():
    need(SERVE.exists(), "there is no target/release/serve; run cargo build --release")
    with serving() as (address, _):
        yield address


class Visit:
    """An open page, with its network requests and console messages."""

    def __init__(self, browser, address: str, by_service: bool = False, **options):
        """With `by_service` the page gets no module, so that it has to ask the service."""
        self.address = address
        defaults = {"viewport": DESKTOP, "reduced_motion": "reduce"}
        if by_service:
            # Otherwise the service worker would load the module.
            defaults["service_workers"] = "block"
        self.context = browser.new_context(**defaults | options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.requests, self.complaints = [], []
        # The dot at the start of a stroke has no digit; a stroke may join two digits into one, so
        # that the second one no longer exists.
        self.expected = ["422", "400", "Service Worker registration blocked"]
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self.dialog)
        self.page.on("console", self.console)
        if by_service:
            self.expected.append("ERR_FAILED")
            self.page.route("**/lenet5.wasm.gz", lambda route: route.abort())
        self.page.goto(address)

    def console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def dialog(self, dialog) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def close(self) -> None:
        self.context.close()
        unexpected = [c for c in self.complaints if not any(e in c for e in self.expected)]
        assert not unexpected
        hosts = {urlsplit(url).netloc for url in self.requests if not url.startswith("data:")}
        assert hosts == {urlsplit(self.address).netloc}

    def path(self, points: list, part=(0.25, 0.1, 0.5, 0.8)) -> list[tuple[float, float]]:
        """Converts points in a part of the sheet (left, top, width, height: 0 to 1) to pixels."""
        sheet = self.page.locator("#sheet").bounding_box()
        left, top, width, height = part
        return [
            (
                sheet["x"] + sheet["width"] * (left + width * x),
                sheet["y"] + sheet["height"] * (top + height * y),
            )
            for x, y in points
        ]

    def write(self, text: str) -> None:
        """Writes digits with the mouse, across the whole sheet."""
        for strokes in on_sheet(text):
            self.draw(strokes, part=(0, 0, 1, 1))

    def draw(self, strokes: list, part: tuple, steps=2) -> None:
        """Draws strokes with the mouse in a part of the sheet; `steps` events lead to a point."""
        for stroke in strokes:
            first, *points = self.path(stroke, part)
            self.page.mouse.move(*first)
            self.page.mouse.down()
            for point in points:
                self.page.mouse.move(*point, steps=steps)
            self.page.mouse.up()

    def text(self) -> str:
        return self.page.locator("#text").text_content()

    def reads(self, text: str) -> None:
        expect(self.page.locator("#text")).to_have_text(text)

    def says(self, *parts: str) -> None:
        message = self.page.locator("#message")
        expect(message).not_to_be_empty()
        for part in parts:
            expect(message).to_contain_text(part, ignore_case=True)

    def network(self, name: str) -> None:
        self.page.get_by_role("radio", name=name).check()

    def settle(self) -> None:
        """Waits until the sheet has been read; writing an example takes seconds."""
        self.page.wait_for_selector("#reading[aria-busy=false]", timeout=20_000)

    def fits(self) -> bool:
        return self.page.evaluate(
            "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )


@pytest.fixture
def visit(browser, address):
    visit = Visit(browser, address)
    yield visit
    visit.close()


@pytest.fixture
def visit_by_service(browser, address):
    visit = Visit(browser, address, by_service=True)
    yield visit
    visit.close()


@pytest.fixture
def shoot(tmp_path):
    folder = Path(os.environ.get("LENET5_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(visit: Visit, name: str) -> None:
        visit.settle()
        visit.page.screenshot(path=folder / f"{name}.png", full_page=True)

    return shoot


def picture(size: int | None = None) -> bytes:
    """Returns a PNG of MNIST's first test image, a 7."""
    images = gzip.decompress((ROOT / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    image = Image.frombytes("L", (28, 28), images[16 : 16 + 28 * 28])
    file = io.BytesIO()
    (image.resize((size, size), Image.Resampling.BICUBIC) if size else image).save(file, "PNG")
    return file.getvalue()


# A script that creates `transfer`, a DataTransfer with one file, from `base64`.
TRANSFER = """
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "7.png", { type: "image/png" }));
"""


def test_start(visit, shoot):
    assert visit.page.title().startswith("LeNet-5")
    assert visit.text() == ""
    assert visit.page.get_by_role("button", name="Undo").is_disabled()
    shoot(visit, "start")


@pytest.mark.exhaustive
def test_every_digit_is_read(visit):
    read = {}
    for digit in DIGITS:
        visit.write(digit)
        visit.settle()
        read[digit] = visit.text()
        visit.page.keyboard.press("Escape")
        visit.reads("")
    assert read == {digit: digit for digit in DIGITS}


def test_every_example_is_read(visit):
    read = {}
    for digit in [*DIGITS, "1998"]:
        visit.page.get_by_role("button", name=f"Write {digit}", exact=True).click()
        visit.settle()
        read[digit] = visit.text()
    assert read == {digit: digit for digit in read}


def test_example_is_written_by_and_by(browser, address):
    visit = Visit(browser, address, reduced_motion="no-preference")
    visit.page.get_by_role("button", name="Write 1998").click()
    visit.reads("1998")
    visit.page.keyboard.press("Control+z")
    visit.reads("")
    visit.close()


def test_several_digits_by_the_service(visit_by_service, shoot):
    test_several_digits(visit_by_service, shoot)
    expect(visit_by_service.page.locator("#privacy")).to_contain_text("only to the server")


def test_several_digits(visit, shoot):
    visit.write("4071")
    visit.reads("4071")
    visit.settle()
    tags = visit.page.locator("#boxes button")
    assert tags.count() == 4
    # The digit written last is shown, until another one is chosen.
    assert tags.nth(3).get_attribute("aria-pressed") == "true"
    tags.nth(1).click()
    heading = visit.page.locator("#bars-heading")
    heading.get_by_text("digit 2 of 4").wait_for()
    assert visit.page.locator("#bars .best b").inner_text() == "0"
    visit.page.locator("#text button").nth(0).click()
    heading.get_by_text("digit 1 of 4").wait_for()
    assert visit.page.locator("#bars .best b").inner_text() == "4"
    shoot(visit, "several")
    # The tags disappear with the digits.
    visit.page.keyboard.press("Escape")
    visit.reads("")
    assert tags.count() == 0


def test_answer_of_the_service_follows_the_stroke(visit_by_service):
    visit = visit_by_service
    visit.write("1")  # afterwards all files are loaded
    visit.reads("1")
    visit.page.keyboard.press("Escape")
    visit.settle()
    waiting = most = 0
    before = len(visit.requests)

    def sent(_) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)

    def done(_) -> None:
        nonlocal waiting
        waiting -= 1

    visit.page.on("request", sent)
    visit.page.on("requestfinished", done)
    start = visit.page.evaluate("performance.now()")
    first, *points = visit.path([(0.5, 0.1 + 0.02 * i) for i in range(41)])
    visit.page.mouse.move(*first)
    visit.page.mouse.down()
    for point in points:
        visit.page.mouse.move(*point)
        visit.page.wait_for_timeout(15)
    assert visit.text() != ""
    visit.page.mouse.up()
    visit.settle()
    seconds = (visit.page.evaluate("performance.now()") - start) / 1000
    assert most == 1
    assert 5 < len(visit.requests) - before < 3 + 31 * seconds


class Hand:
    """Fingers, a palm and a pen on a touch screen."""

    def __init__(self, browser, address: str):
        self.visit = Visit(browser, address, viewport=PHONE, has_touch=True)
        self.devtools = self.visit.context.new_cdp_session(self.visit.page)
        self.time = time.time()

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        points = [{"x": x, "y": y} for x, y in points]
        event = {"type": kind, "touchPoints": points, "timestamp": self.next_time()}
        self.devtools.send("Input.dispatchTouchEvent", event)

    def next_time(self) -> float:
        """Returns the time of the next event. So the time between events does not depend on the
        speed of the machine."""
        self.time += 0.016
        return self.time

    def held(self, pointer: str, kind: str, point: tuple[float, float], force: float = 0.5) -> None:
        """Sends an event of a pen or a mouse."""
        x, y = point
        event = {"type": kind, "x": x, "y": y, "pointerType": pointer, "force": force}
        event |= {"button": "left", "buttons": 1, "clickCount": 1, "timestamp": self.next_time()}
        self.devtools.send("Input.dispatchMouseEvent", event)

    def write(self, digit: str, pointer: str) -> None:
        for stroke in DIGITS[digit]:
            path = self.visit.path(stroke)
            self.held(pointer, "mousePressed", path[0], 0.3)
            for i, point in enumerate(path):
                self.held(pointer, "mouseMoved", point, 0.3 + 0.5 * i / len(path))
            self.held(pointer, "mouseReleased", path[-1])

    def rest(self) -> None:
        """Puts a palm down, moves it a little and keeps it there."""
        first, *others = self.visit.path([(1.1, 0.9), (1.12, 0.95), (1.15, 0.98)])
        self.touch("touchStart", first)
        for point in others:
            self.touch("touchMove", point)

    def strokes(self) -> int:
        """Undoes all strokes, and returns their number."""
        undo = self.visit.page.get_by_role("button", name="Undo")
        count = 0
        while undo.is_enabled():
            self.visit.page.keyboard.press("Control+z")
            count += 1
        return count


@pytest.fixture
def hand(browser, address):
    hand = Hand(browser, address)
    yield hand
    hand.visit.close()


def test_touch_and_pen(hand):
    first, *others = hand.visit.path(DIGITS["3"][0])
    hand.touch("touchStart", first)
    for point in others:
        hand.touch("touchMove", point)
    hand.touch("touchEnd")
    hand.visit.reads("3")
    assert hand.visit.page.evaluate("scrollY") == 0

    hand.visit.page.keyboard.press("Escape")
    hand.visit.reads("")
    hand.write("2", "pen")
    hand.visit.reads("2")


@pytest.mark.parametrize("pointer", ["pen", "mouse"])
def test_what_is_held_takes_over_from_a_palm(hand, pointer):
    hand.rest()
    hand.visit.settle()
    hand.write("4", pointer)  # two strokes
    hand.touch("touchMove", hand.visit.path([(1.2, 0.9)])[0])
    hand.touch("touchEnd")
    hand.visit.settle()
    hand.visit.reads("4")
    assert hand.strokes() == 2


def test_a_palm_just_before_and_just_after_a_pen(hand):
    hand.rest()
    hand.touch("touchEnd")
    hand.write("7", "pen")
    hand.rest()
    hand.touch("touchEnd")
    hand.visit.settle()
    hand.visit.reads("7")
    assert hand.strokes() == 1


def test_a_finger_long_before_and_long_after_a_pen(hand):
    finger = hand.visit.path([(0.1, 0.1), (0.1, 0.5), (0.1, 0.9)])
    for pointer in ["finger", "pen", "finger"]:
        if pointer == "pen":
            hand.write("7", "pen")
        else:
            hand.touch("touchStart", finger[0])
            for point in finger[1:]:
                hand.touch("touchMove", point)
            hand.touch("touchEnd")
        hand.time += 0.7
    assert hand.strokes() == 3


def test_a_touch_that_the_system_takes_away(hand):
    hand.rest()
    hand.touch("touchCancel")
    hand.visit.settle()
    hand.visit.reads("")
    assert hand.strokes() == 0


def number(text: str) -> bytes:
    """Returns a PNG of a number with its signs, in Pillow's own font."""
    picture = Image.new("L", (120 * len(text) + 80, 240), 255)
    font = ImageFont.load_default(size=150)
    ImageDraw.Draw(picture).text((60, 40), text, 0, font)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_is_left_out_and_rejected(browser, address, shoot, viewport, scheme):
    visit = Visit(browser, address, viewport=viewport, color_scheme=scheme)

    def show(picture: bytes) -> None:
        file = {"name": "number.png", "mimeType": "image/png", "buffer": picture}
        visit.page.get_by_label("Open a picture").set_input_files(file)

    marks = visit.page.locator("#marks div")
    show(number("-264.27"))
    visit.reads("26427")
    visit.says("2 marks are left out")
    assert marks.count() == 2
    assert visit.fits() and visit.page.evaluate(CONTRASTS) == []
    shoot(visit, f"marks-{viewport['width']}-{scheme}")
    show(number("26427"))
    expect(marks).to_have_count(0)
    visit.reads("26427")
    assert visit.page.locator("#message").inner_text() == ""

    # A palm leaves a blot that is not a digit.
    visit.page.keyboard.press("Escape")
    visit.reads("")
    x, y = visit.path([(0.5, 0.5)])[0]
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    for dx, dy in [(8, 2), (10, 8), (4, 12), (-4, 10), (-6, 4), (2, 6), (6, 7)]:
        visit.page.mouse.move(x + dx, y + dy)
    visit.page.mouse.up()
    visit.reads("?")
    assert "rejected" in visit.page.locator("#text button").get_attribute("class")
    expect(visit.page.locator("#verdict")).to_contain_text("Rejected, not sure")
    assert visit.fits() and visit.page.evaluate(CONTRASTS) == []
    shoot(visit, f"rejected-{viewport['width']}-{scheme}")
    visit.close()


def test_a_pen_goes_before_a_palm(hand):
    """The palm touches first and rests while the pen writes, and touches again after it."""
    path = hand.visit.path(DIGITS["2"][0])
    palm = hand.visit.path([(0.1, 0.95), (0.5, 0.9), (0.9, 0.95)], part=(0, 0, 1, 1))
    hand.touch("touchStart", palm[0])
    hand.touch("touchMove", palm[1])
    hand.held("pen", "mousePressed", path[0])
    for i, point in enumerate(path):
        hand.held("pen", "mouseMoved", point)
        hand.touch("touchMove", palm[i % 3])
    hand.held("pen", "mouseReleased", path[-1])
    hand.touch("touchEnd")
    hand.touch("touchStart", palm[2])
    hand.touch("touchEnd")
    hand.visit.reads("2")
    # There is only the pen's stroke.
    assert hand.strokes() == 1
    hand.visit.reads("")
    # Afterwards a finger writes again.
    hand.time += 1.1
    hand.touch("touchStart", palm[0])
    hand.touch("touchEnd")
    hand.visit.settle()
    assert hand.strokes() == 1


def test_layers(visit_by_service):
    visit = visit_by_service
    visit.write("5")
    visit.page.get_by_role("radio", name="Modern").focus()
    visit.page.keyboard.press("ArrowRight")
    visit.page.locator("#codes").wait_for()
    visit.settle()
    with visit.page.expect_response("**/v1/activations?*") as response:
        visit.page.keyboard.press("ArrowLeft")
    visit.settle()
    visit.reads("5")
    layers = {layer["name"]: layer["shape"] for layer in response.value.json()["layers"]}
    assert list(layers) == [*PAINTED_LAYERS, "output"]
    for name in PAINTED_LAYERS:
        figure = visit.page.locator(f'figure[data-layer="{name}"]')
        painted, colours = figure.locator("canvas").evaluate(
            """(c) => {
                const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
                const painted = [...new Uint32Array(data.buffer)].filter((pixel) => pixel !== 0);
                return [painted.length, new Set(painted).size];
            }"""
        )
        # A pixel for each value; the gaps between the maps are transparent.
        assert painted == math.prod(layers[name]), name
        assert colours > 5, name
        sides = [side for i, side in enumerate(layers[name]) if i == 0 or side > 1]
        assert figure.locator(".shape").inner_text() == TIMES.join(map(str, sides))
    assert visit.page.locator('[data-layer="output"] .stage p').count() == 10
    # In this window C3 has four maps in a row, with gaps of one pixel; map 5 begins the second row.
    canvas = visit.page.locator('[data-layer="c3"] canvas')
    assert canvas.evaluate("(c) => [c.width, c.height]") == [43, 43]
    pixel = canvas.bounding_box()["width"] / 43
    canvas.hover(position={"x": 2.5 * pixel, "y": 12.5 * pixel})
    probe = visit.page.locator("#probe").inner_text()
    value = response.value.json()["layers"][3]["values"][4 * 100 + 10 + 2]
    assert probe.replace("\N{MINUS SIGN}", "-") == f"c3, map 5, row 2, column 3: {value:.2f}"


def test_original(visit, shoot):
    visit.write("2")
    visit.reads("2")
    assert not visit.page.locator("#codes").is_visible()
    visit.network("Original, 1998")
    visit.page.locator("#codes").wait_for()
    visit.reads("2")
    items = visit.page.locator("#code-list li")
    assert items.count() == 10
    distances = [float(item) for item in items.locator("span").all_inner_texts()]
    assert distances.index(min(distances)) == 2
    assert visit.page.locator("#code-list .nearest b").inner_text() == "2"
    sides = visit.page.locator("#drawn canvas").evaluate("(c) => [c.width, c.height]")
    assert sides == [7, 12]
    visit.page.mouse.move(0, 0)
    shoot(visit, "original")
    visit.network("Modern")
    visit.page.locator("#codes").wait_for(state="hidden")


def test_pictures(visit, shoot):
    file = {"name": "7.png", "mimeType": "image/png", "buffer": picture()}
    visit.page.get_by_label("Open a picture").set_input_files(file)
    visit.reads("7")
    shoot(visit, "picture")
    visit.page.keyboard.press("Escape")
    visit.reads("")
    data = base64.b64encode(picture(300)).decode()
    visit.page.evaluate(
        f"(base64) => {{ {TRANSFER} document.body.dispatchEvent("
        "new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true })); }",
        data,
    )
    visit.reads("7")
    visit.page.keyboard.press("Control+z")
    visit.reads("")
    visit.page.evaluate(
        f"(base64) => {{ {TRANSFER} for (const kind of ['dragover', 'drop'])"
        "document.getElementById('sheet').dispatchEvent("
        "new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true })); }",
        data,
    )
    visit.reads("7")


def test_what_is_no_picture(visit):
    file = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"seven"}
    visit.page.get_by_label("Open a picture").set_input_files(file)
    visit.says("notes.txt", "not a picture")
    visit.write("1")
    visit.reads("1")
    assert visit.page.locator("#message").inner_text() == ""


def test_nothing_to_read(visit, shoot):
    file = io.BytesIO()
    Image.new("L", (200, 150), 255).save(file, "PNG")
    blank = {"name": "blank.png", "mimeType": "image/png", "buffer": file.getvalue()}
    visit.page.get_by_label("Open a picture").set_input_files(blank)
    visit.says()
    assert visit.text() == ""
    shoot(visit, "nothing")


def test_words_of_the_server(visit_by_service):
    visit = visit_by_service
    visit.expected.append("413")
    error = {"error": {"code": "too_large", "message": "expected a smaller picture"}}
    visit.page.route(
        "**/v1/activations?*", lambda route: route.fulfill(status=413, body=json.dumps(error))
    )
    visit.write("1")
    visit.says("expected a smaller picture")


def test_doubt_and_other_shapes(visit_by_service, shoot):
    """Shows a rejected digit of a network with 12 classes and 28x28 input."""
    visit = visit_by_service
    shapes = {"input": [1, 28, 28], "c1": [6, 24, 24], "s2": [6, 12, 12], "c3": [16, 8, 8]}
    shapes |= {"s4": [16, 4, 4], "c5": [120, 1, 1], "f6": [84], "output": [12]}
    layers = [
        {"name": name, "shape": shape, "values": [math.sin(i) for i in range(math.prod(shape))]}
        for name, shape in shapes.items()
    ]
    digit = {"label": 11, "confidence": 0.03, "rejected": True, "box": [120, 20, 100, 200]}
    digit["probabilities"] = [0.7 / 11] * 11 + [0.3]
    reading = {"text": "11", "accepted": "?", "digits": [digit], "rejected": True, "left_out": []}
    answer = {"model": "modern", "reading": reading, "digit": 0, "layers": layers}
    visit.page.route("**/v1/activations?*", lambda route: route.fulfill(json=answer))
    visit.write("1")
    visit.reads("?")
    verdict = visit.page.locator("#verdict").inner_text()
    assert verdict == "Rejected, not sure: perhaps 11, at 3.0 %"
    product = visit.page.locator("#product").inner_text()
    assert "30.0 % that it is 11" in product and "10.0 % that it is a digit at all" in product
    visit.page.locator("#live").get_by_text("Read ?: 3.0 %, not sure").wait_for(state="attached")
    assert visit.page.locator("#bars li").count() == 12
    assert visit.page.locator("#bars .best b").inner_text() == "11"
    assert visit.page.locator('[data-layer="c5"] .shape').inner_text() == "120"
    assert visit.page.locator('[data-layer="s4"] .shape').inner_text() == TIMES.join(
        ["16", "4", "4"]
    )
    shoot(visit, "doubt")


def test_server_away(browser):
    with serving() as (address, process):
        visit = Visit(browser, address, by_service=True)
        visit.expected.append("ERR_")
        visit.write("1")
        visit.reads("1")
        process.terminate()
        process.wait(timeout=30)
        visit.write("1")
        visit.says("server does not answer")
        visit.close()


def test_undo_and_clear(visit):
    def enabled() -> list[bool]:
        names = ["Undo", "Redo", "Clear"]
        return [visit.page.get_by_role("button", name=name).is_enabled() for name in names]

    visit.write("4")  # two strokes
    visit.reads("4")
    assert enabled() == [True, False, True]
    visit.page.keyboard.press("Control+z")
    visit.page.keyboard.press("Control+z")
    visit.reads("")
    assert enabled() == [False, True, False]
    visit.page.keyboard.press("Control+Shift+Z")
    visit.page.keyboard.press("Control+y")
    visit.reads("4")
    visit.page.get_by_role("button", name="Clear").click()
    visit.reads("")
    visit.page.get_by_role("button", name="Undo").click()
    visit.reads("4")
    visit.page.keyboard.press("Delete")
    visit.reads("")


def test_keyboard_alone(visit):
    press = visit.page.keyboard.press
    reached = []
    for _ in range(30):
        press("Tab")
        focus = visit.page.evaluate(
            """() => {
                const e = document.activeElement;
                const seen = e.matches('input') ? e.nextElementSibling ?? e : e;
                const name = e.id || e.name || e.textContent.trim();
                return [name, getComputedStyle(seen).outlineStyle];
            }"""
        )
        assert focus[1] != "none", focus
        reached.append(focus[0])
        if focus[0] == "1998":
            break
    for name in ["model", "theme", "sheet", "pen", "file", "7", "1998"]:
        assert name in reached
    press("Enter")
    visit.reads("1998")
    press("Escape")
    visit.reads("")
    visit.page.locator("#sheet").focus()
    press("ArrowUp")
    press("Space")
    for _ in range(20):
        press("ArrowDown")
    press("Space")
    visit.reads("1")
    press("Control+z")
    visit.reads("")


def test_an_example_during_a_stroke(visit):
    """The mouse that is still pressed writes no more in the example's strokes."""
    start, *rest = visit.path([(0.1, 0.1), (0.15, 0.3), (0.9, 0.9), (0.1, 0.9)])
    visit.page.mouse.move(*start)
    visit.page.mouse.down()
    visit.page.mouse.move(*rest[0])
    visit.page.evaluate("document.querySelector('[aria-label=\"Write 7\"]').click()")
    visit.page.mouse.move(*rest[1])
    visit.page.mouse.move(*rest[2])
    visit.page.mouse.up()
    visit.reads("7")


def test_the_last_action_wins(visit):
    """A large picture that opens late does not replace what was written in the meantime."""
    file = io.BytesIO()
    Image.new("L", (4000, 4000), 255).save(file, "PNG")
    large = {"name": "large.png", "mimeType": "image/png", "buffer": file.getvalue()}
    visit.page.evaluate(
        """() => document.getElementById("file").addEventListener("change", () =>
            document.querySelector('[aria-label="Write 5"]').click())"""
    )
    visit.page.get_by_label("Open a picture").set_input_files(large)
    visit.reads("5")
    visit.page.wait_for_timeout(1000)
    visit.reads("5")


def test_the_theme_keeps_a_message(visit):
    visit.write("1")
    visit.reads("1")
    file = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"seven"}
    visit.page.get_by_label("Open a picture").set_input_files(file)
    visit.says("notes.txt")
    visit.page.get_by_role("button", name="Dark").click()
    visit.says("notes.txt")


def test_announced(visit):
    visit.write("6")
    visit.page.locator("#live").get_by_text(re.compile(r"Read 6: \d+\.\d %")).wait_for(
        state="attached"
    )
    assert visit.page.locator("#live").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.exhaustive), "dark"])
def test_phone(browser, address, shoot, scheme):
    visit = Visit(browser, address, viewport=PHONE, color_scheme=scheme, device_scale_factor=2)
    assert visit.fits()
    visit.write("258")
    visit.reads("258")
    assert visit.fits()
    visit.network("Original, 1998")
    visit.page.locator("#codes").wait_for()
    assert visit.fits()
    sheet = visit.page.locator("#sheet").evaluate("(c) => c.width / c.clientWidth")
    assert sheet == pytest.approx(2, abs=0.01)
    shoot(visit, f"phone-{scheme}")
    visit.close()


def test_other_widths(visit):
    visit.network("Original, 1998")
    visit.write("31")
    visit.reads("31")
    for width in [320, 480, 767, 768, 1024, 1215, 1216, 1344, 1920]:
        visit.page.set_viewport_size({"width": width, "height": 900})
        assert visit.fits(), width


CONTRASTS = """() => {
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (e) => {
        for (; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (!colour.endsWith(", 0)")) return colour;
        }
    };
    const result = [];
    for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !e.checkVisibility() || e.matches(":disabled, .unseen")) continue;
        const [a, b] = [getComputedStyle(e).color, background(e)].map(luminance);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) result.push([e.className || e.tagName, e.textContent.trim(), ratio]);
    }
    return result;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours(browser, address, shoot, scheme):
    visit = Visit(browser, address, color_scheme=scheme)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = sum(map(int, re.findall(r"\d+", visit.page.evaluate(background)))) < 200
    assert dark == (scheme == "dark")
    visit.write("86")
    visit.reads("86")
    visit.network("Original, 1998")
    visit.page.locator("#codes").wait_for()
    assert visit.page.evaluate(CONTRASTS) == []
    shoot(visit, f"colours-{scheme}")
    # The user's choice is kept after a reload.
    other = "light" if dark else "dark"
    visit.page.get_by_role("button", name="Dark").click()
    visit.page.reload()
    visit.page.wait_for_function("document.documentElement.dataset.theme")
    assert visit.page.evaluate("document.documentElement.dataset.theme") == other
    visit.close()


def test_without_storage(browser, address):
    visit = Visit(browser, address)
    visit.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })"
    )
    visit.page.reload()
    visit.page.get_by_role("button", name="Dark").click()
    assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
    visit.write("1")
    visit.reads("1")
    visit.close()


NAMELESS = """() => {
    const name = (e) =>
        (e.getAttribute("aria-label") ?? "") +
        (e.getAttribute("aria-labelledby") ?? "").split(" ")
            .map((id) => document.getElementById(id)?.textContent ?? "").join("") +
        [...(e.labels ?? [])].map((l) => l.textContent).join("") + e.textContent;
    const wanted = "a, button, input, section, [tabindex], [role=img], [role=group], fieldset";
    return [...document.querySelectorAll(wanted)]
        .filter((e) => !name(e).trim()).map((e) => e.outerHTML);
}"""


def test_semantics(visit):
    visit.write("90")
    visit.reads("90")
    evaluate = visit.page.evaluate
    assert evaluate(NAMELESS) == []
    assert evaluate("document.documentElement.lang") == "en"
    assert evaluate("document.querySelectorAll('main, h1').length") == 2
    ids = evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = evaluate("[...document.querySelectorAll('h1, h2, h3')].map((e) => +e.tagName[1])")
    assert all(lower <= level + 1 for level, lower in pairwise(levels))
    referred = evaluate(
        """[...document.querySelectorAll('[aria-labelledby], [aria-describedby]')].flatMap((e) =>
            [e.getAttribute('aria-labelledby'), e.getAttribute('aria-describedby')])"""
    )
    assert set(filter(None, referred)) <= set(ids)


# Corrections of what was read.


def corrections(visit: Visit) -> str:
    return visit.page.locator("#correction-count").text_content()


def download(visit: Visit) -> dict[str, bytes]:
    """Downloads the corrections; returns the 28x28 pixels of each file."""
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("button", name="Download as zip").click()
    assert waiting.value.suggested_filename == "corrections.zip"
    found = {}
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as image:
                assert image.format == "PNG" and image.size == (28, 28)
                channels = image.convert("RGBA").split()
                assert channels[0].tobytes() == channels[1].tobytes() == channels[2].tobytes()
                assert set(channels[3].tobytes()) == {255}
                found[name] = channels[0].tobytes()
    return found


def test_correct_by_key(visit):
    page = visit.page
    page.keyboard.press("3")  # without a digit nothing happens
    visit.write("407")
    visit.reads("407")
    visit.settle()
    assert corrections(visit) == ""
    page.keyboard.press("1")
    visit.reads("401")
    expect(page.locator("#verdict")).to_have_text("Corrected from 7 to 1")
    expect(page.locator("#correction-count")).to_have_text("1 correction")
    marked = page.locator("#text button.corrected")
    assert marked.all_text_contents() == ["1"]
    assert marked.get_attribute("aria-label").startswith("Digit 3: corrected to 1, read as 7, ")
    # Another digit is chosen and corrected; the first one keeps its mark.
    page.locator("#text button").nth(0).click()
    page.locator("#bars-heading").get_by_text("digit 1 of 3").wait_for()
    page.keyboard.press("9")
    visit.reads("901")
    page.keyboard.press("8")
    visit.reads("801")
    assert corrections(visit) == "2 corrections"
    # What the network has read needs no correction.
    page.keyboard.press("4")
    visit.reads("401")
    assert corrections(visit) == "1 correction"
    # The correction outlives the drawing, and comes back with it.
    page.keyboard.press("Escape")
    visit.reads("")
    assert corrections(visit) == "1 correction"
    page.keyboard.press("Control+z")
    visit.reads("401")
    page.get_by_role("button", name="Take back the last").click()
    visit.reads("407")
    assert corrections(visit) == ""
    assert not page.get_by_role("button", name="Download as zip").is_visible()


def test_correct_by_click_and_download(visit):
    page = visit.page
    visit.write("2")
    visit.reads("2")
    visit.settle()
    six = page.get_by_role("button", name=re.compile("^It is 6"))
    six.click()
    visit.reads("6")
    assert six.get_attribute("aria-pressed") == "true"
    six.click()  # takes it back
    visit.reads("2")
    assert corrections(visit) == ""
    # By keyboard alone, too.
    six.focus()
    page.keyboard.press("Enter")
    visit.reads("6")
    page.keyboard.press("Escape")
    visit.reads("")
    page.get_by_role("button", name="Write 5", exact=True).click()
    visit.settle()
    page.keyboard.press("0")
    visit.reads("0")
    seen = page.locator('[data-layer="input"] canvas').evaluate(
        """(c) => [...c.getContext("2d").getImageData(2, 2, 28, 28).data]
            .filter((_, i) => i % 4 === 0)"""
    )
    files = download(visit)
    assert [Path(name).parent.name for name in files] == ["6", "0"]
    assert all(re.fullmatch(r"\d/[0-9a-f]{16}\.png", name) for name in files)
    # The page shows black as 16, and a border of two pixels.
    pixels = list(files.values())[1]
    shown = [round(16 + pixel * 239 / 255) for pixel in pixels]
    assert max(abs(a - b) for a, b in zip(shown, seen, strict=True)) <= 2
    assert max(pixels) == 255 and min(pixels) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_correct_by_touch(browser, address, shoot, scheme):
    options = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    visit = Visit(browser, address, **options)
    visit.write("31")
    visit.reads("31")
    visit.settle()
    visit.page.get_by_role("button", name=re.compile("^It is 7")).tap()
    visit.reads("37")
    expect(visit.page.locator("#glance")).to_have_text("37")
    help_text = visit.page.locator("#teach").inner_text()
    assert "Choose the right digit" in help_text
    assert "Corrections stay in this browser until you download them" in help_text
    assert visit.fits() and visit.page.evaluate(CONTRASTS) == []
    assert visit.page.evaluate(NAMELESS) == []
    shoot(visit, f"corrected-{scheme}")
    visit.close()


def test_correct_by_the_service(visit_by_service):
    visit = visit_by_service
    visit.write("40")
    visit.reads("40")
    visit.settle()
    visit.page.keyboard.press("6")
    visit.reads("46")
    # The service sends the pixels of one digit at a time; the mark of the other one stays.
    visit.page.locator("#text button").nth(0).click()
    visit.page.locator("#bars-heading").get_by_text("digit 1 of 2").wait_for()
    visit.settle()
    visit.page.keyboard.press("9")
    visit.reads("96")
    assert sorted(Path(name).parent.name for name in download(visit)) == ["6", "9"]


def test_correct_a_rejected_digit(visit):
    """A digit that is rejected may be just what the network takes it for."""
    x, y = visit.path([(0.5, 0.5)])[0]
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    for dx, dy in [(8, 2), (10, 8), (4, 12), (-4, 10), (-6, 4), (2, 6), (6, 7)]:
        visit.page.mouse.move(x + dx, y + dy)
    visit.page.mouse.up()
    visit.reads("?")
    visit.settle()
    label = visit.page.locator("#bars .best b").inner_text()
    visit.page.keyboard.press(label)
    visit.reads(label)
    expect(visit.page.locator("#verdict")).to_have_text(f"Confirmed: {label}")


def test_corrections_that_are_discarded_warn(browser, address):
    visit = Visit(browser, address)
    visit.write("2")
    visit.reads("2")
    visit.settle()
    visit.page.keyboard.press("6")
    with visit.page.expect_event("dialog") as waiting:
        visit.page.close(run_before_unload=True)
    assert waiting.value.type == "beforeunload"
    # After a download the page closes without a word.
    download(visit)
    with visit.page.expect_event("close"):
        visit.page.close(run_before_unload=True)
    visit.context.close()


@pytest.mark.parametrize("by_service", [False, True], ids=["local", "by service"])
def test_corrections_are_kept_by_the_service(browser, tmp_path, shoot, by_service):
    def kept() -> list[Path]:
        return sorted(tmp_path.glob("*/*.png"))

    def wait_for(*labels: str) -> None:
        for _ in range(100):
            found = [file.parent.name for file in kept()]
            if found == list(labels):
                return
            time.sleep(0.05)
        assert found == list(labels)

    with serving("--keep", str(tmp_path)) as (address, process):
        visit = Visit(browser, address, by_service)
        visit.expected.append("ERR_")
        assert "Corrections are kept on this server." in visit.page.locator("#teach").inner_text()
        visit.write("2")
        visit.reads("2")
        visit.settle()
        visit.page.keyboard.press("6")
        wait_for("6")
        visit.page.keyboard.press("7")
        wait_for("7")
        (file,) = kept()
        assert list(download(visit).values()) == [Image.open(file).tobytes()]
        shoot(visit, f"kept-{by_service}")
        visit.page.get_by_role("button", name="Take back the last").click()
        wait_for()
        # Of changes in a hurry, the last one counts.
        for key in "6789":
            visit.page.keyboard.press(key)
        wait_for("9")
        process.terminate()
        process.wait(timeout=30)
        visit.page.keyboard.press("8")
        visit.says("the correction is not kept", "server does not answer")
        visit.reads("8")
        visit.close()


def test_corrections_for_which_there_is_no_room(browser, tmp_path):
    with serving("--keep", str(tmp_path), "--keep-limit", "1") as (address, _):
        visit = Visit(browser, address)
        visit.expected.append("507")
        visit.write("40")
        visit.reads("40")
        visit.settle()
        visit.page.keyboard.press("6")
        visit.page.locator("#text button").nth(0).click()
        visit.page.locator("#bars-heading").get_by_text("digit 1 of 2").wait_for()
        visit.settle()
        visit.page.keyboard.press("9")
        visit.says("the correction is not kept", "at most 1 correction")
        visit.reads("96")
        visit.close()


def test_correct_at_most_a_thousand(visit):
    """Fills the list by the module itself; one more correction is refused."""
    said = visit.page.evaluate(
        """async () => {
            const { Corrections } = await import("./corrections.js");
            const said = [];
            const corrections = new Corrections(null, () => {}, (message) => said.push(message));
            const pixels = new Uint8Array(784);
            for (let i = 0; i < 1001; i += 1) {
                new DataView(pixels.buffer).setUint32(0, i);
                corrections.add(pixels, i % 10);
            }
            return [corrections.count, said.length, corrections.labelOf(pixels) ?? null];
        }"""
    )
    assert said == [1000, 1, None]


def replace_weights(visit: Visit, process, file: Path, new: Path) -> None:
    """Moves `new` to the service's `file`, and waits until the service has read it on SIGHUP."""

    def served() -> bytes:
        return visit.page.request.get(f"{visit.address}/weights.safetensors").body()

    old = served()
    new.rename(file)
    process.send_signal(signal.SIGHUP)
    for _ in range(100):
        if served() != old:
            return
        time.sleep(0.05)
    pytest.fail("the service has not read its weights again")


def test_new_weights_after_a_hangup(browser, tmp_path):
    """The page reads with the new weights once it is loaded again, also when it is kept offline."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = tmp_path / "own.safetensors"
    with safe_open(ROOT / "weights" / "lenet5-reading.safetensors", "pt") as shipped:
        metadata = {"lenet5": shipped.metadata()["lenet5"]}
        weights = {name: shipped.get_tensor(name) for name in shipped.keys()}
    save_file(weights, file, metadata)
    with serving(str(file)) as (address, process):
        visit = Visit(browser, address)
        visit.write("2")
        visit.reads("2")
        for name in ["output.weight", "output.bias"]:
            weights[name] = weights[name].roll(1, 0).contiguous()
        new = tmp_path / "new.safetensors"
        save_file(weights, new, metadata)
        replace_weights(visit, process, file, new)
        visit.reads("2")
        visit.page.reload()
        visit.write("2")
        visit.reads("3")
        visit.close()


def test_a_hand_is_learnt(browser, tmp_path):
    """A 1 with a long, flat upstroke is read as 7; after `train --preset adapt` it is read as 1."""
    weights, kept = tmp_path / "own.pt", tmp_path / "kept"
    shutil.copy(ROOT / "weights" / "lenet5-reading.pt", weights)

    def write(strokes: list) -> str:
        visit.page.keyboard.press("Escape")
        visit.reads("")
        visit.draw(strokes, part=(0.35, 0.2, 0.3, 0.6), steps=8)
        expect(visit.page.locator("#text")).not_to_be_empty()
        visit.settle()
        return visit.text()

    def one(lean: float, height: float) -> list:
        return [[(lean - 0.25, height), (0.5 + lean, 0), (0.5 - lean, 1)]]

    ones = [one(lean, height) for lean in (-0.05, 0, 0.05) for height in (0.24, 0.27, 0.3, 0.33)]
    seven = [[(0.1, 0.02), (0.9, 0), (0.4, 1)]]
    with serving(str(weights), "--keep", str(kept)) as (address, process):
        visit = Visit(browser, address)
        wrong = []
        for strokes in ones:
            if write(strokes) != "1":
                wrong.append(strokes)
                visit.page.keyboard.press("1")
                visit.reads("1")
        assert len(wrong) >= 6
        assert write(seven) == "7"
        # The last three wrong ones are held out.
        files = sorted(kept.glob("1/*.png"), key=lambda file: file.stat().st_mtime)
        for file in files[-3:]:
            file.unlink()
        command = [TRAIN, "--preset=adapt", f"--init={weights}", f"--data={kept}"]
        subprocess.run([*command, f"--out={tmp_path / 'run'}"], check=True, capture_output=True)
        replace_weights(visit, process, weights, tmp_path / "run" / "model.pt")
        visit.page.reload()
        assert [write(strokes) for strokes in wrong] == ["1"] * len(wrong)
        assert write(seven) == "7"
        visit.close()
