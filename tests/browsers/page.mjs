/**
 * Checks the page of `serve` in a browser, by WebDriver BiDi, which Firefox and Chromium both speak.
 *
 * node page.mjs BROWSER PROGRAM SERVE FOLDER: BROWSER is firefox or chrome, PROGRAM its program, and SERVE ours; FOLDER
 * has photo.jpg (12 million pixels), 7.png, weights.pth, broken.pth and puppeteer-core. Prints a line of JSON for each
 * check: its name, and the error if it failed.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [browserName, program, serve, folder] = process.argv.slice(2);
const puppeteer = createRequire(`${folder}/`)("puppeteer-core");

const DESKTOP = { width: 1400, height: 1000, deviceScaleFactor: 1 };
const PHONE = { width: 360, height: 740, deviceScaleFactor: 3 };
/** Strokes in a square of side 1. */
const STROKES = {
  1: [[0.38, 0.24, 0.55, 0.05, 0.52, 0.95]],
  4: [[0.32, 0.06, 0.18, 0.56, 0.84, 0.53], [0.68, 0.1, 0.6, 0.96]],
  7: [[0.2, 0.1, 0.8, 0.08, 0.58, 0.45, 0.45, 0.95]],
};

/** Starts the service. */
async function start() {
  const process = spawn(serve, ["--addr", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "ignore"] });
  const [line] = await once(createInterface(process.stdout), "line");
  return { process, address: line.split(" ").at(-1) };
}

let page;

/** Waits until a function, which runs in the page, returns a true value. */
async function until(what, test, ...parameters) {
  for (let tries = 0; tries < 400; tries += 1) {
    if (await page.evaluate(test, ...parameters)) return;
    await new Promise((done) => setTimeout(done, 25));
  }
  const state = await page.evaluate(() => ({
    text: document.getElementById("text").textContent,
    message: document.getElementById("message").textContent,
  }));
  assert.fail(`${what}: ${JSON.stringify(state)}`);
}

const reads = (text) =>
  until(`expected ${text}`, (t) => document.getElementById("text").textContent === t, text);
const says = (...parts) =>
  until(
    `expected ${parts}`,
    (wanted) => wanted.every((part) => document.getElementById("message").textContent.includes(part)),
    parts,
  );
const clear = async () => {
  await page.keyboard.press("Escape");
  await reads("");
};

/** Waits until the sheet has `ratio` pixels for each CSS pixel: the page learns of a new window with the next frame. */
const hasPixels = (ratio) =>
  until(
    `expected ${ratio} pixels`,
    (ratio) => {
      const sheet = document.getElementById("sheet");
      return Math.abs(sheet.width / sheet.clientWidth - ratio) < 0.01;
    },
    ratio,
  );

/** Converts points of a square of side 1, in the middle of the sheet, to whole pixels of the window. */
async function onSheet(points) {
  const { left, top, width, height } = await page.$eval("#sheet", (e) => {
    e.scrollIntoView({ block: "center" });
    return e.getBoundingClientRect().toJSON();
  });
  return Array.from({ length: points.length / 2 }, (_, i) => ({
    x: Math.round(left + width * (0.3 + 0.4 * points[2 * i])),
    y: Math.round(top + height * (0.1 + 0.8 * points[2 * i + 1])),
  }));
}

/** Lets a pointer act: a "mouse" or a "touch". */
const act = (pointerType, actions) =>
  page.mainFrame().browsingContext.performActions([
    { type: "pointer", id: pointerType, parameters: { pointerType }, actions },
  ]);

const move = ({ x, y }) => ({ type: "pointerMove", x, y, duration: 20 });
const down = { type: "pointerDown", button: 0 };
const up = { type: "pointerUp", button: 0 };

async function write(digit, pointerType) {
  for (const points of STROKES[digit]) {
    const [first, ...rest] = await onSheet(points);
    await act(pointerType, [move(first), down, ...rest.map(move), up]);
  }
}

/** Drops a file on the sheet. */
async function drop(name) {
  const base64 = readFileSync(`${folder}/${name}`).toString("base64");
  await page.evaluate(
    (base64, name) => {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], name));
      const event = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
      document.getElementById("sheet").dispatchEvent(event);
    },
    base64,
    name,
  );
}

async function open(name) {
  const input = await page.$("#file");
  await input.uploadFile(`${folder}/${name}`);
}

