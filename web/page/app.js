/**
 * The page of `serve`: a sheet to write on, the digits that the network reads, and the outputs of its layers.
 *
 * @typedef {{x: number, y: number, width: number}} Point  a point of a stroke, in pixels of the sheet
 * @typedef {{picture: ImageBitmap | null, strokes: Point[][]}} Drawing
 * @typedef {{label: number, confidence: number, probabilities: number[], rejected: boolean,
 *   box: [left: number, top: number, width: number, height: number], pixels?: Uint8Array}} Digit  `pixels` is the picture
 *   that the network saw, 28x28
 * @typedef {{box: [left: number, top: number, width: number, height: number]}} Mark  ink that is not read
 * @typedef {{text: string, accepted: string, digits: Digit[], rejected: boolean,
 *   left_out: Mark[], other_lines: string[], score: number}} Reading  `accepted` has a question mark for each
 *   digit that is rejected; a higher `score` is a likelier reading
 * @typedef {{name: string, shape: number[], values: number[] | Float32Array}} Layer  its values, row by row, map
 *   after map
 * @typedef {{model: string, reading: Reading, digit: number, layers: Layer[],
 *   codes?: number[][] | Float32Array[]}} Result  a reading, with the layers of one digit
 */

import { Corrections } from "./corrections.js";
import { openReader } from "./readers.js";

/** The size of the sheet as it is read, in pixels: large enough for ten digits, and read at once. */
const SHEET = { width: 240, height: 180 };
/** The longest side of a picture as it is read, in pixels. */
const LARGEST_PICTURE = 1120;
/** The time after which a message says that the page is still busy. */
const BUSY_MS = 300;
/** The time from the last result until a screen reader speaks it. */
const QUIET_MS = 700;
/** Palm rejection: touches within this time of the use of a pen are ignored. */
const PALM_MS = 500;
/** The columns in which the units of the layers without maps are shown. */
const COLUMNS = { c5: 8, f6: 7 };
const INK = "#10151a";
/** The colour of the ring that marks the keyboard's pen. */
const MARK = "#00695c";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The strokes of each digit as x, y, x, y ... in a box of 90 x 100; a point given twice is a corner. */
const EXAMPLES = [
  [[52, 8, 30, 12, 16, 34, 14, 60, 26, 86, 46, 92, 66, 84, 78, 58, 74, 30, 62, 12, 48, 8]],
  [[40, 20, 50, 8, 50, 8, 50, 36, 49, 64, 48, 92]],
  [[18, 30, 24, 14, 42, 7, 62, 12, 70, 28, 62, 48, 40, 70, 16, 90, 16, 90, 40, 88, 76, 90]],
  [[20, 16, 40, 7, 62, 13, 64, 30, 44, 46, 44, 46, 66, 54, 72, 72, 56, 90, 34, 92, 16, 82]],
  [[30, 10, 24, 34, 18, 58, 18, 58, 44, 57, 78, 54], [60, 12, 58, 50, 54, 92]],
  [[68, 9, 32, 10, 32, 10, 26, 44, 26, 44, 44, 38, 66, 48, 72, 68, 58, 88, 36, 92, 18, 82]],
  [[60, 8, 40, 24, 24, 50, 20, 72, 32, 90, 52, 92, 68, 76, 60, 58, 42, 56, 22, 70]],
  [[16, 13, 46, 12, 76, 10, 76, 10, 60, 40, 48, 66, 42, 92]],
  [[64, 20, 46, 7, 26, 16, 30, 34, 48, 46, 68, 62, 66, 84, 46, 93, 26, 82, 28, 62, 48, 46, 64, 32,
    62, 14]],
  [[68, 28, 54, 10, 32, 14, 24, 32, 34, 48, 54, 46, 68, 24, 68, 24, 66, 60, 60, 92]],
];

const byId = (id) => document.getElementById(id);
const sheet = byId("sheet");
const paper = byId("paper");
/** The section with the reading. It is busy from a change of the drawing until the result. */
const reading = byId("reading");
const model = () => document.querySelector("input[name=model]:checked").value;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const percent = (p) => `${(100 * p).toFixed(1)} %`;
const number = (x) => x.toFixed(2).replace("-", "−");

/** Creates an element with a class and children. */
function make(tag, className = "", ...inside) {
  const result = document.createElement(tag);
  result.className = className;
  result.append(...inside);
  return result;
}

const makeCanvas = () => document.createElement("canvas");

