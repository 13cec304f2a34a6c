//! The commands: `predict`, `serve` and `inspect`.

pub mod inspect;
pub mod predict;
pub mod serve;
