//! The tests of the reader: `cargo test --release -p lenet5-reader`. They need neither libtorch nor Python.

mod commands; // the commands: output and exit codes
#[path = "../../tests/ended.rs"]
mod ended; // runs of programs, and their results
mod pictures; // digits read from pictures: decoding, ink, strings, the library and `predict`
mod serve; // the HTTP service, over sockets
mod util; // programs, temporary folders, digits of MNIST
