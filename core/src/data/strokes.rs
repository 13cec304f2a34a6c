//! Measures the width of strokes, and redraws digits with strokes as wide as MNIST's.

use super::digit::DIGIT;
use super::ink::Ink;

/// The range of nine tenths of the stroke widths in MNIST, in pixels, for digits of 20x20 pixels.
const MNIST_WIDTHS: (f32, f32) = (1.6, 4.0);
/// Pixels with more ink than this belong to a stroke. Ink ranges from 0 to 1.
pub const STRONG: f32 = 0.4;
/// The smallest side of digits that are redrawn. In smaller digits each grey value matters.
const MIN_REDRAWN_SIDE: usize = 32;

/// Returns the mean width of the strokes of ink, in pixels.
///
/// In a stroke of width w, the mean distance from its border is w/4.
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

/// Redraws a large digit in black and white with strokes as wide as MNIST's, and returns a small
/// one unchanged. `part` is its ink, and `pen` the width of its strokes in pixels. Strokes within
/// MNIST's range keep their width.
pub fn redrawn(part: Ink, pen: f32) -> Ink {
    let side = part.width().max(part.height());
    if side < MIN_REDRAWN_SIDE {
        return part;
    }
    let scale = side as f32 / DIGIT as f32;
    let (thinnest, thickest) = (MNIST_WIDTHS.0 * scale, MNIST_WIDTHS.1 * scale);
    // The distance by which the border of a stroke moves outwards.
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
        // Distances are measured between the centres of pixels. The border is half a pixel away
        // from them.
        let depth = if *within > 0.0 { within - 0.5 } else { 0.5 - beyond };
        (depth + grown + 0.5).clamp(0.0, 1.0)
    });
    Ink::new(width, drawn.collect())
}

/// For each pixel, the distance to the nearest pixel whose value is `from`. Pixels outside of the
/// picture are false. A diagonal step counts √2.
fn distances(mask: &[bool], width: usize, from: bool) -> Vec<f32> {
    let height = mask.len() / width;
    // Outside of the picture there is paper.
    let outside = if from { f32::INFINITY } else { 0.0 };
    let mut distances: Vec<f32> =
        mask.iter().map(|value| if *value == from { 0.0 } else { f32::INFINITY }).collect();
    let mut relax = |x: usize, y: usize, steps: [(isize, isize, f32); 4]| {
        let mut best = distances[y * width + x];
        for (dx, dy, length) in steps {
            let position = x.checked_add_signed(dx).zip(y.checked_add_signed(dy));
            let inside = position.filter(|(x, y)| *x < width && *y < height);
            best = best.min(inside.map_or(outside, |(x, y)| distances[y * width + x]) + length);
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
