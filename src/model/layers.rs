//! A layer with a weight and a bias, initialised as PyTorch does; activations and pooling.

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::libtorch::sizes;
use crate::model::{Activation, Pooling};

/// The weight and bias of a convolution or of a linear layer.
#[derive(Debug)]
pub struct Layer {
    /// (out, in, height, width) of a convolution, (out, in) of a linear layer.
    pub weight: Tensor,
    /// (out).
    pub bias: Tensor,
}

impl Layer {
    /// Draws the weight, then the bias, from the device's global generator: uniform in
    /// ±1/sqrt(fan_in), as `torch.nn.Conv2d` and `torch.nn.Linear` do.
    pub fn new(path: Path, shape: &[usize]) -> Self {
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        let (weight, bias) = (weight_bound(fan_in), 1.0 / fan_in.sqrt());
        let shape = sizes(shape);
        Self {
            weight: path.var("weight", &shape, Init::Uniform { lo: -weight, up: weight }),
            bias: path.var("bias", &shape[..1], Init::Uniform { lo: -bias, up: bias }),
        }
    }

    /// Draws the weight, then the bias, uniform in ±`bound`.
    pub fn within(path: Path, shape: &[usize], bound: f64) -> Self {
        let (init, shape) = (Init::Uniform { lo: -bound, up: bound }, sizes(shape));
        Self { weight: path.var("weight", &shape, init), bias: path.var("bias", &shape[..1], init) }
    }

    /// Creates a layer of zeros, which are overwritten later.
    pub fn zeros(path: Path, shape: &[usize]) -> Self {
        let shape = sizes(shape);
        Self { weight: path.zeros("weight", &shape), bias: path.zeros("bias", &shape[..1]) }
    }

    /// Applies the convolution without padding: (N, in, H, W) -> (N, out, H - 4, W - 4) for a 5x5
    /// kernel.
    pub fn convolve(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), 1, 0, 1, 1)
    }

    /// Applies the linear layer, `x weightᵀ + bias`: (N, in) -> (N, out).
    pub fn linear(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// The bound of PyTorch's `kaiming_uniform_(a=sqrt(5))`, with the same operations in the same
/// order: 1/sqrt(fan_in) except for the last bits.
fn weight_bound(fan_in: f64) -> f64 {
    let gain = (2.0 / (1.0 + 5f64.sqrt().powi(2))).sqrt();
    3f64.sqrt() * (gain / fan_in.sqrt())
}

/// Copies `source` into a parameter without recording it for autograd.
pub(super) fn assign(parameter: &Tensor, source: &Tensor) -> Result<(), tch::TchError> {
    let _no_grad = tch::no_grad_guard();
    parameter.shallow_clone().f_copy_(&source.to_kind(Kind::Float))
}

/// The amplitude of the scaled tanh, and the factor of its argument.
const SCALED_TANH: (f64, f64) = (1.7159, 2.0 / 3.0);

/// Applies an activation, element by element.
pub fn activate(activation: Activation, x: &Tensor) -> Tensor {
    match activation {
        Activation::Tanh => x.tanh(),
        Activation::Relu => x.relu(),
        Activation::Sigmoid => x.sigmoid(),
        Activation::ScaledTanh => (x * SCALED_TANH.1).tanh() * SCALED_TANH.0,
    }
}

/// Halves height and width: (N, C, H, W) -> (N, C, H / 2, W / 2).
pub fn pool(pooling: Pooling, x: &Tensor) -> Tensor {
    match pooling {
        Pooling::Avg => x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
        Pooling::Max => x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
    }
}

/// Returns TorchScript source that applies the activation to the expression `x`.
pub fn activation_source(activation: Activation, x: &str) -> String {
    match activation {
        Activation::Tanh => format!("torch.tanh({x})"),
        Activation::Relu => format!("torch.relu({x})"),
        Activation::Sigmoid => format!("torch.sigmoid({x})"),
        Activation::ScaledTanh => {
            format!("torch.tanh({x} * {:?}) * {}", SCALED_TANH.1, SCALED_TANH.0)
        }
    }
}

/// Returns TorchScript source that applies the pooling to the expression `x`.
pub fn pooling_source(pooling: Pooling, x: &str) -> String {
    let name = match pooling {
        Pooling::Avg => "avg_pool2d",
        Pooling::Max => "max_pool2d",
    };
    format!("torch.{name}({x}, [2, 2])")
}
