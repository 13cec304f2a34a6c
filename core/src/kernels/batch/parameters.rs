//! The parameters in PyTorch's layout, one after the other.

use crate::Array;
use crate::model::ModelConfig;
use crate::weights::Weights;

/// Weights of c5 in a network for images of 28x28: 16 x 4 x 4 of 16 x 5 x 5 for each of its units.
const C5_UNPADDED: usize = 120 * 256;

/// The most classes.
pub const MAX_CLASSES: usize = 128;

/// Where a layer's weights and biases begin in [`ParameterVector`].
#[derive(Clone, Copy)]
pub(super) struct LayerRange {
    pub weight: usize,
    pub bias: usize,
    pub outputs: usize,
    /// Weights for each output.
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

/// The output layer of so many classes.
pub(super) const fn output(classes: usize) -> LayerRange {
    LayerRange::after(F6.end(), classes, 84)
}

/// The parameters of the modern network, or one number for each: c1, c3, c5, f6, output; weight, then
/// bias, each as PyTorch has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterVector(pub Vec<f32>);

impl ParameterVector {
    /// All zero.
    pub fn zeros(classes: usize) -> ParameterVector {
        ParameterVector(vec![0.0; output(classes).end()])
    }

    /// The parameters of a modern network that [`BatchForm::of`](super::BatchForm::of) accepts. Of weights for images without
    /// padding, the weights of c5 that are not there are 0.
    pub fn of(weights: &Weights) -> ParameterVector {
        let arrays: Vec<_> = weights.tensors.iter().map(|(_, array)| array.clone()).collect();
        Self::from_arrays(&arrays)
    }

    /// The parameters, or one number for each, from arrays in the order and the shapes of the network's parameters.
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

    /// As arrays of the shapes of the network's parameters.
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