const checks = {
  async "a mouse writes"() {
    await write("7", "mouse");
    await reads("7");
    const isLocal = await page.$eval("#privacy", (e) => e.textContent.includes("this browser"));
    assert(isLocal, "the page asks the service");
  },

  async "a finger writes"() {
    await write("4", "touch");
    await reads("4");
  },

  /** Firefox's WebDriver has no pen, so that the events are made here. test_page.py has more of this for Chromium. */
  async "a pen writes, and a palm that touches first does not stop it"() {
    const [corner] = await onSheet([-0.6, 1]);
    const path = await onSheet(STROKES[1][0]);
    await page.evaluate(
      (palm, path) => {
        const sheet = document.getElementById("sheet");
        sheet.setPointerCapture = () => {}; // there is no such pointer
        const send = (type, pointerType, { x, y }) => {
          const pointerId = pointerType === "pen" ? 71 : 72;
          const where = { clientX: x, clientY: y, bubbles: true, button: 0, buttons: 1 };
          sheet.dispatchEvent(new PointerEvent(type, { pointerId, pointerType, ...where }));
        };
        send("pointerdown", "touch", palm);
        send("pointermove", "touch", palm);
        send("pointerdown", "pen", path[0]);
        for (const point of path) {
          send("pointermove", "pen", point);
          send("pointermove", "touch", palm);
        }
        send("pointerup", "pen", path.at(-1));
        send("pointerup", "touch", palm);
      },
      corner,
      path,
    );
    await reads("1");
    await page.click("#undo");
    await reads("");
    assert(await page.$eval("#undo", (button) => button.disabled), "the palm has a stroke");
  },

  ...Object.fromEntries(
    [1, 1.5, 2, 3].map((ratio) => [
      `device pixel ratio ${ratio}`,
      async () => {
        await page.setViewport({ ...DESKTOP, deviceScaleFactor: ratio });
        await write("4", "mouse");
        await reads("4");
        await hasPixels(ratio);
      },
    ]),
  ),

  /** For a page, zoom is a smaller window with larger pixels. */
  async "zoom to 250 % and back while there is a drawing"() {
    await write("4", "mouse");
    await page.setViewport({ width: 560, height: 400, deviceScaleFactor: 2.5 });
    await reads("4");
    await clear();
    await write("7", "mouse");
    await reads("7");
    await page.setViewport(DESKTOP);
    await reads("7");
    await hasPixels(1);
  },

  async "a phone"() {
    await page.setViewport(PHONE);
    await write("7", "touch");
    await reads("7");
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    assert.equal(overflow, 0);
  },

  async "the window is resized during a stroke"() {
    const [first, corner] = await onSheet(STROKES[7][0].slice(0, 4));
    await act("mouse", [move(first), down, move(corner)]);
    await page.setViewport({ width: 900, height: 900, deviceScaleFactor: 1 });
    const rest = await onSheet(STROKES[7][0].slice(4));
    await act("mouse", [...rest.map(move), up]);
    await reads("7");
  },

  async "a picture is opened"() {
    await open("7.png");
    await reads("7");
  },

  async "a photo of 12 million pixels does not block the page"() {
    await page.evaluate(() => {
      window.said = new Set();
      window.ticks = 0;
      window.ticking = setInterval(() => {
        window.ticks += 1;
        window.said.add(document.getElementById("message").textContent);
      }, 20);
    });
    await open("photo.jpg");
    await until("the photo is read", () => document.getElementById("text").textContent.length >= 10);
    const [ticks, said] = await page.evaluate(() => {
      clearInterval(window.ticking);
      return [window.ticks, [...window.said]];
    });
    assert(ticks > 3, `only ${ticks} ticks`);
    assert(said.some((text) => text.includes("…")), `it says only ${JSON.stringify(said)}`);
  },

  async "weights are dropped"() {
    await drop("weights.pth");
    await says("weights of weights.pth");
    assert(await page.$eval("#own", (e) => !e.hidden && e.querySelector("input").checked));
    await write("4", "mouse");
    await reads("4");
    await page.click("input[value=modern]");
    await says("");
    await reads("4");
  },

  async "broken weights are dropped"() {
    await drop("broken.pth");
    await says("broken.pth", "found");
    await write("1", "mouse");
    await reads("1");
  },

  async "offline, after a reload"() {
    await until("kept", async () => Boolean((await navigator.serviceWorker.ready).active));
    service.process.kill();
    await once(service.process, "exit");
    await page.reload();
    await write("7", "mouse");
    await reads("7");
  },
};

const service = await start();
const browser = await puppeteer.launch({
  browser: browserName,
  executablePath: program,
  protocol: "webDriverBiDi",
  args: browserName === "chrome" ? ["--no-sandbox", "--disable-gpu"] : [],
});
let failed = false;
for (const [name, check] of Object.entries(checks)) {
  page = await browser.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  await page.setViewport(DESKTOP);
  await page.goto(service.address);
  try {
    await check();
    assert.deepEqual(faults, []);
    console.log(JSON.stringify({ name }));
  } catch (error) {
    failed = true;
    console.log(JSON.stringify({ name, error: error.message }));
  }
  await page.close();
}
await browser.close();
service.process.kill();
process.exit(failed ? 1 : 0);
