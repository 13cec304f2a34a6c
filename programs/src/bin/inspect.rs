//! The program `inspect` describes a file of weights: `cargo run --release --bin inspect weights/lenet5.pt`

use std::process::ExitCode;

use lenet5_reader::commands::inspect;

fn main() -> ExitCode {
    let arguments = lenet5_cli::parse();
    lenet5_cli::run(|| inspect::run(&arguments))
}
