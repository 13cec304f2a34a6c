//! The settings of the LeNet-5 networks that are in use.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::choices;
use crate::error::number;
use crate::{Error, Result};

/// The two networks that this crate knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The network as PyTorch users write it today: 61,706 parameters.
    #[default]
    Modern,
    /// The network of the paper of 1998: 60,000 parameters.
    Original,
}

/// The activation function after c1, c3, c5 and f6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Hyperbolic tangent.
    #[default]
    Tanh,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// 1.7159 tanh(2/3 x), as in the paper.
    ScaledTanh,
}

/// The amplitude of the paper's activation function; see its appendix A.
const SCALED_TANH_AMPLITUDE: f64 = 1.7159;
/// The slope of that function at the origin, divided by the amplitude.
const SCALED_TANH_SLOPE: f64 = 2.0 / 3.0;

/// The pooling in s2 and s4 over blocks of 2x2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean of the block.
    #[default]
    Avg,
    /// The largest value of the block.
    Max,
}

/// Whether the activation comes before or after the pooling in s2 and s4. Networks of both forms are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerOrder {
    /// Convolution, activation, pooling.
    #[default]
    ActivationFirst,
    /// Convolution, pooling, activation.
    PoolingFirst,
}

/// Whether c5 and f6 have an activation function, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HiddenActivation {
    /// The same activation as after c1 and c3.
    #[default]
    Same,
    /// No activation: c5, f6 and output are linear.
    None,
}

/// The form of c5's parameters. Both forms compute the same sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum C5 {
    /// A convolution over the whole of s4 from 16 to 120 maps, as in the paper; weight (120, 16, 5,
    /// 5).
    #[default]
    Convolution,
    /// `flatten`, then a linear layer; weight (120, 400).
    Linear,
}

/// The conversion of 28x28 images to the network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Padded with background to 32x32, then normalised: `Pad(2)` before `Normalize`.
    #[default]
    Padded,
    /// Normalised, then padded with zeros to 32x32: `Conv2d(1, 6, 5, padding=2)`. This differs from
    /// `Padded` if the mean is not 0.
    ZeroPadded,
    /// Scaled to 32x32 as `torchvision.transforms.Resize` does with a picture, then normalised.
    Resized,
    /// 28x28 without padding. s4 is then 4x4, and each unit of c5 has 16 x 4 x 4 inputs.
    Unpadded,
}

/// The settings of a network. They are stored in every file of weights that this crate writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The network. The settings for activation, pooling and c5 only apply to the modern one.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Network,
    /// The activation function after each layer except the last.
    pub activation: Activation,
    /// The pooling in s2 and s4.
    pub pooling: Pooling,
    /// Whether the activation comes before or after the pooling.
    #[serde(skip_serializing_if = "is_default")]
    pub layer_order: LayerOrder,
    /// The activation of c5 and f6.
    #[serde(skip_serializing_if = "is_default")]
    pub hidden_activation: HiddenActivation,
    /// The form of c5's parameters.
    pub c5: C5,
    /// The number of classes, 2 to 1,000.
    pub classes: usize,
    /// The mean, which is subtracted from the pixels. They range from 0 to 1.
    pub mean: f64,
    /// The standard deviation, by which the pixels are divided after that.
    pub std: f64,
    /// The conversion of images to the input.
    pub input: Input,
    /// The factor of the squared distances from the codes; only for the original network.
    #[serde(skip_serializing_if = "is_default_scale")]
    pub rbf_scale: f64,
    /// Whether the codes are trained; only for the original network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub train_rbf: bool,
}

/// The default of `rbf_scale`, the best of several values from 1/84 to 0.05 for 10,000 images of
/// the training set. With the plain sum, a factor of 1, training at the paper's learning rates
/// diverges.
const RBF_SCALE: f64 = 0.025;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_default_scale(scale: &f64) -> bool {
    *scale == RBF_SCALE
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            activation: Activation::default(),
            pooling: Pooling::default(),
            layer_order: LayerOrder::default(),
            hidden_activation: HiddenActivation::default(),
            c5: C5::default(),
            classes: 10,
            mean: 0.0,
            std: 1.0,
            input: Input::default(),
            network: Network::default(),
            rbf_scale: RBF_SCALE,
            train_rbf: false,
        }
    }
}

impl ModelConfig {
    /// Returns the settings of the original network. Its pixels are -0.1 for background to 1.175
    /// for ink.
    pub fn original() -> Self {
        Self {
            network: Network::Original,
            activation: Activation::ScaledTanh,
            mean: 0.1 / 1.275,
            std: 1.0 / 1.275,
            ..Self::default()
        }
    }

