//! LeNet-5 on libtorch, through [`tch`]: trained on the CPU or with CUDA. Weights are exchanged
//! with PyTorch bit for bit. Everything that needs no libtorch is in [`lenet5_core`], whose main
//! types this package re-exports.
//!
//! ```no_run
//! use lenet5::data::{Dataset, Split};
//! use lenet5::model::LeNet5;
//! use tch::{Device, Tensor, nn::Module};
//!
//! # fn main() -> lenet5::Result<()> {
//! let model = LeNet5::load("weights/lenet5.pt", Device::Cpu)?;
//! let test = Dataset::embedded(Split::Test, model.config().classes)?;
//! let indices = Tensor::arange(8, (tch::Kind::Int64, Device::Cpu));
//! let (images, labels) = test.batch(&indices, model.config());
//! println!("{:?} {:?}", model.forward(&images).argmax(1, false), labels);
//! # Ok(())
//! # }
//! ```

pub mod charts;
pub mod data;
pub mod detect;
pub mod distributed;
pub mod engine;
mod error;
pub mod evaluate;
pub mod libtorch;
pub mod model;
pub mod optim;
pub mod recipe;
pub mod script;
mod tensorboard;
pub mod train;
pub mod weights;

pub use error::{Error, Result};
pub use lenet5_core::{Array, ForwardPass, Picture, PictureLimits, Recognizer};
pub use libtorch::DeviceChoice;
