//! The width of strokes, and digits drawn with MNIST's.

use super::digit::DIGIT;
use super::ink::Ink;

/// The widths of strokes in MNIST, of digits of 20x20: nine tenths are between these.
const IN_MNIST: (f32, f32) = (1.6, 4.0);
/// What is more is within a stroke, of 1.
pub const STRONG: f32 = 0.4;
/// Digits at least this many rows high are drawn anew; of smaller ones each grey value counts.
const REDRAWN: usize = 32;

/// Pixels across the strokes of ink.
///
/// The mean distance from the border within a stroke of width w is w/4.
pub fn width(ink: &Ink) -> f32 {
    let inside: Vec<bool> = ink.values().iter().map(|value| *value > STRONG).collect();
    let distances = distances(&inside, ink.width(), false);
    let (mut sum, mut count) = (0.0, 0.0);
    for distance in distances.iter().filter(|distance| **distance > 0.0) {
        sum += distance - 0.5;
        count += 1.0;
    }
    if count == 0.0 { 0.0 } else { 4.0 * sum / count }
}

/// A part of a picture brought up to MNIST's strokes: `part` is its ink, `pen` the width of its strokes. Large
/// digits are drawn in black and white, with strokes as wide as MNIST's where they are thinner or thicker.
pub fn redrawn(part: Ink, pen: f32) -> Ink {
    let side = part.width().max(part.height());
    if side < REDRAWN {
        return part;
    }
    let scale = side as f32 / DIGIT as f32;
    let (thinnest, thickest) = (IN_MNIST.0 * scale, IN_MNIST.1 * scale);
    // By how much the border of a stroke is moved outwards.
    let grown = (pen.clamp(thinnest, thickest) - pen) / 2.0;
    let margin = grown.max(0.0).ceil() as usize + 1;
    let width = part.width() + 2 * margin;
    let mut inside = vec![false; width * (part.height() + 2 * margin)];
    for (row, values) in part.values().chunks_exact(part.width()).enumerate() {
        let to = &mut inside[(row + margin) * width + margin..];
        for (to, value) in to.iter_mut().zip(values) {
            *to = *value > STRONG;
        }
    }
    let (within, beyond) = (distances(&inside, width, false), distances(&inside, width, true));
    let drawn = within.iter().zip(beyond).map(|(within, beyond)| {
        // From the border of the pixels on, whose middles are half a pixel from it.
        let depth = if *within > 0.0 { within - 0.5 } else { 0.5 - beyond };
        (depth + grown + 0.5).clamp(0.0, 1.0)
    });
    Ink::new(width, drawn.collect())
}

/// Of each pixel whose value is not `from` the distance from the next whose is, or from the picture's border; 0
/// for the others. Diagonals count √2.
fn distances(mask: &[bool], width: usize, from: bool) -> Vec<f32> {
    let height = mask.len() / width;
    // The border counts as paper.
    let outside = if from { f32::INFINITY } else { 0.0 };
    let mut distances: Vec<f32> =
        mask.iter().map(|value| if *value == from { 0.0 } else { f32::INFINITY }).collect();
    let mut relax = |x: usize, y: usize, steps: [(isize, isize, f32); 4]| {
        let mut best = distances[y * width + x];
        for (dx, dy, length) in steps {
            let place = x.checked_add_signed(dx).zip(y.checked_add_signed(dy));
            let there = place.filter(|(x, y)| *x < width && *y < height);
            best = best.min(there.map_or(outside, |(x, y)| distances[y * width + x]) + length);
        }
        distances[y * width + x] = best;
    };
    const DIAGONAL: f32 = std::f32::consts::SQRT_2;
    for y in 0..height {
        for x in 0..width {
            relax(x, y, [(-1, 0, 1.0), (-1, -1, DIAGONAL), (0, -1, 1.0), (1, -1, DIAGONAL)]);
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            relax(x, y, [(1, 0, 1.0), (1, 1, DIAGONAL), (0, 1, 1.0), (-1, 1, DIAGONAL)]);
        }
    }
    distances
}
