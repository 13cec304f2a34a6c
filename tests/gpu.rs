//! What trains on a GPU, without one. Of the engine that records CUDA graphs nothing is recorded, and each piece of
//! work is done as it comes. The kernels written by hand are compiled for the CPU and run thread by thread. All else
//! is the same code: schedules, steps, batches, distortions, states.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use lenet5::data::{Dataset, Distortions, Split, to_input};
use lenet5::engine::cuda::{self, Arguments, Form, Kernel, Launch, Launcher};
use lenet5::engine::{Order, Trainer, graph};
use lenet5::evaluate::Evaluation;
use lenet5::libtorch::cuda::{Stream, has_graphs};
use lenet5::libtorch::{in_bfloat16, with_threads};
use lenet5::model::{Input, LeNet5, ModelConfig};
use lenet5::optim;
use lenet5::train::TrainConfig;
use lenet5::{DeviceChoice, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use tch::nn::{Module, VarStore};
use tch::{Cuda, Device, Kind, Reduction, Tensor};

use crate::fused::{decided, settings};
use crate::util::{
    Bits, cxx, difference, generator, optimizers, root, run, sgd, small_mnist, temp, write_idx,
};

/// 22 steps an epoch: of the engine that records, two pieces of 8, then 5 and a batch of 28.
const SAMPLES: i64 = 700;
const BATCH: i64 = 32;
const STEPS: usize = 22;

struct Training {
    config: TrainConfig,
    data: Dataset,
    store: VarStore,
    model: LeNet5,
    optimizer: Box<dyn optim::Optimizer>,
}

impl Training {
    fn new(config: TrainConfig) -> Training {
        tch::manual_seed(3);
        let store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &config.model).unwrap();
        let optimizer = config.optimizer.build(model.parameter_tensors());
        let data = Dataset::embedded(Split::Train, 10).unwrap().first(SAMPLES);
        Training { config, data, store, model, optimizer }
    }

    /// In float64.
    fn double(mut self) -> Training {
        self.store.double();
        self
    }

    fn graph(&self) -> Box<dyn Trainer> {
        let (test, optimizer) = (test_data(), &*self.optimizer);
        let data = (&self.data, &test);
        Box::new(graph::Engine::new(&self.config, &self.model, data, optimizer).unwrap())
    }

    /// The kernels, so many images a block.
    fn kernels(&self, teams: usize) -> Box<dyn Trainer> {
        let (test, optimizer) = (test_data(), &*self.optimizer);
        let (data, launcher) = ((&self.data, &test), on_cpu(Form::of(&self.config.model, teams)));
        Box::new(cuda::Engine::new(&self.config, &self.model, data, optimizer, launcher).unwrap())
    }

    /// One epoch's steps from `done` on, by `trainer`, until `stop`; loss and misread.
    fn by_trainer(
        &mut self,
        trainer: &mut dyn Trainer,
        epoch: u32,
        done: usize,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> (f64, u64) {
        let all = places(epoch);
        let places = &all[done * BATCH as usize..];
        let rates: Vec<_> = (done..STEPS).map(|step| rate(epoch, step) as f32).collect();
        let order = Order { places, rates: &rates, epoch };
        let sums = trainer.pass(&self.model, &order, stop).unwrap();
        trainer.store(&self.model, &mut *self.optimizer).unwrap();
        sums
    }

    /// The same, an epoch by autograd, step by step.
    fn by_libtorch(&mut self, epoch: u32) -> (f64, u64) {
        let parameters = self.model.parameter_tensors();
        let (mut sum, mut misread) = (0.0, 0);
        for (step, places) in places(epoch).chunks(BATCH as usize).enumerate() {
            let indices = Tensor::from_slice(places);
            let (images, labels) = match &self.config.distortions {
                None => self.data.batch(&indices, &self.config.model),
                Some(d) => self.data.distorted(&indices, &self.config.model, d, (1, epoch)),
            };
            let logits = self.model.forward(&images.to_kind(parameters[0].kind()));
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

/// Another order in each epoch.
fn places(epoch: u32) -> Vec<i64> {
    (0..SAMPLES).map(|i| (i * [331, 477][epoch as usize]) % SAMPLES).collect()
}

/// Another learning rate in each step.
fn rate(epoch: u32, step: usize) -> f64 {
    0.01 / (1.0 + f64::from(epoch) + step as f64 / STEPS as f64)
}

fn weights(model: &LeNet5) -> Tensor {
    let flat: Vec<_> =
        model.parameter_tensors().iter().map(|p| p.detach().flatten(0, -1)).collect();
    Tensor::cat(&flat, 0)
}

fn test_data() -> Dataset {
    Dataset::read(small_mnist(), Split::Test, 10).unwrap()
}

/// The kernels, compiled for the CPU by `gpu/cuda_on_cpu.cpp`.
struct OnCpu {
    form: Form,
    launch: LaunchOnCpu,
    measured: RefCell<Vec<(Kernel, f64)>>,
}

type LaunchOnCpu = unsafe extern "C" fn(u32, u32, u32, u32, *const Arguments);

fn on_cpu(form: Form) -> Box<dyn Launcher> {
    static COMPILED: Mutex<Vec<(Form, LaunchOnCpu)>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap();
    if let Some(&(_, launch)) = compiled.iter().find(|(other, _)| *other == form) {
        return Box::new(OnCpu { form, launch, measured: RefCell::default() });
    }
    let (folder, source) = (temp(), root().join("tests/gpu/cuda_on_cpu.cpp"));
    let kernels = root().join("src/engine/cuda/kernels.cu");
    let library = folder.path().join("kernels.so");
    // Shared memory is cast to what lies in it.
    let status = cxx()
        .args(["-O2", "-w", "-fno-strict-aliasing", "-shared", "-fPIC"])
        .arg(format!("-DKERNELS=\"{}\"", kernels.display()))
        .args(form.defines())
        .arg(source)
        .arg("-o")
        .arg(&library)
        .status()
        .unwrap();
    assert!(status.success());
    // SAFETY: a library of ours, with this function, never unloaded.
    let launch = unsafe {
        let library = Library::open(Some(library), RTLD_NOW | RTLD_LOCAL).unwrap();
        let launch = *library.get(b"launch").unwrap();
        std::mem::forget(library);
        launch
    };
    compiled.push((form, launch));
    Box::new(OnCpu { form, launch, measured: RefCell::default() })
}

impl Launcher for OnCpu {
    fn form(&self) -> Form {
        self.form
    }

    unsafe fn launch(&self, kernel: Kernel, launch: Launch, arguments: &Arguments) -> Result<()> {
        let Launch { blocks, threads, shared } = launch;
        // SAFETY: the caller's word.
        unsafe { (self.launch)(kernel as u32, blocks, threads, shared, arguments) }
        self.measured.borrow_mut().push((kernel, 1e-5));
        Ok(())
    }

    fn measure(&mut self) {
        self.measured.borrow_mut().clear();
    }

    /// As if each took 10 microseconds.
    fn measured(&self) -> Result<Vec<(Kernel, f64)>> {
        Ok(self.measured.borrow().clone())
    }
}

fn settings_of_steps() -> Vec<TrainConfig> {
    let base = TrainConfig { batch_size: BATCH, train_error: true, ..TrainConfig::default() };
    let of_optimizer = |optimizer| TrainConfig { optimizer, ..base.clone() };
    let of_input = |input| TrainConfig {
        model: ModelConfig { input, mean: 0.1307, std: 0.3081, ..ModelConfig::default() },
        distortions: Some(Distortions::best()),
        ..base.clone()
    };
    let inputs = [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded];
    optimizers().map(of_optimizer).into_iter().chain(inputs.map(of_input)).collect()
}

/// Two epochs by a trainer, which asks after these steps whether to stop: within 1e-5 of libtorch, or, as Adam makes
/// much of gradients that are all rounding, as near to float64 as libtorch is.
fn steps_as_libtorch(
    config: TrainConfig,
    trainer: &dyn Fn(&Training) -> Box<dyn Trainer>,
    expected_stops: &[u64],
) {
    let what = format!("{:?} {}", config.optimizer, config.model.input);
    let training = || Training::new(config.clone());
    let (mut ours, mut theirs, mut exact) = (training(), training(), training().double());
    let before = weights(&ours.model);
    let mut trainer = trainer(&ours);
    for epoch in 0..2 {
        let mut stops = Vec::new();
        let mut stop = |steps| {
            stops.push(steps);
            false
        };
        let (loss, misread) = ours.by_trainer(&mut *trainer, epoch, 0, &mut stop);
        assert_eq!(stops, expected_stops);
        let expected = theirs.by_libtorch(epoch);
        exact.by_libtorch(epoch);
        assert!((loss / expected.0 - 1.0).abs() < 1e-5, "{what}: {loss} {}", expected.0);
        assert_eq!(misread, expected.1, "{what}");
    }
    let [ours_now, theirs_now, exact] = [&ours, &theirs, &exact].map(|run| weights(&run.model));
    let change = difference(&ours_now, &before);
    let error = difference(&ours_now, &theirs_now);
    let [far, theirs_far] = [&ours_now, &theirs_now].map(|weights| difference(weights, &exact));
    println!(
        "{what}: weights within {error:.1e}, changed by {change:.1e}; float64: {far:.1e}, {theirs_far:.1e}"
    );
    assert!(error < 1e-5 * change || far < 2.0 * theirs_far, "{what}: {error:.1e} {change:.1e}");
    let (ours, theirs) = (ours.optimizer.state(), theirs.optimizer.state());
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for ((name, ours), (other, theirs)) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        assert_eq!(name, other);
        let error = difference(ours, theirs);
        assert!(error < 1e-4, "{what}: {name} {error:.1e}");
    }
}

#[test]
fn recorded_steps_as_libtorch() {
    let _lock = generator();
    for config in settings_of_steps() {
        steps_as_libtorch(config, &Training::graph, &[8, 16, 22]);
    }
}

#[test]
fn kernels_step_as_libtorch() {
    let _lock = generator();
    let stops: Vec<_> = (1..=STEPS as u64).collect();
    for (config, teams) in settings_of_steps().into_iter().zip([1, 2, 4].into_iter().cycle()) {
        steps_as_libtorch(config, &|training| training.kernels(teams), &stops);
    }
}

/// Batches of whole blocks, and not: gradients, losses and what is misread.
#[test]
fn kernels_as_libtorch_in_float64() {
    let _lock = generator();
    for (mut config, teams) in settings().zip([1, 2, 4, 2, 4, 1]) {
        // To be of MNIST's bytes, which are no numbers but these.
        (config.mean, config.std) = (0.4, 0.3);
        for size in [1, 7, 33] {
            let what = format!("{:?} {:?} {size}, {teams}", config.activation, config.pooling);
            tch::manual_seed(3);
            let mut store = VarStore::new(Device::Cpu);
            let model = LeNet5::new(&store.root(), &config).unwrap();
            let data = random_data(2 * size + 8, config.classes);
            let optimizer = sgd(0.9, 0.0, 0.0, false);
            let settings = TrainConfig {
                model: config.clone(),
                batch_size: size,
                train_error: true,
                optimizer,
                ..TrainConfig::default()
            };
            let mut optimizer = optimizer.build(model.parameter_tensors());
            let mut engines = [(), ()].map(|()| {
                let (data, launcher) = ((&data, &data), on_cpu(Form::of(&config, teams)));
                cuda::Engine::new(&settings, &model, data, &*optimizer, launcher).unwrap()
            });

            store.double();
            let doubles = model.parameter_tensors();
            let images = to_input(data.images(), &config);
            let places = decided(&config, &doubles, &images).nonzero().flatten(0, -1);
            let places = places.narrow(0, 0, size);
            let labels = data.labels().index_select(0, &places);
            let logits = model.forward(&images.index_select(0, &places).to_kind(Kind::Double));
            let loss =
                logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
            let expected = Tensor::run_backward(&[&loss], &doubles, false, false);
            let misread = logits.argmax(1, false).not_equal_tensor(&labels).sum(Kind::Int64);
            store.float();

            let places = Vec::<i64>::try_from(places).unwrap();
            let order = Order { places: &places, rates: &[0.1], epoch: 0 };
            let mut gradients = Vec::new();
            for engine in &mut engines {
                let (sum, wrong) = engine.pass(&model, &order, &mut |_| false).unwrap();
                let error = (sum / size as f64 / loss.double_value(&[]) - 1.0).abs();
                assert!(error < 1e-6, "{what}: loss {error:.1e}");
                assert_eq!(wrong, misread.int64_value(&[]) as u64, "{what}");
                engine.store(&model, &mut *optimizer).unwrap();
                // After one step the running sum of gradients is the gradient.
                let state = optimizer.state().into_iter().flatten();
                gradients.push(state.map(|(_, sum)| sum.copy()).collect::<Vec<_>>());
            }
            // The threads go in another order: the same bits nevertheless.
            let mut bits = Bits::default();
            for (first, second) in gradients[0].iter().zip(&gradients[1]) {
                bits.compare(&what, first, second);
            }
            bits.check(10);
            let mut worst = 0.0_f64;
            for ((name, _), (ours, theirs)) in
                model.parameters().iter().zip(gradients[0].iter().zip(&expected))
            {
                let error = difference(ours, theirs);
                worst = worst.max(error);
                assert!(error < 1e-5, "{what}: gradient of {name} {error:.1e}");
            }
            println!("{what}: gradients within {worst:.1e}");
        }
    }
}

/// Images of noise.
fn random_data(count: i64, classes: i64) -> Dataset {
    let folder = temp();
    let images = Tensor::randint(256, [count * 784], (Kind::Uint8, Device::Cpu));
    let labels = Tensor::randint(classes, [count], (Kind::Uint8, Device::Cpu));
    let path = |kind: &str| folder.path().join(format!("train-{kind}-ubyte"));
    let count = count as usize;
    let bytes = |tensor: Tensor| Vec::<u8>::try_from(tensor).unwrap();
    write_idx(&path("images-idx3"), &[count, 28, 28], &bytes(images));
    write_idx(&path("labels-idx1"), &[count], &bytes(labels));
    Dataset::read(folder.path(), Split::Train, classes).unwrap()
}

#[test]
fn goes_on_where_it_was_stopped() {
    let _lock = generator();
    let by_kernels = |training: &Training| training.kernels(4);
    let cases = optimizers().map(|optimizer| [(false, optimizer), (true, optimizer)]);
    for (kernels, optimizer) in cases.into_iter().flatten() {
        let trainer = if kernels { by_kernels } else { Training::graph };
        let config = TrainConfig { batch_size: BATCH, optimizer, ..TrainConfig::default() };
        let (mut whole, mut parts) = (Training::new(config.clone()), Training::new(config));
        let (loss, _) = whole.by_trainer(&mut *trainer(&whole), 0, 0, &mut |_| false);
        let (first, _) = parts.by_trainer(&mut *trainer(&parts), 0, 0, &mut |steps| steps == 8);
        // Another trainer has the state from the optimizer.
        let (second, _) = parts.by_trainer(&mut *trainer(&parts), 0, 8, &mut |_| false);
        assert_eq!(weights(&whole.model), weights(&parts.model), "{optimizer:?}");
        assert!(((first + second) / loss - 1.0).abs() < 1e-12);
    }
}

#[test]
fn kernels_are_profiled() {
    let _lock = generator();
    let config = TrainConfig {
        batch_size: BATCH,
        distortions: Some(Distortions::best()),
        ..TrainConfig::default()
    };
    let mut training = Training::new(config);
    let mut trainer = training.kernels(4);
    trainer.measure();
    training.by_trainer(&mut *trainer, 0, 20, &mut |_| false);
    let table = trainer.profile().unwrap();
    let rows: Vec<Vec<_>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["draw", "1", "10.0", "0.01", "20.0"], "{table}");
    assert_eq!(rows[2], ["gradient", "2", "10.0", "0.02", "40.0"]);
    assert_eq!(rows[3], ["update", "2", "10.0", "0.02", "40.0"]);
}

/// NVRTC needs neither a GPU nor its driver: the kernels compile for each architecture that libtorch knows.
#[test]
fn kernels_compile() {
    let libtorch = std::fs::canonicalize(std::env::var_os("LIBTORCH").unwrap()).unwrap();
    let nvrtc = libtorch.parent().unwrap().join("nvidia/cu13/lib/libnvrtc.so.13");
    if !nvrtc.exists() {
        // Of a libtorch without CUDA; one with CUDA has headers and library from one place.
        return assert!(!has_graphs());
    }
    // SAFETY: NVIDIA's library, never unloaded.
    let library = unsafe { Library::open(Some(nvrtc), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.unwrap());
    let architectures = ["sm_75", "sm_80", "sm_90", "sm_100"];
    for (config, architecture) in settings().zip(architectures.into_iter().cycle()) {
        for teams in [1, 2, 4] {
            let code = cuda::compile(&Form::of(&config, teams), architecture).unwrap();
            assert_eq!(&code[..4], b"\x7fELF", "{architecture}");
        }
    }
    let error = cuda::compile(&Form::of(&ModelConfig::default(), 3), "sm_90").unwrap_err();
    assert!(error.to_string().contains("kernels.cu("), "{error}");
}

#[test]
fn reads_as_libtorch() {
    let _lock = generator();
    for input in [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded] {
        let model = ModelConfig { input, mean: 0.1307, std: 0.3081, ..ModelConfig::default() };
        let training = Training::new(TrainConfig { model, ..TrainConfig::default() });
        let test = test_data();
        let expected = Evaluation::of(&training.model, &test, &training.config.model).unwrap();
        for mut trainer in [training.graph(), training.kernels(1), training.kernels(4)] {
            for _ in 0..2 {
                let logits = trainer.evaluate(&training.model).unwrap();
                let found = Evaluation::new(&logits, test.labels()).unwrap();
                assert_eq!(found.confusion, expected.confusion);
                assert!((found.loss / expected.loss - 1.0).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn what_it_cannot_do() {
    for (arguments, message) in [
        (&["--engine=graph"][..], "--engine graph runs on an NVIDIA GPU only"),
        (&["--precision=tf32"], "--precision tf32 runs on an NVIDIA GPU only"),
        (
            &["--engine=fused", "--activation=sigmoid"],
            "--engine fused goes with --activation tanh or relu only",
        ),
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
fn a_panic_leaves_no_setting_behind() {
    let _lock = generator();
    let matrix = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
    let kind = || matrix.matmul(&matrix).kind();
    let inner = || in_bfloat16(Device::Cpu, kind).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        in_bfloat16(Device::Cpu, || {
            assert_eq!(kind(), Kind::BFloat16);
            panic!("in bfloat16")
        })
        .unwrap()
    }));
    assert!(panicked.is_err());
    assert_eq!(kind(), Kind::Float);
    // One within another leaves the outer one's setting.
    let kinds = in_bfloat16(Device::Cpu, || (inner(), kind())).unwrap();
    assert_eq!(kinds, (Kind::BFloat16, Kind::BFloat16));
    assert_eq!(kind(), Kind::Float);

    let threads = tch::get_num_threads();
    let other = threads + 1;
    let panicked = catch_unwind(|| with_threads(other, || panic!("{}", tch::get_num_threads())));
    let message = panicked.unwrap_err().downcast::<String>().unwrap();
    assert_eq!((*message, tch::get_num_threads()), (other.to_string(), threads));
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
