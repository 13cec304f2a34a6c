//! The original LeNet-5: the network of the 1998 paper.
//!
//! | layer | operation | output | parameters |
//! |---|---|---|---|
//! | c1 | 5x5 convolution, scaled tanh | 6 x 28 x 28 | 156 |
//! | s2 | sum of 2x2, coefficient, bias, scaled tanh | 6 x 14 x 14 | 12 |
//! | c3 | 5x5 convolution of 3, 4 or 6 maps each, scaled tanh | 16 x 10 x 10 | 1,516 |
//! | s4 | sum of 2x2, coefficient, bias, scaled tanh | 16 x 5 x 5 | 32 |
//! | c5 | 5x5 convolution, scaled tanh | 120 | 48,120 |
//! | f6 | linear, scaled tanh | 84 | 10,164 |
//! | output | distances to fixed codes | 10 | |
//!
//! 60,000 trainable parameters. The scaled tanh is 1.7159 tanh(2/3 a). Pixels range from -0.1
//! (background) to 1.175.
//!
//! Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document
//! Recognition", Proc. IEEE 86(11), 1998, section II.B.

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::layers::{Layer, activate, activation_source};
use super::{Activation, C3_TABLE, ModelConfig, codes};
use crate::Result;
use crate::libtorch::to_tensor;

/// Initial weights are uniform in ± this value divided by the fan-in: the paper's section III.B.
const INITIAL_RANGE: f64 = 2.4;
/// The number of inputs of a subsampling unit.
const SUBSAMPLING_FAN_IN: f64 = 4.0;

/// The original LeNet-5.
///
/// # Shapes
/// Input (N, 1, 32, 32), output (N, classes): the squared distance of f6 from each class's code,
/// times -s, where s is [`ModelConfig::rbf_scale`]. The largest output is the prediction.
#[derive(Debug)]
pub struct Original {
    config: ModelConfig,
    c1: Layer,
    s2: Subsampling,
    c3: Layer,
    s4: Subsampling,
    c5: Layer,
    f6: Layer,
    /// The codes: (classes, 84).
    output: Tensor,
    /// The mask of c3, 1 for a connection, else 0: (16, 6, 1, 1).
    c3_mask: Tensor,
}

/// The coefficients and biases of a subsampling layer, one of each per map.
#[derive(Debug)]
struct Subsampling {
    coefficient: Tensor,
    bias: Tensor,
}

impl Original {
    /// Creates a network whose parameters are drawn under `path` in the order c1, s2, c3, s4, c5,
    /// f6; each weight or coefficient before its bias.
    ///
    /// # Errors
    /// If there are more classes than codes.
    pub fn new(path: &Path, config: &ModelConfig) -> Result<Self> {
        let weight = |name: &str, fan_in: f64| {
            Layer::within(path / name, &config.weight_shape(name), INITIAL_RANGE / fan_in)
        };
        let c1 = weight("c1", 25.0);
        let s2 = Subsampling::new(path / "s2", 6);
        let c3 = weight("c3", 1.0);
        let mask = c3_mask(path);
        {
            // Each map has its own fan-in: 75, 100 or 150. Weights without a connection are 0.
            let _no_grad = tch::no_grad_guard();
            let fan_in = mask.sum_dim_intlist([1i64].as_slice(), true, Kind::Float) * 25.0;
            let _ = c3.weight.shallow_clone().divide_(&fan_in).multiply_(&mask);
            let _ = c3.bias.shallow_clone().divide_(&fan_in.flatten(0, -1));
        }
        let s4 = Subsampling::new(path / "s4", 16);
        let (c5, f6) = (weight("c5", 400.0), weight("f6", 120.0));
        let output = Self::codes(path, config)?;
        Ok(Self { config: config.clone(), c1, s2, c3, s4, c5, f6, output, c3_mask: mask })
    }

    /// Creates a network of zeros, into which weights are loaded later. It draws no random numbers.
    ///
    /// # Errors
    /// The errors of [`Original::new`].
    pub fn uninitialised(path: &Path, config: &ModelConfig) -> Result<Self> {
        let layer = |name: &str| Layer::zeros(path / name, &config.weight_shape(name));
        Ok(Self {
            config: config.clone(),
            c1: layer("c1"),
            s2: Subsampling::zeros(path / "s2", 6),
            c3: layer("c3"),
            s4: Subsampling::zeros(path / "s4", 16),
            c5: layer("c5"),
            f6: layer("f6"),
            output: Self::codes(path, config)?,
            c3_mask: c3_mask(path),
        })
    }

    fn codes(path: &Path, config: &ModelConfig) -> Result<Tensor> {
        let codes = to_tensor(&codes(config.classes)?)?;
        let path = path / "output";
        Ok(if config.train_rbf {
            path.var_copy("weight", &codes)
        } else {
            let mut output = path.zeros_no_train("weight", &codes.size());
            output.copy_(&codes);
            output
        })
    }

