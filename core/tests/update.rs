//! The update rules against float64, by the formulas in PyTorch's documentation.

use lenet5_core::kernels::batch::{BatchForm, BatchKernels, BatchOptimizer, ParameterVector};
use lenet5_core::kernels::simd::Isa;
use lenet5_core::model::ModelConfig;
use lenet5_core::training::OptimizerConfig;

use crate::common::{RandomNumbers, weights};

/// All optimizers, with and without each optional setting.
fn optimizers() -> Vec<OptimizerConfig> {
    let mut all = Vec::new();
    for weight_decay in [0.0, 0.02] {
        for (momentum, dampening, nesterov) in [
            (0.0, 0.0, false),
            (0.0, 0.3, false),
            (0.9, 0.0, false),
            (0.9, 0.3, false),
            (0.9, 0.0, true),
        ] {
            all.push(OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov });
        }
        let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
        all.push(OptimizerConfig::Adam { beta1, beta2, eps, weight_decay });
        all.push(OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay });
    }
    all
}

/// One parameter, with the optimizer's state.
#[derive(Clone, Copy)]
struct Parameter {
    value: f64,
    /// The buffer of the momentum, or the first moment.
    first: f64,
    second: f64,
}

/// Updates a parameter; `step` starts at 1.
fn update(p: &mut Parameter, mut g: f64, rule: OptimizerConfig, rate: f64, step: i32) {
    match rule {
        OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov } => {
            g += weight_decay * p.value;
            if momentum != 0.0 {
                p.first = if step == 1 { g } else { momentum * p.first + (1.0 - dampening) * g };
                g = if nesterov { g + momentum * p.first } else { p.first };
            }
            p.value -= rate * g;
        }
        OptimizerConfig::Adam { beta1, beta2, eps, weight_decay }
        | OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay } => {
            if matches!(rule, OptimizerConfig::AdamW { .. }) {
                p.value -= rate * weight_decay * p.value;
            } else {
                g += weight_decay * p.value;
            }
            p.first = beta1 * p.first + (1.0 - beta1) * g;
            p.second = beta2 * p.second + (1.0 - beta2) * g * g;
            let (first, second) =
                (p.first / (1.0 - beta1.powi(step)), p.second / (1.0 - beta2.powi(step)));
            p.value -= rate * first / (second.sqrt() + eps);
        }
        OptimizerConfig::Sdlm { .. } => unreachable!("not tested here"),
    }
}

#[test]
fn update_rules_against_float64() {
    let config = ModelConfig::default();
    let form = BatchForm::of(&config).unwrap();
    let start = ParameterVector::of(&weights(&config, &mut RandomNumbers(5)));
    for rule in optimizers() {
        for (isa, threads) in Isa::available().into_iter().zip([1, 2, 1]) {
            let mut random = RandomNumbers(7);
            let mut kernels = BatchKernels::new(form, 10).with_isa(isa).with_threads(threads);
            let mut optimizer = BatchOptimizer::new(rule, 10);
            let mut found = start.clone();
            let parameter =
                |value: &f32| Parameter { value: f64::from(*value), first: 0.0, second: 0.0 };
            let mut expected: Vec<Parameter> = start.0.iter().map(parameter).collect();
            for step in 1..7 {
                let rate = 0.01 / f64::from(step);
                let gradient = ParameterVector(random.numbers(start.0.len(), 0.1));
                let mut change = 0.0_f64;
                for (p, g) in expected.iter_mut().zip(&gradient.0) {
                    let before = p.value;
                    update(p, f64::from(*g), rule, rate, step);
                    change = change.max((p.value - before).abs());
                }
                kernels.update(&mut found, &gradient, &mut optimizer, rate);
                let pairs = found.0.iter().zip(&expected);
                let error = pairs.fold(0.0_f64, |e, (f, p)| e.max((f64::from(*f) - p.value).abs()));
                // The parameters themselves, up to 0.2, are rounded to float32 in each step.
                assert!(
                    error < 1e-5 * change + 1e-8 * f64::from(step),
                    "{rule:?} step {step}: {error:e} of {change:e}"
                );
                // The last steps use a copy of the state.
                if step == 3 {
                    optimizer = optimizer.clone();
                    assert_eq!(optimizer.rule.steps, 3.0);
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "original network")]
fn sdlm_is_refused() {
    BatchOptimizer::new(OptimizerConfig::Sdlm { mu: 0.02, samples: 500 }, 10);
}
