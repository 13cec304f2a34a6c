//! The networks, their settings, and the table of their layers.

mod config;
mod layers;
mod modern;
mod summary;

pub use config::{Activation, C5, Input, LAYERS, ModelConfig, ModelOptions, Pooling};
pub use modern::{LeNet5, torchscript_source};
pub use summary::{LayerSummary, Summary, Total};