/** Sets the text of an element. A browser lays the page out anew even for the same text. */
function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Gives a canvas its size in pixels. A browser clears it even for the same size. */
function resize(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

/** Gives `parent` exactly `count` children, and returns them. Existing ones keep their focus and state. */
function children(parent, count, makeChild) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append(makeChild(parent.children.length));
  return [...parent.children];
}

// ---- The drawing and its history

/** @type {Drawing} */
const BLANK = { picture: null, strokes: [] };
const history = [BLANK];
let position = 0;
/** Strokes that are being written, not in the history yet. @type {Point[][]} */
let unfinished = [];

/** @returns {Drawing} the drawing on the sheet */
function drawing() {
  const { picture, strokes } = history[position];
  return { picture, strokes: [...strokes, ...unfinished] };
}

/** The sheet's size: that of the picture, if there is one. */
const size = () => drawing().picture ?? SHEET;
const isBlank = () => !drawing().picture && drawing().strokes.length === 0;

/** Adds a drawing to the history, as the newest one. @param {Drawing} next */
function put(next) {
  unfinished = [];
  history.splice(position + 1, Infinity, next);
  position += 1;
  changed();
}

/** Undoes if `steps` is negative, otherwise redoes. */
function travel(steps) {
  finishStrokes();
  position = clamp(position + steps, 0, history.length - 1);
  outdate();
  changed();
}

function clear() {
  finishStrokes();
  if (isBlank()) return;
  outdate();
  put(BLANK);
}

/** Adds the strokes that are being written to the history. */
function finishStrokes() {
  cursor.down = false;
  writer += 1;
  if (unfinished.length) put(drawing());
}

function changed() {
  byId("undo").disabled = position === 0;
  byId("redo").disabled = position === history.length - 1;
  byId("clear").disabled = isBlank();
  byId("hint").hidden = !isBlank() || cursor.shown;
  paper.style.setProperty("--aspect", size().width / size().height);
  paintSoon();
  readNewest();
}

/** Paints the drawing as dark ink on white paper, in pixels of the sheet. */
function paint(context) {
  const { picture, strokes } = drawing();
  context.fillStyle = "white";
  context.fillRect(0, 0, size().width, size().height);
  if (picture) context.drawImage(picture, 0, 0);
  context.strokeStyle = context.fillStyle = INK;
  context.lineCap = "round";
  strokes.forEach((points) => paintStroke(context, points));
}

