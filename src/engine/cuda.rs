//! Training the modern network on an NVIDIA GPU by two CUDA kernels of this project for each step: `cuda/kernels.cu`,
//! compiled at run time for the GPU and the network. Distortions are drawn there too.
//!
//! Between host and GPU nothing is transferred but the launches: images, weights, optimizer state and losses stay on
//! the GPU, and the values that change from step to step are arguments of the kernels.

mod gpu;

use lenet5_core::kernels::batch::{
    BatchForm, BatchOptimizer, GreyImages, ParameterVector, UpdateRule,
};
use tch::{Device, Kind, Tensor};

pub use gpu::{Compiling, Gpu, compile};

use super::fused::{read_optimizer, write_optimizer};
use super::{AfterStep, Data, Engine, Epoch, State, Totals};
use crate::Result;
use crate::model::{Activation, ModelConfig, Pooling};
use crate::recipe::{Distortions, TrainConfig};

/// The kernels' source.
pub const SOURCE: &str = include_str!("cuda/kernels.cu");

/// Numbers that say how an image is distorted.
const DISTORTION: usize = 136;
/// Parameters of the convolutions: the first ones.
const CONVOLUTIONS: usize = 2572;

/// The numbers that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelForm {
    /// Images of a block of `gradient`: 1, 2 or 4.
    pub teams: usize,
    /// The network's outputs, 128 at most.
    pub classes: usize,
    /// Its activation and pooling.
    pub network: BatchForm,
}

impl KernelForm {
    /// The form for a network that [`BatchForm::of`] accepts, and blocks of `teams` images.
    ///
    /// # Errors
    /// As [`BatchForm::of`].
    pub fn of(config: &ModelConfig, teams: usize) -> Result<KernelForm, &'static str> {
        Ok(KernelForm { teams, classes: config.classes, network: BatchForm::of(config)? })
    }

    /// The compiler's options.
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

    /// Bytes of shared memory that a block of `gradient` needs.
    pub fn shared(&self) -> u32 {
        let weights = 25 * 8 + 6 * 404;
        let maps = [32 * 36, 6 * 788, 16 * 136, 6 * 292 + 1600];
        let units = [400, 120, 120, 84, 84, 128];
        let image: usize = maps.iter().chain(&units).sum();
        4 * (weights + self.teams * image) as u32
    }

    /// How `kernel` is launched for so many images.
    pub fn launch(&self, kernel: CudaKernel, images: usize) -> Launch {
        let tiles = |inputs: usize, outputs: usize| inputs.div_ceil(16) * outputs.div_ceil(24);
        match kernel {
            CudaKernel::Gradient => Launch {
                blocks: images.div_ceil(self.teams) as u32,
                threads: 128 * self.teams as u32,
                shared: self.shared(),
            },
            CudaKernel::Update => Launch {
                blocks: (tiles(400, 120)
                    + tiles(120, 84)
                    + tiles(84, self.classes)
                    + CONVOLUTIONS.div_ceil(128)) as u32,
                threads: 512,
                shared: 4 * 16 * (24 * 16 + 24),
            },
            CudaKernel::Draw => {
                Launch { blocks: images.div_ceil(128) as u32, threads: 128, shared: 0 }
            }
        }
    }
}

/// One of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaKernel {
    /// A batch through the network and back, or there only.
    Gradient,
    /// The weights' gradients, and the step.
    Update,
    /// How each image of a pass is distorted.
    Draw,
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of its shared memory.
    pub shared: u32,
}

/// The ranges of distortions, of sizes their logarithms: as in the source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // as of `Distortions`
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

/// What the kernels are given: as in the source. Pointers are those of tensors, on the kernels' device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the source has them
pub struct KernelArguments {
    pub grey: u64,
    pub levels: u64,
    pub distortions: u64,
    pub places: u64,
    pub labels: u64,
    pub parameters: u64,
    pub state: [u64; 2],
    pub inputs: [u64; 3],
    pub derivatives: [u64; 3],
    pub convolutions: u64,
    pub logits: u64,
    pub losses: u64,
    pub misread: u64,
    pub count: i32,
    pub size: i32,
    pub at: i32,
    pub side: i32,
    pub frame: i32,
    pub border: f32,
    pub step: [f32; 8],
    pub rule: i32,
    pub ranges: DistortionRanges,
}

/// What runs the kernels.
pub trait Launcher: Send {
    /// What they were compiled for.
    fn form(&self) -> KernelForm;

