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
    let (inside, width) = strong(ink, 1);
    let (mut sum, mut count) = (0.0, 0.0);
    for distance in distances(&inside, width, false).iter().filter(|distance| **distance > 0.0) {
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
    let (inside, width) = strong(&part, grown.max(0.0).ceil() as usize + 1);
    // Distances are measured between the centres of pixels. The border is half a pixel away from
    // them. Only the distances on the side to which the border moves matter.
    let value = |depth: f32| (depth + grown + 0.5).clamp(0.0, 1.0);
    let drawn: Vec<f32> = if grown > 0.0 {
        distances(&inside, width, true).iter().map(|beyond| value(0.5 - beyond)).collect()
    } else if grown < 0.0 {
        distances(&inside, width, false).iter().map(|within| value(within - 0.5)).collect()
    } else {
        inside.iter().map(|inside| f32::from(u8::from(*inside))).collect()
    };
    Ink::new(width, drawn)
}

/// Returns which pixels are strong ink, with a margin of paper around them, and the width with the
/// margin.
fn strong(ink: &Ink, margin: usize) -> (Vec<bool>, usize) {
    let width = ink.width() + 2 * margin;
    let mut inside = vec![false; width * (ink.height() + 2 * margin)];
    for (row, values) in ink.values().chunks_exact(ink.width()).enumerate() {
        let to = &mut inside[(row + margin) * width + margin..];
        for (to, value) in to.iter_mut().zip(values) {
            *to = *value > STRONG;
        }
    }
    (inside, width)
}

/// For each pixel, the distance to the nearest pixel whose value is `from`. A diagonal step counts
/// √2. The pixels along the border must be false; no distance is computed there.
fn distances(mask: &[bool], width: usize, from: bool) -> Vec<f32> {
    let mut distances: Vec<f32> =
        mask.iter().map(|value| if *value == from { 0.0 } else { f32::INFINITY }).collect();
    let height = mask.len() / width;
    for y in 1..height - 1 {
        let (above, row) = distances.split_at_mut(y * width);
        let row = &mut row[..width];
        step_from_row(&above[(y - 1) * width..], row);
        step_along(row[..width - 1].iter_mut());
    }
    for y in (1..height - 1).rev() {
        let (row, below) = distances.split_at_mut((y + 1) * width);
        let row = &mut row[y * width..];
        step_from_row(&below[..width], row);
        step_along(row[1..].iter_mut().rev());
    }
    distances
}

/// Updates the distances in a row with those of the row above or below it.
fn step_from_row(near: &[f32], row: &mut [f32]) {
    const DIAGONAL: f32 = std::f32::consts::SQRT_2;
    let near = near.iter().zip(&near[1..]).zip(&near[2..]);
    for (to, ((a, b), c)) in row[1..].iter_mut().zip(near) {
        *to = to.min(a + DIAGONAL).min(b + 1.0).min(c + DIAGONAL);
    }
}

/// Updates the distances along a row, each with the one before it.
fn step_along<'a>(row: impl Iterator<Item = &'a mut f32>) {
    let mut last = f32::INFINITY;
    for distance in row {
        *distance = distance.min(last + 1.0);
        last = *distance;
    }
}
