//! Tests of the GPU engines without a GPU. The engine that records CUDA graphs records nothing, and
//! each piece of work is run directly. The CUDA kernels are compiled for the CPU and run thread by
//! thread. Everything else is the same code: schedules, steps, batches, distortions, states.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use lenet5::data::{Dataset, Split, to_input};
use lenet5::engine::cuda::{self, CudaKernel, KernelArguments, KernelForm, Launch, Launcher};
use lenet5::engine::{CudaEngine, Data, Engine, Epoch, GraphEngine, OptimizerState, State, Totals};
use lenet5::evaluate::Evaluation;
use lenet5::libtorch::cuda::{Stream, has_graphs};
use lenet5::libtorch::{in_bfloat16, to_array, to_tensor, with_threads};
use lenet5::model::{Input, LeNet5, ModelConfig, loss};
use lenet5::optim;
use lenet5::recipe::{Distortions, TrainConfig};
use lenet5::{DeviceChoice, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use tch::nn::{Module, VarStore};
use tch::{Cuda, Device, Kind, Reduction, Tensor};

use crate::util::{
    Bits, cxx, decided, difference, fused_models, generator, optimizer_tensors, optimizers, root,
    run, sgd, small_mnist, temp, write_idx,
};

/// 700 images make 22 steps per epoch. The engine that records splits them into two pieces of 8
/// steps, then 5 steps and a batch of 28.
const SAMPLES: i64 = 700;
const BATCH: i64 = 32;
const STEPS: usize = 22;

/// A model that libtorch trains step by step, with everything that is needed to open engines on the
/// same data.
struct Training {
    recipe: TrainConfig,
    data: Data,
    store: VarStore,
    model: LeNet5,
    optimizer: Box<dyn optim::Optimizer>,
    /// The state before the first step.
    state: State,
}

impl Training {
    fn new(recipe: TrainConfig) -> Training {
        tch::manual_seed(3);
        let store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &recipe.model).unwrap();
        let optimizer = optim::build(&recipe.optimizer, model.parameter_tensors());
        let train = Dataset::embedded(Split::Train, 10).unwrap().first(SAMPLES);
        let data = Data { train, test: test_data() };
        let state = state(&model);
        Training { recipe, data, store, model, optimizer, state }
    }

    /// Converts the model to float64.
    fn double(mut self) -> Training {
        self.store.double();
        self
    }

    fn graph(&self, state: &State) -> Box<dyn Engine> {
        Box::new(GraphEngine::open(&self.recipe, state, &self.data, Device::Cpu).unwrap())
    }

    /// Opens the engine of the CUDA kernels, with blocks of `teams` images.
    fn kernels(&self, state: &State, teams: usize) -> Box<dyn Engine> {
        let launcher = on_cpu(KernelForm::of(&self.recipe.model, teams).unwrap());
        let engine = CudaEngine::open(&self.recipe, state, &self.data, Device::Cpu, launcher);
        Box::new(engine.unwrap())
    }

    /// Trains an epoch by autograd, step by step. Returns the sum of the losses, and the number of
    /// misclassified images.
    fn by_libtorch(&mut self, epoch: u32) -> (f64, u64) {
        let parameters = self.model.parameter_tensors();
        let (mut sum, mut misclassified) = (0.0, 0);
        for (step, indices) in order(epoch).chunks(BATCH as usize).enumerate() {
            let count = indices.len() as f64;
            let (indices, data) = (Tensor::from_slice(indices), &self.data.train);
            let (images, labels) = match &self.recipe.distortions {
                None => data.batch(&indices, &self.recipe.model),
                Some(d) => data.distorted(&indices, &self.recipe.model, d, (1, epoch)),
            };
            let logits = self.model.forward(&images.to_kind(parameters[0].kind()));
            let loss = loss(self.recipe.loss, &logits, &labels);
            let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
            self.optimizer.step(&gradients, rate(epoch, step)).unwrap();
            sum += loss.double_value(&[]) * count;
            let wrong = logits.argmax(1, false).not_equal_tensor(&labels);
            misclassified += wrong.sum(Kind::Int64).int64_value(&[]) as u64;
        }
        (sum, misclassified)
    }
}