/** Paints a dot, and a curve through the midpoints between the points; each piece has its own width. */
function paintStroke(context, points) {
  let from = points[0];
  context.beginPath();
  context.arc(from.x, from.y, from.width / 2, 0, 2 * Math.PI);
  context.fill();
  points.forEach((point, i) => {
    const next = points[i + 1] ?? point;
    const to = { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    context.lineWidth = point.width;
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.quadraticCurveTo(point.x, point.y, to.x, to.y);
    context.stroke();
    from = to;
  });
}

let painting = 0;

/** Paints the sheet with the next frame, once, even if this is called several times. */
function paintSoon() {
  cancelAnimationFrame(painting);
  painting = requestAnimationFrame(paintSheet);
}

/** Paints the sheet on the screen, in the screen's own pixels. */
function paintSheet() {
  const scale = (sheet.clientWidth * devicePixelRatio) / size().width;
  resize(sheet, Math.round(size().width * scale), Math.round(size().height * scale));
  const context = sheet.getContext("2d", { alpha: false });
  context.imageSmoothingEnabled = scale < 4;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  paint(context);
  if (!cursor.shown) return;
  context.strokeStyle = MARK;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(cursor.x, cursor.y, penWidth() / 2 + 3, 0, 2 * Math.PI);
  context.stroke();
}

/** The canvas that is read. The browser keeps its pixels where they are read fast. */
const readCanvas = makeCanvas();
const readContext = readCanvas.getContext("2d", { willReadFrequently: true });

/** @returns {HTMLCanvasElement} the drawing without the keyboard's pen */
function drawn() {
  resize(readCanvas, size().width, size().height);
  paint(readContext);
  return readCanvas;
}

// ---- Writing: by pointer, by keyboard, by example; pictures

/** The keyboard's pen: where it is, and whether it writes. */
const cursor = { x: SHEET.width / 2, y: SHEET.height / 4, shown: false, down: false };
/** A change of this number stops the example that is being written, and the picture that is being opened. */
let writer = 0;

const penWidth = () => (byId("pen").valueAsNumber * size().width) / SHEET.width;

/** @returns {Point} */
function pointAt(event) {
  const { left, top, width } = sheet.getBoundingClientRect();
  const scale = size().width / width;
  const pressure = event.pointerType === "pen" && event.pressure > 0 ? 0.5 + event.pressure : 1;
  const [x, y] = [(event.clientX - left) * scale, (event.clientY - top) * scale];
  return { x, y, width: penWidth() * pressure };
}

/**
 * One pointer writes at a time. A pen or a mouse replaces a touch, and the stroke of the touch is removed, since it
 * comes from the hand that holds the pen. While a pen is in use, touches are ignored for the same reason.
 */
function listenToPointer() {
  /** @type {PointerEvent | null} the event that started the current stroke */
  let writing = null;
  /** The pointer's stroke. @type {Point[]} */
  let stroke = [];
  let penUsed = -Infinity;
  /** For each stroke of a touch, the time of its last event. @type {WeakMap<Point[], number>} */
  const touches = new WeakMap();

  // The keyboard or an example may have taken over.
  const writes = ({ pointerId }) =>
    pointerId === writing?.pointerId && unfinished.includes(stroke);
  const note = (event) => {
    const { pointerType, timeStamp } = event;
    if (pointerType === "pen") penUsed = timeStamp;
    if (pointerType === "touch" && writes(event)) touches.set(stroke, timeStamp);
  };
  /** Removes the stroke that a touch is writing, and the strokes that touches have just written. */
  const takeBack = (now) => {
    unfinished = [];
    while (now - (touches.get(history[position].strokes.at(-1)) ?? -Infinity) < PALM_MS) {
      history.splice(position, Infinity);
      position -= 1;
    }
  };
  sheet.addEventListener("pointerdown", (event) => {
    const { pointerType, pointerId, timeStamp } = event;
    const isTouch = pointerType === "touch";
    if (event.button !== 0 || (isTouch && timeStamp - penUsed < PALM_MS)) return;
    if (writing && (isTouch || writing.pointerType !== "touch")) return;
    if (writing || pointerType === "pen") takeBack(timeStamp);
    finishStrokes();
    writing = event;
    sheet.setPointerCapture(pointerId);
    paper.classList.add("writing");
    cursor.shown = false;
    chosen = -1;
    stroke = [pointAt(event)];
    unfinished = [stroke];
    note(event);
    changed();
  });
  sheet.addEventListener("pointermove", (event) => {
    note(event); // a pen may hover
    if (!writes(event)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    stroke.push(...(events.length ? events : [event]).map(pointAt));
    changed();
  });
  const lift = (event) => {
    if (event.pointerId !== writing?.pointerId) return;
    note(event);
    const wrote = writes(event);
    writing = null;
    paper.classList.remove("writing");
    if (!wrote) return;
    if (event.type === "pointercancel" && event.pointerType === "touch") {
      unfinished = []; // the system has detected a palm
      changed();
    }
    finishStrokes();
  };
  sheet.addEventListener("pointerup", lift);
  sheet.addEventListener("pointercancel", lift);
}

/** Handles the keys on the sheet: arrows move the pen, Space puts it down and lifts it. */
function writeByKey(event) {
  const arrow = ARROWS[event.key];
  if ((!arrow && event.key !== " ") || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  cursor.shown = true;
  const { width, height } = size();
  const step = (event.shiftKey ? 0.008 : 0.025) * width;
  const [right, down] = arrow ?? [0, 0];
  cursor.x = clamp(cursor.x + right * step, 0, width);
  cursor.y = clamp(cursor.y + down * step, 0, height);
  if (!arrow && cursor.down) return finishStrokes();
  if (!arrow) {
    finishStrokes();
    cursor.down = true;
    unfinished = [[]];
  }
  if (!cursor.down) return paintSoon();
  unfinished[0].push({ x: cursor.x, y: cursor.y, width: penWidth() });
  changed();
}

function shortcut(event) {
  const key = event.key.toLowerCase();
  const command = event.ctrlKey || event.metaKey;
  if (command && key === "z") travel(event.shiftKey ? 1 : -1);
  else if (command && key === "y") travel(1);
  else if (!command && (key === "escape" || key === "delete")) clear();
  else if (!command && !event.altKey && /^[0-9]$/.test(key) && hasTenClasses()) correct(Number(key));
  else return;
  event.preventDefault();
}

/** Writes digits point by point, as a hand does, or all at once if the user prefers reduced motion. */
async function writeExample(text) {
  clear();
  const mine = writer;
  const height = Math.min(0.76 * SHEET.height, (0.94 * SHEET.width) / text.length);
  const left = (SHEET.width - 0.9 * height * text.length) / 2;
  const top = (SHEET.height - height) / 2;
  const width = Math.min(penWidth(), height / 9);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const [i, digit] of [...text].entries()) {
    for (const stroke of EXAMPLES[digit]) {
      unfinished.push([]);
      for (let k = 0; k < stroke.length; k += 2) {
        const x = left + (0.9 * i + stroke[k] / 100) * height;
        unfinished.at(-1).push({ x, y: top + (stroke[k + 1] / 100) * height, width });
        if (still) continue;
        changed();
        await sleep(30);
        if (mine !== writer) return;
      }
    }
  }
  finishStrokes();
}

/** Opens a file: a picture for the sheet, or weights for the network. */
async function openFile(file) {
  if (/\.(pth?|safetensors|ckpt|bin)$/i.test(file.name)) return openWeights(file);
  finishStrokes();
  const mine = writer;
  const busy = setTimeout(showMessage, BUSY_MS, `Opening ${file.name || "the picture"} …`);
  try {
    const picture = await (await opening).open(file, LARGEST_PICTURE);
    if (mine !== writer) return; // the user has written or opened something else in the meantime
    outdate();
    put({ picture, strokes: [] });
  } catch {
    const what = file.name ? `The file ${file.name}` : "This";
    showMessage(`${what} is not a picture that your browser can open.`, "error");
  } finally {
    clearTimeout(busy);
  }
}

/** Reads with the weights of a file from now on. */
async function openWeights(file) {
  try {
    const { model, notes } = await (await opening).load(file);
    const own = byId("own");
    own.dataset.model = model;
    own.hidden = false;
    own.querySelector("span").textContent = file.name;
    own.querySelector("input").checked = true;
    own.dataset.note = [`Reading with the weights of ${file.name}.`, ...notes].join(" ");
    chooseNetwork();
  } catch (error) {
    showMessage(`In the file ${file.name}: ${error.message}`, "error");
  }
}

function listenToFiles() {
  const open = (files) =>
    files.length ? openFile(files[0]) : showMessage("That is not a picture.", "error");
  for (const input of document.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      if (input.files.length) open(input.files);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => open(event.clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    paper.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) paper.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    paper.classList.remove("over");
    open(event.dataTransfer.files);
  });
}

// ---- Reading: one drawing at a time, always the newest one

/** The reader, once it is ready. @type {Promise<import("./readers.js").LocalReader>} */
let opening;
let wanted = false;
/** A result is ignored if this number has changed since its start. */
let generation = 0;
/** The digit that the user chose, or -1: then it is the digit that was written last. */
let chosen = -1;

/** Marks the results of all earlier drawings as outdated. */
function outdate() {
  generation += 1;
  chosen = -1;
}

async function readNewest() {
  wanted = true;
  if (reading.ariaBusy === "true") return;
  reading.ariaBusy = "true";
  while (wanted) {
    wanted = false;
    if (isBlank()) show(null);
    else await readSheet();
  }
  reading.ariaBusy = "false";
}

async function readSheet() {
  const mine = generation;
  const busy = setTimeout(showMessage, BUSY_MS, "Reading …");
  try {
    const reader = await opening;
    const pen = drawing().strokes.at(-1)?.at(-1);
    const digit = chosen < 0 ? undefined : chosen;
    const place = pen && { x: pen.x, y: pen.y };
    const result = await reader.read(drawn(), { network: model(), digit, pen: place });
    if (mine === generation) show(result);
  } catch (error) {
    if (mine !== generation) return;
    show(null);
    showMessage(error.message, error.isFault === false ? "" : "error");
  } finally {
    clearTimeout(busy);
  }
}

function choose(digit) {
  chosen = digit;
  readNewest();
}

// ---- Showing the reading

/** @type {Reading} */
const NOTHING = { text: "", accepted: "", digits: [], left_out: [] };
/** @type {Result | null} */
let shown = null;
let quiet = 0;

/** @param {Result | null} result  null if there is nothing to read */
function show(result) {
  shown = result;
  showMessage(model() === "own" ? byId("own").dataset.note : "");
  const { accepted, digits, left_out: marks } = result?.reading ?? NOTHING;
  showDigits();
  showMarks(marks);
  showLayers(result?.layers ?? []);
  showCodes(result);
  clearTimeout(quiet);
  quiet = setTimeout(readAloud, QUIET_MS, accepted, digits);
}

/** Shows the digits that were read, with the visitor's corrections. */
function showDigits() {
  const { text, accepted, digits } = shown?.reading ?? NOTHING;
  setText(byId("glance"), corrected(accepted, digits));
  showText(text, digits);
  showBoxes(digits);
  showDigit(digits);
}

function showMessage(text, kind = "") {
  setText(byId("message"), text);
  byId("message").className = `message ${kind}`;
}

/** Shows the digits in large type, line by line; each digit is a button. */
function showText(text, digits) {
  const lines = text.split("\n");
  const spaced = digits[0]?.probabilities.length > 10;
  const count = (line) => (spaced ? line.split(" ") : line).length;
  byId("text").style.setProperty("--length", Math.max(1, ...lines.map(({ length }) => length)));
  let next = 0;
  children(byId("text"), lines.length, () => make("div")).forEach((line, i) => {
    for (const button of children(line, count(lines[i]), makeDigitButton)) {
      updateDigitButton(button, digits, next);
      next += 1;
    }
  });
}

function makeDigitButton() {
  const button = make("button");
  button.type = "button";
  button.addEventListener("click", () => choose(Number(button.dataset.digit)));
  return button;
}

function updateDigitButton(button, digits, i) {
  const { label, confidence, rejected, pixels } = digits[i];
  const right = corrections.labelOf(pixels);
  const isCorrected = right !== undefined;
  button.dataset.digit = i;
  setText(button, right ?? (rejected ? "?" : label));
  button.classList.toggle("rejected", rejected && !isCorrected);
  button.classList.toggle("corrected", isCorrected);
  button.setAttribute("aria-pressed", i === shown.digit);
  const read = rejected ? `not sure, perhaps ${label}` : label;
  const reading = isCorrected ? `corrected to ${right}, read as ${read}` : read;
  button.setAttribute("aria-label", `Digit ${i + 1}: ${reading}, ${percent(confidence)}`);
}

/** Shows a frame around each digit on the sheet; if there are several, each has a button to choose it. */
function showBoxes(digits) {
  const makeFrame = () => make("div", "", makeDigitButton());
  children(byId("boxes"), digits.length, makeFrame).forEach((frame, i) => {
    const { box } = digits[i];
    place(frame, box);
    frame.classList.toggle("selected", i === shown.digit);
    frame.classList.toggle("at-top", box[1] < 0.1 * size().height);
    frame.firstChild.hidden = digits.length === 1;
    updateDigitButton(frame.firstChild, digits, i);
  });
}

/** Puts an element over a box of the sheet. */
function place({ style }, [left, top, width, height]) {
  style.left = `${(100 * left) / size().width}%`;
  style.top = `${(100 * top) / size().height}%`;
  style.width = `${(100 * width) / size().width}%`;
  style.height = `${(100 * height) / size().height}%`;
}

/** Shows frames around marks that may be signs or points, and a message that they are not read. */
function showMarks(marks) {
  const frames = children(byId("marks"), marks.length, () => make("div"));
  frames.forEach((frame, i) => place(frame, marks[i].box));
  if (!marks.length) return;
  const many = marks.length === 1 ? "1 mark is" : `${marks.length} marks are`;
  showMessage(`${many} left out, perhaps a sign or a point: only digits are read.`);
}

/** Shows the confidence and the probabilities of the selected digit. */
function showDigit(digits) {
  const digit = digits[shown?.digit];
  const right = corrections.labelOf(digit?.pixels);
  const which = digits.length > 1 ? ` of digit ${shown.digit + 1} of ${digits.length}` : "";
  setText(byId("bars-heading"), `Probabilities${which}`);
  const verdict = byId("verdict");
  const isCorrected = right !== undefined;
  verdict.classList.toggle("rejected", Boolean(digit?.rejected) && !isCorrected);
  verdict.classList.toggle("corrected", isCorrected);
  const words = digit?.rejected ? `Rejected, not sure: perhaps ${digit.label}, at` : "Confidence";
  const change = right === digit?.label ? `Confirmed: ${right}` : `Corrected from ${digit?.label} to ${right}`;
  const confidence = digit ? `${words} ${percent(digit.confidence)}` : "";
  setText(verdict, isCorrected ? change : confidence);
  setText(byId("product"), digit ? product(digit) : "");
  const probabilities = digit?.probabilities ?? Array(10).fill(0);
  byId("bars").tabIndex = probabilities.length > 10 ? 0 : -1; // to scroll it by keyboard
  children(byId("bars"), probabilities.length, makeBar).forEach((bar, i) => {
    const [button] = bar.children;
    const value = digit ? percent(probabilities[i]) : "";
    bar.classList.toggle("best", i === digit?.label);
    button.disabled = !digit?.pixels;
    button.setAttribute("aria-pressed", i === right);
    button.setAttribute("aria-label", `It is ${i}${value && `: ${value}`}`);
    button.querySelector("i").style.transform = `scaleX(${probabilities[i]})`;
    setText(button.lastChild, value);
  });
}

/** A class with the bar of its probability: a button that corrects the selected digit to it, and takes that back. */
function makeBar(i) {
  const parts = [make("b", "", i), make("span", "bar", make("i")), make("span", "value")];
  const button = make("button", "choice", ...parts);
  button.type = "button";
  button.addEventListener("click", () => {
    correct(i, button.getAttribute("aria-pressed") === "true");
  });
  return make("li", "", button);
}

/** Explains why the confidence is lower than the highest probability. */
function product({ label, confidence, probabilities }) {
  const most = probabilities[label];
  return (
    `${percent(most)} that it is ${label}, by this network, \u00d7 ${percent(confidence / most)} ` +
    "that it is a digit at all, by a second one, the reject network."
  );
}

function readAloud(text, digits) {
  const word = ({ confidence, rejected }) => percent(confidence) + (rejected ? ", not sure" : "");
  byId("live").textContent = text && `Read ${text}: ${digits.map(word).join("; ")}`;
}

// ---- Correcting what was read

const { service, keep } = document.documentElement.dataset;
const corrections = new Corrections(
  keep === undefined ? null : `${service}corrections`,
  showCorrections,
  (message) => showMessage(message, "error"),
);

/** The digit whose layers are shown. @returns {Digit | undefined} */
const selected = () => shown?.reading.digits[shown.digit];
const hasTenClasses = () => selected()?.probabilities.length === 10;

/**
 * Notes what the selected digit is. A digit that the network has read so, and not rejected, needs no correction; the one
 * that it may have had is taken back, as it is with `isBack`.
 */
function correct(label, isBack = false) {
  const digit = selected();
  if (!digit?.pixels) return;
  const isRight = label === digit.label && !digit.rejected;
  if (isBack || isRight) corrections.remove(digit.pixels);
  else corrections.add(digit.pixels, label);
}

/** Puts the visitor's labels into a text that was read. */
function corrected(text, digits) {
  const classes = digits[0]?.probabilities.length;
  let next = 0;
  return text.replace(classes > 10 ? /\S+/g : /\S/g, (read) => {
    const right = corrections.labelOf(digits[next]?.pixels);
    next += 1;
    return right ?? read;
  });
}

function showCorrections() {
  const { count } = corrections;
  setText(byId("correction-count"), count ? `${count} correction${count === 1 ? "" : "s"}` : "");
  byId("correction-tools").hidden = count === 0;
  showDigits();
}

/** Says where corrections go, and how to take them there. */
function listenToCorrections() {
  byId("kept").textContent =
    keep === undefined
      ? "Corrections stay in this browser until you download them; closing the page discards them."
      : "Corrections are kept on this server.";
  byId("download").addEventListener("click", () => corrections.download());
  byId("take-back").addEventListener("click", () => corrections.removeLast());
}

// ---- Showing the layers

/** Colour maps of 512 steps, as pixels: from negative to positive, and from paper to ink. */
const colours = { diverging: new Uint32Array(512), input: new Uint32Array(512) };

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const [negative, zero, positive, low, high] = ["negative", "zero", "positive", "low", "high"].map(
    (name) => style.getPropertyValue(`--${name}`).match(/\w\w/g).map((hex) => parseInt(hex, 16)),
  );
  const mix = (a, b, t) => [...a.map((channel, i) => channel + (b[i] - channel) * t), 255];
  const signed = (t) => (t < 0 ? mix(zero, negative, -t) : mix(zero, positive, t));
  const bytes = (map) => new Uint8ClampedArray(map.buffer);
  for (let i = 0; i < 512; i += 1) {
    bytes(colours.diverging).set(signed((2 * i) / 511 - 1), 4 * i);
    bytes(colours.input).set(mix(low, high, i / 511), 4 * i);
  }
}

