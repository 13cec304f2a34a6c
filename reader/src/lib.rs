//! Reads handwritten digits: in pictures, over HTTP, on a page to draw on. The commands of the program `lenet5`.

pub mod commands;
pub mod predict;
pub mod serve;
