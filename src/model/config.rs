//! Which LeNet-5: the choices in which the LeNet-5s found in the wild differ.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::number;
use crate::{Error, Result};

/// The two networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// As PyTorch users write it today: 61,706 parameters.
    #[default]
    Modern,
    /// As the paper of 1998 has it: 60,000 parameters.
    Original,
}

/// The activation after c1, c3, c5 and f6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Hyperbolic tangent.
    #[default]
    Tanh,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// 1.7159 tanh(2/3 x), the paper's.
    ScaledTanh,
}

/// Amplitude of the paper's activation; its appendix A.
const SCALED_TANH_AMPLITUDE: f64 = 1.7159;
/// Its slope at the origin, over the amplitude.
const SCALED_TANH_SLOPE: f64 = 2.0 / 3.0;

/// The pooling in s2 and s4, over 2x2 blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean of the block.
    #[default]
    Avg,
    /// The largest of the block.
    Max,
}

/// How c5 holds its parameters. Both forms compute the same sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum C5 {
    /// A convolution over the whole of s4, 16 -> 120 maps, as in the paper; weight (120, 16, 5, 5).
    #[default]
    Convolution,
    /// `flatten`, then a linear layer; weight (120, 400).
    Linear,
}

/// How an image of 28x28 pixels becomes the network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Padded with background to 32x32, then normalised: `Pad(2)` before `Normalize`.
    #[default]
    Padded,
    /// Normalised, then padded with zeros to 32x32: `Conv2d(1, 6, 5, padding=2)`. Another input
    /// than `padded` where the mean is not 0.
    ZeroPadded,
    /// Scaled to 32x32 as `torchvision.transforms.Resize` does with a picture, then normalised.
    Resized,
    /// 28x28 as it is. s4 is then 4x4, and c5 has 16 x 4 x 4 inputs a unit.
    Unpadded,
}

/// The network's settings. They are stored in every file of weights that this crate writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Which of the two networks; what is said of activation, pooling and c5 is the modern one's.
    #[serde(skip_serializing_if = "Network::is_modern")]
    pub network: Network,
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
    /// How an image becomes the input.
    pub input: Input,
    /// Of the original network: what the squared distances from the codes are multiplied by.
    #[serde(skip_serializing_if = "is_default_scale")]
    pub rbf_scale: f64,
    /// Of the original network: whether the codes are trained.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub train_rbf: bool,
}

/// Chosen on 10,000 of the training images, among 1/84 to 0.05. Of the sum itself, which is 1, training by the
/// paper's rates diverges.
const RBF_SCALE: f64 = 0.025;

fn is_default_scale(scale: &f64) -> bool {
    *scale == RBF_SCALE
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
            input: Input::default(),
            network: Network::default(),
            rbf_scale: RBF_SCALE,
            train_rbf: false,
        }
    }
}

impl Network {
    fn is_modern(&self) -> bool {
        *self == Self::Modern
    }
}

impl ModelConfig {
    /// The original network. Its pixels are -0.1 (background) to 1.175 (ink).
    pub fn original() -> Self {
        Self {
            network: Network::Original,
            activation: Activation::ScaledTanh,
            mean: 0.1 / 1.275,
            std: 1.0 / 1.275,
            ..Self::default()
        }
    }

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
        // In float32, as it is used.
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
        let Self { activation, pooling, c5, input, .. } = self;
        let fits = *activation == Activation::ScaledTanh
            && *pooling == Pooling::default()
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

