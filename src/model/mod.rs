//! The networks, computed by libtorch. Their settings are those of the core.

mod layers;
mod loss;
mod modern;
mod network;
mod original;

pub use lenet5_core::model::{
    Activation, C3_TABLE, C5, HiddenActivation, Input, LayerOrder, LayerSummary, ModelConfig,
    ModelOptions, Network, Pooling, Summary, Total, codes,
};
pub use loss::loss;
pub use modern::Modern;
pub use network::LeNet5;
pub(crate) use network::torchscript_source;
pub use original::Original;
