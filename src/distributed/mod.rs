//! Data-parallel training: several processes, called ranks, train one network. Each of them
//! computes the gradient over its part of every batch, and all apply the sum. They are connected by
//! PyTorch's c10d, and are started by torchrun, by Slurm, or by a script.
//!
//! Nothing else knows of ranks: an engine gets a [`Reducer`](crate::engine::Reducer), and
//! [`DataParallelEngine`] wraps it.

mod engine;
mod launch;
mod peers;
mod store;

pub use engine::DataParallelEngine;
pub use launch::Launch;
pub use peers::Peers;
pub use store::JobStore;
