export * from "./lenet5.js";

/** Whether this browser has all that the module needs: WebAssembly with SIMD. */
export const isSupported: boolean;

/** Loads the module, once. `source` is its URL, a response with it, or its bytes, compressed with gzip or not. */
export default function init(source?: URL | string | Response | BufferSource): Promise<void>;
