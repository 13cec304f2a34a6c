//! Compares the fused engine with libtorch: gradients, data sets, optimizers, training. The kernels
//! alone are compared with plain float64 code in `core/tests/batch.rs`.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use lenet5::data::{Dataset, Distortions, Split, to_input};
use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, BatchOptimizer, GreyImages, ParameterVector,
};
use lenet5_core::kernels::simd::Isa;
use lenet5_core::training::Distortion;
use lenet5::model::{Activation, Input, LeNet5, ModelConfig, Pooling};
use lenet5::optim::OptimizerConfig;
use lenet5::train::{Metrics, Outcome, Run, TrainConfig};
use lenet5::weights::{Checkpoint, Weights};
use tch::nn::{Module, VarStore};
use tch::{Device, Kind, Reduction, Tensor};

use crate::util::{
    Bits, Ended, difference, generator, optimizers, program, run, small_mnist, temp, tensors,
};

/// Returns the inputs of images as the kernels take them: 32x32, or 28x28 in the upper left corner.
fn inputs(images: &Tensor) -> Vec<[f32; 1024]> {
    let padding = 32 - images.size()[3];
    let images = images.constant_pad_nd([0, padding, 0, padding]).contiguous().view([-1]);
    Vec::<f32>::try_from(images).unwrap().as_chunks().0.to_vec()
}

pub fn settings() -> impl Iterator<Item = ModelConfig> {
    [Activation::Tanh, Activation::Relu].into_iter().flat_map(|activation| {
        let forms = [
            (Pooling::Avg, 10, Input::Padded),
            (Pooling::Max, 26, Input::Padded),
            (Pooling::Avg, 7, Input::Unpadded),
        ];
        forms.map(|(pooling, classes, input)| ModelConfig {
            activation,
            pooling,
            classes,
            input,
            ..ModelConfig::default()
        })
    })
}

/// Returns for which images rounding to float32 cannot change a decision: no input of relu is close
/// to 0, and no two values of a pooling window are close to each other. (N), bool. `p` holds the
/// parameters in float64.
pub fn decided(config: &ModelConfig, p: &[Tensor], images: &Tensor) -> Tensor {
    const CLOSE: f64 = 1e-6;
    let (relu, max) = (config.activation == Activation::Relu, config.pooling == Pooling::Max);
    let activate = |a: &Tensor| if relu { a.relu() } else { a.tanh() };
    let count = images.size()[0];
    let mut close = Tensor::zeros([count], (Kind::Bool, Device::Cpu));
    let mut x = images.to_kind(Kind::Double);
    for layer in p[..4].chunks(2) {
        let a = x.conv2d(&layer[0], Some(&layer[1]), [1, 1], [0, 0], [1, 1], 1);
        let (maps, half) = (a.size()[1], a.size()[2] / 2);
        let four = a.reshape([count, maps, half, 2, half, 2]).permute([0, 1, 2, 4, 3, 5]);
        let (largest, _) = four.reshape([count, -1, 4]).topk(2, -1, true, true);
        let (first, second) = (largest.select(-1, 0), largest.select(-1, 1));
        let tie = (&first - second).lt(CLOSE);
        let here = match (relu, max) {
            (true, true) => first.abs().lt(CLOSE).logical_or(&tie.logical_and(&first.gt(0.0))),
            (false, true) => tie,
            (true, false) => a.abs().lt(CLOSE).flatten(1, -1),
            (false, false) => tie.zeros_like(),
        };
        close = close.logical_or(&here.any_dim(1, false));
        let values = activate(&four.reshape([count, maps, half, half, 4]));
        x = if max { values.amax([-1], false) } else { values.mean_dim(-1, false, Kind::Double) };
    }
    for layer in p[4..8].chunks(2) {
        let weight = layer[0].reshape([layer[1].size()[0], -1]);
        let a = x.flatten(1, -1).linear(&weight, Some(&layer[1]));
        if relu {
            close = close.logical_or(&a.abs().lt(CLOSE).any_dim(1, false));
        }
        x = activate(&a);
    }
    close.logical_not()
}

