/**
 * The worker of the page: reads pictures with the module, beside the page's own thread.
 *
 * It answers each message {id, task, ...} with {id, result} or {id, error: {name, message}}. The tasks are the
 * functions of `tasks`.
 */

import init, { Recognizer } from "./lenet5/index.js";
import { digitAt, openPicture } from "./pictures.js";

/** The recognizers by the name of the network; "own" has weights of the visitor. @type {Map<string, Recognizer>} */
const recognizers = new Map();
/** Options of all recognizers. */
let options = {};
/** The loading of the module, which begins before the page asks for it. */
const loading = init();
loading.catch(() => {}); // `start` reports it
let hasRead = false;

function recognizer(network) {
  if (!recognizers.has(network)) {
    recognizers.set(network, new Recognizer({ network, ...options }));
  }
  return recognizers.get(network);
}

/** Replaces the recognizer of a network. */
function replace(network, next) {
  recognizers.get(network)?.free();
  recognizers.set(network, next);
}

const tasks = {
  /** Loads the module. `own`, a network and its file of weights, replaces the shipped weights of that network. */
  async start({ rejectBelow, own }) {
    await loading;
    options = { rejectBelow };
    if (own) replace(own.network, new Recognizer({ weights: own.file, ...options }));
    recognizer("modern");
    setTimeout(warmUp);
  },

  /** Reads pixels, and computes the layers of a digit, in the form of the service's /v1/activations. */
  read({ network, pixels, digit: wanted, pen }) {
    hasRead = true;
    const chosen = recognizer(network);
    const { data, width, height } = pixels;
    const reading = chosen.readPixels(data, width, height);
    const isThere = wanted < reading.digits.length;
    const digit = isThere ? wanted : pen ? digitAt(reading, pen) : 0;
    const layers = chosen.layers(reading.digits[digit].pixels);
    return { model: chosen.network, reading, digit, layers, codes: chosen.codes };
  },

  /** Opens a picture, reduced to at most `longest` pixels on a side. */
  open: ({ file, longest }) => openPicture(file, longest),

  /** Loads a file of weights as the network "own". */
  async load({ file }) {
    const weights = new Uint8Array(await file.arrayBuffer());
    const next = new Recognizer({ weights, ...options });
    replace("own", next);
    return { model: next.network, classes: next.classes, notes: next.notes };
  },
};

/**
 * Reads a stroke that nobody wrote, if there is none to read yet: browsers compile the functions of the module when they
 * first run, which takes longer than many readings.
 */
function warmUp() {
  if (hasRead) return;
  const pixels = new ImageData(240, 180);
  const colours = new Uint32Array(pixels.data.buffer).fill(0xffffffff);
  for (let y = 30; y < 150; y += 1) colours.fill(0xff000000, 240 * y + 115, 240 * y + 125);
  try {
    tasks.read({ network: "modern", pixels });
  } catch {
    // A network with the visitor's weights may see no digit there.
  }
}

addEventListener("message", async ({ data: { id, task, ...parameters } }) => {
  try {
    const result = await tasks[task](parameters);
    postMessage({ id, result }, result instanceof ImageBitmap ? [result] : []);
  } catch (error) {
    postMessage({ id, error: { name: error.name, message: error.message } });
  }
});
