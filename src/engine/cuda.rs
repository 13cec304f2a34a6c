//! Trains the modern network on an NVIDIA GPU with two CUDA kernels of this project per step:
//! `cuda/kernels.cu`, compiled at run time for the GPU and the network. A third kernel draws the
//! distortions.
//!
//! Images, weights, optimizer state and losses stay on the GPU. Values that change from step to
//! step are arguments of the kernels, so that nothing else is transferred between host and GPU.

mod gpu;

use lenet5_core::kernels::batch::{
    BatchForm, BatchOptimizer, GreyImages, ParameterVector, UpdateRule,
};
use tch::{Device, Kind, Tensor};

pub(crate) use gpu::Compiling;
pub use gpu::compile;

use super::fused::{read_optimizer, write_optimizer};
use super::{AfterStep, Data, Engine, Epoch, State, Totals};
use crate::Result;
use crate::model::{Activation, ModelConfig, Pooling};
use crate::recipe::{Distortions, TrainConfig};

/// The source code of the kernels.
const SOURCE: &str = include_str!("cuda/kernels.cu");

/// The number of values that describe the distortion of an image.
const DISTORTION_VALUES: usize = 136;
/// The number of parameters of the convolutions, which come first.
const CONVOLUTION_PARAMETERS: usize = 2572;

/// The constants for which the kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelForm {
    /// The number of images per block of `gradient`: 1, 2 or 4.
    pub teams: usize,
    /// The number of the network's outputs, at most 128.
    pub classes: usize,
    /// The network's activation, pooling and input.
    pub network: BatchForm,
}

impl KernelForm {
    /// Creates the form for a network that [`BatchForm::of`] accepts, and blocks of `teams` images.
    ///
    /// # Errors
    /// The errors of [`BatchForm::of`].
    pub fn of(config: &ModelConfig, teams: usize) -> Result<KernelForm, &'static str> {
        Ok(KernelForm { teams, classes: config.classes, network: BatchForm::of(config)? })
    }

    /// Returns the compiler options.
    pub fn defines(&self) -> [String; 5] {
        let BatchForm { activation, pooling, unpadded } = self.network;
        [
            ("TEAMS", self.teams),
            ("CLASSES", self.classes),
            ("RELU", (activation == Activation::Relu).into()),
            ("MAX", (pooling == Pooling::Max).into()),
            ("CORNER", unpadded.into()),
        ]
        .map(|(name, value)| format!("-D{name}={value}"))
    }

    /// Returns the shared memory in bytes that a block of `gradient` needs.
    pub fn shared_memory(&self) -> u32 {
        let weights = 25 * 8 + 6 * 404;
        let maps = [32 * 36, 6 * 788, 16 * 136, 6 * 292 + 1600];
        let units = [400, 120, 120, 84, 84, 128];
        let image: usize = maps.iter().chain(&units).sum();
        4 * (weights + self.teams * image) as u32
    }

    /// Returns the launch settings of `kernel` for a number of images.
    pub fn launch(&self, kernel: CudaKernel, images: usize) -> Launch {
        let tiles = |inputs: usize, outputs: usize| inputs.div_ceil(16) * outputs.div_ceil(24);
        match kernel {
            CudaKernel::Gradient => Launch {
                blocks: images.div_ceil(self.teams) as u32,
                threads: 128 * self.teams as u32,
                shared: self.shared_memory(),
            },
            CudaKernel::Update => Launch {
                blocks: (tiles(400, 120)
                    + tiles(120, 84)
                    + tiles(84, self.classes)
                    + CONVOLUTION_PARAMETERS.div_ceil(128)) as u32,
                threads: 512,
                shared: 4 * 16 * (24 * 16 + 24),
            },
            CudaKernel::Draw => {
                Launch { blocks: images.div_ceil(128) as u32, threads: 128, shared: 0 }
            }
        }
    }
}

/// A CUDA kernel of this project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaKernel {
    /// Runs the forward pass of a batch, and in training also the backward pass.
    Gradient,
    /// Computes the gradients of the weights and updates them.
    Update,
    /// Draws the distortion of each image of an epoch.
    Draw,
}

/// The launch settings of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The number of blocks.
    pub blocks: u32,
    /// The number of threads per block.
    pub threads: u32,
    /// Shared memory per block in bytes.
    pub shared: u32,
}

