//! The modern network in float64, forward and backward, in plain loops.
//!
//! It is written independently of `ForwardPass`. It also measures the distance to a kink of relu or max pooling, near which
//! float32 may take another branch than float64.
#![allow(clippy::needless_range_loop)]

use lenet5_core::Weights;
use lenet5_core::model::{Activation, ModelConfig, Pooling};

/// The network and its parameters.
pub struct Reference {
    config: ModelConfig,
    parameters: Vec<Vec<f64>>,
}

/// The results for one image.
pub struct Computed {
    pub logits: Vec<f64>,
    pub loss: f64,
    /// The gradient with respect to each of the ten tensors.
    pub gradient: Vec<Vec<f64>>,
    /// The smallest distance to a kink of relu or max pooling.
    pub margin: f64,
}

/// A convolution, its activation and its pooling.
struct Stage {
    channels: usize,
    size: usize,
    maps: usize,
    input: Vec<f64>,
    values: Vec<f64>,
    pooled: Vec<f64>,
}

impl Reference {
    pub fn new(weights: &Weights) -> Reference {
        let parameters = weights.tensors.iter().map(|(_, array)| array.to_f64()).collect();
        Reference { config: weights.config.clone(), parameters }
    }

    /// The loss and its gradient for an image with this label.
    pub fn compute(&self, image: &[f32], label: usize) -> Computed {
        let p = &self.parameters;
        let mut margin = f64::INFINITY;
        let image: Vec<f64> = image.iter().map(|x| f64::from(*x)).collect();
        let size = self.config.input.size();
        let first = self.stage(image, 1, size, 0, &mut margin);
        let second = self.stage(first.pooled.clone(), 6, (size - 4) / 2, 2, &mut margin);
        let c5 = self.linear(&second.pooled, 4, true, &mut margin);
        let f6 = self.linear(&c5, 6, true, &mut margin);
        let logits = self.linear(&f6, 8, false, &mut margin);

        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        let loss = largest + sum.ln() - logits[label];
        let mut d: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp() / sum).collect();
        d[label] -= 1.0;