    /// Launches one, after all that was launched on its device before.
    ///
    /// # Errors
    /// Where that is refused.
    ///
    /// # Safety
    /// The pointers are of so many numbers as the source says.
    #[allow(unsafe_code)]
    unsafe fn launch(
        &self,
        kernel: CudaKernel,
        launch: Launch,
        arguments: &KernelArguments,
    ) -> Result<()>;

    /// Measures each launch of training from now on.
    fn measure(&mut self);

    /// How many seconds each launch took that was measured.
    ///
    /// # Errors
    /// Where that cannot be said.
    fn measured(&self) -> Result<Vec<(CudaKernel, f64)>>;
}

/// Trains on one GPU by the kernels.
pub struct CudaEngine {
    recipe: TrainConfig,
    device: Device,
    launcher: Box<dyn Launcher>,
    /// Training and test images (N, S, S), uint8; labels (N), int64, of the training images.
    train: Tensor,
    test: Tensor,
    labels: Tensor,
    /// How the network takes the images.
    images: GreyImages,
    levels: Tensor,
    rule: UpdateRule,
    /// Float32, in the order of [`ParameterVector`].
    parameters: Tensor,
    state: [Tensor; 2],
    inputs: [Tensor; 3],
    derivatives: [Tensor; 3],
    convolutions: Tensor,
    measured: bool,
}

impl CudaEngine {
    /// Opens the engine on the launcher's device.
    ///
    /// # Errors
    /// Where the state does not fit the settings, or libtorch refuses.
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
            convolutions: room(batch.div_ceil(teams), CONVOLUTIONS)?,
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
        let distorted = distortions.map_or(0, |_| count * DISTORTION) as i64;
        let distorted = Tensor::f_empty([distorted], (Kind::Float, self.device))?;
        if let Some(distortions) = distortions {
            arguments.ranges = DistortionRanges::of(distortions, self.recipe.seed, epoch.number);
            arguments.places = address(&indices, 0);
            arguments.distortions = address(&distorted, 0);
            arguments.count = count as i32;
            // SAFETY: all tensors live until the epoch ends, have as many numbers as the source says, and are on one device,
            // which executes launches in their order.
            unsafe { self.launch(CudaKernel::Draw, &arguments)? };
        }
        let mut done = 0;
        for (step, rate) in epoch.learning_rates.iter().enumerate().skip(epoch.done as usize) {
            arguments.count = batch.min(count - done) as i32;
            arguments.places = address(&indices, done);
            arguments.losses = address(&losses, done);
            arguments.misread = address(&misclassified, done);
            if distortions.is_some() {
                arguments.distortions = address(&distorted, done * DISTORTION);
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
            places: address(&indices, 0),
            logits: address(&logits, 0),
            count: count as i32,
            ..self.arguments()
        };
        // SAFETY: all tensors live until the logits are copied, have as many numbers as the source says, and are on one
        // device.
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

    /// For each kernel the number of its launches in training, and the time that they took.
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
    /// The arguments that are the same in each step.
    fn arguments(&self) -> KernelArguments {
        let first = |tensors: &[Tensor; 3]| tensors.each_ref().map(|tensor| address(tensor, 0));
        let GreyImages { size, offset, frame, ref levels, .. } = self.images;
        KernelArguments {
            grey: address(&self.train, 0),
            levels: address(&self.levels, 0),
            distortions: 0,
            places: 0,
            labels: address(&self.labels, 0),
            parameters: address(&self.parameters, 0),
            state: self.state.each_ref().map(|tensor| address(tensor, 0)),
            inputs: first(&self.inputs),
            derivatives: first(&self.derivatives),
            convolutions: address(&self.convolutions, 0),
            logits: 0,
            losses: 0,
            misread: 0,
            count: 0,
            size: size as i32,
            at: offset as i32,
            side: (size + 2 * (offset - frame)) as i32,
            frame: frame as i32,
            border: levels.border,
            step: [0.0; 8],
            rule: 0,
            ranges: DistortionRanges::default(),
        }
    }

    /// # Safety
    /// As [`Launcher::launch`].
    #[allow(unsafe_code)]
    unsafe fn launch(&self, kernel: CudaKernel, arguments: &KernelArguments) -> Result<()> {
        let launch = self.launcher.form().launch(kernel, arguments.count as usize);
        // SAFETY: the caller guarantees it.
        unsafe { self.launcher.launch(kernel, launch, arguments) }
    }
}

/// Where a number of a contiguous tensor is.
fn address(tensor: &Tensor, number: usize) -> u64 {
    debug_assert!(tensor.is_contiguous() && number <= tensor.numel());
    tensor.data_ptr() as u64 + (number * tensor.kind().elt_size_in_bytes()) as u64
}