/// The ranges of distortions, with the layout of the kernels' source. The ranges of `scale` and
/// `squeeze` are given as logarithms.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the fields are those of `Distortions`
pub struct DistortionRanges {
    pub scale: [f64; 2],
    pub squeeze: [f64; 2],
    pub shear: f64,
    pub shift: f64,
    pub rotation: f64,
    pub elastic: f64,
    pub seed: i64,
    pub epoch: u64,
}

impl DistortionRanges {
    fn of(distortions: &Distortions, seed: i64, epoch: u32) -> DistortionRanges {
        let logarithms = |(low, high): (f64, f64)| [low.ln(), high.ln()];
        DistortionRanges {
            scale: logarithms(distortions.scale),
            squeeze: logarithms(distortions.squeeze),
            shear: distortions.shear,
            shift: distortions.shift,
            rotation: distortions.rotation,
            elastic: distortions.elastic,
            seed,
            epoch: epoch.into(),
        }
    }
}

/// The arguments of the kernels, with the layout of their source. Pointers are those of tensors on
/// the kernels' device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the kernels' source describes the fields
pub struct KernelArguments {
    pub grey: u64,
    pub levels: u64,
    pub distortions: u64,
    pub indices: u64,
    pub labels: u64,
    pub parameters: u64,
    pub state: [u64; 2],
    pub inputs: [u64; 3],
    pub derivatives: [u64; 3],
    pub convolutions: u64,
    pub logits: u64,
    pub losses: u64,
    pub misclassified: u64,
    pub count: i32,
    pub size: i32,
    pub offset: i32,
    pub side: i32,
    pub frame: i32,
    pub border: f32,
    pub step: [f32; 8],
    pub rule: i32,
    pub ranges: DistortionRanges,
}

/// Launches the kernels: on a GPU, or on the CPU in tests.
pub trait Launcher: Send {
    /// Returns the form for which the kernels were compiled.
    fn form(&self) -> KernelForm;

    /// Launches a kernel, which starts after everything that was launched on its device before.
    ///
    /// # Errors
    /// If the driver reports an error.
    ///
    /// # Safety
    /// The pointers must be those of live tensors with as many elements as the kernels' source
    /// says.
    #[allow(unsafe_code)]
    unsafe fn launch(
        &self,
        kernel: CudaKernel,
        launch: Launch,
        arguments: &KernelArguments,
    ) -> Result<()>;

    /// Starts to measure the time of each launch in training.
    fn measure(&mut self);

    /// Returns the time in seconds of each launch that was measured.
    ///
    /// # Errors
    /// If the driver reports an error.
    fn measured(&self) -> Result<Vec<(CudaKernel, f64)>>;
}

/// The engine of this project's CUDA kernels on one GPU.
pub struct CudaEngine {
    recipe: TrainConfig,
    device: Device,
    launcher: Box<dyn Launcher>,
    /// Training images (N, S, S), uint8.
    train: Tensor,
    /// Test images (N, S, S), uint8.
    test: Tensor,
    /// The labels of the training images: (N), int64.
    labels: Tensor,
    /// The size and the grey levels of the images, without pixels.
    images: GreyImages,
    /// The network's input for each grey value: (256), float32.
    levels: Tensor,
    rule: UpdateRule,
    /// The parameters, float32, in the order of [`ParameterVector`].
    parameters: Tensor,
    /// The optimizer's state, in the same order as the parameters.
    state: [Tensor; 2],
    /// The inputs of c5, f6 and output for each image of a batch.
    inputs: [Tensor; 3],
    /// The gradients with respect to the sums of c5, f6 and output for each image of a batch.
    derivatives: [Tensor; 3],
    /// The gradient of the convolutions' parameters for each block of `gradient`.
    convolutions: Tensor,
    /// Whether launches are measured.
    measured: bool,
}

