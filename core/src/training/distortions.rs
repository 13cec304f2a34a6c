//! Random distortions of training images: translation, scaling, squeezing and horizontal shear, as in the 1998 paper, which
//! added 540,000 distorted images to its 60,000. Here an image is distorted differently each time it is used.
//!
//! The paper does not say how large the distortions are. The default ranges are fitted to the 100 examples in its Fig. 7.
//! Scaling and squeezing are log-uniform, all others are uniform. Scaling keeps the foot of a digit in its place, not the
//! centre of the image.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::number;
use crate::random::mix;
use crate::{Error, Result};

/// The ranges of the random distortions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distortions {
    /// The smallest and the largest factor of the size: the geometric mean of the factors of width and height.
    pub scale: (f64, f64),
    /// The smallest and the largest factor of squeezing: the ratio of height to width.
    pub squeeze: (f64, f64),
    /// The largest shear, in pixels to the side per pixel of height.
    pub shear: f64,
    /// The largest translation in each direction, in pixels.
    pub shift: f64,
    /// The largest rotation in each direction, in degrees. The paper has no rotation.
    #[serde(default)]
    pub rotation: f64,
    /// The largest elastic distortion, in pixels: the control points of a smooth displacement field, which are 8 pixels apart,
    /// are moved by at most this distance in each direction. The paper has no elastic distortion.
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

/// The smallest and the largest factor that is allowed for scaling and squeezing.
const FACTORS: RangeInclusive<f64> = 0.1..=10.0;

/// The distance of a digit's foot below the centre of the image, in pixels. Scaling does not move this point.
const FOOT: f64 = 10.9;

impl Distortions {
    /// Milder distortions than the paper's. They were chosen on 10,000 of MNIST's training images for the original network.
    pub fn mild() -> Self {
        Self { scale: (0.8, 1.2), squeeze: (0.87, 1.14), shear: 0.1, shift: 1.5, ..Self::default() }
    }

    /// Mild distortions, with rotation and elastic distortion. They were chosen on 20,000 of MNIST's training images for the
    /// modern network.
    pub fn best() -> Self {
        Self { rotation: 10.0, elastic: 3.0, ..Self::mild() }
    }

    /// Checks that all settings are in their ranges.
    ///
    /// # Errors
    /// The error names the first setting that is out of its range.
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

    /// The affine map for one image of `size` x `size` pixels. It maps points of the output to points of the image, in
    /// coordinates from -1 to 1, and has two rows of three numbers, for x and for y. It depends only on the arguments, not
    /// on the batch or the device.
    pub fn map(&self, size: usize, seed: i64, epoch: u32, index: i64) -> [f32; 6] {
        let mut uniform = uniform([seed as u64, epoch.into(), index as u64]);
        let scale = uniform(self.scale.0.ln(), self.scale.1.ln()).exp();
        let squeeze = uniform(self.squeeze.0.ln(), self.squeeze.1.ln()).exp();
        let shear = uniform(-self.shear, self.shear);
        let (dx, dy) = (uniform(-self.shift, self.shift), uniform(-self.shift, self.shift));
        let (width, height) = (scale / squeeze.sqrt(), scale * squeeze.sqrt());
        let (sin, cos) = uniform(-self.rotation, self.rotation).to_radians().sin_cos();
        // The map from the image to the output, with the origin in the centre: x' = width x + shear y, y' = height y, then the
        // rotation, then the translation by (dx, dy).
        let dy = dy - FOOT * (height - 1.0);
        let forward =
            [[cos * width, cos * shear - sin * height], [sin * width, sin * shear + cos * height]];
        // The inverse of that map.
        let half = size as f64 / 2.0;
        let area = width * height;
        let [xx, xy] = [forward[1][1] / area, -forward[0][1] / area];
        let [yx, yy] = [-forward[1][0] / area, forward[0][0] / area];
        [xx, xy, -(xx * dx + xy * dy) / half, yx, yy, -(yx * dx + yy * dy) / half]
            .map(|value| value as f32)
    }

    /// The distortion of one image of `size` x `size` pixels. It depends only on the arguments.
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

/// The distance between the control points of the displacement field, in pixels.
pub const CELL: usize = 8;

/// The distortion of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Distortion {
    /// The affine map from the output to the image, in coordinates from -1 to 1: two rows of three numbers, for x and for y.
    pub affine: [f32; 6],
    /// The displacements of the control points in pixels, first all of them to the right, then all of them downwards:
    /// 2 x [`control_points`] x [`control_points`] numbers. It is empty if there is no elastic distortion.
    pub displacements: Vec<f32>,
}

/// The number of control points in a row of the displacement field, for images with this number of rows and columns.
pub fn control_points(side: usize) -> usize {
    side / CELL + 4
}

/// Returns a function that draws random numbers between its arguments. They depend only on the keys.
fn uniform(keys: [u64; 3]) -> impl FnMut(f64, f64) -> f64 {
    let mut state = keys.into_iter().fold(0, |state, key| mix(state ^ key));
    move |low, high| {
        state = mix(state);
        low + (high - low) * (state >> 11) as f64 / (1u64 << 53) as f64
    }
}
