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
