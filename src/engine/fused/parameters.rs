//! The parameters in PyTorch's layout, one after the other, and the sum of gradients.

use super::kernels::{MAX_CLASSES, WIDEST};

/// Where a layer's weights and biases begin in [`Parameters`].
pub(super) struct Layer {
    pub weight: usize,
    pub bias: usize,
}

pub(super) const C1: Layer = Layer { weight: 0, bias: 150 };
pub(super) const C3: Layer = Layer { weight: 156, bias: 2_556 };
pub(super) const C5: Layer = Layer { weight: 2_572, bias: 50_572 };
pub(super) const F6: Layer = Layer { weight: 50_692, bias: 60_772 };
/// Where the output layer's weights begin; its biases come after 84 for each class.
pub(super) const OUTPUT: usize = 60_856;

/// The parameters of the modern network, or one number for each: c1, c3, c5, f6, output; weight, then
/// bias, each as PyTorch has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters(pub Vec<f32>);

impl Parameters {
    /// All zero.
    pub fn zeros(classes: usize) -> Parameters {
        Parameters(vec![0.0; OUTPUT + 85 * classes])
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        (self.0.len() - OUTPUT) / 85
    }
}

/// Samples whose linear layers' derivatives are gathered before they are multiplied out.
pub(super) const GATHERED: usize = 128;
/// Rows of what is gathered of c5's, f6's and output's inputs: whole vectors.
pub(super) const ROWS: [usize; 3] = [400, 128, 96];

/// A sum of gradients over samples.
pub(super) struct Gradient {
    // A vector for each weight: the sum of its lanes is the gradient.
    pub c1: Vec<f32>,
    pub c1_bias: Vec<f32>,
    pub c3: Vec<f32>,
    pub c3_bias: Vec<f32>,
    /// Of c5, f6 and output: rows of [`ROWS`], and biases.
    pub linear: [Vec<f32>; 3],
    pub linear_bias: [Vec<f32>; 3],
    /// Inputs and derivatives of c5, f6 and output, a row for each sample.
    pub inputs: [Vec<f32>; 3],
    pub derivatives: [Vec<f32>; 3],
    pub gathered: usize,
}

impl Gradient {
    pub fn new(classes: usize) -> Gradient {
        assert!((1..=MAX_CLASSES).contains(&classes));
        let outputs = [120, 84, classes];
        Gradient {
            c1: vec![0.0; 150 * WIDEST],
            c1_bias: vec![0.0; 6 * WIDEST],
            c3: vec![0.0; 2400 * WIDEST],
            c3_bias: vec![0.0; 16 * WIDEST],
            linear: std::array::from_fn(|i| vec![0.0; outputs[i] * ROWS[i]]),
            linear_bias: std::array::from_fn(|i| vec![0.0; outputs[i]]),
            inputs: ROWS.map(|row| vec![0.0; GATHERED * row]),
            derivatives: outputs.map(|outputs| vec![0.0; GATHERED * outputs]),
            gathered: 0,
        }
    }

    /// Back to no sample.
    pub fn clear(&mut self) {
        let convolutions =
            [&mut self.c1, &mut self.c1_bias, &mut self.c3, &mut self.c3_bias].into_iter();
        for values in convolutions.chain(&mut self.linear).chain(&mut self.linear_bias) {
            values.fill(0.0);
        }
    }

    /// Adds a sum to `to`, in PyTorch's layout.
    pub fn add_to(&self, to: &mut Parameters) {
        let to = &mut to.0;
        let lanes = [
            (C1.weight, &self.c1),
            (C1.bias, &self.c1_bias),
            (C3.weight, &self.c3),
            (C3.bias, &self.c3_bias),
        ];
        for (start, values) in lanes {
            for (to, lanes) in to[start..].iter_mut().zip(values.chunks_exact(WIDEST)) {
                *to += lanes.iter().sum::<f32>();
            }
        }
        let mut start = C5.weight;
        for (i, inputs) in [400, 120, 84].into_iter().enumerate() {
            for row in self.linear[i].chunks_exact(ROWS[i]) {
                for (to, value) in to[start..].iter_mut().zip(&row[..inputs]) {
                    *to += value;
                }
                start += inputs;
            }
            for (to, value) in to[start..].iter_mut().zip(&self.linear_bias[i]) {
                *to += value;
            }
            start += self.linear_bias[i].len();
        }
    }
}
