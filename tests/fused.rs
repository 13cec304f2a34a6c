//! The fused engine compared with libtorch: gradients, images, optimizers, whole runs. The kernels
//! themselves are compared with plain float64 code in `core/tests/batch.rs`.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use lenet5::data::{Dataset, Split, to_input};
use lenet5::engine::{Data, Engine, FusedEngine, OptimizerState, State};
use lenet5::libtorch::{Generator, to_arrays, to_tensor};
use lenet5::model::{Input, LeNet5, ModelConfig};
use lenet5::optim;
use lenet5::recipe::{Distortion, Distortions, OptimizerConfig, TrainConfig};
use lenet5::train::{EpochMetrics, Outcome, Run, checkpoint_path};
use lenet5::weights::{Checkpoint, Weights};
use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, BatchOptimizer, GreyImages, ParameterVector,
};
use lenet5_core::kernels::simd::Isa;
use tch::nn::{Module, VarStore};
use tch::{Device, Kind, Reduction, Tensor};

use crate::model::new;
use crate::util::{
    Bits, Ended, decided, difference, fused_models, optimizer_tensors, optimizers, program, run,
    small_mnist, temp, tensors,
};

/// Returns images as the kernels take them: 32x32, or 28x28 in the upper left corner.
fn inputs(images: &Tensor) -> Vec<[f32; 1024]> {
    let padding = 32 - images.size()[3];
    let images = images.constant_pad_nd([0, padding, 0, padding]).flatten(0, -1);
    Vec::<f32>::try_from(images).unwrap().as_chunks().0.to_vec()
}

/// Returns the images of a data set as the kernels take them.
fn grey(data: &Dataset, config: &ModelConfig) -> GreyImages {
    let data = data.resized(config).unwrap();
    let pixels = Vec::<u8>::try_from(data.images().flatten(0, -1)).unwrap();
    GreyImages::new(pixels, data.images().size()[2] as usize, config)
}

/// Compares with libtorch, as the float64 code in `core/tests/batch.rs` may share an error with the
/// kernels.
#[test]
fn logits_loss_and_gradients_as_libtorch_in_float64() {
    const SIZE: i64 = 33;
    for config in fused_models() {
        let (classes, side) = (config.classes as i64, config.input.size() as i64);
        let mut store = VarStore::new(Device::Cpu);
        let draw = || {
            let model = LeNet5::new(&store.root(), &config).unwrap();
            let images = Tensor::rand([2 * SIZE + 8, 1, side, side], (Kind::Float, Device::Cpu));
            (model, images, Tensor::randint(classes, [SIZE], (Kind::Int64, Device::Cpu)))
        };
        let (model, images, labels) = Generator::seeded(3).unwrap().draw(draw).unwrap();
        let values = ParameterVector::of(&model.weights().unwrap());

        store.double();
        let doubles = model.parameter_tensors();
        let indices = decided(&config, &doubles, &images).nonzero().flatten(0, -1);
        let images = images.index_select(0, &indices.narrow(0, 0, SIZE));
        let logits = model.forward(&images.to_kind(Kind::Double));
        let loss = logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
        let expected = Tensor::run_backward(&[&loss], &doubles, false, false);

        let inputs = inputs(&images);
        let images = BatchImages::Inputs(&inputs);
        let labels = Vec::<u8>::try_from(labels.to_kind(Kind::Uint8)).unwrap();
        let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), config.classes);
        let found = kernels.logits(&values, images, SIZE as usize);
        let found = Tensor::from_slice(&found).reshape([SIZE, classes]);
        assert!(difference(&found, &logits) < 1e-5, "{config}");
        let mut gradient = values.clone();
        let found = kernels.gradient(&values, images, &labels, &mut gradient);
        assert!((found / loss.double_value(&[]) - 1.0).abs() < 1e-6, "{config}");
        let found = gradient.to_arrays(&config);
        for ((name, _), (found, expected)) in
            model.parameters().iter().zip(found.iter().zip(&expected))
        {
            let error = difference(&to_tensor(found).unwrap(), expected);
            assert!(error < 1e-5, "{config}: gradient with respect to {name} {error:.1e}");
        }
    }
}

