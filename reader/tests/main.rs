//! The tests of the reader: `cargo test --release -p lenet5-reader`. They need neither libtorch nor Python.

mod commands; // what the commands print, and their exit codes
#[path = "../../tests/ended.rs"]
mod ended; // how programs are run, and what they left
mod pictures; // digits read from pictures: decoding, ink, strings, the library and `predict`
mod serve; // the HTTP service, over sockets
mod util; // programs, temporary folders, digits of MNIST
