//! The networks, their settings, and the table of their layers.

mod codes;
mod config;
mod layers;
mod loss;
mod modern;
mod network;
mod original;
mod summary;

pub use codes::codes;
pub use config::{Activation, C5, Input, ModelConfig, ModelOptions, Network, Pooling};
pub use loss::Loss;
pub use modern::Modern;
pub use network::{LeNet5, torchscript_source};
pub use original::{C3_TABLE, Original};
pub use summary::{LayerSummary, Summary, Total};
