//! The plain forward pass of both networks, with all settings and one readable function for each kind of layer.
//!
//! The values are float32 or float64; the sums are float64. The kernels are tested against this code. The recognizer uses
//! it for networks that the kernels do not support, and for the outputs of all layers.

use rayon::prelude::*;

use crate::model::{
    Activation, C3_TABLE, HiddenActivation, LayerOrder, ModelConfig, Network, Pooling,
};
use crate::weights::Weights;
use crate::{Error, Result};

/// The type of the values in the forward pass: f32 or f64.
pub trait Real: Copy + Into<f64> + Send + Sync + 'static {
    /// Rounds a float64 to this type.
    fn round(value: f64) -> Self;
}

impl Real for f32 {
    fn round(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn round(value: f64) -> Self {
        value
    }
}

/// The maps of a layer for one image: `count` maps of `height` x `width` values. The units of c5, f6 and output are maps of
/// 1x1, or larger if the image is larger than the network's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Maps<T> {
    /// The number of maps.
    pub count: usize,
    /// The number of rows in a map.
    pub height: usize,
    /// The number of columns in a map.
    pub width: usize,
    /// The values, row by row, map after map.
    pub values: Vec<T>,
}

impl<T: Real> Maps<T> {
    fn new(
        count: usize,
        height: usize,
        width: usize,
        value: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let mut values = Vec::with_capacity(count * height * width);
        for map in 0..count {
            for y in 0..height {
                values.extend((0..width).map(|x| T::round(value(map, y, x))));
            }
        }
        Self { count, height, width, values }
    }

    fn at(&self, map: usize, y: usize, x: usize) -> f64 {
        self.values[(map * self.height + y) * self.width + x].into()
    }

    fn apply(&self, function: impl Fn(f64) -> f64) -> Self {
        let values = self.values.iter().map(|value| T::round(function((*value).into())));
        Self { values: values.collect(), ..*self }
    }
}

/// The weights of a convolution, `[map][channel][row][column]`, and its biases.
struct Convolution {
    channels: usize,
    size: usize,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Convolution {
    /// Returns an upper bound of the sums' absolute values for inputs of at most `input`.
    fn sum_bound(&self, input: f64) -> f64 {
        let weights = self.weight.chunks(self.channels * self.size * self.size);
        let sums = weights.zip(&self.bias).map(|(weights, bias)| {
            weights.iter().map(|weight| weight.abs()).sum::<f64>() * input + bias.abs()
        });
        sums.fold(0.0, f64::max)
    }
}

/// The forward pass of a network.
///
/// # Example
/// ```
/// use lenet5_core::{ForwardPass, Network, Weights};
///
/// let weights = Weights::shipped(Network::Modern)?;
/// let layers = ForwardPass::new(&weights)?.layers(&[0.0_f32; 32 * 32], 32)?;
/// let (name, c1) = &layers[0];
/// assert_eq!((*name, c1.count, c1.height, c1.width), ("c1", 6, 28, 28));
/// # Ok::<(), lenet5_core::Error>(())
/// ```
pub struct ForwardPass {
    config: ModelConfig,
    c1: Convolution,
    c3: Convolution,
    c5: Convolution,
    f6: Convolution,
    /// The output layer. In the network of 1998 its weights are the codes of the classes.
    output: Convolution,
    /// The coefficients and biases of s2 and s4, in the network of 1998.
    subsampling: Option<[(Vec<f64>, Vec<f64>); 2]>,
}

impl ForwardPass {
    /// The forward pass of the network with these weights.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(weights: &Weights) -> Result<Self> {
        let config = weights.config.clone();
        let shapes = config.state();
        let numbers = |name: &str| -> Result<Vec<f64>> {
            let shape = shapes.iter().find(|(other, _)| other == name).map(|(_, shape)| shape);
            let array =
                weights.get(name).filter(|array| Some(array.shape()) == shape.map(Vec::as_slice));
            let array = array.ok_or_else(|| {
                Error::Config(format!(
                    "{name}: expected a tensor of shape {shape:?}, found another"
                ))
            })?;
            Ok(array.to_f64())
        };
        let load = |layer: &str, channels: usize, size: usize| -> Result<Convolution> {
            let weight = numbers(&format!("{layer}.weight"))?;
            Ok(Convolution { channels, size, weight, bias: numbers(&format!("{layer}.bias"))? })
        };
        let mut c3 = load("c3", 6, 5)?;
        let (output, subsampling) = match config.network {
            Network::Modern => (load("output", 84, 1)?, None),
            Network::Original => {
                for (i, weight) in c3.weight.iter_mut().enumerate() {
                    if !C3_TABLE[i / 150].contains(&(i / 25 % 6)) {
                        *weight = 0.0;
                    }
                }
                let codes = Convolution {
                    channels: 84,
                    size: 1,
                    weight: numbers("output.weight")?,
                    bias: Vec::new(),
                };
                let subsampling = |name: &str| -> Result<(Vec<f64>, Vec<f64>)> {
                    Ok((
                        numbers(&format!("{name}.coefficient"))?,
                        numbers(&format!("{name}.bias"))?,
                    ))
                };
                (codes, Some([subsampling("s2")?, subsampling("s4")?]))
            }
        };
        // C5 has the same weights in the same order if it is a linear layer.
        let c5 = load("c5", 16, config.input.s4_size())?;
        let (c1, f6) = (load("c1", 1, 5)?, load("f6", 120, 1)?);
        Ok(Self { config, c1, c3, c5, f6, output, subsampling })
    }

