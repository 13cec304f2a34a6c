//! Compares with PyTorch bit for bit: weights, logits, gradients, optimizers, learning rates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lenet5::Array;
use lenet5::data::{Dataset, Split};
use lenet5::engine::OptimizerState;
use lenet5::model::{Activation, C5, Input, LeNet5, ModelConfig, Pooling, loss};
use lenet5::optim;
use lenet5::recipe::{Loss, OptimizerConfig, Schedule};
use tch::nn::Module;
use tch::{Device, Kind, Reduction, Tensor};

use crate::util::{Bits, fixtures, generator, sgd, shared, tensors};

/// Returns the folder with Python's results.
fn python() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = shared();
        fixtures("parity", &folder);
        folder
    })
}

/// Runs for 1 and 2 threads, as kernels split their sums by thread.
fn for_each_thread_count(test: impl Fn(i32, &BTreeMap<String, Tensor>)) {
    let _lock = generator();
    for threads in [1, 2] {
        tch::set_num_threads(threads);
        println!("{threads} thread(s)");
        test(threads, &tensors(&python().join(format!("threads-{threads}.safetensors"))));
    }
}

fn seeded(seed: i64, config: &ModelConfig) -> LeNet5 {
    tch::manual_seed(seed);
    LeNet5::random(config, Device::Cpu).unwrap()
}

/// Returns the mean loss of a batch, and the gradients.
fn backward(model: &LeNet5, logits: &Tensor, labels: &Tensor) -> (Tensor, Vec<Tensor>) {
    let loss = logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
    let parameters = model.parameter_tensors();
    let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
    (loss, gradients)
}