impl CudaEngine {
    /// Opens the engine on the launcher's device.
    ///
    /// # Errors
    /// If the state does not fit the settings, or libtorch reports an error.
    pub fn open(
        recipe: &TrainConfig,
        state: &State,
        data: &Data,
        device: Device,
        launcher: Box<dyn Launcher>,
    ) -> Result<CudaEngine> {
        let KernelForm { teams, classes, .. } = launcher.form();
        let config = &recipe.model;
        let host = read_optimizer(&recipe.optimizer, &state.optimizer, config)?;
        let train = data.train.unpadded(config)?.to_device(device);
        let images = GreyImages::new(Vec::new(), train.size()[2] as usize, config);
        let batch = recipe.batch_size.min(train.size()[0]) as usize;
        let upload = |values: &[f32]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
        };
        let room = |rows: usize, columns: usize| {
            Tensor::f_empty([rows as i64, columns as i64], (Kind::Float, device))
        };
        Ok(CudaEngine {
            levels: upload(&images.levels.grey)?,
            parameters: upload(&ParameterVector::from_arrays(&state.tensors).0)?,
            state: [upload(&host.state[0].0)?, upload(&host.state[1].0)?],
            rule: host.rule,
            inputs: [room(batch, 400)?, room(batch, 120)?, room(batch, 84)?],
            derivatives: [room(batch, 120)?, room(batch, 84)?, room(batch, classes)?],
            convolutions: room(batch.div_ceil(teams), CONVOLUTION_PARAMETERS)?,
            launcher,
            train,
            test: data.test.unpadded(config)?.to_device(device),
            labels: data.train.labels().to_device(device).contiguous(),
            images,
            recipe: recipe.clone(),
            device,
            measured: false,
        })
    }
}

impl Engine for CudaEngine {
    #[allow(unsafe_code)]
    fn train(&mut self, epoch: &Epoch, after_step: &mut AfterStep) -> Result<Totals> {
        let batch = self.recipe.batch_size as usize;
        let order = epoch.order_left(batch);
        let count = order.len();
        let indices = Tensor::f_from_slice(order)?.f_to_device(self.device)?;
        let losses = Tensor::f_empty([count as i64], (Kind::Float, self.device))?;
        let misclassified = Tensor::f_empty([count as i64], (Kind::Uint8, self.device))?;
        let mut arguments = self.arguments();
        let distortions = self.recipe.distortions.as_ref();
        let distorted = distortions.map_or(0, |_| count * DISTORTION_VALUES) as i64;
        let distorted = Tensor::f_empty([distorted], (Kind::Float, self.device))?;
        if let Some(distortions) = distortions {
            arguments.ranges = DistortionRanges::of(distortions, self.recipe.seed, epoch.number);
            arguments.indices = address(&indices, 0);
            arguments.distortions = address(&distorted, 0);
            arguments.count = count as i32;
            // SAFETY: all tensors live until the epoch ends, have as many elements as the kernels'
            // source says, and are on one device, which executes launches in order.
            unsafe { self.launch(CudaKernel::Draw, &arguments)? };
        }
        let mut done = 0;
        for (step, rate) in epoch.learning_rates.iter().enumerate().skip(epoch.done as usize) {
            arguments.count = batch.min(count - done) as i32;
            arguments.indices = address(&indices, done);
            arguments.losses = address(&losses, done);
            arguments.misclassified = address(&misclassified, done);
            if distortions.is_some() {
                arguments.distortions = address(&distorted, done * DISTORTION_VALUES);
            }
            let rate = f64::from(*rate as f32);
            (arguments.step, arguments.rule) = self.rule.step(rate).constants();
            for kernel in [CudaKernel::Gradient, CudaKernel::Update] {
                // SAFETY: as above.
                unsafe { self.launch(kernel, &arguments)? };
            }
            done += arguments.count as usize;
            if after_step(step as u64 + 1).is_break() {
                break;
            }
        }
        let [losses, misclassified] =
            [losses, misclassified].map(|all| all.narrow(0, 0, done as i64));
        Ok(Totals {
            loss: losses.f_sum(Kind::Double)?.f_double_value(&[])?,
            misclassified: misclassified.f_sum(Kind::Int64)?.f_int64_value(&[])? as u64,
            parameter_rates: None,
        })
    }