    /// The settings of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns an upper bound of the absolute values that the forward pass computes for any image with pixels from 0 to 1.
    /// If it exceeds float32's range, results may be infinite or NaN.
    pub fn value_bound(&self) -> f64 {
        let ModelConfig { mean, std, .. } = self.config;
        let input = [0.0, 1.0].map(|pixel: f64| ((pixel - mean) / std).abs());
        let mut largest = 0.0_f64;
        let mut note = |value: f64| {
            // A NaN would be lost in `max`.
            largest = if value.is_nan() { f64::INFINITY } else { largest.max(value) };
            value
        };
        let activate = |sums: f64| match self.config.activation {
            Activation::Relu => sums,
            Activation::Tanh | Activation::Sigmoid | Activation::ScaledTanh => sums.min(1.7159),
        };
        let hidden = |sums: f64| match self.config.hidden_activation {
            HiddenActivation::Same => activate(sums),
            HiddenActivation::None => sums,
        };
        let mut x = note(input[0].max(input[1]));
        for (number, layer) in [&self.c1, &self.c3].into_iter().enumerate() {
            x = note(layer.sum_bound(x));
            if let Some(subsampling) = &self.subsampling {
                let (coefficient, bias) = &subsampling[number];
                let sums = coefficient.iter().zip(bias);
                let four = 4.0 * activate(x);
                let sums = sums.map(|(coefficient, bias)| coefficient.abs() * four + bias.abs());
                x = note(sums.fold(0.0, f64::max));
            }
            // The sum of the four values of a pooling window.
            note(4.0 * x);
            x = activate(x);
        }
        x = hidden(note(self.c5.sum_bound(x)));
        x = hidden(note(self.f6.sum_bound(x)));
        note(match self.config.network {
            Network::Modern => self.output.sum_bound(x),
            Network::Original => {
                let code =
                    self.output.weight.iter().fold(0.0, |most: f64, code| most.max(code.abs()));
                84.0 * (x + code).powi(2)
            }
        });
        largest
    }

    /// The outputs of all layers for one image, from c1 to output. `input` is the image as
    /// [`to_input`](crate::data::to_input) makes it, in rows of `width` values. A wider image gives a row of outputs, one for
    /// every four columns.
    ///
    /// # Errors
    /// If the image is smaller than the network's input, or has an incomplete row.
    pub fn layers<T: Real>(
        &self,
        input: &[T],
        width: usize,
    ) -> Result<Vec<(&'static str, Maps<T>)>> {
        let size = self.config.input.size();
        let height = input.len().checked_div(width).unwrap_or(0);
        if height < size || width < size || height * width != input.len() {
            return Err(Error::Config(format!(
                "expected an input of {size}x{size} or more, found {} values in rows of {width}",
                input.len()
            )));
        }
        let image = Maps { count: 1, height, width, values: input.to_vec() };
        let activate = |maps: &Maps<T>| activation(maps, self.config.activation);
        let hidden = |maps: Maps<T>| match self.config.hidden_activation {
            HiddenActivation::Same => activate(&maps),
            HiddenActivation::None => maps,
        };
        // The outputs of a convolution and of the pooling after it: c1 and s2, or c3 and s4.
        let stage = |input: &Maps<T>, layer: &Convolution, number: usize| {
            let sums = convolution(input, layer);
            match (&self.subsampling, self.config.layer_order) {
                (Some(layers), _) => {
                    let maps = activate(&sums);
                    let (coefficient, bias) = &layers[number];
                    let pooled = activate(&subsampling(&maps, coefficient, bias));
                    (maps, pooled)
                }
                (None, LayerOrder::ActivationFirst) => {
                    let maps = activate(&sums);
                    let pooled = pooling(&maps, self.config.pooling);
                    (maps, pooled)
                }
                (None, LayerOrder::PoolingFirst) => {
                    let pooled = activate(&pooling(&sums, self.config.pooling));
                    (sums, pooled)
                }
            }
        };
        let (c1, s2) = stage(&image, &self.c1, 0); // 6 x 28 x 28, 6 x 14 x 14
        let (c3, s4) = stage(&s2, &self.c3, 1); // 16 x 10 x 10, 16 x 5 x 5
        let c5 = hidden(convolution(&s4, &self.c5)); // 120 x 1 x 1
        let f6 = hidden(convolution(&c5, &self.f6)); // 84 x 1 x 1
        let output = match self.config.network {
            Network::Modern => convolution(&f6, &self.output), // classes x 1 x 1
            Network::Original => distances(&f6, &self.output.weight, self.config.rbf_scale),
        };
        Ok(vec![
            ("c1", c1),
            ("s2", s2),
            ("c3", c3),
            ("s4", s4),
            ("c5", c5),
            ("f6", f6),
            ("output", output),
        ])
    }