    /// Checks that all settings are within their ranges.
    ///
    /// # Errors
    /// If a setting is out of its range; the message names the first one.
    pub fn validate(&self) -> Result<()> {
        if !(2..=1000).contains(&self.classes) {
            return Err(Error::Config(format!(
                "classes: expected 2 to 1000, found {}",
                self.classes
            )));
        }
        // The network uses the scale in float32.
        let scale = self.rbf_scale as f32;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::Config(format!(
                "rbf-scale: expected a positive number, found {}",
                number(self.rbf_scale)
            )));
        }
        if self.network == Network::Original {
            self.validate_original()?;
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
        let pixel = |value: f64| ((value - self.mean) / self.std) as f32;
        if !(pixel(0.0).is_finite() && pixel(1.0).is_finite()) {
            return Err(Error::Config(format!(
                "mean and std: expected finite pixels, found mean {:e} and std {:e}",
                self.mean, self.std
            )));
        }
        Ok(())
    }

    fn validate_original(&self) -> Result<()> {
        let _ = super::codes::codes(self.classes)?;
        let Self { activation, pooling, layer_order, hidden_activation, c5, input, .. } = self;
        let fits = *activation == Activation::ScaledTanh
            && *pooling == Pooling::default()
            && *layer_order == LayerOrder::default()
            && *hidden_activation == HiddenActivation::default()
            && *c5 == C5::default()
            && input.size() == 32;
        match fits {
            true => Ok(()),
            false => Err(Error::Config(
                "the network of 1998 has its own activation, sub-sampling and c5, and takes 32x32 pixels"
                    .to_owned(),
            )),
        }
    }

    /// Returns the shape of a layer's weight. The bias has its first dimension.
    ///
    /// # Panics
    /// If there is no layer of this name with a weight.
    pub fn weight_shape(&self, layer: &str) -> Vec<usize> {
        let side = self.input.s4_size();
        match (layer, self.c5) {
            ("c1", _) => vec![6, 1, 5, 5],
            ("c3", _) => vec![16, 6, 5, 5],
            ("c5", C5::Convolution) => vec![120, 16, side, side],
            ("c5", C5::Linear) => vec![120, 16 * side * side],
            ("f6", _) => vec![84, 120],
            ("output", _) => vec![self.classes, 84],
            _ => panic!("no layer {layer}"),
        }
    }

    /// Returns the names and shapes of all tensors, in the order in which they are initialised and
    /// stored.
    pub fn state(&self) -> Vec<(String, Vec<usize>)> {
        let weight_and_bias = |layer: &str| {
            let shape = self.weight_shape(layer);
            let bias = vec![shape[0]];
            vec![(format!("{layer}.weight"), shape), (format!("{layer}.bias"), bias)]
        };
        let subsampling = |layer: &str, maps| {
            let names = ["coefficient", "bias"];
            names.map(|name| (format!("{layer}.{name}"), vec![maps])).to_vec()
        };
        match self.network {
            Network::Modern => ["c1", "c3", "c5", "f6", "output"].map(weight_and_bias).concat(),
            Network::Original => [
                weight_and_bias("c1"),
                subsampling("s2", 6),
                weight_and_bias("c3"),
                subsampling("s4", 16),
                weight_and_bias("c5"),
                weight_and_bias("f6"),
                vec![("output.weight".to_owned(), self.weight_shape("output"))],
            ]
            .concat(),
        }
    }

    /// Returns whether a tensor of [`ModelConfig::state`] is not trained. That is true of the
    /// codes, unless `train_rbf` is set.
    pub fn is_fixed(&self, name: &str) -> bool {
        self.network == Network::Original && name == "output.weight" && !self.train_rbf
    }
}

/// Replacements for the settings that shapes do not determine. A setting that is `None` remains as
/// it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelOptions {
    /// The activation function.
    pub activation: Option<Activation>,
    /// The pooling in s2 and s4.
    pub pooling: Option<Pooling>,
    /// Whether the activation comes before or after the pooling.
    pub layer_order: Option<LayerOrder>,
    /// The activation of c5 and f6.
    pub hidden_activation: Option<HiddenActivation>,
    /// The conversion of 28x28 images to the input.
    pub input: Option<Input>,
    /// The mean, which is subtracted from the pixels.
    pub mean: Option<f64>,
    /// The standard deviation, by which the pixels are divided after that.
    pub std: Option<f64>,
}

