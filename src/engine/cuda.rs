//! The modern network trained on an NVIDIA GPU by two kernels written by hand for each step: `cuda/kernels.cu`,
//! compiled at run time for the GPU and the network. Distortions are drawn there too.
//!
//! Between host and GPU nothing goes but the launches: images, weights, the optimizer's state and the losses stay
//! there, and what changes from step to step are the kernels' arguments.

mod gpu;

use tch::{Device, Kind, Tensor};

pub use gpu::{Compiling, Gpu, compile};

use super::fused::{self, Bytes, Parameters, Rule, pictures};
use super::{Order, Trainer};
use crate::Result;
use crate::data::{Dataset, Distortions};
use crate::model::{LeNet5, ModelConfig};
use crate::optim;
use crate::train::TrainConfig;

/// The kernels' source.
pub const SOURCE: &str = include_str!("cuda/kernels.cu");

/// Numbers that say how an image is distorted.
const DISTORTION: usize = 136;
/// Parameters of the convolutions: the first ones.
const CONVOLUTIONS: usize = 2572;

/// The numbers that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Images of a block of `gradient`: 1, 2 or 4.
    pub teams: usize,
    /// The network's outputs, 128 at most.
    pub classes: usize,
    /// Its activation and pooling.
    pub settings: fused::Settings,
}

impl Form {
    /// Of a modern network whose activation is tanh or relu.
    pub fn of(config: &ModelConfig, teams: usize) -> Form {
        Form { teams, classes: config.classes as usize, settings: fused::Settings::of(config) }
    }

