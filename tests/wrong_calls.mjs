/** Calls the module for browsers with wrong arguments, in Node, and prints a line for each call: its error, or "none". */

import { readFileSync } from "node:fs";
import init, { Recognizer } from "../web/page/lenet5/index.js";

const module = readFileSync(new URL("../web/page/lenet5/lenet5.wasm.gz", import.meta.url));
const picture = new Uint8Array(readFileSync(new URL("pictures/407.png", import.meta.url)));
let recognizer;
const calls = {
  "no content": () => init(new Response(null)),
  "not found": () => init(new Response("", { status: 404 })),
  "half a module": () => init(module.subarray(0, module.length / 2)),
  "the module": () => init(module),
  network: () => new Recognizer({ network: "alexnet" }),
  weights: () => new Recognizer({ weights: "weights.pth" }),
  "no weights": () => new Recognizer({ weights: picture }),
  limit: () => new Recognizer({ rejectBelow: Number.NaN }),
  recognizer: () => {
    recognizer = new Recognizer();
  },
  "buffer for file": () => recognizer.read(picture.buffer),
  "nothing for file": () => recognizer.read(),
  "no picture": () => recognizer.read(new Uint8Array(10).fill(7)),
  "text for rgba": () => recognizer.readPixels("abcd", 1, 1),
  "wide pixels": () => recognizer.readPixels(new Uint8Array(4), 2 ** 32 + 1, 1),
  "part of a pixel": () => recognizer.readPixels(new Uint8Array(420), 10.5, 10),
  "few pixels": () => recognizer.readPixels(new Uint8Array(4), 10, 10),
  "clamped pixels": () => recognizer.readPixels(new Uint8ClampedArray(400).fill(255), 10, 10),
  "a rest": () => recognizer.classify(new Uint8Array(785)),
  "numbers for pictures": () => recognizer.classify(new Float32Array(784)),
  "few numbers": () => recognizer.layers(new Uint8Array(100)),
  "many pictures": () => {
    const { length } = recognizer.classify(new Uint8Array(784 * 40_000));
    if (length !== 400_000) throw new Error(`${length} probabilities`);
  },
  "still alive": () => {
    const { text } = recognizer.read(picture);
    if (text !== "407") throw new Error(text);
  },
};
for (const [name, call] of Object.entries(calls)) {
  let found = "none";
  try {
    await call();
  } catch (error) {
    found = `${error.name}: ${error.message}`;
  }
  console.log(`${name} | ${found}`);
}
