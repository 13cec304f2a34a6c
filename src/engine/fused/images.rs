//! The pictures of a batch, and their way into the lanes.

use super::super::simd::Simd;

/// The pictures of a batch.
#[derive(Clone, Copy)]
pub enum Images<'a> {
    /// Inputs of 32x32 as they are.
    Pixels(&'a [[f32; 1024]]),
    /// Those at these places of a data set.
    Bytes(&'a Bytes, &'a [i64]),
}

/// The grey values of a data set, and what the network takes for them.
pub struct Bytes {
    /// Pictures of `size` x `size`, one after the other.
    pub grey: Vec<u8>,
    /// 28 or 32.
    pub size: usize,
    /// The input's value for each grey value.
    pub levels: [f32; 256],
    /// The input's value around a picture of 28x28.
    pub border: f32,
}

impl Images<'_> {
    /// Puts pictures `first..first + count` into the first lanes of `x`, 32x32 vectors; the others are blank.
    #[inline(always)]
    pub(super) fn gather<S: Simd>(&self, s: S, first: usize, count: usize, x: &mut [f32]) {
        let l = S::LANES;
        let x = &mut x[..1024 * l];
        let blank = match self {
            Images::Bytes(bytes, _) if bytes.size < 32 => bytes.border,
            _ => 0.0,
        };
        if blank_needed(self, count, l) {
            for x in x.chunks_exact_mut(l) {
                s.store(x, 0, s.splat(blank));
            }
        }
        match self {
            Images::Pixels(images) => {
                for (lane, image) in images[first..first + count].iter().enumerate() {
                    for (x, pixel) in x.chunks_exact_mut(l).zip(image) {
                        x[lane] = *pixel;
                    }
                }
            }
            Images::Bytes(bytes, places) => {
                let (size, places) = (bytes.size, &places[first..first + count]);
                let padding = (32 - size) / 2;
                for row in 0..size {
                    let x = &mut x[((row + padding) * 32 + padding) * l..][..size * l];
                    for (lane, place) in places.iter().enumerate() {
                        let grey = &bytes.grey[(*place as usize * size + row) * size..][..size];
                        for (x, grey) in x.chunks_exact_mut(l).zip(grey) {
                            x[lane] = bytes.levels[usize::from(*grey)];
                        }
                    }
                }
            }
        }
    }
}

/// Whether the pictures leave lanes or borders open.
fn blank_needed(images: &Images, count: usize, lanes: usize) -> bool {
    count < lanes || matches!(images, Images::Bytes(bytes, _) if bytes.size < 32)
}
