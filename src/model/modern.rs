//! The modern LeNet-5: the network as it is usually written in PyTorch.
//!
//! | layer | operation | output | parameters |
//! |---|---|---|---|
//! | c1 | 5x5 convolution, tanh | 6 x 28 x 28 | 156 |
//! | s2 | 2x2 average | 6 x 14 x 14 | |
//! | c3 | 5x5 convolution, tanh | 16 x 10 x 10 | 2,416 |
//! | s4 | 2x2 average | 16 x 5 x 5 | |
//! | c5 | 5x5 convolution, tanh | 120 | 48,120 |
//! | f6 | linear, tanh | 84 | 10,164 |
//! | output | linear | 10 logits | 850 |
//!
//! 61,706 parameters. Names and sizes are those of LeCun, Bottou, Bengio, Haffner, "Gradient-Based
//! Learning Applied to Document Recognition", Proc. IEEE 86(11), 1998. The network differs from the
//! paper's in s2 and s4 (no trainable coefficients), c3 (all maps connected), the activation (plain
//! tanh) and the output (linear, for softmax cross-entropy).

use tch::Tensor;
use tch::nn::Path;

use super::layers::{Layer, activate, activation_source, pool, pooling_source};
use super::{C5, HiddenActivation, LayerOrder, ModelConfig};

/// The modern LeNet-5.
///
/// # Shapes
/// Input (N, 1, 32, 32), or (N, 1, 28, 28) with [`Input::Unpadded`](super::Input::Unpadded); output
/// (N, classes): logits.
#[derive(Debug)]
pub struct Modern {
    config: ModelConfig,
    c1: Layer,
    c3: Layer,
    c5: Layer,
    f6: Layer,
    output: Layer,
}

impl Modern {
    /// Creates a network whose parameters are drawn under `path` in the order c1, c3, c5, f6,
    /// output; each weight before its bias.
    pub fn new(path: &Path, config: &ModelConfig) -> Self {
        Self::from_layers(config, |name| Layer::new(path / name, &config.weight_shape(name)))
    }

    /// Creates a network of zeros, into which weights are loaded later. It draws no random numbers.
    pub fn uninitialised(path: &Path, config: &ModelConfig) -> Self {
        Self::from_layers(config, |name| Layer::zeros(path / name, &config.weight_shape(name)))
    }

    fn from_layers(config: &ModelConfig, layer: impl Fn(&str) -> Layer) -> Self {
        Self {
            config: config.clone(),
            c1: layer("c1"),
            c3: layer("c3"),
            c5: layer("c5"),
            f6: layer("f6"),
            output: layer("output"),
        }
    }

    /// Returns the settings of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns all tensors in the order of [`ModelConfig::state`].
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        [&self.c1, &self.c3, &self.c5, &self.f6, &self.output]
            .into_iter()
            .flat_map(|layer| [&layer.weight, &layer.bias])
            .collect()
    }
}

impl Modern {
    /// Runs the forward pass. `see` is called with each layer's name and outputs, except for the
    /// last layer's.
    pub(super) fn run(&self, x: &Tensor, see: &mut dyn FnMut(&'static str, &Tensor)) -> Tensor {
        let config = &self.config;
        let function = |x: &Tensor| activate(config.activation, x);
        let hidden = |x: Tensor| match config.hidden_activation {
            HiddenActivation::Same => function(&x),
            HiddenActivation::None => x,
        };
        // Returns the outputs of a convolution and of the pooling after it.
        let stage = |sums: Tensor| match config.layer_order {
            LayerOrder::ActivationFirst => {
                let maps = function(&sums);
                let pooled = pool(config.pooling, &maps);
                (maps, pooled)
            }
            LayerOrder::PoolingFirst => {
                let pooled = function(&pool(config.pooling, &sums));
                (sums, pooled)
            }
        };
        let (c1, s2) = stage(self.c1.convolve(x)); // (N, 6, 28, 28), (N, 6, 14, 14)
        see("c1", &c1);
        see("s2", &s2);
        let (c3, s4) = stage(self.c3.convolve(&s2)); // (N, 16, 10, 10), (N, 16, 5, 5)
        see("c3", &c3);
        see("s4", &s4);
        let c5 = match config.c5 {
            C5::Convolution => hidden(self.c5.convolve(&s4)).flatten(1, -1), // (N, 120)
            C5::Linear => hidden(self.c5.linear(&s4.flatten(1, -1))),        // (N, 120)
        };
        see("c5", &c5);
        let f6 = hidden(self.f6.linear(&c5)); // (N, 84)
        see("f6", &f6);
        self.output.linear(&f6) // (N, classes)
    }
}

/// Returns the forward pass as TorchScript source, for files that Python runs.
pub fn torchscript_source(config: &ModelConfig) -> String {
    let function = |x: &str| activation_source(config.activation, x);
    let hidden = |x: String| match config.hidden_activation {
        HiddenActivation::Same => function(&x),
        HiddenActivation::None => x,
    };
    let stage = |layer: &str| {
        let sums = format!("torch.conv2d(x, self.{layer}.weight, self.{layer}.bias)");
        match config.layer_order {
            LayerOrder::ActivationFirst => {
                let pool = pooling_source(config.pooling, "x");
                format!("    x = {}\n    x = {pool}\n", function(&sums))
            }
            LayerOrder::PoolingFirst => {
                let pool = pooling_source(config.pooling, "x");
                format!("    x = {sums}\n    x = {}\n", function(&pool))
            }
        }
    };
    let c5 = match config.c5 {
        C5::Convolution => {
            let c5 = hidden("torch.conv2d(x, self.c5.weight, self.c5.bias)".to_owned());
            format!("torch.flatten({c5}, 1)")
        }
        C5::Linear => {
            hidden("torch.linear(torch.flatten(x, 1), self.c5.weight, self.c5.bias)".to_owned())
        }
    };
    let f6 = hidden("torch.linear(x, self.f6.weight, self.f6.bias)".to_owned());
    format!(
        "def forward(self, x: Tensor) -> Tensor:
{}{}    x = {c5}
    x = {f6}
    return torch.linear(x, self.output.weight, self.output.bias)
",
        stage("c1"),
        stage("c3"),
    )
}
