//! Random distortions of training images, as the 1998 paper made 540,000 more of its 60,000: translation,
//! scaling, squeezing and horizontal shear, drawn anew each time that an image comes up.
//!
//! The paper gives no ranges. These are fitted to the 100 examples in its Fig. 7: sizes are log-uniform,
//! the rest is uniform; digits grow and shrink about their foot, not about the centre of the image.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::number;
use crate::random::mix;
use crate::{Error, Result};

/// Ranges of the distortions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distortions {
    /// Size, as a factor: the geometric mean of width and height.
    pub scale: (f64, f64),
    /// Squeezing: height over width, as a factor.
    pub squeeze: (f64, f64),
    /// Shear: pixels to the side per pixel of height, at most.
    pub shear: f64,
    /// Translation in pixels to each side, at most.
    pub shift: f64,
    /// Rotation in degrees to each side, at most; the paper has none.
    #[serde(default)]
    pub rotation: f64,
    /// Elastic distortion: points 8 pixels apart are moved by at most so many pixels to each side, what lies
    /// between them smoothly; the paper has none.
    ///
    /// Source: Simard, Steinkraus, Platt, "Best practices for convolutional neural networks applied to visual
    /// document analysis", ICDAR 2003.
    #[serde(default)]
    pub elastic: f64,
}

impl Default for Distortions {
    fn default() -> Self {
        Self {
            scale: (0.72, 1.3),
            squeeze: (0.82, 1.2),
            shear: 0.15,
            shift: 2.1,
            rotation: 0.0,
            elastic: 0.0,
        }
    }
}

/// The least and the largest factor of scaling and squeezing: beyond them nothing of a digit is left.
const FACTORS: RangeInclusive<f64> = 0.1..=10.0;

/// Pixels below the centre of the image where the foot of a digit is: the point that scaling leaves.
const FOOT: f64 = 10.9;

impl Distortions {
    /// Milder ones than the paper's: chosen on 10,000 of MNIST's training images for the original network.
    pub fn mild() -> Self {
        Self { scale: (0.8, 1.2), squeeze: (0.87, 1.14), shear: 0.1, shift: 1.5, ..Self::default() }
    }

    /// Mild ones, turned and bent too: chosen on 20,000 of MNIST's training images for the modern network.
    pub fn best() -> Self {
        Self { rotation: 10.0, elastic: 3.0, ..Self::mild() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |name: &str, expected: String, found: String| {
            Err(Error::Config(format!("distortions.{name}: expected {expected}, found {found}")))
        };
        for (name, (least, most)) in [("scale", self.scale), ("squeeze", self.squeeze)] {
            let (low, high) = (FACTORS.start(), FACTORS.end());
            if !(FACTORS.contains(&least) && FACTORS.contains(&most) && least <= most) {
                let expected = format!("two factors from {low} to {high}, the smaller one first");
                return wrong(name, expected, format!("{} and {}", number(least), number(most)));
            }
        }
        for (name, value, most, unit) in [
            ("shear", self.shear, 4.0, "pixels to the side per pixel of height"),
            ("shift", self.shift, 32.0, "pixels"),
            ("rotation", self.rotation, 180.0, "degrees"),
            ("elastic", self.elastic, 32.0, "pixels"),
        ] {
            if !(0.0..=most).contains(&value) {
                return wrong(name, format!("0 to {most} {unit}"), number(value));
            }
        }
        Ok(())
    }

    /// The affine map of one image, from the output to the image, in coordinates from -1 to 1 across
    /// `size` pixels, x before y: two rows of three. It depends on its arguments alone, not on the batch
    /// or the device.
    pub fn map(&self, size: usize, seed: i64, epoch: u32, index: i64) -> [f32; 6] {
        let mut uniform = uniform([seed as u64, epoch.into(), index as u64]);
        let scale = uniform(self.scale.0.ln(), self.scale.1.ln()).exp();
        let squeeze = uniform(self.squeeze.0.ln(), self.squeeze.1.ln()).exp();
        let shear = uniform(-self.shear, self.shear);
        let (dx, dy) = (uniform(-self.shift, self.shift), uniform(-self.shift, self.shift));
        let (width, height) = (scale / squeeze.sqrt(), scale * squeeze.sqrt());
        let (sin, cos) = uniform(-self.rotation, self.rotation).to_radians().sin_cos();
        // Forward, about the centre: x' = width x + shear y, y' = height y; turned; moved by dx, dy.
        let dy = dy - FOOT * (height - 1.0);
        let forward =
            [[cos * width, cos * shear - sin * height], [sin * width, sin * shear + cos * height]];
        // Here its inverse.
        let half = size as f64 / 2.0;
        let area = width * height;
        let [xx, xy] = [forward[1][1] / area, -forward[0][1] / area];
        let [yx, yy] = [-forward[1][0] / area, forward[0][0] / area];
        [xx, xy, -(xx * dx + xy * dy) / half, yx, yy, -(yx * dx + yy * dy) / half]
            .map(|value| value as f32)
    }

    /// How one image of `size` x `size` pixels is distorted. It depends on the arguments alone.
    pub fn draw(&self, size: usize, seed: i64, epoch: u32, index: i64) -> Distortion {
        let mut displacements = Vec::new();
        if self.elastic > 0.0 {
            let mut uniform = uniform([!seed as u64, epoch.into(), index as u64]);
            let draw = || uniform(-self.elastic, self.elastic) as f32;
            let points = control_points(size);
            displacements.extend(std::iter::repeat_with(draw).take(2 * points * points));
        }
        Distortion { affine: self.map(size, seed, epoch, index), displacements }
    }
}

/// Pixels between the points of the elastic sheet.
pub const CELL: usize = 8;

/// How one picture is distorted.
#[derive(Clone, Debug, PartialEq)]
pub struct Distortion {
    /// The affine map from the output to the picture, in coordinates from -1 to 1 across it, x before y: two
    /// rows of three.
    pub affine: [f32; 6],
    /// How far each point of the sheet is moved to the right, then how far down, in pixels: 2 x [`control_points`] x
    /// [`control_points`]. Empty where there is none.
    pub displacements: Vec<f32>,
}

/// Points on a side of the sheet, for pictures of such a side.
pub fn control_points(side: usize) -> usize {
    side / CELL + 4
}

/// Random numbers between two others, that depend on the keys alone.
fn uniform(keys: [u64; 3]) -> impl FnMut(f64, f64) -> f64 {
    let mut state = keys.into_iter().fold(0, |state, key| mix(state ^ key));
    move |low, high| {
        state = mix(state);
        low + (high - low) * (state >> 11) as f64 / (1u64 << 53) as f64
    }
}