/// The plain float64 code in `core/tests/batch.rs` may have the same errors as the kernels;
/// libtorch is independent.
#[test]
fn logits_loss_and_gradients_as_libtorch_in_float64() {
    const SIZE: i64 = 33;
    let _lock = generator();
    for config in settings() {
        tch::manual_seed(3);
        let mut store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &config).unwrap();
        let values = ParameterVector::of(&model);
        store.double();
        let doubles = model.parameter_tensors();
        let side = config.input.size();
        let images = Tensor::rand([2 * SIZE + 8, 1, side, side], (Kind::Float, Device::Cpu));
        let indices = decided(&config, &doubles, &images).nonzero().flatten(0, -1);
        let images = images.index_select(0, &indices.narrow(0, 0, SIZE));
        let labels = Tensor::randint(config.classes, [SIZE], (Kind::Int64, Device::Cpu));
        let logits = model.forward(&images.to_kind(Kind::Double));
        let loss = logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
        let expected = Tensor::run_backward(&[&loss], &doubles, false, false);
        let inputs = inputs(&images);
        let (images, labels) =
            (BatchImages::Inputs(&inputs), Vec::<u8>::try_from(labels.to_kind(Kind::Uint8)).unwrap());
        let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), config.classes);
        let found = kernels.logits(&values, images, SIZE as usize);
        assert!(difference(&Tensor::from_slice(&found).reshape(logits.size()), &logits) < 1e-5);
        let mut gradient = values.clone();
        let found = kernels.gradient(&values, images, &labels, &mut gradient);
        assert!((found / loss.double_value(&[]) - 1.0).abs() < 1e-6);
        let found = gradient.to_tensors(&doubles);
        for ((name, _), (found, expected)) in model.parameters().iter().zip(found.iter().zip(&expected)) {
            let error = difference(found, expected);
            assert!(error < 1e-5, "{:?}: gradient of {name} {error:.1e}", config.activation);
        }
    }
}

#[test]
fn images_are_the_data_sets_to_the_bit() {
    let data = Dataset::read(small_mnist(), Split::Test, 10).unwrap();
    let labels = vec![3; 20];
    for (input, mean) in [
        (Input::Padded, 0.0),
        (Input::Padded, 0.1307),
        (Input::ZeroPadded, 0.1307),
        (Input::Resized, 0.1307),
        (Input::Unpadded, 0.1307),
    ] {
        let config = ModelConfig { input, mean, std: 0.3081, ..ModelConfig::default() };
        let mut values = ParameterVector::zeros(10);
        for (i, value) in values.0.iter_mut().enumerate() {
            *value = ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 0.2;
        }
        // C5 has fewer weights for inputs of 28x28, so arrays go through the network's own shapes.
        let store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &config).unwrap();
        let shapes = model.parameter_tensors();
        let tensors = values.to_tensors(&shapes);
        values.read(&tensors);
        let bytes = GreyImages::of(&data, &config).unwrap();
        let indices: Vec<i64> = (0..20).map(|i| i * 13 % 500).collect();
        let images = data.images().index_select(0, &Tensor::from_slice(&indices));
        let inputs = inputs(&to_input(&images, &config));
        for isa in Isa::available() {
            let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_isa(isa);
            let (mut ours, mut theirs) = (values.clone(), values.clone());
            kernels.gradient(&values, BatchImages::Grey(&bytes, &indices), &labels, &mut ours);
            kernels.gradient(&values, BatchImages::Inputs(&inputs), &labels, &mut theirs);
            assert!(ours == theirs, "{input} {mean} {}", isa.name());
            // Another mean leads to another gradient.
            assert!(ours.0[..150].iter().any(|g| *g != 0.0));
        }
    }
}

#[test]
fn distorted_images_are_the_data_sets_to_the_bit() {
    let data = Dataset::read(small_mnist(), Split::Test, 10).unwrap();
    let indices: Vec<i64> = (0..37).map(|i| i * 13 % 500).collect();
    let distortions = Distortions::best();
    for input in [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded] {
        let config = ModelConfig { input, ..ModelConfig::default() };
        let store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &config).unwrap();
        let (parameters, bytes) = (ParameterVector::of(&model), GreyImages::of(&data, &config).unwrap());
        let images = data.distorted(&Tensor::from_slice(&indices), &config, &distortions, (5, 2)).0;
        let inputs = inputs(&images);
        let side = data.distorted_side(&config);
        let distortion = |index: i64| -> Distortion { distortions.draw(side, 5, 2, index) };
        for isa in Isa::available() {
            let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_isa(isa);
            let mut logits = |images| kernels.logits(&parameters, images, indices.len());
            let distorted = logits(BatchImages::Distorted(&bytes, &indices, &distortion));
            assert_eq!(distorted, logits(BatchImages::Inputs(&inputs)), "{input}");
            assert_ne!(distorted, logits(BatchImages::Grey(&bytes, &indices)), "{input}");
        }
    }
}