impl ModelOptions {
    /// Creates options with the values of these settings.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            activation: Some(config.activation),
            pooling: Some(config.pooling),
            layer_order: Some(config.layer_order),
            hidden_activation: Some(config.hidden_activation),
            input: Some(config.input),
            mean: Some(config.mean),
            std: Some(config.std),
        }
    }

    /// Replaces the settings that have a value here.
    pub fn apply(&self, config: &mut ModelConfig) {
        config.activation = self.activation.unwrap_or(config.activation);
        config.pooling = self.pooling.unwrap_or(config.pooling);
        config.layer_order = self.layer_order.unwrap_or(config.layer_order);
        config.hidden_activation = self.hidden_activation.unwrap_or(config.hidden_activation);
        config.input = self.input.unwrap_or(config.input);
        config.mean = self.mean.unwrap_or(config.mean);
        config.std = self.std.unwrap_or(config.std);
    }
}

/// Formats the options as on the command line: `--activation relu --pooling max`. The defaults of
/// layer order and hidden activation are left out.
impl fmt::Display for ModelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn option<T: fmt::Display>(name: &str, value: Option<T>) -> Option<String> {
            value.map(|value| format!("--{name} {value}"))
        }
        let options = [
            option("activation", self.activation),
            option("pooling", self.pooling),
            option("layer-order", self.layer_order.filter(|order| !is_default(order))),
            option(
                "hidden-activation",
                self.hidden_activation.filter(|hidden| !is_default(hidden)),
            ),
            option("input", self.input),
            option("mean", self.mean),
            option("std", self.std),
        ];
        f.write_str(&options.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// Formats the settings that shapes do not determine: "tanh activation, avg pooling, padded input,
/// mean 0, std 1".
impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { activation, pooling, mean, std, input, .. } = self;
        if self.network == Network::Original {
            return write!(f, "the network of 1998, {input} input, mean {mean}, std {std}");
        }
        write!(f, "{activation} activation, {pooling} pooling, ")?;
        if self.layer_order == LayerOrder::PoolingFirst {
            f.write_str("pooling first, ")?;
        }
        if self.hidden_activation == HiddenActivation::None {
            f.write_str("no activation after c5 and f6, ")?;
        }
        write!(f, "{input} input, mean {mean}, std {std}")
    }
}

choices!(Network {
    Modern = "modern": "As PyTorch users write it today: 61,706 parameters",
    Original = "original": "As the paper of 1998 has it: 60,000 parameters",
});
choices!(Activation {
    Tanh = "tanh": "Hyperbolic tangent",
    Relu = "relu": "max(x, 0)",
    Sigmoid = "sigmoid": "1 / (1 + exp(-x))",
    ScaledTanh = "scaled-tanh": "1.7159 tanh(2/3 x), the paper's",
});
choices!(Pooling {
    Avg = "avg": "The mean of each 2x2 block",
    Max = "max": "The largest value of each 2x2 block",
});
choices!(C5 {
    Convolution = "convolution": "A convolution over the whole of s4; weight (120, 16, 5, 5)",
    Linear = "linear": "flatten, then a linear layer; weight (120, 400)",
});
choices!(Input {
    Padded = "padded": "Padded with background to 32x32, then normalised: Pad(2) before Normalize",
    ZeroPadded = "zero-padded": "Normalised, then padded with zeros to 32x32: Conv2d(1, 6, 5, padding=2)",
    Resized = "resized": "Scaled to 32x32 as torchvision.transforms.Resize does, then normalised",
    Unpadded = "unpadded": "28x28 as it is; s4 is then 4x4",
});
choices!(LayerOrder {
    ActivationFirst = "activation-first": "c1 and c3, activation, pooling",
    PoolingFirst = "pooling-first": "c1 and c3, pooling, activation",
});
choices!(HiddenActivation {
    Same = "same": "The activation follows c5 and f6 too",
    None = "none": "c5 and f6 have no activation",
});

impl Input {
    /// Returns the height and width of the network's input: 32, or 28 without padding.
    pub fn size(self) -> usize {
        match self {
            Self::Padded | Self::ZeroPadded | Self::Resized => 32,
            Self::Unpadded => 28,
        }
    }

    /// The height and width of s4's maps: 5, or 4 without padding.
    pub(crate) fn s4_size(self) -> usize {
        ((self.size() - 4) / 2 - 4) / 2
    }
}

impl Activation {
    /// Returns the value of the function at `x`.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::ScaledTanh => SCALED_TANH_AMPLITUDE * (SCALED_TANH_SLOPE * x).tanh(),
        }
    }
}
