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

impl Distortions {
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

