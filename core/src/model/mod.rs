//! The settings of both networks, and the table of their layers.

mod codes;
mod config;
mod connections;
mod summary;

pub use codes::codes;
pub use config::{
    Activation, C5, HiddenActivation, Input, LayerOrder, ModelConfig, ModelOptions, Network,
    Pooling,
};
pub use connections::C3_TABLE;
pub use summary::{LayerSummary, Summary, Total};
