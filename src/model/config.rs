//! Which LeNet-5: the choices in which the LeNet-5s found in the wild differ.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{Error, Result};

/// The layers in order. Each holds `weight` and `bias`; s2 and s4 (pooling) hold nothing.
pub const LAYERS: [&str; 5] = ["c1", "c3", "c5", "f6", "output"];

/// The activation after c1, c3, c5 and f6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Hyperbolic tangent.
    #[default]
    Tanh,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

/// The pooling in s2 and s4, over 2x2 blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of the block.
    #[default]
    Avg,
    /// The largest of the block.
    Max,
}

/// How c5 holds its 48,120 parameters. Both forms compute the same sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum C5 {
    /// A 5x5 convolution, 16 -> 120 maps, as in the paper; weight (120, 16, 5, 5).
    #[default]
    Convolution,
    /// `flatten`, then a linear layer 400 -> 120; weight (120, 400).
    Linear,
}

/// The network's settings. They are stored in every file of weights that this crate writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Activation after each layer but the last.
    pub activation: Activation,
    /// Pooling in s2 and s4.
    pub pooling: Pooling,
    /// Form of c5.
    pub c5: C5,
    /// Number of classes, 2 to 1,000.
    pub classes: i64,
    /// Subtracted from the pixels, which are 0..1 (padding included).
    pub mean: f64,
    /// What the pixels are divided by after that.
    pub std: f64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            activation: Activation::default(),
            pooling: Pooling::default(),
            c5: C5::default(),
            classes: 10,
            mean: 0.0,
            std: 1.0,
        }
    }
}

impl ModelConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        if !(2..=1000).contains(&self.classes) {
            return Err(Error::Config(format!(
                "classes: expected 2 to 1000, found {}",
                self.classes
            )));
        }
        if !self.mean.is_finite() {
            return Err(Error::Config(format!(
                "mean: expected a finite number, found {}",
                self.mean
            )));
        }
        if !(self.std.is_finite() && self.std > 0.0) {
            return Err(Error::Config(format!(
                "std: expected a positive number, found {}",
                self.std
            )));
        }
        Ok(())
    }

    /// Shape of a layer's weight; the bias has its first dimension.
    ///
    /// # Panics
    /// Where `layer` is none of [`LAYERS`].
    pub fn weight_shape(&self, layer: &str) -> Vec<i64> {
        match (layer, self.c5) {
            ("c1", _) => vec![6, 1, 5, 5],
            ("c3", _) => vec![16, 6, 5, 5],
            ("c5", C5::Convolution) => vec![120, 16, 5, 5],
            ("c5", C5::Linear) => vec![120, 400],
            ("f6", _) => vec![84, 120],
            ("output", _) => vec![self.classes, 84],
            _ => panic!("no layer {layer}"),
        }
    }

    /// Names and shapes of all parameters, in the order in which they are drawn and stored.
    pub fn parameters(&self) -> Vec<(String, Vec<i64>)> {
        LAYERS
            .iter()
            .flat_map(|layer| {
                let shape = self.weight_shape(layer);
                let bias = vec![shape[0]];
                [(format!("{layer}.weight"), shape), (format!("{layer}.bias"), bias)]
            })
            .collect()
    }
}

impl Activation {
    /// Applies the function, element by element.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Self::Tanh => x.tanh(),
            Self::Relu => x.relu(),
            Self::Sigmoid => x.sigmoid(),
        }
    }

    /// The function's name in `torch`.
    pub(crate) fn torch_name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
        }
    }
}

impl Pooling {
    /// Halves height and width: (N, C, H, W) -> (N, C, H / 2, W / 2).
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Self::Avg => x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
            Self::Max => x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
        }
    }

    /// The function's name in TorchScript.
    pub(crate) fn torch_name(self) -> &'static str {
        match self {
            Self::Avg => "avg_pool2d",
            Self::Max => "max_pool2d",
        }
    }
}
