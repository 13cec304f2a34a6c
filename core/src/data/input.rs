//! Converts grey values to the network's input.

use crate::model::{Input, ModelConfig};

/// The values of the network's input for each grey value and for the border around an image.
#[derive(Clone, Debug, PartialEq)]
pub struct InputLevels {
    /// The input's value for each grey value, 0 for paper to 255 for ink.
    pub grey: [f32; 256],
    /// The input's value outside of the image.
    pub border: f32,
}

impl InputLevels {
    /// Computes the levels of a network with these settings: pixels from 0 to 1, minus the mean,
    /// divided by the standard deviation.
    pub fn of(config: &ModelConfig) -> Self {
        let (mean, std) = (config.mean as f32, config.std as f32);
        let normalise = |pixel: f32| match (mean, std) {
            (0.0, 1.0) => pixel,
            _ => (pixel - mean) / std,
        };
        Self {
            grey: std::array::from_fn(|grey| normalise(grey as f32 / 255.0)),
            border: if config.input == Input::ZeroPadded { 0.0 } else { normalise(0.0) },
        }
    }
}

/// Converts an image of `side` x `side` grey values, 28 or 32, to the network's input:
/// [`Input::size`] rows and columns.
///
/// Images of 28x28 are padded, resized or left as they are, according to the settings. Images of
/// 32x32 lose their border if the network takes 28x28.
///
/// # Panics
/// If the number of pixels is not `side` squared.
pub fn to_input(grey: &[u8], side: usize, config: &ModelConfig) -> Vec<f32> {
    assert_eq!(grey.len(), side * side, "pixels of {side}x{side}");
    let size = config.input.size();
    let levels = InputLevels::of(config);
    let resized;
    let (grey, side) = match config.input {
        Input::Resized if side != size => {
            resized = resize(grey, side, size);
            (&resized[..], size)
        }
        _ => (grey, side),
    };
    // The rows and columns that are added on each side, or cut off from a larger image.
    let (added, left_out) = (size.saturating_sub(side) / 2, side.saturating_sub(size) / 2);
    let mut input = vec![levels.border; size * size];
    for (to, from) in
        input.chunks_exact_mut(size).skip(added).zip(grey.chunks_exact(side).skip(left_out))
    {
        for (to, grey) in to[added..].iter_mut().zip(&from[left_out..]).take(side - 2 * left_out) {
            *to = levels.grey[usize::from(*grey)];
        }
    }
    input
}

/// Scales a square image from `from` x `from` to `to` x `to` pixels, where `to` is not smaller than
/// `from`. The result is that of Pillow's bilinear filter, which `torchvision.transforms.Resize`
/// uses: first the rows, then the columns, each sum rounded.
///
/// Source: `src/libImaging/Resample.c` of Pillow 12.
pub fn resize(grey: &[u8], from: usize, to: usize) -> Vec<u8> {
    const PRECISION_BITS: u32 = 32 - 8 - 2;
    if from == to {
        return grey.to_vec();
    }
    let one = f64::from(1 << PRECISION_BITS);
    let scale = from as f64 / to as f64;
    // For each target pixel, the index of the first source pixel, and the integer weights from that
    // index on.
    let weights: Vec<(usize, Vec<i64>)> = (0..to)
        .map(|target| {
            let centre = (target as f64 + 0.5) * scale;
            let first = ((centre - 0.5) as usize).min(from);
            let last = ((centre + 1.5) as usize).min(from);
            let triangle = |x: usize| (1.0 - (x as f64 - centre + 0.5).abs()).max(0.0);
            let sum: f64 = (first..last).map(triangle).sum();
            let weights = (first..last).map(|x| (triangle(x) / sum * one + 0.5).floor() as i64);
            (first, weights.collect())
        })
        .collect();
    let round =
        |sum: i64| ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8;
    let mut rows = Vec::with_capacity(from * to);
    for row in grey.chunks_exact(from) {
        rows.extend(weights.iter().map(|(first, weights)| {
            round(weights.iter().zip(&row[*first..]).map(|(w, value)| w * i64::from(*value)).sum())
        }));
    }
    let mut resized = Vec::with_capacity(to * to);
    for (first, weights) in &weights {
        for column in 0..to {
            let values = weights
                .iter()
                .enumerate()
                .map(|(i, w)| w * i64::from(rows[(first + i) * to + column]));
            resized.push(round(values.sum()));
        }
    }
    resized
}
