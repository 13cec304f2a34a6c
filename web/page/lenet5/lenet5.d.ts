/* tslint:disable */
/* eslint-disable */
/** The network and its weights. */
export interface RecognizerOptions {
    /** The network whose shipped weights are used: that of today (the default), or that of 1998. */
    network?: "modern" | "original";
    /** A file of weights to use instead: safetensors, a state dict of torch.save, or TorchScript. */
    weights?: Uint8Array;
    /** The confidence, 0 to 1, below which digits are rejected. The default is 0.5 for ten classes. */
    rejectBelow?: number;
}

/** What is known of the digits in a picture; `digits` or `pattern`, not both. */
export interface ReadOptions {
    /** The number of digits in each line, such as 5, or a range, such as "3-6". */
    digits?: number | string;
    /** The form of each line, such as "####-###", where # is any digit. */
    pattern?: string;
}

/** A bounding box in the picture in pixels: left, top, width, height. */
export type Box = [number, number, number, number];

/** A digit in a picture. */
export interface Digit {
    /** The class with the largest probability. */
    label: number;
    /** The chance that the label is right, 0 to 1. */
    confidence: number;
    /** The probability of each class. */
    probabilities: number[];
    box: Box;
    /** The index of the line of digits. */
    line: number;
    /** Whether the confidence is below the limit. */
    rejected: boolean;
    /** The network's picture of the digit: 28x28 bytes, row by row, 0 for paper to 255 for ink. */
    pixels: Uint8Array;
}

/** Ink beside digits that was not read, perhaps a sign, a point or a dash. */
export interface Mark {
    box: Box;
    /** The index of the line of digits beside it. */
    line: number;
}

/** The digits that were read in a picture. */
export interface Reading {
    /** All digits in reading order, one line of text for each line of digits. */
    text: string;
    /** The text with a question mark in place of each rejected digit. */
    accepted: string;
    digits: Digit[];
    /** Whether any digit is rejected. */
    rejected: boolean;
    left_out: Mark[];
    /** The digits of each line that does not fit the pattern. */
    other_lines: string[];
    /** The logarithm of the reading's likelihood, at most 0. */
    score: number;
}

/** The output of a layer for one digit. */
export interface Layer {
    /** input, c1, s2, c3, s4, c5, f6 or output. */
    name: string;
    /** The number of maps, rows and columns; for c5, f6 and output only the number of units. */
    shape: number[];
    /** The values, map after map and row by row. */
    values: Float32Array;
}



/**
 * Reads handwritten digits with LeNet-5. Its memory is released by `free()`.
 */
export class Recognizer {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * Returns the probabilities of the classes for pictures of single digits in MNIST's form: 28x28 bytes each, 0 for
     * paper to 255 for ink. The result has `classes` numbers for each picture. The network decides alone here, without
     * the reject network.
     */
    classify(pictures: Uint8Array): Float32Array;
    /**
     * Computes the outputs of all layers for a digit's `pixels`. The first one is the input as the network takes it.
     */
    layers(pixels: Uint8Array): Layer[];
    /**
     * Creates a recognizer.
     *
     * It throws a WeightsError if `weights` is no file of weights of a LeNet-5.
     */
    constructor(options?: RecognizerOptions | null);
    /**
     * Reads the digits in pixels, such as the `data` of a canvas's ImageData: red, green, blue and alpha, row by row.
     *
     * It throws a NoDigitsError if there are no digits in the picture.
     */
    readPixels(rgba: Uint8ClampedArray | Uint8Array, width: number, height: number, options?: ReadOptions | null): Reading;
    /**
     * Reads the digits in the bytes of a picture file: PNG, JPEG, WebP, TIFF, GIF, BMP and others.
     *
     * It throws a PictureError if the bytes are no picture, and a NoDigitsError if there are no digits in it.
     */
    read(file: Uint8Array, options?: ReadOptions | null): Reading;
    /**
     * The number of classes.
     */
    readonly classes: number;
    /**
     * The codes of the classes of the network of 1998, 84 numbers each; undefined for other networks.
     */
    readonly codes: Float32Array[] | undefined;
    /**
     * The network: "modern", or "original" for that of 1998.
     */
    readonly network: string;
    /**
     * Notes on the file of weights: what was assumed.
     */
    readonly notes: string[];
    /**
     * The settings of the network as JSON.
     */
    readonly settings: string;
}

/**
 * Shows the message of a panic, which is a fault of this module, in the browser's console. The caller gets a RuntimeError.
 */
export function start(): void;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_recognizer_free: (a: number, b: number) => void;
    readonly recognizer_classes: (a: number) => number;
    readonly recognizer_classify: (a: number, b: any) => [number, number, number, number];
    readonly recognizer_codes: (a: number) => any;
    readonly recognizer_layers: (a: number, b: any) => [number, number, number];
    readonly recognizer_network: (a: number) => [number, number];
    readonly recognizer_new: (a: number) => [number, number, number];
    readonly recognizer_notes: (a: number) => [number, number];
    readonly recognizer_read: (a: number, b: any, c: number) => [number, number, number];
    readonly recognizer_readPixels: (a: number, b: any, c: number, d: number, e: number) => [number, number, number];
    readonly recognizer_settings: (a: number) => [number, number];
    readonly start: () => void;
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_realloc: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
    readonly __wbindgen_exn_store: (a: number) => void;
    readonly __externref_table_alloc: () => number;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __externref_table_dealloc: (a: number) => void;
    readonly __externref_drop_slice: (a: number, b: number) => void;
    readonly __wbindgen_start: () => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput }} module - Passing `SyncInitInput` directly is deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput } | SyncInitInput): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput> }} module_or_path - Passing `InitInput` directly is deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path?: { module_or_path: InitInput | Promise<InitInput> } | InitInput | Promise<InitInput>): Promise<InitOutput>;