    #[allow(unsafe_code)]
    fn logits(&mut self) -> Result<Vec<f32>> {
        let (count, classes) = (self.test.size()[0], self.recipe.model.classes as i64);
        let indices = Tensor::f_arange(count, (Kind::Int64, self.device))?;
        let logits = Tensor::f_empty([count, classes], (Kind::Float, self.device))?;
        let arguments = KernelArguments {
            grey: address(&self.test, 0),
            indices: address(&indices, 0),
            logits: address(&logits, 0),
            count: count as i32,
            ..self.arguments()
        };
        // SAFETY: all tensors live until the logits are copied, have as many elements as the
        // kernels' source says, and are on one device.
        unsafe { self.launch(CudaKernel::Gradient, &arguments)? };
        Ok(Vec::try_from(logits.f_to_device(Device::Cpu)?.flatten(0, -1))?)
    }

    fn state(&self) -> Result<State> {
        let download = |values: &Tensor| -> Result<ParameterVector> {
            Ok(ParameterVector(Vec::try_from(values)?))
        };
        let config = &self.recipe.model;
        let state = [download(&self.state[0])?, download(&self.state[1])?];
        let optimizer = BatchOptimizer { rule: self.rule, state };
        Ok(State {
            tensors: download(&self.parameters)?.to_arrays(config),
            optimizer: write_optimizer(&optimizer, config),
        })
    }

    fn measure(&mut self) -> Result<()> {
        self.measured = true;
        self.launcher.measure();
        Ok(())
    }

    /// Returns the number of launches of each kernel in training, and the time that they took.
    fn profile(&self) -> Result<Option<String>> {
        if !self.measured {
            return Ok(None);
        }
        let launches = self.launcher.measured()?;
        let all: f64 = launches.iter().map(|(_, seconds)| seconds).sum();
        let mut table = format!(
            "{:9} {:>9} {:>10} {:>9} {:>6}\n",
            "kernel", "launches", "us, median", "ms", "%"
        );
        for kernel in [CudaKernel::Draw, CudaKernel::Gradient, CudaKernel::Update] {
            let of_kernel = launches.iter().filter(|(other, _)| *other == kernel);
            let mut seconds: Vec<_> = of_kernel.map(|(_, seconds)| *seconds).collect();
            seconds.sort_by(f64::total_cmp);
            if let Some(median) = seconds.get(seconds.len() / 2) {
                let (count, sum) = (seconds.len(), seconds.iter().sum::<f64>());
                let (name, percent) = (format!("{kernel:?}").to_lowercase(), 100.0 * sum / all);
                let (median, sum) = (1e6 * median, 1e3 * sum);
                table += &format!("{name:9} {count:>9} {median:>10.1} {sum:>9.2} {percent:>6.1}\n");
            }
        }
        Ok(Some(table))
    }
}

impl CudaEngine {
    /// Returns the arguments that are the same in each step.
    fn arguments(&self) -> KernelArguments {
        let first = |tensors: &[Tensor; 3]| tensors.each_ref().map(|tensor| address(tensor, 0));
        let GreyImages { size, offset, frame, ref levels, .. } = self.images;
        KernelArguments {
            grey: address(&self.train, 0),
            levels: address(&self.levels, 0),
            distortions: 0,
            indices: 0,
            labels: address(&self.labels, 0),
            parameters: address(&self.parameters, 0),
            state: self.state.each_ref().map(|tensor| address(tensor, 0)),
            inputs: first(&self.inputs),
            derivatives: first(&self.derivatives),
            convolutions: address(&self.convolutions, 0),
            logits: 0,
            losses: 0,
            misclassified: 0,
            count: 0,
            size: size as i32,
            offset: offset as i32,
            side: (size + 2 * (offset - frame)) as i32,
            frame: frame as i32,
            border: levels.border,
            step: [0.0; 8],
            rule: 0,
            ranges: DistortionRanges::default(),
        }
    }

    /// # Safety
    /// The arguments must be valid as for [`Launcher::launch`].
    #[allow(unsafe_code)]
    unsafe fn launch(&self, kernel: CudaKernel, arguments: &KernelArguments) -> Result<()> {
        let launch = self.launcher.form().launch(kernel, arguments.count as usize);
        // SAFETY: the caller guarantees that the arguments are valid.
        unsafe { self.launcher.launch(kernel, launch, arguments) }
    }
}

/// Returns the address of an element of a contiguous tensor.
fn address(tensor: &Tensor, index: usize) -> u64 {
    debug_assert!(tensor.is_contiguous() && index <= tensor.numel());
    tensor.data_ptr() as u64 + (index * tensor.kind().elt_size_in_bytes()) as u64
}
