//! The distortion of small images, with one image per lane.
//!
//! Each pixel of the output takes its value from a point of the image. The point is the centre of the pixel, moved by a smooth
//! displacement field and then by an affine map. The value is interpolated bilinearly; beyond the border there is background.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::simd::{Isa, Simd, WIDEST, WithSimd};
use crate::training::{CELL, Distortion, control_points};

/// The largest number of rows and columns of an image.
const SIDE: usize = 32;
/// The largest number of control points in a row of the displacement field.
const POINTS: usize = SIDE / CELL + 4;
/// 2^23. If a whole number of at most 23 bits is added to it, the lowest bits of the sum are those of the number.
const INTEGERS: f32 = (1 << 23) as f32;

/// Returns the index of the first of the four control points that a row or column of pixels depends on, and their weights.
/// The displacement field is a uniform cubic B-spline.
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

/// Returns the distorted images. Images of `side` x `side` pixels follow one another. The background is 0.
///
/// # Panics
/// If the number of pixels does not match the number of distortions, or if the side is larger than 32.
pub fn distort(images: &[f32], side: usize, distortions: &[Distortion]) -> Vec<f32> {
    assert!(side <= SIDE && images.len() == distortions.len() * side * side);
    let mut distorted = vec![0.0; images.len()];
    Isa::best().run(DistortTask { images, side, distortions, distorted: &mut distorted });
    distorted
}

/// The distortion of all images.
struct DistortTask<'a> {
    images: &'a [f32],
    side: usize,
    distortions: &'a [Distortion],
    distorted: &'a mut [f32],
}

impl WithSimd for DistortTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let DistortTask { images, side, distortions, distorted } = self;
        let (l, size) = (S::LANES, side * side);
        let mut bordered = BorderedImages::new(side, 0.0);
        let mut lanes = [0.0; SIDE * SIDE * WIDEST];
        let groups = images.chunks(l * size).zip(distorted.chunks_mut(l * size));
        for ((images, distorted), distortions) in groups.zip(distortions.chunks(l)) {
            for (lane, image) in images.chunks_exact(size).enumerate() {
                for row in 0..side {
                    let pixels = &image[row * side..][..side];
                    bordered.row(lane, row)[..side].copy_from_slice(pixels);
                }
            }
            bordered.distort(s, distortions, &mut lanes, side);
            for (lane, image) in distorted.chunks_exact_mut(size).enumerate() {
                for (pixel, lanes) in image.iter_mut().zip(lanes.chunks_exact(l)) {
                    *pixel = lanes[lane];
                }
            }
        }
    }
}

/// Images to be distorted, one after another. Each has a border of background that is one pixel wide, so that the four pixels
/// around every point exist.
pub struct BorderedImages {
    side: usize,
    pixels: [f32; (SIDE + 2) * (SIDE + 2) * WIDEST],
}

impl BorderedImages {
    /// Creates images that have only background.
    #[inline(always)]
    pub fn new(side: usize, background: f32) -> BorderedImages {
        assert!(side <= SIDE);
        BorderedImages { side, pixels: [background; (SIDE + 2) * (SIDE + 2) * WIDEST] }
    }

    /// The pixels of an image from the start of a row on.
    #[inline(always)]
    pub fn row(&mut self, image: usize, row: usize) -> &mut [f32] {
        let width = self.side + 2;
        &mut self.pixels[(image * width + row + 1) * width + 1..]
    }

    /// Distorts an image for each distortion, and writes it to its lane of `to`, whose rows are `columns` vectors apart.
    /// Unused lanes get the first image again.
    #[inline(always)]
    pub fn distort<S: Simd>(
        &self,
        s: S,
        distortions: &[Distortion],
        to: &mut [f32],
        columns: usize,
    ) {
        let (l, side, width, points) =
            (S::LANES, self.side, self.side + 2, control_points(self.side));
        let mut maps = [0.0; 6 * WIDEST];
        let mut displacements = [0.0; 2 * POINTS * POINTS * WIDEST];
        let mut starts = [0; WIDEST];
        for lane in 0..l {
            let image = if lane < distortions.len() { lane } else { 0 };
            starts[lane] = image * width * width;
            let Distortion { affine, displacements: field } = &distortions[image];
            for (k, value) in affine.iter().enumerate() {
                maps[k * l + lane] = *value;
            }
            for (k, value) in field.iter().enumerate() {
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
        // For each pixel in a row of the output: the index of the upper left of the four pixels around its point, the distance of
        // the point from it to the right and downwards, and the values of the four pixels.
        let mut pixels = [0.0; SIDE * WIDEST];
        let mut fractions = [[0.0; SIDE * WIDEST]; 2];
        let mut corners = [[0.0; SIDE * WIDEST]; 4];
        for row in 0..side {
            // The displacements in this row of pixels, at the columns of the control points.
            let mut field_row = [[s.splat(0.0); POINTS]; 2];
            if elastic {
                let (first, weights) = spline(row);
                for direction in 0..2 {
                    for x in 0..points {
                        for k in 0..4 {
                            let at = ((direction * points + first + k) * points + x) * l;
                            let term = s.mul(s.splat(weights[k]), s.load(&displacements, at));
                            field_row[direction][x] = s.add(field_row[direction][x], term);
                        }
                    }
                }
            }
            for column in 0..side {
                let mut at = [s.splat(column as f32 + 0.5), s.splat(row as f32 + 0.5)];
                if elastic {
                    let (first, weights) = spline(column);
                    for direction in 0..2 {
                        let mut displacement = s.splat(0.0);
                        for k in 0..4 {
                            let term = s.mul(s.splat(weights[k]), field_row[direction][first + k]);
                            displacement = s.add(displacement, term);
                        }
                        at[direction] = s.add(at[direction], displacement);
                    }
                }
                for direction in 0..2 {
                    at[direction] = s.sub(s.div(at[direction], s.splat(half)), one);
                }
                // The point in pixels of the bordered image. The centre of the first pixel has the coordinate 0.
                let mut corner = [s.splat(0.0); 2];
                for direction in 0..2 {
                    let [by_u, by_v, start] = map[direction];
                    let sum = s.add(s.add(s.mul(by_u, at[0]), s.mul(by_v, at[1])), start);
                    let point = s.add(s.mul(s.add(sum, one), s.splat(half)), s.splat(0.5));
                    let point = s.max(point, s.splat(0.0));
                    let point = s.select_ge(point, end, end, point);
                    corner[direction] = s.floor(s.select_ge(point, last, last, point));
                    s.store(&mut fractions[direction], column * l, s.sub(point, corner[direction]));
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
                let (right, down) = (s.load(&fractions[0], at), s.load(&fractions[1], at));
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