/// Returns the state of a model before the first step.
fn state(model: &LeNet5) -> State {
    let tensors = model.state().iter().map(|(_, tensor)| to_array(tensor).unwrap()).collect();
    State { tensors, optimizer: OptimizerState::Empty }
}

/// Trains the steps of an epoch from `done` on with an engine, until `stop` returns true for the
/// number of steps done.
fn by_engine(
    engine: &mut dyn Engine,
    epoch: u32,
    done: u64,
    mut stop: impl FnMut(u64) -> bool + Send,
) -> Totals {
    let order = order(epoch);
    let learning_rates: Vec<_> = (0..STEPS).map(|step| rate(epoch, step)).collect();
    let epoch = Epoch { number: epoch, order: &order, learning_rates: &learning_rates, done };
    let mut after_step = |steps| match stop(steps) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    engine.train(&epoch, &mut after_step).unwrap()
}

/// Returns the order of the images, which differs between epochs.
fn order(epoch: u32) -> Vec<i64> {
    (0..SAMPLES).map(|i| (i * [331, 477][epoch as usize]) % SAMPLES).collect()
}

/// Returns the learning rate, which differs between steps.
fn rate(epoch: u32, step: usize) -> f64 {
    0.01 / (1.0 + f64::from(epoch) + step as f64 / STEPS as f64)
}

fn weights(model: &LeNet5) -> Tensor {
    let flat: Vec<_> =
        model.parameter_tensors().iter().map(|p| p.detach().flatten(0, -1)).collect();
    Tensor::cat(&flat, 0)
}

fn weights_of(state: &State) -> Tensor {
    let flat: Vec<_> =
        state.tensors.iter().map(|array| to_tensor(array).unwrap().flatten(0, -1)).collect();
    Tensor::cat(&flat, 0)
}

fn test_data() -> Dataset {
    Dataset::read(small_mnist(), Split::Test, 10).unwrap()
}

/// The CUDA kernels, compiled for the CPU by `gpu/cuda_on_cpu.cpp`.
struct OnCpu {
    form: KernelForm,
    launch: LaunchOnCpu,
    measured: RefCell<Vec<(CudaKernel, f64)>>,
}

type LaunchOnCpu = unsafe extern "C" fn(u32, u32, u32, u32, *const KernelArguments);

