//! Distortions of the training images, as the 1998 paper made 540,000 more of its 60,000: translation,
//! scaling, squeezing and horizontal shear, other ones each time that an image comes up.
//!
//! The paper gives no ranges. These are fitted to the 100 examples in its Fig. 7: sizes are log-uniform,
//! the rest is uniform; digits grow and shrink about their foot, not about the centre of the image.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::mnist::{Dataset, Split};
use crate::engine::warp::{self, Warp};
use crate::error::number;
use crate::model::ModelConfig;
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
    pub fn map(&self, size: i64, seed: i64, epoch: u32, index: i64) -> [f32; 6] {
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
    pub fn warp(&self, size: i64, seed: i64, epoch: u32, index: i64) -> Warp {
        let mut moves = Vec::new();
        if self.elastic > 0.0 {
            let mut uniform = uniform([!seed as u64, epoch.into(), index as u64]);
            let draw = || uniform(-self.elastic, self.elastic) as f32;
            let points = warp::points(size as usize);
            moves.extend(std::iter::repeat_with(draw).take(2 * points * points));
        }
        Warp { map: self.map(size, seed, epoch, index), moves }
    }

    /// Distorts images (N, 1, S, S), 0 being background; `indices` are the images' places in the data
    /// set. Bilinear, on the images' device.
    pub fn apply(&self, images: &Tensor, seed: i64, epoch: u32, indices: &[i64]) -> Tensor {
        let sizes = images.size();
        let size = sizes[3];
        let warps = indices.iter().map(|index| self.warp(size, seed, epoch, *index));
        let warps: Vec<_> = warps.collect();
        if images.device() == Device::Cpu {
            let pixels = Vec::<f32>::try_from(images.contiguous().flatten(0, -1)).expect("float32");
            return Tensor::from_slice(&warp::warp(&pixels, size as usize, &warps)).reshape(&sizes);
        }
        Warps::new(&warps, size, images.device()).apply(images)
    }

    /// The first image of each class of MNIST, as it is and nine times distorted: (10, 10, 32, 32),
    /// 0..1.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn examples(&self) -> Result<Tensor> {
        let data = Dataset::embedded(Split::Train, 10)?;
        let rows = (0..10).map(|class| {
            let index = data.labels().eq(class).to_kind(Kind::Int64).argmax(0, false);
            let indices = index.reshape([1]);
            let config = ModelConfig::default();
            let mut row = vec![data.batch(&indices, &config).0];
            row.extend((1..10).map(|epoch| data.distorted(&indices, &config, self, (1, epoch)).0));
            Tensor::cat(&row, 0).squeeze_dim(1)
        });
        Ok(Tensor::stack(&rows.collect::<Vec<_>>(), 0))
    }

    /// The places of the images of a batch, for [`Distortions::apply`].
    pub(super) fn places(indices: &Tensor) -> Vec<i64> {
        Vec::try_from(indices.to_device(Device::Cpu)).expect("indices are int64")
    }
}

/// The [`Warp`]s of a batch of pictures, for libtorch's kernels.
pub struct Warps {
    /// (N, 2, 3).
    maps: Tensor,
    /// The moves of the points (N, 2, P, P) in pixels, and their weights in each row or column of pixels (S, P).
    elastic: Option<(Tensor, Tensor)>,
}

impl Warps {
    /// Those of square pictures of `size` pixels.
    pub fn new(warps: &[Warp], size: i64, device: Device) -> Self {
        let maps: Vec<_> = warps.iter().flat_map(|warp| warp.map).collect();
        let maps = Tensor::from_slice(&maps).reshape([-1, 2, 3]).to_device(device);
        let moves: Vec<_> = warps.iter().flat_map(|warp| &warp.moves).copied().collect();
        if moves.is_empty() {
            return Self { maps, elastic: None };
        }
        let points = warp::points(size as usize);
        let mut splines = vec![0.0; size as usize * points];
        for (pixel, row) in splines.chunks_exact_mut(points).enumerate() {
            let (first, weights) = warp::spline(pixel);
            row[first..first + 4].copy_from_slice(&weights);
        }
        let splines = Tensor::from_slice(&splines).reshape([size, -1]).to_device(device);
        let points = points as i64;
        let moves = Tensor::from_slice(&moves).reshape([-1, 2, points, points]).to_device(device);
        Self { maps, elastic: Some((moves, splines)) }
    }

    /// Those of `count` pictures from `first` on.
    pub fn narrow(&self, first: i64, count: i64) -> Self {
        let narrow = |all: &Tensor| all.narrow(0, first, count);
        let elastic = self.elastic.as_ref();
        Self {
            maps: narrow(&self.maps),
            elastic: elastic.map(|(moves, splines)| (narrow(moves), splines.shallow_clone())),
        }
    }

    /// In memory of their own.
    pub fn copy(&self) -> Self {
        let copy = |(moves, splines): &(Tensor, Tensor)| (moves.copy(), splines.copy());
        Self { maps: self.maps.copy(), elastic: self.elastic.as_ref().map(copy) }
    }

    /// Takes the values of others of the same number and kind.
    ///
    /// # Errors
    /// Where these are not.
    pub fn copy_(&mut self, other: &Self) -> Result<()> {
        self.maps.f_copy_(&other.maps)?;
        if let (Some((moves, _)), Some((others, _))) = (&mut self.elastic, &other.elastic) {
            moves.f_copy_(others)?;
        }
        Ok(())
    }

    /// What [`warp::warp`] does, on the images' device: (N, 1, S, S).
    pub fn apply(&self, images: &Tensor) -> Tensor {
        let size = images.size()[3];
        let mut grid = Tensor::affine_grid_generator(&self.maps, images.size(), false);
        if let Some((moves, splines)) = &self.elastic {
            let moved = splines.matmul(moves).matmul(&splines.transpose(0, 1)); // (N, 2, S, S), in pixels
            let moved = moved.flatten(2, 3) * (2.0 / size as f64);
            let moved = self.maps.narrow(2, 0, 2).matmul(&moved);
            grid += moved.transpose(1, 2).reshape([-1, size, size, 2]);
        }
        let (bilinear, zeros) = (0, 0);
        images.grid_sampler(&grid, bilinear, zeros, false)
    }
}

/// Random numbers between two others, that depend on the keys alone.
fn uniform(keys: [u64; 3]) -> impl FnMut(f64, f64) -> f64 {
    let mut state = keys.into_iter().fold(0, |state, key| mix(state ^ key));
    move |low, high| {
        state = mix(state);
        low + (high - low) * (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// By how much SplitMix64's state grows with each step.
pub(crate) const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of the generator SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014.
pub(crate) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
