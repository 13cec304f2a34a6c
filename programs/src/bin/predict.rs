//! The program `predict` reads the digits in pictures: `cargo run --release --bin predict -- IMAGE`

use std::process::ExitCode;

use lenet5_reader::commands::predict;

fn main() -> ExitCode {
    let arguments = lenet5_cli::parse();
    lenet5_cli::run(|| predict::run(&arguments))
}