    /// Returns the settings of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns all tensors in the order of [`ModelConfig::state`].
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        vec![
            &self.c1.weight,
            &self.c1.bias,
            &self.s2.coefficient,
            &self.s2.bias,
            &self.c3.weight,
            &self.c3.bias,
            &self.s4.coefficient,
            &self.s4.bias,
            &self.c5.weight,
            &self.c5.bias,
            &self.f6.weight,
            &self.f6.bias,
            &self.output,
        ]
    }

    /// Runs the forward pass. `see` is called with each layer's name and outputs, except for the
    /// last layer's.
    pub(super) fn run(&self, x: &Tensor, see: &mut dyn FnMut(&'static str, &Tensor)) -> Tensor {
        let scaled_tanh = |x: &Tensor| activate(Activation::ScaledTanh, x);
        let mask = self.c3_mask.to_device(x.device());
        let x = scaled_tanh(&self.c1.convolve(x)); // (N, 6, 28, 28)
        see("c1", &x);
        let x = scaled_tanh(&self.s2.forward(&x)); // (N, 6, 14, 14)
        see("s2", &x);
        let weight = &self.c3.weight * mask;
        let x = scaled_tanh(&x.conv2d(&weight, Some(&self.c3.bias), 1, 0, 1, 1)); // (N, 16, 10, 10)
        see("c3", &x);
        let x = scaled_tanh(&self.s4.forward(&x)); // (N, 16, 5, 5)
        see("s4", &x);
        let x = scaled_tanh(&self.c5.convolve(&x)).flatten(1, -1); // (N, 120)
        see("c5", &x);
        let x = scaled_tanh(&self.f6.linear(&x)); // (N, 84), near the code of the right class
        see("f6", &x);
        let differences = x.unsqueeze(1) - &self.output; // (N, classes, 84)
        let distances =
            differences.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        distances * -self.config.rbf_scale // (N, classes)
    }
}

impl Subsampling {
    fn new(path: Path, maps: i64) -> Self {
        let bound = INITIAL_RANGE / SUBSAMPLING_FAN_IN;
        let init = Init::Uniform { lo: -bound, up: bound };
        Self {
            coefficient: path.var("coefficient", &[maps], init),
            bias: path.var("bias", &[maps], init),
        }
    }

    fn zeros(path: Path, maps: i64) -> Self {
        Self { coefficient: path.zeros("coefficient", &[maps]), bias: path.zeros("bias", &[maps]) }
    }

    /// Multiplies the sum of each 2x2 block by the coefficient and adds the bias: (N, C, H, W) ->
    /// (N, C, H/2, W/2).
    fn forward(&self, x: &Tensor) -> Tensor {
        let sums = x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, Some(1));
        sums * self.coefficient.reshape([-1, 1, 1]) + self.bias.reshape([-1, 1, 1])
    }
}

/// Returns the mask of c3, 1 for a connection, else 0: (16, 6, 1, 1).
fn c3_mask(path: &Path) -> Tensor {
    let rows = C3_TABLE.iter().flat_map(|maps| (0..6).map(|map| f32::from(maps.contains(&map))));
    Tensor::from_slice(&rows.collect::<Vec<_>>()).reshape([16, 6, 1, 1]).to_device(path.device())
}

/// Returns the forward pass as TorchScript source, for files that Python runs.
pub fn torchscript_source(config: &ModelConfig) -> String {
    let scaled_tanh = |x: &str| activation_source(Activation::ScaledTanh, x);
    let subsample = |layer: &str| {
        let sums = "torch.avg_pool2d(x, [2, 2], [2, 2], [0, 0], False, True, 1)";
        let part = |name: &str| format!("self.{layer}.{name}.reshape([-1, 1, 1])");
        scaled_tanh(&format!("({sums} * {} + {})", part("coefficient"), part("bias")))
    };
    let rows: Vec<_> = C3_TABLE
        .iter()
        .map(|maps| {
            let row: Vec<_> =
                (0..6).map(|map| if maps.contains(&map) { "1.0" } else { "0.0" }).collect();
            format!("[{}]", row.join(", "))
        })
        .collect();
    let c1 = scaled_tanh("torch.conv2d(x, self.c1.weight, self.c1.bias)");
    let c3 = scaled_tanh("torch.conv2d(x, self.c3.weight * mask, self.c3.bias)");
    let c5 = scaled_tanh("torch.conv2d(x, self.c5.weight, self.c5.bias)");
    let f6 = scaled_tanh("torch.linear(x, self.f6.weight, self.f6.bias)");
    format!(
        "def forward(self, x: Tensor) -> Tensor:
    table = [{table}]
    mask = torch.tensor(table, dtype=x.dtype, device=x.device).reshape([16, 6, 1, 1])
    x = {c1}
    x = {s2}
    x = {c3}
    x = {s4}
    x = torch.flatten({c5}, 1)
    x = {f6}
    distances = torch.square(x.unsqueeze(1) - self.output.weight).sum(-1)
    return distances * {scale:?}
",
        table = rows.join(", "),
        s2 = subsample("s2"),
        s4 = subsample("s4"),
        scale = -config.rbf_scale,
    )
}
