/**
 * Reads pictures with the module for browsers, in Node.
 *
 * node tests/read_in_node.mjs NETWORK takes the paths of pictures from its input, a line for each, and prints a line of
 * JSON for each: a reading, or {"error": ...}.
 */

import { readFileSync } from "node:fs";
import init, { Recognizer } from "../web/page/lenet5/index.js";

const network = process.argv[2];
await init(readFileSync(new URL("../web/page/lenet5/lenet5.wasm.gz", import.meta.url)));
const recognizer = new Recognizer({ network });
for (const path of readFileSync(0, "utf8").trimEnd().split("\n")) {
  try {
    const reading = recognizer.read(readFileSync(path));
    for (const digit of reading.digits) delete digit.pixels;
    console.log(JSON.stringify(reading));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
}
