//! Distortion of small pictures, one to a lane: points are moved as an elastic sheet displacements them, then by an affine
//! map; bilinear, the background 0 pixels beyond the border.
#![allow(clippy::needless_range_loop)] // as in the kernels

use super::simd::{Isa, Simd, WIDEST, WithSimd};
use crate::training::{CELL, Distortion, control_points};

/// The largest side of a picture, in pixels.
const SIDE: usize = 32;
/// The most points on a side of the sheet.
const POINTS: usize = SIDE / CELL + 4;
/// Added to an integer of at most 23 bits, it leaves it in the lowest bits.
const INTEGERS: f32 = (1 << 23) as f32;

/// The first of the four points around a row or column of pixels, and their weights: a cubic B-spline.
#[inline(always)]
pub fn spline(pixel: usize) -> (usize, [f32; 4]) {
    let t = (pixel % CELL) as f32 / CELL as f32;
    let (t2, t3) = (t * t, t * t * t);
    let weights = [
        (1.0 - 3.0 * t + 3.0 * t2 - t3) / 6.0,
        (4.0 - 6.0 * t2 + 3.0 * t3) / 6.0,
        (1.0 + 3.0 * t + 3.0 * t2 - 3.0 * t3) / 6.0,
        t3 / 6.0,
    ];
    (pixel / CELL, weights)
}

/// Distorts pictures of `side` x `side`, one after the other, outside of which all is 0.
///
/// # Panics
/// Where the lengths do not fit the number of distortions, or the side is above 32.
pub fn distort(pictures: &[f32], side: usize, distortions: &[Distortion]) -> Vec<f32> {
    assert!(side <= SIDE && pictures.len() == distortions.len() * side * side);
    let mut distorted = vec![0.0; pictures.len()];
    Isa::best().run(All { pictures, side, distortions, distorted: &mut distorted });
    distorted
}

struct All<'a> {
    pictures: &'a [f32],
    side: usize,
    distortions: &'a [Distortion],
    distorted: &'a mut [f32],
}

impl WithSimd for All<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let All { pictures, side, distortions, distorted } = self;
        let (l, size) = (S::LANES, side * side);
        let mut images = BorderedImages::new(side, 0.0);
        let mut lanes = [0.0; SIDE * SIDE * WIDEST];
        let groups = pictures.chunks(l * size).zip(distorted.chunks_mut(l * size));
        for ((pictures, distorted), distortions) in groups.zip(distortions.chunks(l)) {
            for (lane, picture) in pictures.chunks_exact(size).enumerate() {
                for row in 0..side {
                    let pixels = &picture[row * side..][..side];
                    images.row(lane, row)[..side].copy_from_slice(pixels);
                }
            }
            images.draw(s, distortions, &mut lanes, side);
            for (lane, picture) in distorted.chunks_exact_mut(size).enumerate() {
                for (pixel, lanes) in picture.iter_mut().zip(lanes.chunks_exact(l)) {
                    *pixel = lanes[lane];
                }
            }
        }
    }
}

/// Pictures to be distorted, one after the other, each with a border of background one pixel wide: every pixel
/// that is asked for is there.
pub struct BorderedImages {
    side: usize,
    pixels: [f32; (SIDE + 2) * (SIDE + 2) * WIDEST],
}

impl BorderedImages {
    /// Of background only.
    #[inline(always)]
    pub fn new(side: usize, background: f32) -> BorderedImages {
        assert!(side <= SIDE);
        BorderedImages { side, pixels: [background; (SIDE + 2) * (SIDE + 2) * WIDEST] }
    }

    /// A row of a picture, from its first pixel on.
    #[inline(always)]
    pub fn row(&mut self, picture: usize, row: usize) -> &mut [f32] {
        let width = self.side + 2;
        &mut self.pixels[(picture * width + row + 1) * width + 1..]
    }