        let mut gradient: Vec<Vec<f64>> = p.iter().map(|values| vec![0.0; values.len()]).collect();
        let mut d = self.linear_back(&f6, &d, 8, &mut gradient);
        self.activation_back(&f6, &mut d);
        let mut d = self.linear_back(&c5, &d, 6, &mut gradient);
        self.activation_back(&c5, &mut d);
        let d = self.linear_back(&second.pooled, &d, 4, &mut gradient);
        let d = self.stage_back(&second, &d, 2, &mut gradient);
        self.stage_back(&first, &d, 0, &mut gradient);
        Computed { logits, loss, gradient, margin }
    }

    fn activate(&self, sum: f64) -> f64 {
        match self.config.activation {
            Activation::Relu => sum.max(0.0),
            _ => sum.tanh(),
        }
    }

    /// Multiplies gradients with respect to values by the derivative of the activation.
    fn activation_back(&self, values: &[f64], d: &mut [f64]) {
        for (value, d) in values.iter().zip(d) {
            *d *= match self.config.activation {
                Activation::Relu => f64::from(u8::from(*value > 0.0)),
                _ => 1.0 - value * value,
            };
        }
    }

    fn stage(
        &self,
        input: Vec<f64>,
        channels: usize,
        size: usize,
        tensor: usize,
        margin: &mut f64,
    ) -> Stage {
        let (weight, bias) = (&self.parameters[tensor], &self.parameters[tensor + 1]);
        let (maps, out) = (bias.len(), size - 4);
        let relu = self.config.activation == Activation::Relu;
        let mut values = vec![0.0; maps * out * out];
        for m in 0..maps {
            for y in 0..out {
                let row = &mut values[(m * out + y) * out..][..out];
                row.fill(bias[m]);
                for channel in 0..channels {
                    for ky in 0..5 {
                        let x = &input[(channel * size + y + ky) * size..][..size];
                        for kx in 0..5 {
                            let w = weight[((m * channels + channel) * 5 + ky) * 5 + kx];
                            for (sum, x) in row.iter_mut().zip(&x[kx..]) {
                                *sum += w * x;
                            }
                        }
                    }
                }
            }
        }
        let mut pooled = Vec::new();
        for m in 0..maps {
            for y in 0..out / 2 {
                for x in 0..out / 2 {
                    let at = (m * out + 2 * y) * out + 2 * x;
                    let block = [at, at + 1, at + out, at + out + 1];
                    let mut sums = block.map(|at| values[at]);
                    for at in block {
                        values[at] = self.activate(values[at]);
                    }
                    let four = block.map(|at| values[at]);
                    let pool = match self.config.pooling {
                        Pooling::Avg => four.iter().sum::<f64>() / 4.0,
                        Pooling::Max => four.into_iter().fold(f64::NEG_INFINITY, f64::max),
                    };
                    pooled.push(pool);
                    sums.sort_by(f64::total_cmp);
                    let tie = sums[3] - sums[2];
                    let zero = sums.iter().fold(f64::INFINITY, |a, b| a.min(b.abs()));
                    *margin = margin.min(match (relu, self.config.pooling) {
                        (true, Pooling::Max) if sums[3] > 0.0 => tie.min(sums[3]),
                        (true, Pooling::Max) => -sums[3],
                        (false, Pooling::Max) => tie,
                        (true, Pooling::Avg) => zero,
                        (false, Pooling::Avg) => f64::INFINITY,
                    });
                }
            }
        }
        Stage { channels, size, maps, input, values, pooled }
    }

    /// The gradient with respect to the stage's input, from that with respect to its pooled values.
    fn stage_back(
        &self,
        stage: &Stage,
        d_pooled: &[f64],
        tensor: usize,
        gradient: &mut [Vec<f64>],
    ) -> Vec<f64> {
        let Stage { channels, size, maps, .. } = *stage;
        let out = size - 4;
        let mut d = vec![0.0; stage.values.len()];
        for (i, d_pooled) in d_pooled.iter().enumerate() {
            let half = out / 2;
            let (m, y, x) = (i / (half * half), i / half % half, i % half);
            let at = (m * out + 2 * y) * out + 2 * x;
            let block = [at, at + 1, at + out, at + out + 1];
            match self.config.pooling {
                Pooling::Avg => block.into_iter().for_each(|at| d[at] = d_pooled / 4.0),
                Pooling::Max => {
                    let largest = block.into_iter().find(|at| stage.values[*at] == stage.pooled[i]);
                    d[largest.unwrap()] = *d_pooled;
                }
            }
        }
        self.activation_back(&stage.values, &mut d);
        let mut d_input = vec![0.0; stage.input.len()];
        for m in 0..maps {
            for y in 0..out {
                let d = &d[(m * out + y) * out..][..out];
                gradient[tensor + 1][m] += d.iter().sum::<f64>();
                for channel in 0..channels {
                    for ky in 0..5 {
                        let row = (channel * size + y + ky) * size;
                        for kx in 0..5 {
                            let at = ((m * channels + channel) * 5 + ky) * 5 + kx;
                            let w = self.parameters[tensor][at];
                            let x = &stage.input[row + kx..][..out];
                            gradient[tensor][at] +=
                                x.iter().zip(d).map(|(x, d)| x * d).sum::<f64>();
                            for (to, d) in d_input[row + kx..][..out].iter_mut().zip(d) {
                                *to += w * d;
                            }
                        }
                    }
                }
            }
        }
        d_input
    }

    fn linear(&self, input: &[f64], tensor: usize, activated: bool, margin: &mut f64) -> Vec<f64> {
        let (weight, bias) = (&self.parameters[tensor], &self.parameters[tensor + 1]);
        let rows = weight.chunks_exact(input.len());
        let sums = rows.zip(bias).map(|(row, bias)| {
            let sum = bias + row.iter().zip(input).map(|(w, x)| w * x).sum::<f64>();
            if !activated {
                return sum;
            }
            if self.config.activation == Activation::Relu {
                *margin = margin.min(sum.abs());
            }
            self.activate(sum)
        });
        sums.collect()
    }

    /// The gradient with respect to the layer's input, from that with respect to its sums.
    fn linear_back(
        &self,
        input: &[f64],
        d: &[f64],
        tensor: usize,
        gradient: &mut [Vec<f64>],
    ) -> Vec<f64> {
        let mut d_input = vec![0.0; input.len()];
        for (o, d) in d.iter().enumerate() {
            gradient[tensor + 1][o] += d;
            let at = o * input.len();
            for i in 0..input.len() {
                gradient[tensor][at + i] += d * input[i];
                d_input[i] += d * self.parameters[tensor][at + i];
            }
        }
        d_input
    }
}