#[test]
fn optimizers_as_libtorch() {
    let _lock = generator();
    tch::manual_seed(5);
    let config = ModelConfig::default();
    for settings in optimizers() {
        let store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &config).unwrap();
        let tensors = model.parameter_tensors();
        let mut theirs = settings.build(tensors.iter().map(Tensor::shallow_clone).collect());
        let mut values = ParameterVector::of(&model);
        let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_threads(2);
        let mut ours = BatchOptimizer::new(settings, 10);
        for step in 0..6 {
            let rate = 0.01 / f64::from(step + 1);
            let gradients: Vec<_> = tensors.iter().map(|p| p.detach().randn_like() * 0.1).collect();
            let mut gradient = ParameterVector::zeros(10);
            gradient.read(&gradients);
            let before: Vec<_> = tensors.iter().map(|p| p.detach().copy()).collect();
            theirs.step(&gradients, rate).unwrap();
            kernels.update(&mut values, &gradient, &mut ours, rate);
            for ((found, expected), before) in
                values.to_tensors(&tensors).iter().zip(&tensors).zip(&before)
            {
                let difference = (found - expected).abs().max().double_value(&[]);
                let change = (before - expected).abs().max().double_value(&[]);
                assert!(
                    difference < 1e-4 * change,
                    "{settings:?} {step}: {difference:e} {change:e}"
                );
            }
            // In the middle the optimizer continues from libtorch's state, and from its own saved
            // state.
            if step == 2 {
                values.read(&tensors);
                ours = BatchOptimizer::new(settings, 10);
                ours.read(theirs.as_ref(), &tensors).unwrap();
                let mut copy = settings.build(tensors.iter().map(Tensor::shallow_clone).collect());
                ours.store(copy.as_mut(), &tensors).unwrap();
                let mut again = BatchOptimizer::new(settings, 10);
                again.read(copy.as_ref(), &tensors).unwrap();
                if !matches!(settings, OptimizerConfig::Sgd { momentum: 0.0, .. }) {
                    assert!(ours == again, "{settings:?}");
                }
                theirs = copy;
            }
        }
    }
}

/// Runs one epoch, stopped after each of its first `stops` steps and resumed.
fn stopped(optimizer: OptimizerConfig, stops: usize, folder: &Path) -> Checkpoint {
    let config = TrainConfig {
        data: Some(small_mnist().to_owned()),
        epochs: 1,
        batch_size: 96,
        optimizer,
        learning_rate: 1e-3,
        ..TrainConfig::default()
    };
    let mut run = Run::start(config.clone(), None, folder, Device::Cpu).unwrap();
    for _ in 0..stops {
        assert_eq!(run.train(&AtomicBool::new(true), &mut |_| ()).unwrap(), Outcome::Interrupted);
        drop(run);
        run = Run::resume(config.clone(), folder, Device::Cpu).unwrap();
    }
    assert_eq!(run.train(&AtomicBool::new(false), &mut |_| ()).unwrap(), Outcome::Finished);
    Checkpoint::read(&folder.join("checkpoint.pth")).unwrap()
}

#[test]
fn resumes_to_the_bit() {
    let _lock = generator();
    for optimizer in optimizers() {
        let folder = temp();
        let whole = stopped(optimizer, 0, &folder.path().join("whole"));
        let parts = stopped(optimizer, 3, &folder.path().join("parts"));
        let mut bits = Bits::default();
        for ((name, ours), (_, theirs)) in parts.weights.tensors.iter().zip(&whole.weights.tensors)
        {
            bits.compare(name, ours, theirs);
        }
        let state = |checkpoint: &Checkpoint| {
            let entries = checkpoint.optimizer_state.iter().flatten();
            entries.map(|(name, tensor)| (name.clone(), tensor.copy())).collect::<Vec<_>>()
        };
        let (ours, theirs) = (state(&parts), state(&whole));
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            bits.compare(name, ours, theirs);
        }
        let entries = match optimizer {
            OptimizerConfig::Sgd { momentum: 0.0, .. } => 0,
            OptimizerConfig::Sgd { .. } => 1,
            _ => 3,
        };
        bits.check(10 + 10 * entries);
        assert!((parts.loss_sum, parts.epoch) == (whole.loss_sum, whole.epoch));
    }
}

