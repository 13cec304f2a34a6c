//! All parameters in one vector, in PyTorch's layout.

use crate::Array;
use crate::model::ModelConfig;
use crate::weights::Weights;

/// The number of c5's weights in a network for images of 28x28: its units have 16 x 4 x 4 inputs instead of 16 x 5 x 5.
const C5_UNPADDED: usize = 120 * 256;

/// The largest number of classes that the kernels have room for.
pub const MAX_CLASSES: usize = 128;

/// The position of a layer's weights and biases in [`ParameterVector`].
#[derive(Clone, Copy)]
pub(super) struct LayerRange {
    /// The index of the first weight.
    pub weight: usize,
    /// The index of the first bias.
    pub bias: usize,
    /// The number of outputs: maps or units.
    pub outputs: usize,
    /// The number of weights of each output.
    pub inputs: usize,
}

impl LayerRange {
    const fn after(start: usize, outputs: usize, inputs: usize) -> LayerRange {
        LayerRange { weight: start, bias: start + outputs * inputs, outputs, inputs }
    }

    pub const fn end(self) -> usize {
        self.bias + self.outputs
    }
}

pub(super) const C1: LayerRange = LayerRange::after(0, 6, 25);
pub(super) const C3: LayerRange = LayerRange::after(C1.end(), 16, 150);
pub(super) const C5: LayerRange = LayerRange::after(C3.end(), 120, 400);
pub(super) const F6: LayerRange = LayerRange::after(C5.end(), 84, 120);

/// The output layer of a network with this number of classes.
pub(super) const fn output(classes: usize) -> LayerRange {
    LayerRange::after(F6.end(), classes, 84)
}

/// The parameters of the modern network, or one number for each of them, such as the gradient. The order is c1, c3, c5, f6,
/// output; for each layer the weights, then the biases, in PyTorch's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterVector(pub Vec<f32>);

impl ParameterVector {
    /// A vector of zeros.
    pub fn zeros(classes: usize) -> ParameterVector {
        ParameterVector(vec![0.0; output(classes).end()])
    }

    /// The parameters of a modern network that [`BatchForm::of`](super::BatchForm::of) accepts. In a network for images
    /// without padding c5 has fewer weights; those that are missing are 0 here.
    pub fn of(weights: &Weights) -> ParameterVector {
        let arrays: Vec<_> = weights.tensors.iter().map(|(_, array)| array.clone()).collect();
        Self::from_arrays(&arrays)
    }

    /// The parameters, or one number for each of them, from arrays that have the order and shapes of the network's parameters.
    pub fn from_arrays(arrays: &[Array]) -> ParameterVector {
        let mut all = Vec::new();
        for array in arrays {
            let values = array.to_f32();
            if array.len() == C5_UNPADDED {
                for rows in values.chunks_exact(16) {
                    for row in rows.chunks_exact(4) {
                        all.extend(row);
                        all.push(0.0);
                    }
                    all.extend([0.0; 5]);
                }
            } else {
                all.extend(values);
            }
        }
        ParameterVector(all)
    }

    /// The numbers as arrays that have the order and shapes of the network's parameters.
    pub fn to_arrays(&self, config: &ModelConfig) -> Vec<Array> {
        let mut rest = &self.0[..];
        let shapes = config.state().into_iter().map(|(_, shape)| shape);
        shapes
            .map(|shape| {
                let length: usize = shape.iter().product();
                let is_unpadded_c5 = length == C5_UNPADDED;
                let (values, after) =
                    rest.split_at(if is_unpadded_c5 { C5.bias - C5.weight } else { length });
                rest = after;
                if !is_unpadded_c5 {
                    return Array::from_f32(&shape, values);
                }
                let rows = values.chunks_exact(25).flat_map(|map| map[..20].chunks_exact(5));
                let values: Vec<f32> = rows.flat_map(|row| &row[..4]).copied().collect();
                Array::from_f32(&shape, &values)
            })
            .collect()
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        (self.0.len() - F6.end()) / 85
    }

    pub(super) fn weight(&self, layer: LayerRange) -> &[f32] {
        &self.0[layer.weight..layer.bias]
    }

    pub(super) fn bias(&self, layer: LayerRange) -> &[f32] {
        &self.0[layer.bias..layer.end()]
    }
}
