//! The program `serve` reads digits over HTTP: run `cargo run --release --bin serve`, then open the address that it
//! prints.

use std::process::ExitCode;

use lenet5_reader::commands::serve;

fn main() -> ExitCode {
    let arguments = lenet5_cli::parse();
    lenet5_cli::run(|| serve::run(&arguments))
}