    /// The compiler's options.
    pub fn defines(&self) -> [String; 5] {
        let fused::Settings { relu, max, corner } = self.settings;
        [
            ("TEAMS", self.teams),
            ("CLASSES", self.classes),
            ("RELU", relu.into()),
            ("MAX", max.into()),
            ("CORNER", corner.into()),
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
    pub fn launch(&self, kernel: Kernel, images: usize) -> Launch {
        let tiles = |inputs: usize, outputs: usize| inputs.div_ceil(16) * outputs.div_ceil(24);
        match kernel {
            Kernel::Gradient => Launch {
                blocks: images.div_ceil(self.teams) as u32,
                threads: 128 * self.teams as u32,
                shared: self.shared(),
            },
            Kernel::Update => Launch {
                blocks: (tiles(400, 120)
                    + tiles(120, 84)
                    + tiles(84, self.classes)
                    + CONVOLUTIONS.div_ceil(128)) as u32,
                threads: 512,
                shared: 4 * 16 * (24 * 16 + 24),
            },
            Kernel::Draw => Launch { blocks: images.div_ceil(128) as u32, threads: 128, shared: 0 },
        }
    }
}

/// One of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
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
pub struct Ranges {
    pub scale: [f64; 2],
    pub squeeze: [f64; 2],
    pub shear: f64,
    pub shift: f64,
    pub rotation: f64,
    pub elastic: f64,
    pub seed: i64,
    pub epoch: u64,
}

impl Ranges {
    fn of(distortions: &Distortions, seed: i64, epoch: u32) -> Ranges {
        let logarithms = |(low, high): (f64, f64)| [low.ln(), high.ln()];
        Ranges {
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
pub struct Arguments {
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
    pub ranges: Ranges,
}

/// What runs the kernels.
pub trait Launcher: Send {
    /// What they were compiled for.
    fn form(&self) -> Form;

    /// Launches one, after all that was launched on its device before.
    ///
    /// # Errors
    /// Where that is refused.
    ///
    /// # Safety
    /// The pointers are of so many numbers as the source says.
    unsafe fn launch(&self, kernel: Kernel, launch: Launch, arguments: &Arguments) -> Result<()>;

    /// Measures each launch of training from now on.
    fn measure(&mut self);

    /// How many seconds each launch took that was measured.
    ///
    /// # Errors
    /// Where that cannot be said.
    fn measured(&self) -> Result<Vec<(Kernel, f64)>>;
}

/// Trains on one device.
pub struct Engine {
    config: TrainConfig,
    device: Device,
    launcher: Box<dyn Launcher>,
    /// Training and test images (N, S, S), uint8; labels (N), int64, of the former.
    train: Tensor,
    test: Tensor,
    labels: Tensor,
    /// How the network takes the images.
    picture: Bytes,
    levels: Tensor,
    rule: Rule,
    /// Float32, as [`Parameters`] has them.
    parameters: Tensor,
    state: [Tensor; 2],
    inputs: [Tensor; 3],
    derivatives: [Tensor; 3],
    convolutions: Tensor,
}

impl Engine {
    /// For a network, an optimizer's state, and data on the launcher's device.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn new(
        config: &TrainConfig,
        model: &LeNet5,
        (train, test): (&Dataset, &Dataset),
        optimizer: &dyn optim::Optimizer,
        launcher: Box<dyn Launcher>,
    ) -> Result<Engine> {
        let device = train.labels().device();
        let Form { teams, classes, .. } = launcher.form();
        let tensors = model.parameter_tensors();
        let mut host = fused::Optimizer::new(config.optimizer, classes);
        host.read(optimizer, &tensors)?;
        let grey = |data: &Dataset| -> Result<Tensor> {
            Ok(pictures(&data.resized(&config.model)?, &config.model))
        };
        let (labels, train, test) = (train.labels().contiguous(), grey(train)?, grey(test)?);
        let picture = Bytes::new(Vec::new(), train.size()[2] as usize, &config.model)?;
        let batch = config.batch_size.min(train.size()[0]) as usize;
        let upload = |values: &[f32]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
        };
        let room = |rows: usize, columns: usize| {
            Tensor::f_empty([rows as i64, columns as i64], (Kind::Float, device))
        };
        Ok(Engine {
            config: config.clone(),
            device,
            levels: upload(&picture.levels)?,
            parameters: upload(&Parameters::of(model).0)?,
            state: [upload(&host.state[0].0)?, upload(&host.state[1].0)?],
            rule: host.rule,
            inputs: [room(batch, 400)?, room(batch, 120)?, room(batch, 84)?],
            derivatives: [room(batch, 120)?, room(batch, 84)?, room(batch, classes)?],
            convolutions: room(batch.div_ceil(teams), CONVOLUTIONS)?,
            launcher,
            train,
            test,
            labels,
            picture,
        })
    }
}

impl Trainer for Engine {
    fn pass(
        &mut self,
        _: &LeNet5,
        order: &Order,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(f64, u64)> {
        let (images, batch) = (order.places.len(), self.config.batch_size as usize);
        let places = Tensor::f_from_slice(order.places)?.f_to_device(self.device)?;
        let losses = Tensor::f_empty([images as i64], (Kind::Float, self.device))?;
        let misread = Tensor::f_empty([images as i64], (Kind::Uint8, self.device))?;
        let mut arguments = self.arguments();
        let distortions = self.config.distortions.as_ref();
        let distorted = distortions.map_or(0, |_| images * DISTORTION) as i64;
        let distorted = Tensor::f_empty([distorted], (Kind::Float, self.device))?;
        if let Some(distortions) = distortions {
            arguments.ranges = Ranges::of(distortions, self.config.seed, order.epoch);
            arguments.places = at(&places, 0);
            arguments.distortions = at(&distorted, 0);
            arguments.count = images as i32;
            // SAFETY: as below.
            unsafe { self.launch(Kernel::Draw, &arguments)? };
        }
        let mut done = 0;
        for (step, rate) in (1..).zip(order.rates) {
            arguments.count = batch.min(images - done) as i32;
            arguments.places = at(&places, done);
            arguments.losses = at(&losses, done);
            arguments.misread = at(&misread, done);
            if distortions.is_some() {
                arguments.distortions = at(&distorted, done * DISTORTION);
            }
            (arguments.step, arguments.rule) = self.rule.step(f64::from(*rate)).constants();
            for kernel in [Kernel::Gradient, Kernel::Update] {
                // SAFETY: all tensors live until the pass ends, have so many numbers, and are on one device, where
                // what is launched is done in its order.
                unsafe { self.launch(kernel, &arguments)? };
            }
            done += arguments.count as usize;
            if stop(step) {
                break;
            }
        }
        let [losses, misread] = [losses, misread].map(|all| all.narrow(0, 0, done as i64));
        let misread = misread.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        Ok((losses.f_sum(Kind::Double)?.f_double_value(&[])?, misread as u64))
    }

    fn evaluate(&mut self, model: &LeNet5) -> Result<Tensor> {
        let (count, classes) = (self.test.size()[0], model.config().classes);
        let places = Tensor::f_arange(count, (Kind::Int64, self.device))?;
        let logits = Tensor::f_empty([count, classes], (Kind::Float, self.device))?;
        let arguments = Arguments {
            grey: at(&self.test, 0),
            places: at(&places, 0),
            logits: at(&logits, 0),
            count: count as i32,
            ..self.arguments()
        };
        // SAFETY: all tensors live until the logits are copied, have so many numbers, and are on one device.
        unsafe { self.launch(Kernel::Gradient, &arguments)? };
        Ok(logits.f_to_device(Device::Cpu)?)
    }

    fn measure(&mut self) {
        self.launcher.measure();
    }

    /// For each kernel its launches in training, and what they took.
    fn profile(&self) -> Result<String> {
        let launches = self.launcher.measured()?;
        let all: f64 = launches.iter().map(|(_, seconds)| seconds).sum();
        let mut table = format!(
            "{:9} {:>9} {:>10} {:>9} {:>6}\n",
            "kernel", "launches", "us, median", "ms", "%"
        );
        for kernel in [Kernel::Draw, Kernel::Gradient, Kernel::Update] {
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
        Ok(table)
    }

    fn store(&self, model: &LeNet5, optimizer: &mut dyn optim::Optimizer) -> Result<()> {
        let tensors = model.parameter_tensors();
        let download =
            |values: &Tensor| -> Result<Parameters> { Ok(Parameters(Vec::try_from(values)?)) };
        download(&self.parameters)?.store(&tensors)?;
        let state = [download(&self.state[0])?, download(&self.state[1])?];
        fused::Optimizer { rule: self.rule, state }.store(optimizer, &tensors)
    }
}

impl Engine {
    /// Those that are the same in each step.
    fn arguments(&self) -> Arguments {
        let first = |tensors: &[Tensor; 3]| tensors.each_ref().map(|tensor| at(tensor, 0));
        let Bytes { size, at: inset, frame, border, .. } = self.picture;
        Arguments {
            grey: at(&self.train, 0),
            levels: at(&self.levels, 0),
            distortions: 0,
            places: 0,
            labels: at(&self.labels, 0),
            parameters: at(&self.parameters, 0),
            state: self.state.each_ref().map(|tensor| at(tensor, 0)),
            inputs: first(&self.inputs),
            derivatives: first(&self.derivatives),
            convolutions: at(&self.convolutions, 0),
            logits: 0,
            losses: 0,
            misread: 0,
            count: 0,
            size: size as i32,
            at: inset as i32,
            side: (size + 2 * (inset - frame)) as i32,
            frame: frame as i32,
            border,
            step: [0.0; 8],
            rule: 0,
            ranges: Ranges::default(),
        }
    }

    /// # Safety
    /// As [`Launcher::launch`].
    unsafe fn launch(&self, kernel: Kernel, arguments: &Arguments) -> Result<()> {
        let launch = self.launcher.form().launch(kernel, arguments.count as usize);
        // SAFETY: the caller's word.
        unsafe { self.launcher.launch(kernel, launch, arguments) }
    }
}

/// Where a number of a contiguous tensor is.
fn at(tensor: &Tensor, number: usize) -> u64 {
    debug_assert!(tensor.is_contiguous() && number <= tensor.numel());
    tensor.data_ptr() as u64 + (number * tensor.kind().elt_size_in_bytes()) as u64
}
