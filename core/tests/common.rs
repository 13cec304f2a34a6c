//! Random numbers, weights and comparison.

use lenet5_core::model::{ModelConfig, Network};
use lenet5_core::{Array, Weights};

/// A linear congruential generator.
pub struct RandomNumbers(pub u64);

impl RandomNumbers {
    /// A number from -1 to 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 1.0
    }

    /// Numbers from `-range` to `range`.
    pub fn numbers(&mut self, count: usize, range: f64) -> Vec<f32> {
        (0..count).map(|_| (self.uniform() * range) as f32).collect()
    }

    /// Numbers from 0 to 1, like the pixels of an image.
    pub fn pixels(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (0.5 + 0.5 * self.uniform()) as f32).collect()
    }

    /// An integer from 0 up to, but not including, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((0.5 + 0.5 * self.uniform()) * end as f64) as usize % end
    }
}

/// Random weights in the range of PyTorch's initial weights: up to 1 / sqrt(inputs of a unit).
pub fn weights(config: &ModelConfig, random: &mut RandomNumbers) -> Weights {
    let mut inputs = 1;
    let tensors = config.state().into_iter().map(|(name, shape)| {
        let count: usize = shape.iter().product();
        if name.ends_with("weight") {
            inputs = count / shape[0];
        }
        let values = match (config.network, name.as_str()) {
            (Network::Original, "output.weight") => {
                random.numbers(count, 1.0).into_iter().map(f32::signum).collect()
            }
            _ => random.numbers(count, 1.0 / (inputs as f64).sqrt()),
        };
        (name, Array::from_f32(&shape, &values))
    });
    Weights::new(config.clone(), tensors.collect()).unwrap()
}

/// The largest difference between two tensors, relative to the largest value of the second.
pub fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let pairs = found.iter().zip(expected);
    // NaN is kept, so that it fails the test.
    let worst =
        pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, |a, b| if a >= b { a } else { b });
    assert!(largest > 0.0);
    worst / largest
}
