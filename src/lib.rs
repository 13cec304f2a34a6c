//! LeNet-5 on libtorch, through [`tch`]: trained on CPU or CUDA, its weights exchanged with PyTorch,
//! bit for bit.
//!
//! ```no_run
//! use lenet5::data::{Dataset, Split};
//! use lenet5::weights::Weights;
//! use tch::{Device, Tensor, nn::Module};
//!
//! # fn main() -> lenet5::Result<()> {
//! let (_store, model) = Weights::read("weights/lenet5.pt".as_ref())?.build(Device::Cpu)?;
//! let test = Dataset::embedded(Split::Test, model.config().classes)?;
//! let (images, labels) = test.batch(&Tensor::arange(8, (tch::Kind::Int64, Device::Cpu)), model.config());
//! println!("{:?} {:?}", model.forward(&images).argmax(1, false), labels);
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

pub mod charts;
pub mod cli;
pub mod data;
pub mod detect;
pub mod engine;
mod error;
pub mod evaluate;
pub mod files;
mod foreign;
pub mod libtorch;
pub mod model;
pub mod optim;
pub mod predict;
mod progress;
pub mod recognizer;
pub mod script;
pub mod serve;
pub mod train;
pub mod weights;

pub use error::{Error, Result};
pub use libtorch::DeviceChoice;
pub use recognizer::Recognizer;
