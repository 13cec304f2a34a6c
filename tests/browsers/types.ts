/** Uses all of the package, so that the TypeScript compiler checks its types. */

import init, { isSupported, Recognizer, type Layer, type Reading } from "lenet5";

await init();
const recognizer = new Recognizer({ network: "original", rejectBelow: 0.2 });
const reading: Reading = recognizer.read(new Uint8Array(), { digits: "3-6" });
const [digit] = reading.digits;
const [left]: number[] = digit!.box;
const layers: Layer[] = recognizer.layers(digit!.pixels);
const same: Reading = recognizer.readPixels(new Uint8ClampedArray(4), 1, 1, { pattern: "##" });
const probabilities: Float32Array = recognizer.classify(new Uint8Array(784));
const codes: Float32Array[] | undefined = recognizer.codes;
const texts: string[] = [recognizer.network, recognizer.settings, ...recognizer.notes, same.text];
const numbers: number[] = [recognizer.classes, left!, layers.length, probabilities.length];
console.log(isSupported, codes, texts, numbers);
recognizer.free();

// @ts-expect-error There is no such network.
new Recognizer({ network: "alexnet" });
// @ts-expect-error Pictures are bytes.
recognizer.read("picture.png");
