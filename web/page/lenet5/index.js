/** LeNet-5 in the browser: `await init()`, then `new Recognizer()`. The types are in index.d.ts. */

import start from "./lenet5.js";

export { Recognizer } from "./lenet5.js";

/** WebAssembly with SIMD: a function that returns `i8x16.splat(0)` as `i8x16.popcnt` of it. */
const WITH_SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
];

/** Whether this browser has all that the module needs. */
export const isSupported =
  typeof WebAssembly === "object" &&
  WebAssembly.validate(new Uint8Array(WITH_SIMD)) &&
  typeof DecompressionStream === "function";

let started;

/** Loads the module, once. `source` is its URL, a response with it, or its bytes. */
export default function init(source = new URL("lenet5.wasm.gz", import.meta.url)) {
  started ??= load(source).catch((error) => {
    started = undefined; // so that the next call tries again
    throw error;
  });
  return started;
}

/** Compiles the module while it is loaded. */
async function load(source) {
  const stream = await unpacked((await responseOf(source)).body);
  const response = new Response(stream, { headers: { "Content-Type": "application/wasm" } });
  await start({ module_or_path: response });
}

async function responseOf(source) {
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return new Response(source);
  const response = source instanceof Response ? source : await fetch(source);
  const name = response.url || "the module";
  if (!response.ok) throw new Error(`${name}: status ${response.status}`);
  if (!response.body) throw new Error(`${name}: expected the module, found no content`);
  return response;
}

/** Decompresses gzip. Some servers have done so already, by the header Content-Encoding. */
async function unpacked(stream) {
  const reader = stream.getReader();
  const { value: first = new Uint8Array() } = await reader.read();
  const whole = new ReadableStream({
    start: (controller) => controller.enqueue(first),
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  const isPacked = first[0] === 0x1f && first[1] === 0x8b;
  return isPacked ? whole.pipeThrough(new DecompressionStream("gzip")) : whole;
}
