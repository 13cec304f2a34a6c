//! LeNet-5 in pure Rust: the network as PyTorch users write it today and the network of 1998, their weights in
//! all file formats of PyTorch, and a reader of handwritten digits. No libtorch, no Python, no C.
//!
//! The types that matter:
//! - [`Recognizer`] reads the digits of a [`Picture`].
//! - [`Weights`] reads and writes files of weights.
//! - [`ModelConfig`] has the settings of a network.
//! - [`ForwardPass`] computes the outputs of all layers.
//!
//! ```
//! use lenet5_core::{Network, Picture, Recognizer};
//!
//! // A bar of ink on paper. A picture in MNIST's form would be read as well.
//! let mut pixels = vec![255; 60 * 60];
//! for row in 10..50 {
//!     pixels[row * 60 + 28..row * 60 + 32].fill(0);
//! }
//! let picture = Picture::from_grey(60, 60, pixels)?;
//! let reading = Recognizer::shipped(Network::Modern)?.read(&picture)?;
//! assert_eq!(reading.text, "1");
//! # Ok::<(), lenet5_core::Error>(())
//! ```
//!
//! The feature `pictures` adds reading of picture files, in all usual formats; `data-sets` adds
//! reading of data sets.

mod array;
mod choice;
pub mod data;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod foreign;
mod forward;
#[doc(hidden)]
pub mod kernels;
pub mod model;
mod random;
pub mod recognizer;
pub mod training;
pub mod weights;

pub use array::{Array, DType};
pub use choice::Choice;
pub use data::Picture;
#[cfg(feature = "pictures")]
pub use data::PictureLimits;
pub use error::{Error, Result};
pub use forward::{ForwardPass, Maps, Real};
pub use model::{ModelConfig, Network};
pub use recognizer::Recognizer;
pub use weights::Weights;

/// The package's README, whose example is tested.
#[cfg(all(doctest, feature = "pictures"))]
#[doc = include_str!("../README.md")]
struct Readme;
