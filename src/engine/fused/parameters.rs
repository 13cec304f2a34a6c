//! The parameters in PyTorch's layout, one after the other.

/// The most classes.
pub const MAX_CLASSES: usize = 128;

/// Where a layer's weights and biases begin in [`Parameters`].
#[derive(Clone, Copy)]
pub(super) struct Layer {
    pub weight: usize,
    pub bias: usize,
    pub outputs: usize,
    /// Weights for each output.
    pub inputs: usize,
}

impl Layer {
    const fn after(start: usize, outputs: usize, inputs: usize) -> Layer {
        Layer { weight: start, bias: start + outputs * inputs, outputs, inputs }
    }

    pub const fn end(self) -> usize {
        self.bias + self.outputs
    }
}

pub(super) const C1: Layer = Layer::after(0, 6, 25);
pub(super) const C3: Layer = Layer::after(C1.end(), 16, 150);
pub(super) const C5: Layer = Layer::after(C3.end(), 120, 400);
pub(super) const F6: Layer = Layer::after(C5.end(), 84, 120);

/// The output layer of so many classes.
pub(super) const fn output(classes: usize) -> Layer {
    Layer::after(F6.end(), classes, 84)
}

/// The parameters of the modern network, or one number for each: c1, c3, c5, f6, output; weight, then
/// bias, each as PyTorch has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters(pub Vec<f32>);

impl Parameters {
    /// All zero.
    pub fn zeros(classes: usize) -> Parameters {
        Parameters(vec![0.0; output(classes).end()])
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        (self.0.len() - F6.end()) / 85
    }

    pub(super) fn weight(&self, layer: Layer) -> &[f32] {
        &self.0[layer.weight..layer.bias]
    }

    pub(super) fn bias(&self, layer: Layer) -> &[f32] {
        &self.0[layer.bias..layer.end()]
    }
}
