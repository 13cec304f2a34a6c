/**
 * Measures how many images per second the module for browsers and onnxruntime-web classify, for
 * scripts/bench_browser.py.
 *
 * It runs in Node and in a browser. Both programs get the same network and the same digits, and one thread. In favour
 * of onnxruntime-web the conversion of the pixels to padded f32 is not in its time.
 */

const WARM_UP_MS = 300;
const TIME_MS = 1500;
const PIXELS = 28 * 28;
const INPUT = 32 * 32;

/** Digits as one byte for each pixel, to inputs of the network: 32x32 numbers from 0 to 1 each. */
function inputsOf(digits) {
  const inputs = new Float32Array((digits.length / PIXELS) * INPUT);
  digits.forEach((value, i) => {
    const [digit, pixel] = [Math.floor(i / PIXELS), i % PIXELS];
    const [row, column] = [Math.floor(pixel / 28) + 2, (pixel % 28) + 2];
    inputs[digit * INPUT + row * 32 + column] = value / 255;
  });
  return inputs;
}

/** The index of the largest of each ten numbers. */
function labelsOf(scores) {
  const count = scores.length / 10;
  return Array.from({ length: count }, (_, i) => {
    const own = scores.subarray(10 * i, 10 * i + 10);
    return own.indexOf(Math.max(...own));
  });
}

/** Functions that return a function, which classifies the digits from an index to another one. */
const programs = {
  async lenet5({ lenet5, module, weights }, digits) {
    await lenet5.default(module);
    const recognizer = new lenet5.Recognizer({ weights });
    return (from, to) => recognizer.classify(digits.subarray(from * PIXELS, to * PIXELS));
  },

  async onnxruntime({ onnxruntime, onnx }, digits) {
    const { env, InferenceSession, Tensor } = onnxruntime;
    env.wasm.numThreads = 1;
    const session = await InferenceSession.create(onnx, { executionProviders: ["wasm"] });
    const inputs = inputsOf(digits);
    return async (from, to) => {
      const images = inputs.subarray(from * INPUT, to * INPUT);
      const { logits } = await session.run({ images: new Tensor("float32", images, [to - from, 1, 32, 32]) });
      return logits.data;
    };
  },
};

/**
 * Measures a program for each size of a batch.
 *
 * @returns {Promise<{labels: number[], rates: number[]}>} its labels of all digits, and its images per second
 */
export async function measure(program, files, digits, sizes) {
  const classify = await programs[program](files, digits);
  const count = digits.length / PIXELS;
  const rates = [];
  for (const size of sizes) {
    const run = async (milliseconds) => {
      const start = performance.now();
      let [images, from, end] = [0, 0, start];
      while (end - start < milliseconds) {
        await classify(from, from + size);
        images += size;
        from = from + 2 * size <= count ? from + size : 0;
        end = performance.now();
      }
      return (1000 * images) / (end - start);
    };
    await run(WARM_UP_MS);
    rates.push(await run(TIME_MS));
  }
  return { labels: labelsOf(await classify(0, count)), rates };
}

/** In Node: bench_web.mjs PROGRAM FOLDER SIZE... prints the result as JSON. */
if (globalThis.process?.argv[1]?.endsWith("bench_web.mjs")) {
  const { readFileSync } = await import("node:fs");
  const [program, folder, ...sizes] = process.argv.slice(2);
  const bytes = (name) => new Uint8Array(readFileSync(`${folder}/${name}`));
  const load = (path) => import(`${folder}/${path}`);
  const files = {
    lenet5: program === "lenet5" && (await load("lenet5/index.js")),
    onnxruntime: program === "onnxruntime" && (await load("onnxruntime-web/dist/ort.node.min.mjs")),
    module: bytes("lenet5/lenet5.wasm.gz"),
    weights: bytes("weights.pth"),
    onnx: bytes("network.onnx"),
  };
  console.log(JSON.stringify(await measure(program, files, bytes("digits"), sizes.map(Number))));
}