    /// Draws the pictures, as many as there are distortions, each into its lane of `to`, where rows are `columns`
    /// vectors apart; lanes that are left over hold the first of them once more.
    #[inline(always)]
    pub fn draw<S: Simd>(&self, s: S, distortions: &[Distortion], to: &mut [f32], columns: usize) {
        let (l, side, width, points) =
            (S::LANES, self.side, self.side + 2, control_points(self.side));
        let mut maps = [0.0; 6 * WIDEST];
        let mut displacements = [0.0; 2 * POINTS * POINTS * WIDEST];
        let mut starts = [0; WIDEST];
        for lane in 0..l {
            let picture = if lane < distortions.len() { lane } else { 0 };
            starts[lane] = picture * width * width;
            let Distortion { affine, displacements: of_lane } = &distortions[picture];
            for (k, value) in affine.iter().enumerate() {
                maps[k * l + lane] = *value;
            }
            for (k, value) in of_lane.iter().enumerate() {
                displacements[k * l + lane] = *value;
            }
        }
        let elastic = distortions.iter().any(|distortion| !distortion.displacements.is_empty());
        let mut map = [[s.splat(0.0); 3]; 2];
        for direction in 0..2 {
            for k in 0..3 {
                map[direction][k] = s.load(&maps, (3 * direction + k) * l);
            }
        }
        let half = side as f32 / 2.0;
        let (one, last, end) = (s.splat(1.0), s.splat(side as f32), s.splat((side + 1) as f32));
        // Of a row: of the four pixels around the place that each is drawn from, the upper left one, how far to the
        // right of it and below it the place is, and their values.
        let mut pixels = [0.0; SIDE * WIDEST];
        let mut beyond = [[0.0; SIDE * WIDEST]; 2];
        let mut corners = [[0.0; SIDE * WIDEST]; 4];
        for row in 0..side {
            // The sheet's displacements in this row of pixels, at its columns of points.
            let mut across = [[s.splat(0.0); POINTS]; 2];
            if elastic {
                let (first, weights) = spline(row);
                for direction in 0..2 {
                    for x in 0..points {
                        for k in 0..4 {
                            let at = ((direction * points + first + k) * points + x) * l;
                            let part = s.mul(s.splat(weights[k]), s.load(&displacements, at));
                            across[direction][x] = s.add(across[direction][x], part);
                        }
                    }
                }
            }
            for column in 0..side {
                let mut at = [s.splat(column as f32 + 0.5), s.splat(row as f32 + 0.5)];
                if elastic {
                    let (first, weights) = spline(column);
                    for direction in 0..2 {
                        let mut moved = s.splat(0.0);
                        for k in 0..4 {
                            let part = s.mul(s.splat(weights[k]), across[direction][first + k]);
                            moved = s.add(moved, part);
                        }
                        at[direction] = s.add(at[direction], moved);
                    }
                }
                for direction in 0..2 {
                    at[direction] = s.sub(s.div(at[direction], s.splat(half)), one);
                }
                // In pixels of the bordered picture, of which the first centre is 0.
                let mut corner = [s.splat(0.0); 2];
                for direction in 0..2 {
                    let [by_u, by_v, start] = map[direction];
                    let sum = s.add(s.add(s.mul(by_u, at[0]), s.mul(by_v, at[1])), start);
                    let place = s.add(s.mul(s.add(sum, one), s.splat(half)), s.splat(0.5));
                    let place = s.max(place, s.splat(0.0));
                    let place = s.select_ge(place, end, end, place);
                    corner[direction] = s.floor(s.select_ge(place, last, last, place));
                    s.store(&mut beyond[direction], column * l, s.sub(place, corner[direction]));
                }
                let pixel = s.add(s.mul(corner[1], s.splat(width as f32)), corner[0]);
                s.store(&mut pixels, column * l, s.add(pixel, s.splat(INTEGERS)));
            }
            for at in 0..side * l {
                let pixel = (pixels[at].to_bits() & 0xffff) as usize;
                let four = &self.pixels[starts[at % l] + pixel..][..width + 2];
                corners[0][at] = four[0];
                corners[1][at] = four[1];
                corners[2][at] = four[width];
                corners[3][at] = four[width + 1];
            }
            for column in 0..side {
                let at = column * l;
                let (right, down) = (s.load(&beyond[0], at), s.load(&beyond[1], at));
                let mut rows = [s.splat(0.0); 2];
                for k in 0..2 {
                    let (a, b) = (s.load(&corners[2 * k], at), s.load(&corners[2 * k + 1], at));
                    rows[k] = s.add(a, s.mul(right, s.sub(b, a)));
                }
                let pixel = s.add(rows[0], s.mul(down, s.sub(rows[1], rows[0])));
                s.store(to, (row * columns + column) * l, pixel);
            }
        }
    }
}
