/**
 * Two ways to read the page's drawings: in a worker of the browser, or through the HTTP service.
 *
 * @typedef {{x: number, y: number}} Place  in pixels of the sheet
 * @typedef {{network: string, digit?: number, pen?: Place}} Wanted  the network, and the digit whose layers are
 *   wanted: the one that the user chose, else the one under the pen, else the first one
 */

import { isSupported } from "./lenet5/index.js";
import { digitAt, openPicture } from "./pictures.js";

/** The longest wait for a response of the service. */
const TIMEOUT_MS = 10_000;
/** The shortest time between two requests to the service. */
const INTERVAL_MS = 40;

/** Starts a worker. @returns {{worker: Worker, failed: Promise}} `failed` is rejected if the worker cannot run */
function startWorker() {
  const worker = new Worker("worker.js", { type: "module" });
  const failed = new Promise((_, reject) => {
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      reject(new Error(event.message || "worker.js could not be loaded"));
    });
  });
  failed.catch(() => {});
  return { worker, failed };
}

/** The first worker, which loads the module while the browser still loads the page: index.html runs this file first. */
let early = isSupported ? startWorker() : null;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** @returns {Error} an error; `isFault` tells whether something is wrong, other than that there is nothing to read */
const failure = (message, isFault) => Object.assign(new Error(message), { isFault });

/**
 * Returns a reader. The service is only asked where the browser lacks WebAssembly with SIMD, or the module fails to load.
 *
 * @param {{service?: string, rejectBelow?: string, own?: string}} host  what the service states in the page: the URL
 *   of its API, the limit for rejecting, and the network for which it has other weights
 */
export async function openReader({ service, rejectBelow, own }) {
  if (isSupported) {
    try {
      return await LocalReader.start({ rejectBelow, own });
    } catch (error) {
      if (service === undefined) throw error;
      console.info(`The module was not loaded, so that the service reads. ${error.message}`);
    }
  }
  if (service !== undefined) return new ServiceReader(service);
  throw new Error(
    "This page reads digits with WebAssembly and its SIMD instructions, which this browser does not have. " +
      "Every browser of the last years does.",
  );
}

/** Reads in a worker of this browser. Nothing is sent anywhere. */
class LocalReader {
  isLocal = true;

  static async start({ rejectBelow, own }) {
    const reader = new LocalReader();
    reader.startup = { rejectBelow: rejectBelow && Number(rejectBelow) };
    if (own) {
      const response = await fetch("weights.safetensors");
      if (!response.ok) throw new Error(`weights.safetensors: status ${response.status}`);
      reader.startup.own = { network: own, file: new Uint8Array(await response.arrayBuffer()) };
    }
    await reader.restart();
    return reader;
  }

  /** Starts a worker. Those who wait for the worker before it get an error. */
  async restart() {
    this.worker?.terminate();
    for (const { reject } of this.waiting?.values() ?? []) {
      reject(failure("Reading this picture failed. The page has started anew.", true));
    }
    /** @type {Map<number, {resolve: Function, reject: Function}>} the tasks without a result */
    this.waiting = new Map();
    this.last = 0;
    const { worker, failed } = early ?? startWorker();
    early = null;
    this.worker = worker;
    worker.addEventListener("message", ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.waiting.get(id) ?? {};
      this.waiting.delete(id);
      if (error) reject?.(Object.assign(new Error(error.message), { name: error.name }));
      else resolve?.(result);
    });
    await Promise.race([this.ask("start", this.startup), failed]);
    if (this.weights) await this.ask("load", { file: this.weights });
  }

  /** Gives the worker a task. After a fault in the module, whose memory is then in an unknown state, a new one starts. */
  async run(task, parameters, transfer) {
    try {
      return await this.ask(task, parameters, transfer);
    } catch (error) {
      if (error.name === "RuntimeError") await this.restart();
      throw error;
    }
  }

  /** Gives the worker a task, and returns the promise of its result. */
  ask(task, parameters, transfer = []) {
    this.last += 1;
    const id = this.last;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, task, ...parameters }, transfer);
    });
  }

  /** @param {HTMLCanvasElement} canvas @param {Wanted} wanted */
  async read(canvas, wanted) {
    const { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height);
    try {
      return await this.run("read", { pixels, ...wanted }, [pixels.data.buffer]);
    } catch (error) {
      throw failure(error.message, error.name !== "NoDigitsError");
    }
  }

  /** @returns {Promise<ImageBitmap>} */
  open(file, longest) {
    return this.run("open", { file, longest });
  }

  /** Loads a file of weights as the network "own". */
  async load(file) {
    const result = await this.run("load", { file });
    this.weights = file;
    return result;
  }
}

/** Reads through the HTTP service. */
class ServiceReader {
  isLocal = false;

  constructor(url) {
    this.url = url;
  }

  /** @param {HTMLCanvasElement} canvas @param {Wanted} wanted */
  async read(canvas, { network, digit, pen }) {
    const body = await new Promise((done) => canvas.toBlob(done, "image/png"));
    const pause = sleep(INTERVAL_MS);
    try {
      const result = await this.post(body, { model: network, digit: digit ?? 0 });
      const under = digit === undefined && pen ? digitAt(result.reading, pen) : result.digit;
      if (under === result.digit) return result;
      await pause;
      return await this.post(body, { model: network, digit: under });
    } catch (error) {
      if (error.status !== 400 || !digit) throw error;
      // There are fewer digits now.
      return this.post(body, { model: network, digit: 0 });
    } finally {
      await pause;
    }
  }

  async post(body, query) {
    const headers = { "Content-Type": "image/png" };
    const options = { method: "POST", headers, body, signal: AbortSignal.timeout(TIMEOUT_MS) };
    const url = `${this.url}activations?${new URLSearchParams(query)}`;
    const response = await fetch(url, options).catch(() => {
      const message = "The server does not answer. Is it still running? Write on to try again.";
      throw failure(message, true);
    });
    const result = await response.json().catch(() => null);
    if (response.ok && result) return this.withPixels(result);
    const message = result?.error?.message ?? `The server failed: ${response.status}.`;
    throw Object.assign(failure(message, response.status !== 422), { status: response.status });
  }

  /** Gives digits their pixels. The service sends those of one digit; the others may be known from earlier results. */
  withPixels(result) {
    const { reading, digit, pixels } = result;
    const key = ({ box, probabilities }) => JSON.stringify([box, probabilities]);
    const known = new Map(this.digits?.map((earlier) => [key(earlier), earlier.pixels]));
    for (const one of reading.digits) one.pixels = known.get(key(one));
    reading.digits[digit].pixels = pixels && Uint8Array.from(pixels);
    this.digits = reading.digits;
    return result;
  }

  open(file, longest) {
    return openPicture(file, longest);
  }

  load() {
    throw new Error(
      "Weights are loaded in the browser, with WebAssembly and its SIMD instructions, which this browser does not have. " +
        "`lenet5 serve FILE` reads with the weights of a file.",
    );
  }
}