    /// Shape of a layer's weight; the bias has its first dimension.
    ///
    /// # Panics
    /// Where no layer of that name has a weight.
    pub fn weight_shape(&self, layer: &str) -> Vec<i64> {
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

    /// Names and shapes of all tensors, in the order in which they are drawn and stored.
    pub fn state(&self) -> Vec<(String, Vec<i64>)> {
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

    /// Whether a tensor of [`ModelConfig::state`] is not trained: the codes, unless they are.
    pub fn is_fixed(&self, name: &str) -> bool {
        self.network == Network::Original && name == "output.weight" && !self.train_rbf
    }
}

/// The settings that shapes do not tell, as options of a command; those not given stay as they are.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct ModelOptions {
    /// Activation [default: as the file says, else tanh]
    #[arg(long)]
    pub activation: Option<Activation>,
    /// Pooling in s2 and s4 [default: as the file says, else avg]
    #[arg(long)]
    pub pooling: Option<Pooling>,
    /// How a 28x28 image becomes the input [default: as the file says, else padded]
    #[arg(long)]
    pub input: Option<Input>,
    /// Subtracted from the pixels, which are 0..1 [default: as the file says, else 0]
    #[arg(long, value_name = "X")]
    pub mean: Option<f64>,
    /// Divides the pixels after that [default: as the file says, else 1]
    #[arg(long, value_name = "X")]
    pub std: Option<f64>,
}

impl ModelOptions {
    /// All options, as the settings have them.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            activation: Some(config.activation),
            pooling: Some(config.pooling),
            input: Some(config.input),
            mean: Some(config.mean),
            std: Some(config.std),
        }
    }

    /// Replaces what is given.
    pub fn apply(&self, config: &mut ModelConfig) {
        config.activation = self.activation.unwrap_or(config.activation);
        config.pooling = self.pooling.unwrap_or(config.pooling);
        config.input = self.input.unwrap_or(config.input);
        config.mean = self.mean.unwrap_or(config.mean);
        config.std = self.std.unwrap_or(config.std);
    }
}

/// The options as they are typed: `--activation relu --pooling max`.
impl fmt::Display for ModelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn option<T: fmt::Display>(name: &str, value: Option<T>) -> Option<String> {
            value.map(|value| format!("--{name} {value}"))
        }
        let options = [
            option("activation", self.activation),
            option("pooling", self.pooling),
            option("input", self.input),
            option("mean", self.mean),
            option("std", self.std),
        ];
        f.write_str(&options.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// What shapes do not tell: "tanh activation, avg pooling, padded input, mean 0, std 1".
impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { activation, pooling, mean, std, input, .. } = self;
        if self.network == Network::Original {
            return write!(f, "the network of 1998, {input} input, mean {mean}, std {std}");
        }
        write!(
            f,
            "{activation} activation, {pooling} pooling, {input} input, mean {mean}, std {std}"
        )
    }
}

/// The names of the command line, which are those of the files too.
macro_rules! display_value_name {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().expect("no value is skipped").get_name())
            }
        }
    )*};
}
display_value_name!(Activation, Pooling, C5, Input, Network);

impl Input {
    /// Height and width of the network's input: 32, or 28 without padding.
    pub fn size(self) -> i64 {
        match self {
            Self::Padded | Self::ZeroPadded | Self::Resized => 32,
            Self::Unpadded => 28,
        }
    }

    /// Height and width of s4's maps: 5, or 4 without padding.
    pub(crate) fn s4_size(self) -> i64 {
        ((self.size() - 4) / 2 - 4) / 2
    }
}

impl Activation {
    /// Applies the function, element by element.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Self::Tanh => x.tanh(),
            Self::Relu => x.relu(),
            Self::Sigmoid => x.sigmoid(),
            Self::ScaledTanh => (x * SCALED_TANH_SLOPE).tanh() * SCALED_TANH_AMPLITUDE,
        }
    }

    /// The same in TorchScript, of the expression `x`.
    pub(crate) fn torchscript(self, x: &str) -> String {
        match self {
            Self::Tanh => format!("torch.tanh({x})"),
            Self::Relu => format!("torch.relu({x})"),
            Self::Sigmoid => format!("torch.sigmoid({x})"),
            Self::ScaledTanh => {
                format!("torch.tanh({x} * {SCALED_TANH_SLOPE:?}) * {SCALED_TANH_AMPLITUDE}")
            }
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
