//! The pictures of a batch, and their way into the lanes.
#![allow(clippy::needless_range_loop)] // as in the kernels

use super::super::simd::Simd;
use super::super::warp::{Sheets, Warp};
use super::WIDEST;

/// The pictures of a batch.
#[derive(Clone, Copy)]
pub enum Images<'a> {
    /// Inputs of 32x32 as they are; where the network takes 28x28, in the upper left corner.
    Pixels(&'a [[f32; 1024]]),
    /// Those at these places of a data set.
    Bytes(&'a Bytes, &'a [i64]),
    /// The same, each distorted as this says of its place.
    Warped(&'a Bytes, &'a [i64], &'a (dyn Fn(i64) -> Warp + Sync)),
}

/// The grey values of a data set, and what the network takes for them.
pub struct Bytes {
    /// Pictures of `size` x `size`, one after the other.
    pub grey: Vec<u8>,
    /// 28 or 32.
    pub size: usize,
    /// Row and column of a picture's first pixel in the input.
    pub at: usize,
    /// Row and column in the input where that begins what is distorted: the picture, or the padded one.
    pub frame: usize,
    /// The input's value for each grey value.
    pub levels: [f32; 256],
    /// The input's value around a picture.
    pub border: f32,
}

impl Images<'_> {
    /// Puts pictures `first..first + count` into the lanes of `x`, 32x32 vectors; what is left over holds the
    /// first of them once more.
    #[inline(always)]
    pub(super) fn gather<S: Simd>(&self, s: S, first: usize, count: usize, x: &mut [f32]) {
        match self {
            Images::Pixels(images) => {
                for lane in 0..S::LANES {
                    let image = &images[first + if lane < count { lane } else { 0 }];
                    for (x, pixel) in x.chunks_exact_mut(S::LANES).zip(image) {
                        x[lane] = *pixel;
                    }
                }
            }
            Images::Bytes(bytes, places) => {
                let places = &places[first..first + count];
                match bytes.size {
                    28 => bytes.gather::<S, 28>(s, places, x),
                    _ => bytes.gather::<S, 32>(s, places, x),
                }
            }
            Images::Warped(bytes, places, warp) => {
                bytes.gather_warped(s, &places[first..first + count], *warp, x);
            }
        }
    }
}

impl Bytes {
    /// Other pictures of the same size, for the same network.
    pub fn with_pictures<const PIXELS: usize>(&self, pictures: &[[u8; PIXELS]]) -> Bytes {
        assert_eq!(PIXELS, self.size * self.size);
        Bytes { grey: pictures.as_flattened().to_vec(), ..*self }
    }

    /// A picture as the network takes it.
    pub fn input(&self, picture: &[u8]) -> [f32; 1024] {
        let mut input = [self.border; 1024];
        let rows = input.chunks_exact_mut(32).skip(self.at);
        for (to, row) in rows.zip(picture.chunks_exact(self.size)) {
            for (to, grey) in to[self.at..].iter_mut().zip(row) {
                *to = self.levels[usize::from(*grey)];
            }
        }
        input
    }

    #[inline(always)]
    fn gather<S: Simd, const SIZE: usize>(&self, s: S, places: &[i64], x: &mut [f32]) {
        let (l, at, border) = (S::LANES, self.at.min(32 - SIZE), s.splat(self.border));
        let pictures = self.grey.as_chunks::<SIZE>().0.as_chunks::<SIZE>().0;
        let mut lanes = [&pictures[places[0] as usize]; WIDEST];
        for (lane, place) in lanes.iter_mut().zip(places) {
            *lane = &pictures[*place as usize];
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
                    pixels[lane] = self.levels[usize::from(lanes[lane][row - at][c])];
                }
                s.store(x, (c + at) * l, s.load(&pixels, 0));
            }
        }
    }

    #[inline(always)]
    fn gather_warped<S: Simd>(
        &self,
        s: S,
        places: &[i64],
        warp: &(dyn Fn(i64) -> Warp + Sync),
        x: &mut [f32],
    ) {
        let (l, size, frame) = (S::LANES, self.size, self.frame);
        let (border, side) = (self.at - frame, size + 2 * (self.at - frame));
        let mut sheets = Sheets::new(side, self.levels[0]);
        let mut warps = Vec::with_capacity(l);
        for (lane, place) in places.iter().enumerate() {
            warps.push(warp(*place));
            let picture = &self.grey[*place as usize * size * size..][..size * size];
            for row in 0..size {
                let pixels = &mut sheets.row(lane, border + row)[border..];
                for column in 0..size {
                    pixels[column] = self.levels[usize::from(picture[row * size + column])];
                }
            }
        }
        if side < 32 {
            for at in 0..1024 {
                s.store(x, at * l, s.splat(self.border));
            }
        }
        sheets.warp(s, &warps, &mut x[frame * 33 * l..], 32);
    }
}