#[test]
fn images_are_the_data_sets_to_the_bit() {
    let data = Dataset::read(small_mnist(), Split::Test, 10).unwrap();
    let indices: Vec<i64> = (0..20).map(|i| i * 13 % 500).collect();
    let labels = vec![3; 20];
    for (input, mean) in [
        (Input::Padded, 0.0),
        (Input::Padded, 0.1307),
        (Input::ZeroPadded, 0.1307),
        (Input::Resized, 0.1307),
        (Input::Unpadded, 0.1307),
    ] {
        let config = ModelConfig { input, mean, std: 0.3081, ..ModelConfig::default() };
        let values = ParameterVector::of(&new(&config).weights().unwrap());
        let grey = grey(&data, &config);
        let images = data.images().index_select(0, &Tensor::from_slice(&indices));
        let inputs = inputs(&to_input(&images, &config));
        for isa in Isa::available() {
            let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_isa(isa);
            let (mut ours, mut theirs) = (values.clone(), values.clone());
            kernels.gradient(&values, BatchImages::Grey(&grey, &indices), &labels, &mut ours);
            kernels.gradient(&values, BatchImages::Inputs(&inputs), &labels, &mut theirs);
            assert!(ours == theirs, "{input} {mean} {}", isa.name());
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
        let values = ParameterVector::of(&new(&config).weights().unwrap());
        let grey = grey(&data, &config);
        let images = data.distorted(&Tensor::from_slice(&indices), &config, &distortions, (5, 2)).0;
        let inputs = inputs(&images);
        // Images that are padded after normalising are distorted without their padding.
        let side = if input == Input::ZeroPadded { 28 } else { input.size() };
        let distortion = |index: i64| -> Distortion { distortions.draw(side, 5, 2, index) };
        for isa in Isa::available() {
            let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_isa(isa);
            let mut logits = |images| kernels.logits(&values, images, indices.len());
            let distorted = logits(BatchImages::Distorted(&grey, &indices, &distortion));
            assert_eq!(distorted, logits(BatchImages::Inputs(&inputs)), "{input}");
            assert_ne!(distorted, logits(BatchImages::Grey(&grey, &indices)), "{input}");
        }
    }
}

#[test]
fn optimizers_as_libtorch() {
    let config = ModelConfig::default();
    let test = || Dataset::read(small_mnist(), Split::Test, 10).unwrap().first(1);
    let data = Data { train: test(), test: test() };
    let mut generator = Generator::seeded(5).unwrap();
    for settings in optimizers() {
        let model = new(&config);
        let tensors = model.parameter_tensors();
        let mut theirs =
            optim::build(&settings, tensors.iter().map(Tensor::shallow_clone).collect());
        let mut values = ParameterVector::of(&model.weights().unwrap());
        let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_threads(2);
        let mut ours = BatchOptimizer::new(settings, 10);
        for step in 0..6 {
            let rate = 0.01 / f64::from(step + 1);
            let draw = || tensors.iter().map(|p| p.detach().randn_like() * 0.1).collect();
            let gradients: Vec<Tensor> = generator.draw(draw).unwrap();
            let gradient = ParameterVector::from_arrays(&to_arrays(&gradients).unwrap());
            let before: Vec<_> = tensors.iter().map(|p| p.detach().copy()).collect();
            theirs.step(&gradients, rate).unwrap();
            kernels.update(&mut values, &gradient, &mut ours, rate);
            let found = values.to_arrays(&config);
            for ((found, expected), before) in found.iter().zip(&tensors).zip(&before) {
                let found = to_tensor(found).unwrap();
                let difference = (found - expected).abs().max().double_value(&[]);
                let change = (before - expected).abs().max().double_value(&[]);
                assert!(
                    difference < 1e-4 * change,
                    "{settings:?} {step}: {difference:e} {change:e}"
                );
            }
            // The engine takes libtorch's state, and returns the same bits.
            let state =
                State { tensors: values.to_arrays(&config), optimizer: theirs.state().unwrap() };
            let recipe = TrainConfig { optimizer: settings, ..TrainConfig::default() };
            let engine = FusedEngine::open(&recipe, &state, &data).unwrap();
            assert!(engine.state().unwrap() == state, "{settings:?}");
        }
    }
}

/// Returns the checkpoint of a run of one epoch that was stopped after each of its first `stops`
/// steps.
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
        let outcome = run.train(&AtomicBool::new(true), &mut ()).unwrap();
        assert_eq!(outcome, Outcome::Interrupted);
        drop(run);
        run = Run::resume(config.clone(), folder, Device::Cpu).unwrap();
    }
    let outcome = run.train(&AtomicBool::new(false), &mut ()).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    Checkpoint::read(&checkpoint_path(folder)).unwrap()
}

#[test]
fn resumes_to_the_bit() {
    for optimizer in optimizers() {
        let folder = temp();
        let whole = stopped(optimizer, 0, &folder.path().join("whole"));
        let parts = stopped(optimizer, 3, &folder.path().join("parts"));
        let mut bits = Bits::default();
        for ((name, ours), (_, theirs)) in parts.weights.tensors.iter().zip(&whole.weights.tensors)
        {
            bits.compare_arrays(name, ours, theirs);
        }
        let (ours, theirs) =
            (optimizer_tensors(&parts.optimizer), optimizer_tensors(&whole.optimizer));
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            bits.compare(name, ours, theirs);
        }
        let kept = match optimizer {
            OptimizerConfig::Sgd { momentum: 0.0, .. } => 0,
            OptimizerConfig::Sgd { .. } => 1,
            _ => 2,
        };
        bits.check(10 + 10 * kept);
        if let [OptimizerState::Adam { step, .. }, OptimizerState::Adam { step: expected, .. }] =
            [&parts.optimizer, &whole.optimizer]
        {
            assert_eq!(step, expected);
        }
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
        command.args(["--device=cpu", "--profile", "--epochs=1", "--data", data]);
        command.args(["--engine", engine, "--out"]).arg(folder.path().join(engine));
        Ended::from(command.output().unwrap())
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

#[test]
fn the_environment_chooses_the_instruction_set() {
    let folder = temp();
    let data = small_mnist().to_str().unwrap();
    let train = |isa: &str| {
        let mut command = program("train");
        command.env("LENET5_ISA", isa).args(["--device=cpu", "--profile", "--epochs=1"]);
        command.args(["--engine=fused", "--data", data, "--out"]).arg(folder.path().join(isa));
        Ended::from(command.output().unwrap())
    };
    for isa in Isa::available() {
        let table = train(isa.name()).success();
        assert!(table.contains(&format!("instruction set: {}\n", isa.name())), "{table}");
    }
    let ended = train("avx3");
    assert_eq!(ended.code, Some(1));
    let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    let expected =
        format!("LENET5_ISA: expected {} on this machine, found avx3", names.join(" or "));
    assert!(ended.stderr.contains(&expected), "{ended:?}");
}

/// Returns the weights of a run of two epochs, and its measurements.
fn trained(arguments: &[&str], out: &Path) -> (Weights, Vec<EpochMetrics>) {
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
            let error = difference(&to_tensor(ours).unwrap(), &to_tensor(theirs).unwrap());
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
