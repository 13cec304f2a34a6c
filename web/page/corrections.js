/**
 * Corrections: the pictures of digits with the labels that the visitor gives them, to train a network on this hand.
 *
 * They stay in the page until they are downloaded; a service that keeps corrections gets them too.
 *
 * @typedef {{pixels: Uint8Array, label: number, isSafe: boolean}} Correction  28x28 pixels as the network saw them, 0 for
 *   paper to 255 for ink; a safe correction is downloaded, or kept by the service
 */

import { zip } from "./zip.js";

const SIDE = 28;
const LIMIT = 1000;
/** The longest wait for a response of the service. */
const TIMEOUT_MS = 10_000;

/** The name of a picture: 16 hexadecimal digits, from two FNV-1a hashes. Browsers have SHA-256 only on pages of https. */
function nameOf(pixels) {
  const hash = (start, prime) =>
    pixels.reduce((hash, pixel) => Math.imul(hash ^ pixel, prime), start) >>> 0;
  const parts = [hash(0x811c9dc5, 0x01000193), hash(0x9747b28c, 0x85ebca6b)];
  return parts.map((part) => part.toString(16).padStart(8, "0")).join("");
}

/** @returns {Promise<Blob>} a PNG with exactly these pixels */
function toPng(pixels) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const image = new ImageData(SIDE, SIDE);
  pixels.forEach((pixel, i) => image.data.set([pixel, pixel, pixel, 255], 4 * i));
  canvas.getContext("2d", { alpha: false }).putImageData(image, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

export class Corrections {
  /** By name, in the order in which they were made. @type {Map<string, Correction>} */
  #all = new Map();
  /** What the service has stored: its own name for the picture, and the label. @type {Map<string, {name: string, label: number}>} */
  #stored = new Map();
  /** The names of corrections that were changed since the service last heard of them. */
  #unsent = new Set();
  #isSending = false;

  /**
   * @param {string | null} url  the service's URL for corrections, if it keeps them
   * @param {() => void} changed  called after each change
   * @param {(message: string) => void} failed  called if the service does not keep a correction
   */
  constructor(url, changed, failed) {
    Object.assign(this, { url, changed, failed });
    addEventListener("beforeunload", (event) => {
      if ([...this.#all.values()].some(({ isSafe }) => !isSafe)) event.preventDefault();
    });
  }

  get count() {
    return this.#all.size;
  }

  /** The label that the visitor has given a picture, if any. @param {Uint8Array | undefined} pixels */
  labelOf(pixels) {
    if (!this.count || !pixels) return undefined;
    return this.#all.get(nameOf(pixels))?.label;
  }

  /** Labels a picture, in place of the label that it was given before. */
  add(pixels, label) {
    const name = nameOf(pixels);
    if (this.count === LIMIT && !this.#all.has(name)) {
      return this.failed(
        `There are ${LIMIT} corrections, and a page holds no more: download them, then load the page again.`,
      );
    }
    this.#all.delete(name); // the newest is the last
    this.#all.set(name, { pixels: pixels.slice(), label, isSafe: false });
    this.#change(name);
  }

  /** Takes the correction of a picture back. */
  remove(pixels) {
    const name = nameOf(pixels);
    if (this.#all.delete(name)) this.#change(name);
  }

  removeLast() {
    const last = [...this.#all.values()].at(-1);
    if (last) this.remove(last.pixels);
  }

  /** Saves all corrections as a file, with a folder for each label. */
  async download() {
    const files = [...this.#all].map(async ([name, { pixels, label }]) => ({
      name: `${label}/${name}.png`,
      bytes: new Uint8Array(await (await toPng(pixels)).arrayBuffer()),
    }));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(zip(await Promise.all(files)));
    link.download = "corrections.zip";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    for (const correction of this.#all.values()) correction.isSafe = true;
  }

  #change(name) {
    this.changed();
    if (this.url === null) return;
    this.#unsent.add(name);
    this.#send();
  }

  /** Tells the service of all changes, one after another. Changes that fail are sent again with the next one. */
  async #send() {
    if (this.#isSending) return;
    this.#isSending = true;
    const failed = new Set();
    for (const name of this.#unsent) {
      this.#unsent.delete(name); // it may change again in the meantime, and comes up again then
      try {
        await this.#sendOne(name);
      } catch (error) {
        failed.add(name);
        this.failed(`The correction is not kept: ${error.message}`);
      }
    }
    this.#unsent = failed;
    this.#isSending = false;
  }

  async #sendOne(name) {
    const correction = this.#all.get(name);
    const stored = this.#stored.get(name);
    if (correction && stored?.label !== correction.label) {
      const { label } = correction;
      const body = await toPng(correction.pixels);
      this.#stored.set(name, await this.#ask("POST", { label }, body));
    } else if (!correction && stored) {
      await this.#ask("DELETE", { name: stored.name });
      this.#stored.delete(name);
    }
    if (correction) correction.isSafe = true;
  }

  async #ask(method, query, body) {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const url = `${this.url}?${new URLSearchParams(query)}`;
    const response = await fetch(url, { method, body, signal }).catch(() => {
      throw new Error("the server does not answer.");
    });
    const result = await response.json().catch(() => null);
    if (response.ok || (method === "DELETE" && response.status === 404)) return result;
    throw new Error(result?.error?.message ?? `the server failed: ${response.status}.`);
  }
}