const colourOf = (value, { map, low, high }) =>
  map[clamp(Math.round((511 * (value - low)) / (high - low || 1)), 0, 511)];

/** Returns a layer's range and colour map: from paper to ink for the input, otherwise symmetric about 0. */
function scaleOf(name, values) {
  const least = values.reduce((a, b) => Math.min(a, b));
  const most = values.reduce((a, b) => Math.max(a, b));
  const range = `${number(least)} to ${number(most)}`;
  if (name === "input") return { range, map: colours.input, low: least, high: most };
  const limit = Math.max(-least, most);
  return { range, map: colours.diverging, low: -limit, high: limit };
}

/**
 * Draws maps in rows of `across` maps, one pixel for each value, with a gap of one pixel between maps. The style sheet
 * enlarges them. One canvas for all maps of a layer is drawn much faster than one for each.
 *
 * @param {{values: number[] | Float32Array, maps: number, columns: number, across: number}} grid
 */
function paintMaps(canvas, grid, scale) {
  const { values, maps, columns, across } = grid;
  const area = values.length / maps;
  const rows = Math.ceil(area / columns);
  const width = across * (columns + 1) - 1;
  const height = Math.ceil(maps / across) * (rows + 1) - 1;
  resize(canvas, width, height);
  canvas.grid = { ...grid, rows, area };
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < values.length; i += 1) {
    const [map, inMap] = [Math.floor(i / area), i % area];
    const y = Math.floor(map / across) * (rows + 1) + Math.floor(inMap / columns);
    const x = (map % across) * (columns + 1) + (inMap % columns);
    pixels[y * width + x] = colourOf(values[i], scale);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** @param {Layer[]} layers  the figures of missing layers become empty */
function showLayers(layers) {
  for (const figure of document.querySelectorAll("figure[data-layer]")) {
    const { layer: name } = figure.dataset;
    const layer = layers.find((candidate) => candidate.name === name);
    const stage = figure.querySelector(".stage");
    const shape = layer ? layer.shape.filter((side, i) => i === 0 || side > 1) : [];
    const range = layer ? showValues(stage, layer, shape) : "";
    if (!layer) stage.replaceChildren();
    setText(figure.querySelector(".shape"), shape.join(" × "));
    setText(figure.querySelector(".range"), range);
    const words = layer ? `${shape.join(" by ")} values, ${range}` : "nothing yet";
    stage.setAttribute("role", "img");
    stage.setAttribute("aria-label", `${name}: ${words}`);
  }
}

/** The number of maps in a row of a layer's figure, by the width of the window. @type {Map<string, number>} */
const mapsAcross = new Map();

/** Reads the numbers of maps in a row, which the style sheet states, and shows the layers so. */
function arrangeMaps() {
  for (const figure of document.querySelectorAll("figure[data-layer]")) {
    const across = getComputedStyle(figure).getPropertyValue("--across");
    mapsAcross.set(figure.dataset.layer, Number(across) || 1);
  }
  paintAgain();
}

/** Paints the result that is shown again, for other colours or for another width of the window. */
function paintAgain() {
  if (!shown) return;
  showLayers(shown.layers);
  showCodes(shown);
}

/**
 * Fills a layer's figure with the scores of the classes, with units in columns, or with maps.
 *
 * @returns {string} the values' range
 */
function showValues(stage, { name, values }, shape) {
  const scale = scaleOf(name, values);
  if (name === "output") showScores(stage, values, scale);
  else {
    const [maps, columns] = shape.length > 1 ? [shape[0], shape.at(-1)] : [1, COLUMNS[name]];
    const across = Math.min(maps, mapsAcross.get(name));
    const [canvas] = children(stage, 1, makeCanvas);
    paintMaps(canvas, { values, maps, columns, across }, scale);
  }
  return scale.range;
}

function showScores(stage, values, scale) {
  const makeScore = (i) => make("p", "", make("b", "", i), make("i"), make("span"));
  children(stage, values.length, makeScore).forEach((score, i) => {
    const channels = new Uint8Array(Uint32Array.of(colourOf(values[i], scale)).buffer);
    score.children[1].style.background = `rgb(${channels.subarray(0, 3)})`;
    setText(score.children[2], number(values[i]));
  });
}

/**
 * Shows the outputs of f6 as a picture, with the distance from each code; for the network of 1998 only.
 *
 * @param {Result | null} result
 */
function showCodes(result) {
  const { codes = [], layers = [] } = result ?? {};
  byId("codes").hidden = codes.length === 0;
  if (!codes.length) return;
  const drawn = layers.find(({ name }) => name === "f6").values;
  const scale = scaleOf("f6", [...drawn, -1, 1]);
  const paint = (canvas, values) =>
    paintMaps(canvas, { values, maps: 1, columns: COLUMNS.f6, across: 1 }, scale);
  paint(byId("drawn").querySelector("canvas"), drawn);
  const distances = codes.map((code) => code.reduce((sum, x, i) => sum + (drawn[i] - x) ** 2, 0));
  const nearest = distances.indexOf(Math.min(...distances));
  const makeCode = (i) => make("li", "", makeCanvas(), make("b", "", i), make("span"));
  children(byId("code-list"), codes.length, makeCode).forEach((item, i) => {
    paint(item.firstChild, codes[i]);
    item.classList.toggle("nearest", i === nearest);
    setText(item.lastChild, distances[i].toFixed(1));
  });
}

/** Shows the value under the pointer, with its layer, row and column. */
function probe({ target, offsetX, offsetY }) {
  const layer = target.grid && target.closest("[data-layer]")?.dataset.layer;
  if (!layer) return;
  const { values, maps, area, rows, columns, across } = target.grid;
  const { width, height, clientWidth, clientHeight } = target;
  const x = clamp(Math.floor((offsetX / clientWidth) * width), 0, width - 1);
  const y = clamp(Math.floor((offsetY / clientHeight) * height), 0, height - 1);
  const [column, row] = [x % (columns + 1), y % (rows + 1)];
  const map = Math.floor(y / (rows + 1)) * across + Math.floor(x / (columns + 1));
  const value = values[map * area + row * columns + column];
  if (column === columns || row === rows || map >= maps || value === undefined) return;
  const which = maps > 1 ? `map ${map + 1}, ` : "";
  const place = `row ${row + 1}, column ${column + 1}`;
  byId("probe").textContent = `${layer}, ${which}${place}: ${number(value)}`;
}

// ---- Light and dark theme; start of the page

const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** @param {string | null} theme  "dark", "light", or null for the theme of the system */
function setTheme(theme) {
  const dark = theme ? theme === "dark" : systemDark.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", dark);
  readColours();
  paintAgain();
}

/** Stores a theme if one is given, and returns the stored theme. Some private windows have no storage. */
function stored(theme) {
  try {
    if (theme) localStorage.setItem("lenet5-theme", theme);
    return localStorage.getItem("lenet5-theme");
  } catch {
    return theme ?? null;
  }
}

function chooseNetwork() {
  const { dataset } = document.documentElement;
  dataset.model = model() === "own" ? byId("own").dataset.model : model();
  generation += 1;
  readNewest();
}

/** Starts to load the reader. */
function openTheReader() {
  const { dataset } = document.documentElement;
  opening = openReader(dataset);
  if (dataset.own) document.querySelector(`input[value=${dataset.own}]`).checked = true;
  opening.then(
    ({ isLocal }) => {
      const stays = `What you write stays in this browser${keep === undefined ? "" : ", except for corrections"}.`;
      byId("privacy").textContent = isLocal
        ? stays
        : "What you write is sent only to the server that showed you this page.";
    },
    (error) => showMessage(error.message, "error"),
  ).then(keepForUseOffline);
}

/** Stores the page in the browser, once it has been loaded. Only pages of https and of this machine can be stored. */
function keepForUseOffline() {
  navigator.serviceWorker?.register("offline.js", { type: "module" }).catch(() => {});
}

function start() {
  openTheReader();
  for (const text of [...EXAMPLES.keys(), "1998"].map(String)) {
    const button = make("button", "", text);
    button.type = "button";
    button.setAttribute("aria-label", `Write ${text}`);
    button.addEventListener("click", () => writeExample(text));
    byId("examples").append(button);
  }
  listenToPointer();
  listenToFiles();
  listenToCorrections();
  sheet.addEventListener("keydown", writeByKey);
  sheet.addEventListener("blur", finishStrokes);
  document.addEventListener("keydown", shortcut);
  byId("undo").addEventListener("click", () => travel(-1));
  byId("redo").addEventListener("click", () => travel(1));
  byId("clear").addEventListener("click", clear);
  document.querySelector("main").addEventListener("pointermove", probe);
  byId("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(stored(next) ?? next);
  });
  systemDark.addEventListener("change", () => setTheme(stored()));
  for (const radio of document.getElementsByName("model")) {
    radio.addEventListener("change", chooseNetwork);
  }
  new ResizeObserver(paintSoon).observe(sheet);
  addEventListener("resize", arrangeMaps);
  arrangeMaps();
  setTheme(stored());
  chooseNetwork();
  changed();
}

start();