#[test]
fn evaluates_and_profiles() {
    let folder = temp();
    let data = small_mnist().to_str().unwrap();
    for model in ["modern", "original"] {
        let logits = |engine: &str, threads: &str| {
            let file = folder.path().join(format!("{model}-{engine}-{threads}"));
            let mut command = program("evaluate");
            command.args(["--device=cpu", "--json", "--data", data, "--model", model]);
            command.args(["--engine", engine, "--threads", threads, "--logits"]).arg(&file);
            Ended::from(command.output().unwrap()).success();
            tensors(&file).remove("logits").unwrap()
        };
        let (ours, theirs) = (logits("fused", "1"), logits("libtorch", "1"));
        let error = difference(&ours, &theirs);
        assert!(error > 0.0 && error < 1e-5, "{model}: {error:.1e}");
        let mut bits = Bits::default();
        bits.compare(model, &logits("auto", "2"), &ours);
        bits.check(1);
    }
    let train = |engine: &str| {
        let mut command = program("train");
        command.args([
            "--device=cpu",
            "--profile",
            "--epochs=1",
            "--data",
            data,
            "--engine",
            engine,
        ]);
        Ended::from(command.arg("--out").arg(folder.path().join(engine)).output().unwrap())
    };
    let table = train("fused").success();
    for row in
        ["c1, s2   forward", "c3       back, weights", "all      update", "sgemm on one thread"]
    {
        assert!(table.contains(row), "{table}");
    }
    let ended = train("libtorch");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("--profile goes with the modern network"), "{ended:?}");
}

fn trained(arguments: &[&str], out: &Path) -> (Weights, Vec<Metrics>) {
    let mut command = program("train");
    command.args(["--threads=1", "--device=cpu", "--epochs=2", "--data"]).arg(small_mnist());
    Ended::from(command.args(arguments).arg("--out").arg(out).output().unwrap()).success();
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let metrics = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (Weights::read(&out.join("model.pt")).unwrap(), metrics)
}

#[test]
fn trains_as_libtorch_does() {
    let folder = temp();
    for (index, arguments) in [
        &["--batch-size=64"][..], // the last batch has 40 images
        &["--optimizer=adam", "--activation=relu", "--batch-size=10", "--mean=0.13", "--std=0.3"],
        &["--preset=best", "--batch-size=100"],
    ]
    .into_iter()
    .enumerate()
    {
        let of = |engine: &str| {
            let out = folder.path().join(format!("{engine}-{index}"));
            trained(&[arguments, &["--engine", engine]].concat(), &out)
        };
        let ((ours, measured), (theirs, expected)) = (of("auto"), of("libtorch"));
        for ((name, ours), (_, theirs)) in ours.tensors.iter().zip(&theirs.tensors) {
            let error = difference(ours, theirs);
            println!("{arguments:?} {name}: {error:.1e}");
            assert!(error > 0.0, "auto is the fused engine");
            assert!(error < 2e-3, "{arguments:?} {name}: {error:.1e}");
        }
        for (ours, theirs) in measured.iter().zip(&expected) {
            assert!((ours.train_loss / theirs.train_loss - 1.0).abs() < 1e-4);
            assert_eq!(ours.learning_rate, theirs.learning_rate);
        }
        assert!(measured[1].train_loss < measured[0].train_loss);
    }
}

#[test]
fn what_it_cannot_do() {
    for (arguments, message) in [
        (&["--activation=sigmoid"][..], "--engine fused goes with --activation tanh or relu only"),
        (&["--loss=distance"], "--engine fused goes with --loss cross-entropy only"),
        (&["--classes=129"], "--engine fused has room for 128 classes"),
    ] {
        let common = ["--engine=fused", "--device=cpu", "--out", "never"];
        run("train", [&common[..], arguments].concat()).fails_with(message);
    }
}
