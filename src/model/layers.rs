//! A layer with a weight and a bias, initialised as PyTorch does.

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// `weight` and `bias` of a convolution or of a linear layer.
#[derive(Debug)]
pub struct Layer {
    /// (out, in, height, width) of a convolution, (out, in) of a linear layer.
    pub weight: Tensor,
    /// (out).
    pub bias: Tensor,
}

impl Layer {
    /// Draws weight, then bias, from the device's global generator: uniform in ±1/sqrt(fan_in),
    /// as `torch.nn.Conv2d` and `torch.nn.Linear` do.
    pub fn new(path: Path, shape: &[i64]) -> Self {
        let fan_in: i64 = shape[1..].iter().product();
        let (weight, bias) = (weight_bound(fan_in), 1.0 / (fan_in as f64).sqrt());
        Self {
            weight: path.var("weight", shape, Init::Uniform { lo: -weight, up: weight }),
            bias: path.var("bias", &shape[..1], Init::Uniform { lo: -bias, up: bias }),
        }
    }

    /// Draws weight, then bias, uniform in ±`bound`.
    pub fn within(path: Path, shape: &[i64], bound: f64) -> Self {
        let init = Init::Uniform { lo: -bound, up: bound };
        Self { weight: path.var("weight", shape, init), bias: path.var("bias", &shape[..1], init) }
    }

    /// Zeros, to be overwritten.
    pub fn zeros(path: Path, shape: &[i64]) -> Self {
        Self { weight: path.zeros("weight", shape), bias: path.zeros("bias", &shape[..1]) }
    }

    /// Convolution without padding: (N, in, H, W) -> (N, out, H - 4, W - 4) for a 5x5 kernel.
    pub fn convolve(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), 1, 0, 1, 1)
    }

    /// `x weightᵀ + bias`: (N, in) -> (N, out).
    pub fn linear(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// PyTorch's `kaiming_uniform_(a=sqrt(5))`, its operations in its order: 1/sqrt(fan_in) but for the
/// last bits.
fn weight_bound(fan_in: i64) -> f64 {
    let gain = (2.0 / (1.0 + 5f64.sqrt().powi(2))).sqrt();
    3f64.sqrt() * (gain / (fan_in as f64).sqrt())
}

/// Copies `source` into a parameter, without autograd's knowledge.
pub(super) fn assign(parameter: &Tensor, source: &Tensor) -> Result<(), tch::TchError> {
    let _no_grad = tch::no_grad_guard();
    parameter.shallow_clone().f_copy_(&source.to_kind(Kind::Float))
}
