//! Distortions of training images on libtorch's tensors.

use lenet5_core::kernels::distortion::{distort, spline};
use lenet5_core::training::{Distortion, Distortions, control_points};
use tch::{Device, Tensor};

use crate::Result;

/// Distorts images (N, 1, S, S), 0 for background, with bilinear interpolation on the images'
/// device. `indices` are the indices of the images in the data set.
pub fn apply(
    distortions: &Distortions,
    images: &Tensor,
    seed: i64,
    epoch: u32,
    indices: &[i64],
) -> Tensor {
    let sizes = images.size();
    let size = sizes[3];
    let draw = |index: &i64| distortions.draw(size as usize, seed, epoch, *index);
    let drawn: Vec<_> = indices.iter().map(draw).collect();
    if images.device() == Device::Cpu {
        let pixels = Vec::<f32>::try_from(images.contiguous().flatten(0, -1)).expect("float32");
        return Tensor::from_slice(&distort(&pixels, size as usize, &drawn)).reshape(&sizes);
    }
    DistortionBatch::new(&drawn, size, images.device()).apply(images)
}

/// The distortions of a batch of images, for libtorch's kernels.
pub struct DistortionBatch {
    /// The affine maps: (N, 2, 3).
    maps: Tensor,
    /// The displacements of the control points (N, 2, P, P) in pixels, and the weights of the
    /// control points for each row or column of pixels (S, P). `None` without elastic distortion.
    elastic: Option<(Tensor, Tensor)>,
}

impl DistortionBatch {
    /// Copies the distortions of square images of `size` x `size` pixels to a device.
    pub fn new(distortions: &[Distortion], size: i64, device: Device) -> Self {
        let maps: Vec<_> = distortions.iter().flat_map(|distortion| distortion.affine).collect();
        let maps = Tensor::from_slice(&maps).reshape([-1, 2, 3]).to_device(device);
        let displacements: Vec<_> =
            distortions.iter().flat_map(|distortion| &distortion.displacements).copied().collect();
        if displacements.is_empty() {
            return Self { maps, elastic: None };
        }
        let points = control_points(size as usize);
        let mut splines = vec![0.0; size as usize * points];
        for (pixel, row) in splines.chunks_exact_mut(points).enumerate() {
            let (first, weights) = spline(pixel);
            row[first..first + 4].copy_from_slice(&weights);
        }
        let splines = Tensor::from_slice(&splines).reshape([size, -1]).to_device(device);
        let points = points as i64;
        let displacements =
            Tensor::from_slice(&displacements).reshape([-1, 2, points, points]).to_device(device);
        Self { maps, elastic: Some((displacements, splines)) }
    }

    /// Returns the distortions of `count` images from index `first`.
    pub fn narrow(&self, first: i64, count: i64) -> Self {
        let narrow = |all: &Tensor| all.narrow(0, first, count);
        let elastic = self.elastic.as_ref();
        Self {
            maps: narrow(&self.maps),
            elastic: elastic
                .map(|(displacements, splines)| (narrow(displacements), splines.shallow_clone())),
        }
    }

    /// Returns a copy in new memory.
    pub fn copy(&self) -> Self {
        let copy =
            |(displacements, splines): &(Tensor, Tensor)| (displacements.copy(), splines.copy());
        Self { maps: self.maps.copy(), elastic: self.elastic.as_ref().map(copy) }
    }

    /// Copies the values of another batch of the same size and kind.
    ///
    /// # Errors
    /// If its size or kind differs.
    pub fn copy_(&mut self, other: &Self) -> Result<()> {
        self.maps.f_copy_(&other.maps)?;
        if let (Some((displacements, _)), Some((others, _))) = (&mut self.elastic, &other.elastic) {
            displacements.f_copy_(others)?;
        }
        Ok(())
    }

    /// Distorts images (N, 1, S, S) on their device, as
    /// [`distort`](lenet5_core::kernels::distortion::distort) does.
    pub fn apply(&self, images: &Tensor) -> Tensor {
        let size = images.size()[3];
        let mut grid = Tensor::affine_grid_generator(&self.maps, images.size(), false);
        if let Some((displacements, splines)) = &self.elastic {
            // The displacement field: (N, 2, S, S), in pixels.
            let field = splines.matmul(displacements).matmul(&splines.transpose(0, 1));
            let field = field.flatten(2, 3) * (2.0 / size as f64);
            let field = self.maps.narrow(2, 0, 2).matmul(&field);
            grid += field.transpose(1, 2).reshape([-1, size, size, 2]);
        }
        let (bilinear, zeros) = (0, 0);
        images.grid_sampler(&grid, bilinear, zeros, false)
    }
}