fn on_cpu(form: KernelForm) -> Box<dyn Launcher> {
    static COMPILED: Mutex<Vec<(KernelForm, LaunchOnCpu)>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap();
    if let Some(&(_, launch)) = compiled.iter().find(|(other, _)| *other == form) {
        return Box::new(OnCpu { form, launch, measured: RefCell::default() });
    }
    let (folder, source) = (temp(), root().join("tests/gpu/cuda_on_cpu.cpp"));
    let kernels = root().join("src/engine/cuda/kernels.cu");
    let library = folder.path().join("kernels.so");
    // The kernels cast shared memory to other types, so aliasing rules must be off.
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
    // SAFETY: the library was just compiled, has this function, and is never unloaded.
    #[allow(unsafe_code)]
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
    fn form(&self) -> KernelForm {
        self.form
    }

    #[allow(unsafe_code)]
    unsafe fn launch(
        &self,
        kernel: CudaKernel,
        launch: Launch,
        arguments: &KernelArguments,
    ) -> Result<()> {
        let Launch { blocks, threads, shared } = launch;
        // SAFETY: the caller guarantees that the arguments are right.
        unsafe { (self.launch)(kernel as u32, blocks, threads, shared, arguments) }
        self.measured.borrow_mut().push((kernel, 1e-5));
        Ok(())
    }

    fn measure(&mut self) {
        self.measured.borrow_mut().clear();
    }

    /// Returns 10 microseconds for each launch.
    fn measured(&self) -> Result<Vec<(CudaKernel, f64)>> {
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

/// Trains two epochs with an engine, which calls back after the steps `expected_calls`. The weights
/// must be within 1e-5 of libtorch's, or as near to float64 as libtorch's, as Adam amplifies
/// rounding errors of tiny gradients.
fn steps_as_libtorch(
    recipe: TrainConfig,
    open: &dyn Fn(&Training) -> Box<dyn Engine>,
    expected_calls: &[u64],
) {
    let what = format!("{:?} {}", recipe.optimizer, recipe.model.input);
    let training = || Training::new(recipe.clone());
    let (ours, mut theirs, mut exact) = (training(), training(), training().double());
    let before = weights(&ours.model);
    let mut engine = open(&ours);
    for epoch in 0..2 {
        let mut calls = Vec::new();
        let totals = by_engine(&mut *engine, epoch, 0, |steps| {
            calls.push(steps);
            false
        });
        assert_eq!(calls, expected_calls);
        let (loss, misclassified) = theirs.by_libtorch(epoch);
        exact.by_libtorch(epoch);
        assert!((totals.loss / loss - 1.0).abs() < 1e-5, "{what}: {} {loss}", totals.loss);
        assert_eq!(totals.misclassified, misclassified, "{what}");
    }
    let state = engine.state().unwrap();
    let (ours, theirs_now, exact) =
        (weights_of(&state), weights(&theirs.model), weights(&exact.model));
    let (change, error) = (difference(&ours, &before), difference(&ours, &theirs_now));
    let [far, theirs_far] = [&ours, &theirs_now].map(|weights| difference(weights, &exact));
    println!(
        "{what}: weights within {error:.1e}, changed by {change:.1e}; float64: {far:.1e}, {theirs_far:.1e}"
    );
    assert!(error < 1e-5 * change || far < 2.0 * theirs_far, "{what}: {error:.1e} {change:.1e}");
    let expected = theirs.optimizer.state().unwrap();
    if let (OptimizerState::Adam { step, .. }, OptimizerState::Adam { step: other, .. }) =
        (&state.optimizer, &expected)
    {
        assert_eq!(step, other, "{what}");
    }
    let (ours, theirs) = (optimizer_tensors(&state.optimizer), optimizer_tensors(&expected));
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for ((name, ours), (other, theirs)) in ours.iter().zip(&theirs) {
        assert_eq!(name, other);
        let error = difference(ours, theirs);
        assert!(error < 1e-4, "{what}: {name} {error:.1e}");
    }
}

fn recorded_steps(settings: impl Iterator<Item = TrainConfig>) {
    let _lock = generator();
    for recipe in settings {
        steps_as_libtorch(recipe, &|training| training.graph(&training.state), &[8, 16, 22]);
    }
}

#[test]
fn recorded_steps_as_libtorch() {
    recorded_steps(settings_of_steps().into_iter().take(1));
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn recorded_steps_as_libtorch_for_all_settings() {
    recorded_steps(settings_of_steps().into_iter().skip(1));
}

fn kernel_steps(settings: impl Iterator<Item = TrainConfig>) {
    let _lock = generator();
    let calls: Vec<_> = (1..=STEPS as u64).collect();
    for (recipe, teams) in settings.zip([1, 2, 4].into_iter().cycle()) {
        steps_as_libtorch(recipe, &|training| training.kernels(&training.state, teams), &calls);
    }
}

#[test]
fn kernels_step_as_libtorch() {
    kernel_steps(settings_of_steps().into_iter().take(1));
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn kernels_step_as_libtorch_for_all_settings() {
    kernel_steps(settings_of_steps().into_iter());
}

/// Compares gradients, losses and misclassified images, for batches of whole blocks and others.
#[test]
fn kernels_as_libtorch_in_float64() {
    let _lock = generator();
    for (mut config, teams) in fused_models().zip([1, 2, 4, 2, 4, 1]) {
        // These settings give other grey levels than the default ones.
        (config.mean, config.std) = (0.4, 0.3);
        for size in [1, 7, 33] {
            let what = format!("{:?} {:?} {size}, {teams}", config.activation, config.pooling);
            tch::manual_seed(3);
            let mut store = VarStore::new(Device::Cpu);
            let model = LeNet5::new(&store.root(), &config).unwrap();
            let train = random_data(2 * size + 8, config.classes);
            let data = Data { test: train.first(i64::MAX), train };
            let recipe = TrainConfig {
                model: config.clone(),
                batch_size: size,
                train_error: true,
                optimizer: sgd(0.9, 0.0, 0.0, false),
                ..TrainConfig::default()
            };
            let state = state(&model);
            let mut engines = [(), ()].map(|()| {
                let launcher = on_cpu(KernelForm::of(&config, teams).unwrap());
                CudaEngine::open(&recipe, &state, &data, Device::Cpu, launcher).unwrap()
            });

            store.double();
            let doubles = model.parameter_tensors();
            let images = to_input(data.train.images(), &config);
            let indices = decided(&config, &doubles, &images).nonzero().flatten(0, -1);
            let indices = indices.narrow(0, 0, size);
            let labels = data.train.labels().index_select(0, &indices);
            let logits = model.forward(&images.index_select(0, &indices).to_kind(Kind::Double));
            let loss =
                logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
            let expected = Tensor::run_backward(&[&loss], &doubles, false, false);
            let misclassified = logits.argmax(1, false).not_equal_tensor(&labels);
            let misclassified = misclassified.sum(Kind::Int64).int64_value(&[]) as u64;

            let order = Vec::<i64>::try_from(indices).unwrap();
            let epoch = Epoch { number: 0, order: &order, learning_rates: &[0.1], done: 0 };
            let mut gradients = Vec::new();
            for engine in &mut engines {
                let totals = engine.train(&epoch, &mut |_| ControlFlow::Continue(())).unwrap();
                let error = (totals.loss / size as f64 / loss.double_value(&[]) - 1.0).abs();
                assert!(error < 1e-6, "{what}: loss {error:.1e}");
                assert_eq!(totals.misclassified, misclassified, "{what}");
                // After one step the momentum buffer is the gradient.
                gradients.push(optimizer_tensors(&engine.state().unwrap().optimizer));
            }
            // The threads run in another order and must give the same bits.
            let mut bits = Bits::default();
            for ((_, first), (_, second)) in gradients[0].iter().zip(&gradients[1]) {
                bits.compare(&what, first, second);
            }
            bits.check(10);
            let mut worst = 0.0_f64;
            for ((name, _), ((_, ours), theirs)) in
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

/// Creates a data set of random images.
fn random_data(count: i64, classes: usize) -> Dataset {
    let folder = temp();
    let images = Tensor::randint(256, [count * 784], (Kind::Uint8, Device::Cpu));
    let labels = Tensor::randint(classes as i64, [count], (Kind::Uint8, Device::Cpu));
    let path = |kind: &str| folder.path().join(format!("train-{kind}-ubyte"));
    let count = count as usize;
    let bytes = |tensor: Tensor| Vec::<u8>::try_from(tensor).unwrap();
    write_idx(&path("images-idx3"), &[count, 28, 28], &bytes(images));
    write_idx(&path("labels-idx1"), &[count], &bytes(labels));
    Dataset::read(folder.path(), Split::Train, classes).unwrap()
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn goes_on_where_it_was_stopped() {
    let _lock = generator();
    let cases = optimizers().map(|optimizer| [(false, optimizer), (true, optimizer)]);
    for (kernels, optimizer) in cases.into_iter().flatten() {
        let recipe = TrainConfig { batch_size: BATCH, optimizer, ..TrainConfig::default() };
        let training = Training::new(recipe);
        let open = |state: &State| match kernels {
            true => training.kernels(state, 4),
            false => training.graph(state),
        };
        let mut whole = open(&training.state);
        let loss = by_engine(&mut *whole, 0, 0, |_| false).loss;
        let mut first = open(&training.state);
        let first_loss = by_engine(&mut *first, 0, 0, |steps| steps == 8).loss;
        // Another engine continues from the state.
        let mut second = open(&first.state().unwrap());
        let second_loss = by_engine(&mut *second, 0, 8, |_| false).loss;
        assert_eq!(whole.state().unwrap(), second.state().unwrap(), "{optimizer:?}");
        assert!(((first_loss + second_loss) / loss - 1.0).abs() < 1e-12);
    }
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn kernels_are_profiled() {
    let _lock = generator();
    let training = Training::new(TrainConfig {
        batch_size: BATCH,
        distortions: Some(Distortions::best()),
        ..TrainConfig::default()
    });
    let mut engine = training.kernels(&training.state, 4);
    assert_eq!(engine.profile().unwrap(), None);
    engine.measure().unwrap();
    by_engine(&mut *engine, 0, 20, |_| false);
    let table = engine.profile().unwrap().unwrap();
    let rows: Vec<Vec<_>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["draw", "1", "10.0", "0.01", "20.0"], "{table}");
    assert_eq!(rows[2], ["gradient", "2", "10.0", "0.02", "40.0"]);
    assert_eq!(rows[3], ["update", "2", "10.0", "0.02", "40.0"]);
}

/// NVRTC needs neither a GPU nor its driver, so the kernels can be compiled for each architecture
/// that libtorch supports.
fn compile_kernels(models: impl Iterator<Item = ModelConfig>) {
    let libtorch = std::fs::canonicalize(std::env::var_os("LIBTORCH").unwrap()).unwrap();
    let nvrtc = libtorch.parent().unwrap().join("nvidia/cu13/lib/libnvrtc.so.13");
    if !nvrtc.exists() {
        // This libtorch has no CUDA. One with CUDA brings headers and the library together.
        return assert!(!has_graphs());
    }
    // SAFETY: this is NVIDIA's library, and it is never unloaded.
    #[allow(unsafe_code)]
    let library = unsafe { Library::open(Some(nvrtc), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.unwrap());
    let architectures = ["sm_75", "sm_80", "sm_90", "sm_100"];
    for (config, architecture) in models.zip(architectures.into_iter().cycle()) {
        for teams in [1, 2, 4] {
            let code =
                cuda::compile(&KernelForm::of(&config, teams).unwrap(), architecture).unwrap();
            assert_eq!(&code[..4], b"\x7fELF", "{architecture}");
        }
    }
    let error =
        cuda::compile(&KernelForm::of(&ModelConfig::default(), 3).unwrap(), "sm_90").unwrap_err();
    assert!(error.to_string().contains("kernels.cu("), "{error}");
}

#[test]
fn kernels_compile() {
    compile_kernels(fused_models().take(1));
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn kernels_compile_for_all_models() {
    compile_kernels(fused_models());
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn evaluates_as_libtorch() {
    let _lock = generator();
    for input in [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded] {
        let model = ModelConfig { input, mean: 0.1307, std: 0.3081, ..ModelConfig::default() };
        let training = Training::new(TrainConfig { model, ..TrainConfig::default() });
        let (state, test) = (&training.state, &training.data.test);
        let expected = Evaluation::of(&training.model, test, &training.recipe.model).unwrap();
        let engines =
            [training.graph(state), training.kernels(state, 1), training.kernels(state, 4)];
        for mut engine in engines {
            for _ in 0..2 {
                let logits = Tensor::from_slice(&engine.logits().unwrap()).reshape([-1, 10]);
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
    run("evaluate", ["--engine=graph"]).fails_with("--engine graph is for training only");
}

/// Loading the CUDA part and finding all its functions in libtorch needs no GPU.
#[test]
fn the_cuda_part_is_whole() {
    let opened = DeviceChoice::Cuda(0).open();
    if let Err(error) = &opened {
        // A libtorch without CUDA does not need it.
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
    // A nested call restores the setting of the outer one.
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
