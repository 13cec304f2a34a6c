//! Distortions of the training images, as the 1998 paper made 540,000 more of its 60,000: translation,
//! scaling, squeezing and horizontal shear, other ones each time that an image comes up.
//!
//! The paper gives no ranges. These are fitted to the 100 examples in its Fig. 7: sizes are log-uniform,
//! the rest is uniform; digits grow and shrink about their foot, not about the centre of the image.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::mnist::{Dataset, Split};
use crate::Result;
use crate::model::ModelConfig;

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

/// Pixels below the centre of the image where the foot of a digit is: the point that scaling leaves.
const FOOT: f64 = 10.9;

/// Pixels between the points that elastic distortion moves.
const ELASTIC_CELL: i64 = 8;

impl Distortions {
    /// Milder ones than the paper's: chosen on 10,000 of MNIST's training images for the original network.
    pub fn mild() -> Self {
        Self { scale: (0.8, 1.2), squeeze: (0.87, 1.14), shear: 0.1, shift: 1.5, ..Self::default() }
    }

    /// Mild ones, turned and bent too: chosen on 20,000 of MNIST's training images for the modern network.
    pub fn best() -> Self {
        Self { rotation: 10.0, elastic: 3.0, ..Self::mild() }
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

    /// The elastic distortion of one image: how far each pixel's source is moved to the right, then down, in pixels
    /// (2, S, S); cubic B-splines through random points.
    fn field(&self, size: i64, seed: i64, epoch: u32, index: i64) -> Vec<f32> {
        let mut uniform = uniform([!seed as u64, epoch.into(), index as u64]);
        let points = (size / ELASTIC_CELL) as usize + 4;
        let weights: Vec<_> = (0..size)
            .map(|pixel| {
                let t = (pixel % ELASTIC_CELL) as f32 / ELASTIC_CELL as f32;
                let (t2, t3) = (t * t, t * t * t);
                let spline = [
                    1.0 - 3.0 * t + 3.0 * t2 - t3,
                    4.0 - 6.0 * t2 + 3.0 * t3,
                    1.0 + 3.0 * t + 3.0 * t2 - 3.0 * t3,
                    t3,
                ];
                ((pixel / ELASTIC_CELL) as usize, spline.map(|weight| weight / 6.0))
            })
            .collect();
        let mut field = Vec::with_capacity(2 * (size * size) as usize);
        for _ in 0..2 {
            let moves: Vec<f32> =
                (0..points * points).map(|_| uniform(-self.elastic, self.elastic) as f32).collect();
            for (first, down) in &weights {
                let row: Vec<f32> = (0..points)
                    .map(|x| (0..4).map(|k| down[k] * moves[(first + k) * points + x]).sum())
                    .collect();
                let across = weights
                    .iter()
                    .map(|(first, across)| (0..4).map(|k| across[k] * row[first + k]).sum::<f32>());
                field.extend(across);
            }
        }
        field
    }

    /// Distorts images (N, 1, S, S), 0 being background; `indices` are the images' places in the data
    /// set. Bilinear, on the images' device.
    pub fn apply(&self, images: &Tensor, seed: i64, epoch: u32, indices: &[i64]) -> Tensor {
        let sizes = images.size();
        let size = sizes[3];
        let draw = |&index: &i64| {
            let field = (self.elastic > 0.0).then(|| self.field(size, seed, epoch, index));
            (self.map(size, seed, epoch, index), field)
        };
        let drawn = indices.iter().map(draw);
        if images.device() == Device::Cpu {
            return on_cpu(images, drawn);
        }
        let (bilinear, zeros) = (0, 0);
        images.grid_sampler(&grid(&sizes, drawn, images.device()), bilinear, zeros, false)
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

/// Where `grid_sampler` reads each pixel of images of these sizes: (N, S, S, 2).
fn grid(
    sizes: &[i64],
    drawn: impl Iterator<Item = ([f32; 6], Option<Vec<f32>>)>,
    device: Device,
) -> Tensor {
    let (maps, fields): (Vec<_>, Vec<_>) = drawn.unzip();
    let maps = Tensor::from_slice(&maps.concat()).reshape([-1, 2, 3]).to_device(device);
    let grid = Tensor::affine_grid_generator(&maps, sizes, false);
    let fields: Vec<f32> = fields.into_iter().flatten().flatten().collect();
    if fields.is_empty() {
        return grid;
    }
    let size = sizes[3];
    let moved = Tensor::from_slice(&fields).to_device(device).reshape([-1, 2, size * size]);
    let moved = maps.narrow(2, 0, 2).matmul(&(moved * 2.0 / size as f64));
    grid + moved.transpose(1, 2).reshape([-1, size, size, 2])
}

/// What libtorch's `affine_grid_generator` and `grid_sampler` give, ten times as fast on images so small.
fn on_cpu(images: &Tensor, drawn: impl Iterator<Item = ([f32; 6], Option<Vec<f32>>)>) -> Tensor {
    let shape = images.size();
    let size = shape[3] as usize;
    let pixels = Vec::<f32>::try_from(images.contiguous().flatten(0, -1)).expect("float32");
    let mut distorted = vec![0.0; pixels.len()];
    let images = pixels.chunks_exact(size * size).zip(distorted.chunks_exact_mut(size * size));
    for ((from, to), (map, field)) in images.zip(drawn) {
        match field {
            None => warp(from, to, size, map, |_| (0.0, 0.0)),
            Some(field) => {
                let (right, down) = field.split_at(size * size);
                warp(from, to, size, map, |at| (right[at], down[at]));
            }
        }
    }
    Tensor::from_slice(&distorted).reshape(&shape)
}

/// Draws one square image through a map of [`Distortions::map`]; `moved` says how far each pixel's source is
/// moved before that.
fn warp(
    from: &[f32],
    to: &mut [f32],
    size: usize,
    [xx, xy, x0, yx, yy, y0]: [f32; 6],
    moved: impl Fn(usize) -> (f32, f32),
) {
    let half = size as f32 / 2.0;
    // With a border of zeros, every pixel that is asked for is there.
    let width = size + 2;
    let mut bordered = vec![0.0f32; width * width];
    for (row, pixels) in from.chunks_exact(size).enumerate() {
        bordered[(row + 1) * width + 1..][..size].copy_from_slice(pixels);
    }
    let end = (size + 1) as f32;
    for (row, pixels) in to.chunks_exact_mut(size).enumerate() {
        for (column, pixel) in pixels.iter_mut().enumerate() {
            let (right, down) = moved(row * size + column);
            let u = (column as f32 + 0.5 + right) / half - 1.0;
            let v = (row as f32 + 0.5 + down) / half - 1.0;
            // In pixels of the bordered image, of which the first centre is 0.
            let x = ((xx * u + xy * v + x0 + 1.0) * half + 0.5).clamp(0.0, end);
            let y = ((yx * u + yy * v + y0 + 1.0) * half + 0.5).clamp(0.0, end);
            let (left, top) = ((x as usize).min(size), (y as usize).min(size));
            let (right, down) = (x - left as f32, y - top as f32);
            let at = &bordered[top * width + left..];
            let upper = at[0] + right * (at[1] - at[0]);
            let lower = at[width] + right * (at[width + 1] - at[width]);
            *pixel = upper + down * (lower - upper);
        }
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

/// One step of the generator SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