    /// The logits of several images: a value for each class, image after image. Each image has
    /// [`Input::size`](crate::model::Input::size) rows and columns. The images are divided among all cores.
    ///
    /// # Errors
    /// If the last image is incomplete.
    pub fn logits<T: Real>(&self, inputs: &[T]) -> Result<Vec<T>> {
        let size = self.config.input.size();
        if !inputs.len().is_multiple_of(size * size) {
            return Err(Error::Config(format!(
                "expected images of {size}x{size}, found {} values",
                inputs.len()
            )));
        }
        let logits = inputs.par_chunks(size * size).map(|input| {
            let (_, output) = self.layers(input, size)?.pop().expect("a network has an output");
            Ok(output.values)
        });
        Ok(logits.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// A convolution without padding: each output is a sum over all channels and over the rows and columns of the kernel. A linear
/// layer is a convolution whose kernels are as large as its input maps.
fn convolution<T: Real>(input: &Maps<T>, layer: &Convolution) -> Maps<T> {
    let Convolution { channels, size, weight, bias } = layer;
    let (height, width) = (input.height + 1 - size, input.width + 1 - size);
    Maps::new(bias.len(), height, width, |map, y, x| {
        let mut sum = bias[map];
        for channel in 0..*channels {
            for row in 0..*size {
                let weight = &weight[((map * channels + channel) * size + row) * size..][..*size];
                for (column, weight) in weight.iter().enumerate() {
                    sum += weight * input.at(channel, y + row, x + column);
                }
            }
        }
        sum
    })
}

/// Applies the activation to every value.
fn activation<T: Real>(maps: &Maps<T>, function: Activation) -> Maps<T> {
    maps.apply(|value| function.apply(value))
}

/// The four values in the block of 2x2 with row y and column x among the blocks of a map.
fn block<T: Real>(maps: &Maps<T>, map: usize, y: usize, x: usize) -> [f64; 4] {
    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(dy, dx)| maps.at(map, 2 * y + dy, 2 * x + dx))
}

/// The mean or the largest value of each block of 2x2. If the number of rows or columns is odd, the last one is left out, as in
/// PyTorch.
fn pooling<T: Real>(maps: &Maps<T>, pooling: Pooling) -> Maps<T> {
    Maps::new(maps.count, maps.height / 2, maps.width / 2, |map, y, x| {
        let block = block(maps, map, y, x);
        match pooling {
            Pooling::Avg => block.iter().sum::<f64>() / 4.0,
            Pooling::Max => block.into_iter().fold(f64::NEG_INFINITY, f64::max),
        }
    })
}

/// The sum of each block of 2x2, times the map's coefficient, plus its bias.
fn subsampling<T: Real>(maps: &Maps<T>, coefficient: &[f64], bias: &[f64]) -> Maps<T> {
    Maps::new(maps.count, maps.height / 2, maps.width / 2, |map, y, x| {
        coefficient[map] * block(maps, map, y, x).iter().sum::<f64>() + bias[map]
    })
}

/// The squared distances between f6 and the codes of the classes, 84 numbers each, multiplied by `-scale`.
fn distances<T: Real>(f6: &Maps<T>, codes: &[f64], scale: f64) -> Maps<T> {
    Maps::new(codes.len() / f6.count, f6.height, f6.width, |class, y, x| {
        let code = &codes[class * f6.count..][..f6.count];
        let squares =
            code.iter().enumerate().map(|(unit, code)| (f6.at(unit, y, x) - code).powi(2));
        -scale * squares.sum::<f64>()
    })
}