/// Returns the models of `MODELS` in fixtures.py.
fn models() -> [(&'static str, ModelConfig); 5] {
    let default = ModelConfig::default;
    [
        ("default", default()),
        ("linear", ModelConfig { c5: C5::Linear, ..default() }),
        (
            "relu-max",
            ModelConfig { activation: Activation::Relu, pooling: Pooling::Max, ..default() },
        ),
        ("sigmoid-47", ModelConfig { activation: Activation::Sigmoid, classes: 47, ..default() }),
        (
            "unpadded",
            ModelConfig { activation: Activation::ScaledTanh, input: Input::Unpadded, ..default() },
        ),
    ]
}

#[test]
fn initial_weights_logits_loss_gradients() {
    let data = Dataset::embedded(Split::Train, 10).unwrap();
    for_each_thread_count(|_, python| {
        let mut bits = Bits::default();
        for (name, config) in models() {
            let model = seeded(7, &config);
            let mut compare = |key: &str, tensor: &Tensor| {
                let key = format!("{name}/{key}");
                bits.compare(&key, tensor, &python[&key]);
            };
            for (parameter, tensor) in model.parameters() {
                compare(&format!("initial/{parameter}"), &tensor);
            }
            compare("after", &Tensor::rand([4], (Kind::Float, Device::Cpu)));
            let first = Tensor::arange(100, (Kind::Int64, Device::Cpu));
            let (images, labels) = data.batch(&first, &config);
            let logits = model.forward(&images);
            let (loss, gradients) = backward(&model, &logits, &labels);
            compare("images", &images);
            compare("logits", &logits);
            compare("loss", &loss);
            for ((parameter, _), gradient) in model.parameters().iter().zip(&gradients) {
                compare(&format!("gradient/{parameter}"), gradient);
            }
        }
        bits.check(models().len() * (10 + 4 + 10));
    });
}

/// Returns the optimizers of `OPTIMIZERS` in fixtures.py, with the learning rates.
fn optimizers() -> [(&'static str, f64, OptimizerConfig); 9] {
    let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
    [
        ("sgd", 0.05, sgd(0.0, 0.0, 0.0, false)),
        ("momentum", 0.05, sgd(0.9, 0.0, 0.0, false)),
        ("dampening", 0.05, sgd(0.9, 0.1, 5e-4, false)),
        ("nesterov", 0.05, sgd(0.9, 0.0, 5e-4, true)),
        ("decay", 0.05, sgd(0.0, 0.0, 5e-4, false)),
        ("adam", 1e-3, OptimizerConfig::Adam { beta1, beta2, eps, weight_decay: 0.0 }),
        ("adam-decay", 1e-3, OptimizerConfig::Adam { beta1, beta2, eps, weight_decay: 1e-2 }),
        ("adamw", 1e-3, OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay: 1e-2 }),
        (
            "adamw-other",
            3e-3,
            OptimizerConfig::AdamW { beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 },
        ),
    ]
}

#[test]
fn optimizers_for_20_steps() {
    let data = Dataset::embedded(Split::Train, 10).unwrap();
    let config = ModelConfig::default();
    for_each_thread_count(|threads, python| {
        let mut bits = Bits::default();
        // Two suffice, as in fixtures.py: an update is computed element by element, so the number
        // of threads has no effect.
        let with_2_threads = ["momentum", "adamw"];
        let chosen =
            || optimizers().into_iter().filter(|o| threads == 1 || with_2_threads.contains(&o.0));
        for (name, learning_rate, optimizer) in chosen() {
            let model = seeded(1, &config);
            let parameters = model.parameter_tensors();
            let mut optimizer = optim::build(&optimizer, parameters);
            let order = Tensor::randperm(data.len(), (Kind::Int64, Device::Cpu));
            for (indices, step) in order.split(64, 0).iter().zip(1..=20) {
                let (images, labels) = data.batch(indices, &config);
                let (_, gradients) = backward(&model, &model.forward(&images), &labels);
                optimizer.step(&gradients, learning_rate).unwrap();
                if step == 1 || step == 20 {
                    for (parameter, tensor) in model.parameters() {
                        let key = format!("{name}/{step}/{parameter}");
                        bits.compare(&key, &tensor, &python[&key]);
                    }
                }
            }
        }
        bits.check(if threads == 1 { 9 } else { 2 } * 2 * 10);
    });
}

#[test]
fn optimizer_state_goes_on() {
    let _lock = generator();
    tch::set_num_threads(1);
    let noise = || Tensor::randn([30], (Kind::Float, Device::Cpu));
    for (name, learning_rate, optimizer) in optimizers() {
        tch::manual_seed(5);
        let start = noise();
        let gradients: Vec<_> = (0..6).map(|_| noise()).collect();
        let (whole, parts) = (start.copy(), start.copy());
        let mut first = optim::build(&optimizer, vec![whole.shallow_clone()]);
        for gradient in &gradients {
            first.step(std::slice::from_ref(gradient), learning_rate).unwrap();
        }
        let mut state = OptimizerState::Empty;
        for gradient in &gradients {
            let mut again = optim::build(&optimizer, vec![parts.shallow_clone()]);
            again.load_state(&state).unwrap();
            again.step(std::slice::from_ref(gradient), learning_rate).unwrap();
            state = again.state().unwrap();
        }
        let mut bits = Bits::default();
        bits.compare(name, &parts, &whole);
        bits.check(1);
    }
}

#[test]
fn optimizer_state_of_another_kind_is_refused() {
    let float = (Kind::Float, Device::Cpu);
    let parameters = || vec![Tensor::zeros([3], float)];
    let [_, (_, _, sgd), .., (_, _, adam)] = optimizers();
    let zeros = |sizes: &[usize]| sizes.iter().map(|size| Array::zeros(&[*size])).collect();
    let buffers = |sizes: &[usize]| OptimizerState::Sgd { momentum_buffer: zeros(sizes) };
    let moments = |first: &[usize], second: &[usize]| OptimizerState::Adam {
        step: 1.0,
        exp_avg: zeros(first),
        exp_avg_sq: zeros(second),
    };
    let table = [
        (
            sgd,
            moments(&[3], &[3]),
            "optimizer state: expected momentum_buffer, found that of another optimizer",
        ),
        (
            adam,
            buffers(&[3]),
            "optimizer state: expected step, exp_avg, exp_avg_sq, found that of another optimizer",
        ),
        (adam, moments(&[3], &[]), "optimizer state: expected 1 parameters, found 0"),
        (adam, moments(&[3], &[4]), "optimizer state exp_avg_sq: expected shape [3], found [4]"),
        (sgd, buffers(&[4]), "optimizer state momentum_buffer: expected shape [3], found [4]"),
        (sgd, buffers(&[3, 3]), "optimizer state: expected 1 parameters, found 2"),
    ];
    for (optimizer, state, message) in table {
        let error = optim::build(&optimizer, parameters()).load_state(&state).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn learning_rates() {
    let python = tensors(&python().join("schedules.safetensors"));
    let mut bits = Bits::default();
    for (key, theirs) in &python {
        let parts: Vec<_> = key.split('/').collect();
        let [name, rate, epochs, steps] = parts[..] else { panic!("{key}") };
        let schedule = match name {
            "constant" => Schedule::Constant,
            "step-1-0.7" => Schedule::Step { step_size: 1, gamma: 0.7 },
            "step-3-0.1" => Schedule::Step { step_size: 3, gamma: 0.1 },
            "cosine" => Schedule::Cosine,
            "one-cycle" => Schedule::OneCycle,
            _ => panic!("{name}"),
        };
        let rate: f64 = rate.parse().unwrap();
        let (epochs, steps): (u32, u64) = (epochs.parse().unwrap(), steps.parse().unwrap());
        let ours: Vec<_> = (0..epochs)
            .flat_map(|epoch| (0..steps).map(move |step| (epoch, step)))
            .map(|(epoch, step)| schedule.learning_rate(rate, (epoch, epochs), (step, steps)))
            .collect();
        bits.compare(key, &Tensor::from_slice(&ours), theirs);
    }
    // There are 3 learning rates, 4 numbers of epochs, 4 schedules by epoch and one with 3 numbers
    // of steps.
    bits.check(3 * 4 * (4 + 3));
}

#[test]
fn settings_are_checked() {
    let adam = |beta1, beta2, eps| OptimizerConfig::Adam { beta1, beta2, eps, weight_decay: 0.0 };
    let nesterov = "nesterov: expected a momentum above 0 and a dampening of 0";
    let table = [
        (sgd(-0.1, 0.0, 0.0, false), "momentum: expected 0 or more, found -0.1"),
        (sgd(f64::NAN, 0.0, 0.0, false), "momentum: expected 0 or more, found NaN"),
        (sgd(0.9, f64::INFINITY, 0.0, false), "dampening: expected a number, found inf"),
        (sgd(0.9, 0.0, -1.0, false), "weight-decay: expected 0 or more, found -1"),
        (sgd(0.0, 0.0, 0.0, true), nesterov),
        (sgd(0.9, 0.1, 0.0, true), nesterov),
        (adam(1.0, 0.9, 0.0), "beta1: expected 0 up to, but not, 1, found 1"),
        (adam(0.9, -0.5, 0.0), "beta2: expected 0 up to, but not, 1, found -0.5"),
        (adam(0.9, 0.9, -1.0), "eps: expected 0 or more, found -1"),
    ];
    for (optimizer, message) in table {
        assert_eq!(optimizer.validate().unwrap_err().to_string(), message);
    }
    for (_, _, optimizer) in optimizers() {
        optimizer.validate().unwrap();
    }
    let step = |step_size, gamma| Schedule::Step { step_size, gamma };
    let error = |schedule: Schedule| schedule.validate().unwrap_err().to_string();
    assert_eq!(error(step(0, 0.5)), "step-size: expected 1 or more epochs, found 0");
    assert_eq!(error(step(1, 0.0)), "gamma: expected a number above 0, found 0");
    step(1, 0.5).validate().unwrap();
}

/// Tests the network of 1998: both losses, their gradients by name, and an epoch of SGD.
#[test]
fn original() {
    let data = Dataset::embedded(Split::Train, 10).unwrap().first(2000);
    for_each_thread_count(|_, python| {
        let mut bits = Bits::default();
        let config = ModelConfig::original();
        let model = seeded(7, &config);
        let mut compare = |key: &str, tensor: &Tensor| {
            let key = format!("original/{key}");
            bits.compare(&key, tensor, &python[&key]);
        };
        for (name, tensor) in model.state() {
            compare(&format!("initial/{name}"), &tensor);
        }
        compare("after", &Tensor::rand([4], (Kind::Float, Device::Cpu)));
        let (images, labels) =
            data.batch(&Tensor::arange(100, (Kind::Int64, Device::Cpu)), &config);
        let logits = model.forward(&images);
        compare("images", &images);
        compare("logits", &logits.detach());
        let parameters = model.parameter_tensors();
        let discriminative = Loss::Discriminative { j: 1.0 };
        for (name, kind) in [("distance", Loss::Distance), ("discriminative", discriminative)] {
            let loss = loss(kind, &logits, &labels);
            compare(&format!("{name}/loss"), &loss.detach());
            let gradients = Tensor::run_backward(&[&loss], &parameters, true, false);
            for ((parameter, _), gradient) in model.parameters().iter().zip(&gradients) {
                compare(&format!("{name}/gradient/{parameter}"), gradient);
            }
        }
        let optimizer = OptimizerConfig::Sgd {
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        };
        let mut optimizer =
            optim::build(&optimizer, parameters.iter().map(Tensor::shallow_clone).collect());
        for indices in Tensor::randperm(2000, (Kind::Int64, Device::Cpu)).split(64, 0) {
            let (images, labels) = data.batch(&indices, &config);
            let loss = loss(discriminative, &model.forward(&images), &labels);
            let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
            optimizer.step(&gradients, 0.01).unwrap();
        }
        for (name, tensor) in model.state() {
            compare(&format!("epoch/{name}"), &tensor.detach());
        }
        // Weights without a connection are still exactly zero.
        let c3 = &model.state()[4].1;
        let zeros = c3.eq(0.0).sum(Kind::Int64).int64_value(&[]);
        assert_eq!((c3.numel() as i64 - zeros) / 25, 60);
        bits.check(13 + 1 + 2 + 2 * (1 + 12) + 13);
    });
}
