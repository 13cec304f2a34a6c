//! The modern network trained on an NVIDIA GPU by two kernels written by hand for each step: `cuda/kernels.cu`,
//! compiled at run time for the GPU and the network.
//!
//! Between host and GPU nothing goes but the launches: images, weights, the optimizer's state and the losses stay
//! there, and what changes from step to step are the kernels' arguments.

mod gpu;

use tch::{Device, Kind, Tensor};

pub use gpu::{Gpu, compile};

use super::fused::{self, Bytes, Parameters, Rule, pictures};
use super::{Order, Trainer};
use crate::Result;
use crate::data::{Dataset, Warps};
use crate::model::{LeNet5, ModelConfig};
use crate::optim;
use crate::train::TrainConfig;

/// The kernels' source.
pub const SOURCE: &str = include_str!("cuda/kernels.cu");

/// Images that are distorted at a time.
const DISTORTED: usize = 8192;
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
        let weights = 25 * 8 + 6 * 25 * 16;
        let maps = [32 * 32, 6 * 784, 16 * 144, 6 * 198, 6 * 196];
        let units = [400, 120, 120, 84, 84, 128, 480];
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
        }
    }
}

/// One of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// A batch through the network and back.
    Gradient,
    /// The weights' gradients, and the step.
    Update,
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

/// What both kernels are given: as in the source. Pointers are those of tensors, on the kernels' device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the source has them
pub struct Arguments {
    pub grey: u64,
    pub pixels: u64,
    pub levels: u64,
    pub places: u64,
    pub labels: u64,
    pub parameters: u64,
    pub state: [u64; 2],
    pub inputs: [u64; 3],
    pub derivatives: [u64; 3],
    pub convolutions: u64,
    pub losses: u64,
    pub misread: u64,
    pub count: i32,
    pub size: i32,
    pub at: i32,
    pub border: f32,
    pub step: [f32; 8],
    pub rule: i32,
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
}

/// Trains on one device.
pub struct Engine {
    config: TrainConfig,
    device: Device,
    launcher: Box<dyn Launcher>,
    train: Dataset,
    /// The training images (N, S, S), uint8, and how the network takes them.
    grey: Tensor,
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
        train: &Dataset,
        optimizer: &dyn optim::Optimizer,
        launcher: Box<dyn Launcher>,
    ) -> Result<Engine> {
        let device = train.labels().device();
        let Form { teams, classes, .. } = launcher.form();
        let tensors: Vec<_> = model.parameters().into_iter().map(|(_, tensor)| tensor).collect();
        let mut host = fused::Optimizer::new(config.optimizer, classes);
        host.read(optimizer, &tensors)?;
        let train = train.resized(&config.model)?;
        let grey = pictures(&train, &config.model);
        let picture = Bytes::new(Vec::new(), grey.size()[2] as usize, &config.model)?;
        let batch = config.batch_size.min(train.len()) as usize;
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
            grey,
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
        let (form, images) = (self.launcher.form(), order.places.len());
        let batch = self.config.batch_size as usize;
        let places = Tensor::f_from_slice(order.places)?.f_to_device(self.device)?;
        let losses = Tensor::f_empty([images as i64], (Kind::Float, self.device))?;
        let misread = Tensor::f_empty([images as i64], (Kind::Uint8, self.device))?;
        let mut distorted: Option<(Tensor, usize)> = None;
        let mut done = 0;
        for (step, rate) in (1..).zip(order.rates) {
            let count = batch.min(images - done);
            if let Some(warps) = order.warps
                && distorted.as_ref().is_none_or(|(_, end)| done == *end)
            {
                let end = (done + DISTORTED.next_multiple_of(batch)).min(images);
                let side = self.train.distorted_side(&self.config.model);
                let warps = Warps::new(&warps[done..end], side, self.device);
                let places = places.narrow(0, done as i64, (end - done) as i64);
                let (images, _) = self.train.warped(&places, &self.config.model, &warps);
                distorted = Some((images.contiguous(), end));
            }
            let mut arguments = self.arguments(count, f64::from(*rate));
            arguments.places = at(&places, done);
            arguments.losses = at(&losses, done);
            arguments.misread = at(&misread, done);
            if let Some((images, end)) = &distorted {
                let size = images.size();
                let first = done + size[0] as usize - end;
                arguments.pixels = at(images, first * (size[2] * size[3]) as usize);
                (arguments.size, arguments.at) = (size[2] as i32, 0);
            }
            for kernel in [Kernel::Gradient, Kernel::Update] {
                // SAFETY: all tensors live until the pass ends, have so many numbers, and are on one device, where
                // what is launched is done in its order.
                unsafe { self.launcher.launch(kernel, form.launch(kernel, count), &arguments)? };
            }
            done += count;
            if stop(step) {
                break;
            }
        }
        let [losses, misread] = [losses, misread].map(|all| all.narrow(0, 0, done as i64));
        let misread = misread.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        Ok((losses.f_sum(Kind::Double)?.f_double_value(&[])?, misread as u64))
    }

    fn store(&self, model: &LeNet5, optimizer: &mut dyn optim::Optimizer) -> Result<()> {
        let tensors: Vec<_> = model.parameters().into_iter().map(|(_, tensor)| tensor).collect();
        let download =
            |values: &Tensor| -> Result<Parameters> { Ok(Parameters(Vec::try_from(values)?)) };
        download(&self.parameters)?.store(&tensors)?;
        let state = [download(&self.state[0])?, download(&self.state[1])?];
        fused::Optimizer { rule: self.rule, state }.store(optimizer, &tensors)
    }
}

impl Engine {
    /// Those of a step, but for what is somewhere else in each.
    fn arguments(&mut self, count: usize, rate: f64) -> Arguments {
        let (step, rule) = self.rule.step(rate).constants();
        let first = |tensors: &[Tensor; 3]| tensors.each_ref().map(|tensor| at(tensor, 0));
        Arguments {
            grey: at(&self.grey, 0),
            pixels: 0,
            levels: at(&self.levels, 0),
            places: 0,
            labels: at(self.train.labels(), 0),
            parameters: at(&self.parameters, 0),
            state: self.state.each_ref().map(|tensor| at(tensor, 0)),
            inputs: first(&self.inputs),
            derivatives: first(&self.derivatives),
            convolutions: at(&self.convolutions, 0),
            losses: 0,
            misread: 0,
            count: count as i32,
            size: self.picture.size as i32,
            at: self.picture.at as i32,
            border: self.picture.border,
            step,
            rule,
        }
    }
}

/// Where a number of a contiguous tensor is.
fn at(tensor: &Tensor, number: usize) -> u64 {
    debug_assert!(tensor.is_contiguous() && number < tensor.numel());
    tensor.data_ptr() as u64 + (number * tensor.kind().elt_size_in_bytes()) as u64
}
