//! Reads handwritten digits: in pictures, over HTTP, and on a page to draw on. The library behind the program `lenet5`.

pub mod commands;
pub mod predict;
pub mod serve;
