//! The images of a batch, and how they are put into the lanes.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::distortion::BorderedImages;
use super::super::simd::Simd;
use super::WIDEST;
use crate::data::InputLevels;
use crate::model::{Input, ModelConfig};
use crate::training::Distortion;

/// The images of a batch.
#[derive(Clone, Copy)]
pub enum BatchImages<'a> {
    /// The network's inputs of 32x32, ready for use. A network for 28x28 takes its image from the upper left corner.
    Inputs(&'a [[f32; 1024]]),
    /// The images at these indices of a data set.
    Grey(&'a GreyImages, &'a [i64]),
    /// The images at these indices of a data set, each distorted by the distortion that the function gives for its index.
    Distorted(&'a GreyImages, &'a [i64], &'a (dyn Fn(i64) -> Distortion + Sync)),
}

/// The grey values of a data set's images, and how the network's input is made from them.
#[derive(Clone, Debug)]
pub struct GreyImages {
    /// The grey values of images of `size` x `size` pixels, image after image.
    grey: Vec<u8>,
    /// The number of rows and columns of an image: 28 or 32.
    pub size: usize,
    /// The row and the column of an image's first pixel in the input.
    pub offset: usize,
    /// The row and the column in the input where the part that is distorted begins: the image, or the padded image.
    pub frame: usize,
    /// The values of the input for each grey value.
    pub levels: InputLevels,
}

impl BatchImages<'_> {
    /// Puts the images `first..first + count` into the lanes of `x`, which has 32x32 vectors. Unused lanes get the
    /// first of these images again.
    #[inline(always)]
    pub(super) fn gather<S: Simd>(&self, s: S, first: usize, count: usize, x: &mut [f32]) {
        match self {
            BatchImages::Inputs(images) => {
                for lane in 0..S::LANES {
                    let image = &images[first + if lane < count { lane } else { 0 }];
                    for (x, pixel) in x.chunks_exact_mut(S::LANES).zip(image) {
                        x[lane] = *pixel;
                    }
                }
            }
            BatchImages::Grey(grey, indices) => {
                let indices = &indices[first..first + count];
                match grey.size {
                    28 => grey.gather::<S, 28>(s, indices, x),
                    _ => grey.gather::<S, 32>(s, indices, x),
                }
            }
            BatchImages::Distorted(grey, indices, distortion) => {
                grey.gather_distorted(s, &indices[first..first + count], *distortion, x);
            }
        }
    }
}

impl GreyImages {
    /// Images of `size` x `size` pixels, 28 or 32, image after image, for a network with these settings. If the network takes
    /// resized images, these have to be resized already.
    pub fn new(grey: Vec<u8>, size: usize, config: &ModelConfig) -> GreyImages {
        let offset = config.input.size().saturating_sub(size) / 2;
        let frame = if config.input == Input::ZeroPadded { offset } else { 0 };
        GreyImages { grey, size, offset, frame, levels: InputLevels::of(config) }
    }

    /// Other images of the same size, for the same network.
    pub fn with_pictures<const PIXELS: usize>(&self, pictures: &[[u8; PIXELS]]) -> GreyImages {
        assert_eq!(PIXELS, self.size * self.size);
        GreyImages { grey: pictures.as_flattened().to_vec(), levels: self.levels.clone(), ..*self }
    }

    /// The network's input for an image: 32x32, or 28x28 in the upper left corner.
    pub fn input(&self, picture: &[u8]) -> [f32; 1024] {
        let mut input = [self.levels.border; 1024];
        let rows = input.chunks_exact_mut(32).skip(self.offset);
        for (to, row) in rows.zip(picture.chunks_exact(self.size)) {
            for (to, grey) in to[self.offset..].iter_mut().zip(row) {
                *to = self.levels.grey[usize::from(*grey)];
            }
        }
        input
    }

    #[inline(always)]
    fn gather<S: Simd, const SIZE: usize>(&self, s: S, indices: &[i64], x: &mut [f32]) {
        let (l, at, border) = (S::LANES, self.offset.min(32 - SIZE), s.splat(self.levels.border));
        let pictures = self.grey.as_chunks::<SIZE>().0.as_chunks::<SIZE>().0;
        let mut lanes = [&pictures[indices[0] as usize]; WIDEST];
        for (lane, index) in lanes.iter_mut().zip(indices) {
            *lane = &pictures[*index as usize];
        }
        for (row, x) in x.chunks_exact_mut(32 * l).take(32).enumerate() {
            if row < at || row >= SIZE + at {
                for c in 0..32 {
                    s.store(x, c * l, border);
                }
                continue;
            }
            for c in (0..at).chain(SIZE + at..32) {
                s.store(x, c * l, border);
            }
            for c in 0..SIZE {
                let mut pixels = [0.0; WIDEST];
                for lane in 0..l {
                    pixels[lane] = self.levels.grey[usize::from(lanes[lane][row - at][c])];
                }
                s.store(x, (c + at) * l, s.load(&pixels, 0));
            }
        }
    }

    #[inline(always)]
    fn gather_distorted<S: Simd>(
        &self,
        s: S,
        indices: &[i64],
        distortion: &(dyn Fn(i64) -> Distortion + Sync),
        x: &mut [f32],
    ) {
        let (l, size, frame) = (S::LANES, self.size, self.frame);
        let (border, side) = (self.offset - frame, size + 2 * (self.offset - frame));
        let mut images = BorderedImages::new(side, self.levels.grey[0]);
        let mut distortions = Vec::with_capacity(l);
        for (lane, index) in indices.iter().enumerate() {
            distortions.push(distortion(*index));
            let picture = &self.grey[*index as usize * size * size..][..size * size];
            for row in 0..size {
                let pixels = &mut images.row(lane, border + row)[border..];
                for column in 0..size {
                    pixels[column] = self.levels.grey[usize::from(picture[row * size + column])];
                }
            }
        }
        if side < 32 {
            for at in 0..1024 {
                s.store(x, at * l, s.splat(self.levels.border));
            }
        }
        images.distort(s, &distortions, &mut x[frame * 33 * l..], 32);
    }
}
