//! The table of layers: output shapes, parameters, connections and multiply-adds.

use std::fmt;

use serde::Serialize;

use super::C3_TABLE;
use super::config::{ModelConfig, Network, Pooling};

/// A row of the table: the counts of a layer for one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LayerSummary {
    /// The layer's name in the paper: c1, s2, c3, s4, c5, f6 or output.
    pub name: &'static str,
    /// The shape of the output: (channels, height, width) or (units).
    pub output_shape: Vec<usize>,
    /// The number of trainable parameters.
    pub parameters: usize,
    /// The number of connections as the paper counts them: the inputs of all units, including
    /// biases.
    pub connections: usize,
    /// The number of multiply-adds.
    pub macs: usize,
}

/// The sums over all layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Total {
    /// The number of trainable parameters.
    pub parameters: usize,
    /// The number of connections.
    pub connections: usize,
    /// The number of multiply-adds.
    pub macs: usize,
}

/// The table of all layers. `Display` prints it as text, serde as the JSON of `summary --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The layers from c1 to output.
    pub layers: Vec<LayerSummary>,
    /// The sums over the layers.
    pub total: Total,
}

impl Summary {
    /// Creates the table of a network with these settings.
    ///
    /// Pooling has no parameters. Each unit has four connections. An average counts as one
    /// multiply-add, as it multiplies by a constant; a maximum counts as none.
    pub fn new(config: &ModelConfig) -> Self {
        let convolution = |name, maps_in: usize, maps: usize, size: usize| {
            let (units, fan_in) = (maps * size * size, maps_in * 25);
            LayerSummary {
                name,
                output_shape: vec![maps, size, size],
                parameters: maps * (fan_in + 1),
                connections: units * (fan_in + 1),
                macs: units * fan_in,
            }
        };
        let pooling = |name, maps: usize, size: usize| {
            let units = maps * size * size;
            let macs = if config.pooling == Pooling::Avg { units } else { 0 };
            let output_shape = vec![maps, size, size];
            LayerSummary { name, output_shape, parameters: 0, connections: units * 4, macs }
        };
        let c1 = config.input.size() - 4;
        let c3 = c1 / 2 - 4;
        let s4 = config.input.s4_size();
        let layers = match config.network {
            Network::Modern => vec![
                convolution("c1", 1, 6, c1),
                pooling("s2", 6, c1 / 2),
                convolution("c3", 6, 16, c3),
                pooling("s4", 16, s4),
                linear("c5", 16 * s4 * s4, 120),
                linear("f6", 120, 84),
                linear("output", 84, config.classes),
            ],
            Network::Original => original(config),
        };
        let total = layers.iter().fold(Total::default(), |sum, layer| Total {
            parameters: sum.parameters + layer.parameters,
            connections: sum.connections + layer.connections,
            macs: sum.macs + layer.macs,
        });
        Self { layers, total }
    }
}

/// A fully connected layer with biases.
fn linear(name: &'static str, inputs: usize, outputs: usize) -> LayerSummary {
    LayerSummary {
        name,
        output_shape: vec![outputs],
        parameters: outputs * (inputs + 1),
        connections: outputs * (inputs + 1),
        macs: outputs * inputs,
    }
}

/// The counts of the paper. A sub-sampling unit has four inputs and a bias, and multiplies once.
fn original(config: &ModelConfig) -> Vec<LayerSummary> {
    let convolution = |name, maps: usize, size: usize, kernels: usize| LayerSummary {
        name,
        output_shape: vec![maps, size, size],
        parameters: kernels * 25 + maps,
        connections: (kernels * 25 + maps) * size * size,
        macs: kernels * 25 * size * size,
    };
    let subsampling = |name, maps: usize, size: usize| {
        let units = maps * size * size;
        let output_shape = vec![maps, size, size];
        LayerSummary {
            name,
            output_shape,
            parameters: maps * 2,
            connections: units * 5,
            macs: units,
        }
    };
    let distances = config.classes * 84;
    let kernels = C3_TABLE.iter().map(|maps| maps.len()).sum();
    vec![
        convolution("c1", 6, 28, 6),
        subsampling("s2", 6, 14),
        convolution("c3", 16, 10, kernels),
        subsampling("s4", 16, 5),
        linear("c5", 400, 120),
        linear("f6", 120, 84),
        LayerSummary {
            name: "output",
            output_shape: vec![config.classes],
            parameters: if config.train_rbf { distances } else { 0 },
            connections: distances,
            macs: distances,
        },
    ]
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name, shape: &str, counts: [usize; 3]| {
            let [parameters, connections, macs] = counts.map(thousands);
            writeln!(f, "{name:<8} {shape:>14} {parameters:>12} {connections:>13} {macs:>15}")
        };
        writeln!(
            f,
            "{:<8} {:>14} {:>12} {:>13} {:>15}",
            "layer", "output shape", "parameters", "connections", "multiply-adds"
        )?;
        for layer in &self.layers {
            let shape =
                layer.output_shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            row(f, layer.name, &shape, [layer.parameters, layer.connections, layer.macs])?;
        }
        let Total { parameters, connections, macs } = self.total;
        row(f, "total", "", [parameters, connections, macs])
    }
}

/// Formats a number with separators: "61,706".
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
