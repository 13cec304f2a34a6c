//! The engine that records CUDA graphs. Without a GPU nothing is recorded, and each piece of work is done as it
//! comes: schedules and steps in tensors, batches, distortions and states are the same code.

use lenet5::data::{Dataset, Distortions, Split};
use lenet5::engine::graph::{Engine, Order};
use lenet5::evaluate::Evaluation;
use lenet5::libtorch::cuda::{Stream, has_graphs};
use lenet5::model::{Input, LeNet5, ModelConfig};
use lenet5::optim;
use lenet5::train::TrainConfig;
use lenet5::{DeviceChoice, Result};
use tch::nn::{Module, VarStore};
use tch::{Cuda, Device, Kind, Tensor};

use crate::util::{difference, generator, optimizers, run, small_mnist, temp};

/// 22 steps an epoch: two pieces of 8, then 5 and a batch of 28.
const SAMPLES: i64 = 700;
const BATCH: i64 = 32;
const STEPS: usize = 22;

struct Training {
    config: TrainConfig,
    data: Dataset,
    _store: VarStore,
    model: LeNet5,
    optimizer: Box<dyn optim::Optimizer>,
}

impl Training {
    fn new(config: TrainConfig) -> Training {
        tch::manual_seed(3);
        let store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &config.model).unwrap();
        let optimizer = config.optimizer.build(parameters(&model));
        let data = Dataset::embedded(Split::Train, 10).unwrap().first(SAMPLES);
        Training { config, data, _store: store, model, optimizer }
    }

    fn engine(&self) -> Result<Engine> {
        let test = Dataset::read(small_mnist(), Split::Test, 10).unwrap();
        Engine::new(&self.config, &self.model, (&self.data, &test), &*self.optimizer)
    }

    /// One epoch's steps from `done` on, by `engine`, until `stop`; loss and misread.
    fn by_graph(
        &mut self,
        engine: &mut Engine,
        epoch: u32,
        done: usize,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> (f64, u64) {
        let all = places(epoch);
        let places = &all[done * BATCH as usize..];
        let rates: Vec<_> = (done..STEPS).map(|step| rate(epoch, step) as f32).collect();
        let side = self.data.distorted_side(&self.config.model);
        let warps: Option<Vec<_>> = self
            .config
            .distortions
            .as_ref()
            .map(|d| places.iter().map(|place| d.warp(side, 1, epoch, *place)).collect());
        let order = Order { places, rates: &rates, warps: warps.as_deref() };
        let sums = engine.pass(&self.model, &order, stop).unwrap();
        engine.store(&mut *self.optimizer).unwrap();
        sums
    }

    /// The same, an epoch by autograd, step by step.
    fn by_libtorch(&mut self, epoch: u32) -> (f64, u64) {
        let parameters = parameters(&self.model);
        let (mut sum, mut misread) = (0.0, 0);
        for (step, places) in places(epoch).chunks(BATCH as usize).enumerate() {
            let indices = Tensor::from_slice(places);
            let (images, labels) = match &self.config.distortions {
                None => self.data.batch(&indices, &self.config.model),
                Some(d) => self.data.distorted(&indices, &self.config.model, d, (1, epoch)),
            };
            let logits = self.model.forward(&images);
            let loss = self.config.loss.of(&logits, &labels);
            let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
            self.optimizer.step(&gradients, rate(epoch, step)).unwrap();
            sum += loss.double_value(&[]) * places.len() as f64;
            let wrong = logits.argmax(1, false).not_equal_tensor(&labels);
            misread += wrong.sum(Kind::Int64).int64_value(&[]) as u64;
        }
        (sum, misread)
    }
}

fn parameters(model: &LeNet5) -> Vec<Tensor> {
    model.parameters().into_iter().map(|(_, p)| p).collect()
}

/// Another order in each epoch.
fn places(epoch: u32) -> Vec<i64> {
    (0..SAMPLES).map(|i| (i * [331, 477][epoch as usize]) % SAMPLES).collect()
}

/// Another learning rate in each step.
fn rate(epoch: u32, step: usize) -> f64 {
    0.01 / (1.0 + f64::from(epoch) + step as f64 / STEPS as f64)
}

fn weights(model: &LeNet5) -> Tensor {
    let flat: Vec<_> = parameters(model).iter().map(|p| p.detach().flatten(0, -1)).collect();
    Tensor::cat(&flat, 0)
}

#[test]
fn steps_as_libtorch() {
    let _lock = generator();
    let base = TrainConfig { batch_size: BATCH, train_error: true, ..TrainConfig::default() };
    let of_optimizer = |optimizer| TrainConfig { optimizer, ..base.clone() };
    let of_input = |input| TrainConfig {
        model: ModelConfig { input, mean: 0.1307, std: 0.3081, ..ModelConfig::default() },
        distortions: Some(Distortions::best()),
        ..base.clone()
    };
    let inputs = [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded];
    for config in optimizers().map(of_optimizer).into_iter().chain(inputs.map(of_input)) {
        let what = format!("{:?} {}", config.optimizer, config.model.input);
        let (mut ours, mut theirs) = (Training::new(config.clone()), Training::new(config));
        let before = weights(&ours.model);
        let mut engine = ours.engine().unwrap();
        for epoch in 0..2 {
            let mut stops = Vec::new();
            let mut stop = |steps| {
                stops.push(steps);
                false
            };
            let (loss, misread) = ours.by_graph(&mut engine, epoch, 0, &mut stop);
            assert_eq!(stops, [8, 16, 22]);
            let expected = theirs.by_libtorch(epoch);
            assert!((loss / expected.0 - 1.0).abs() < 1e-5, "{what}: {loss} {}", expected.0);
            assert_eq!(misread, expected.1, "{what}");
        }
        let change = difference(&weights(&ours.model), &before);
        let error = difference(&weights(&ours.model), &weights(&theirs.model));
        // The fused optimizers round otherwise.
        println!("{what}: weights within {error:.1e}, changed by {change:.1e}");
        assert!(error < 1e-5 * change, "{what}: {error:.1e} {change:.1e}");
        let (ours, theirs) = (ours.optimizer.state(), theirs.optimizer.state());
        assert_eq!(ours.len(), theirs.len(), "{what}");
        for ((name, ours), (other, theirs)) in ours.iter().flatten().zip(theirs.iter().flatten()) {
            assert_eq!(name, other);
            let error = difference(ours, theirs);
            assert!(error < 1e-4, "{what}: {name} {error:.1e}");
        }
    }
}

#[test]
fn goes_on_where_it_was_stopped() {
    let _lock = generator();
    for optimizer in optimizers() {
        let config = TrainConfig { batch_size: BATCH, optimizer, ..TrainConfig::default() };
        let (mut whole, mut parts) = (Training::new(config.clone()), Training::new(config));
        let mut engine = whole.engine().unwrap();
        let (loss, _) = whole.by_graph(&mut engine, 0, 0, &mut |_| false);
        let mut engine = parts.engine().unwrap();
        let (first, _) = parts.by_graph(&mut engine, 0, 0, &mut |steps| steps == 8);
        // Another engine has the state from the optimizer.
        let mut engine = parts.engine().unwrap();
        let (second, _) = parts.by_graph(&mut engine, 0, 8, &mut |_| false);
        assert_eq!(weights(&whole.model), weights(&parts.model), "{optimizer:?}");
        assert!(((first + second) / loss - 1.0).abs() < 1e-12);
    }
}

#[test]
fn reads_as_libtorch() {
    let _lock = generator();
    let training = Training::new(TrainConfig::default());
    let mut engine = training.engine().unwrap();
    let test = Dataset::read(small_mnist(), Split::Test, 10).unwrap();
    let expected = Evaluation::of(&training.model, &test, &training.config.model).unwrap();
    for _ in 0..3 {
        let logits = engine.evaluate(&training.model).unwrap();
        let found = Evaluation::new(&logits, test.labels()).unwrap();
        assert_eq!(found.confusion, expected.confusion);
        assert!((found.loss / expected.loss - 1.0).abs() < 1e-6);
    }
}

#[test]
fn what_it_cannot_do() {
    for (arguments, message) in [
        (&["--engine=graph"][..], "--engine graph runs on an NVIDIA GPU only"),
        (&["--precision=tf32"], "--precision tf32 runs on an NVIDIA GPU only"),
        (&["--precision=bf16", "--engine=fused"], "--engine fused goes with --precision fp32 only"),
    ] {
        let common = ["--device=cpu", "--limit=100", "--epochs=1", "--out", "never"];
        run("train", [&common, arguments].concat()).fails_with(message);
    }
    run("evaluate", ["--engine=graph"])
        .fails_with("--engine graph: images that are read once are not worth recording");
}

/// A GPU is not needed to load the CUDA part and to find all its functions in libtorch.
#[test]
fn the_cuda_part_is_whole() {
    let opened = DeviceChoice::Cuda(0).open();
    if let Err(error) = &opened {
        // A libtorch without CUDA has no use for it.
        if error.to_string().contains("has no CUDA") {
            return assert!(!has_graphs());
        }
    }
    assert!(
        has_graphs(),
        "pip install -r scripts/requirements-cuda-build.txt, then touch build.rs"
    );
    match Stream::new(0) {
        Ok(_) => assert!(Cuda::device_count() > 0),
        Err(error) => {
            assert!(opened.is_err());
            assert!(error.to_string().contains("driver"), "{error}");
        }
    }
}

#[test]
fn bfloat16_trains_too() {
    let folder = temp();
    let error = |precision: &str| {
        let out = folder.path().join(precision);
        let arguments =
            ["--engine=libtorch", "--device=cpu", "--epochs=1", "--limit=128", "--deterministic"];
        let data = format!("--data={}", small_mnist().display());
        let out_argument = format!("--out={}", out.display());
        let own = [&data, &out_argument, &format!("--precision={precision}")];
        run("train", arguments.into_iter().chain(own.map(String::as_str))).success();
        let metrics = lenet5::train::read_metrics(&out).unwrap();
        let config = lenet5::train::read_config(&out).unwrap();
        assert!(config.deterministic);
        metrics[0].train_loss
    };
    let (fp32, bf16) = (error("fp32"), error("bf16"));
    assert!(fp32 != bf16 && (fp32 / bf16 - 1.0).abs() < 0.05, "{fp32} {bf16}");
}
