//! Reads the digits in pictures: `cargo run --release --bin predict -- IMAGE`

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5::cli::{self, ReadOptions};
use lenet5::data::images::Limits;
use lenet5::model::Network;
use lenet5::predict;
use lenet5::recognizer::{Reading, Recognizer};
use serde_json::{Value, json};

/// Prints the digits that it finds in each picture, a line of them on each line.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Pictures of any format (PNG, JPEG, WebP, TIFF, GIF, BMP, ...), found by their content; folders of
    /// them; patterns such as 'scans/*.png'.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// TorchScript, torch.save of any age, or safetensors, of which nothing is executed [default: those
    /// shipped, weights/lenet5.*]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Which of the shipped weights: of the network as PyTorch users write it today, or of the paper's of 1998.
    #[arg(long, default_value = "modern", conflicts_with = "weights")]
    model: Network,
    #[command(flatten)]
    read: ReadOptions,
    /// A line of JSON for each picture: file, text, accepted (the text with ? for each digit that is rejected),
    /// digits (label, confidence, probabilities, box as left, top, width and height, line, rejected), rejected,
    /// left_out (box and line of ink beside the digits that may be a sign or a point); or file, error.
    #[arg(long)]
    json: bool,
    /// Reject digits of a lower confidence, 0 to 1; they are printed as ?, and 0 rejects none. Of MNIST's test
    /// digits, with the shipped weights, 0.05 rejects 0.5 % and leaves 0.35 % error among the others (0.45 %
    /// without), 0.5 rejects 3.2 % and leaves 0.17 %, 0.7 rejects 6.1 % and leaves 0.05 %, 0.9 rejects 15.9 % and
    /// leaves 0.01 % [default: 0.05, and 0 for networks of other classes than ten]
    #[arg(long, value_name = "X", value_parser = cli::confidence)]
    reject_below: Option<f32>,
    /// Write what the network saw of each picture, its digits side by side, as PNG files in DIR.
    #[arg(long, value_name = "DIR")]
    show: Option<PathBuf>,
    /// The most pixels of a picture, in millions.
    #[arg(long, value_name = "MILLIONS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    max_pixels: u64,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<i32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run(|| predict(&arguments))
}

fn predict(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    cli::set_threads(arguments.threads)?;
    cli::set_pool(arguments.threads)?;
    let weights = arguments.read.open(arguments.weights.as_deref(), arguments.model)?;
    let recognizer = Recognizer::new(&weights)?.reject_below(arguments.reject_below);
    let files = predict::pictures(&arguments.images);
    let many = files.len() > 1;
    if let Some(folder) = &arguments.show {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
    }
    let limits = Limits { pixels: arguments.max_pixels * 1_000_000, ..Limits::default() };
    let (mut failed, mut shown) = (false, HashSet::new());
    predict::read_files(&recognizer, files, &limits, |file, reading| {
        failed |= reading.is_err();
        if let (Some(folder), Ok(reading)) = (&arguments.show, &reading) {
            show(folder, file, reading, &mut shown)?;
        }
        print(arguments, file, many, reading)
    })?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(
    arguments: &Arguments,
    file: &Path,
    named: bool,
    reading: lenet5::Result<Reading>,
) -> anyhow::Result<()> {
    match reading {
        Ok(reading) if arguments.json => {
            let mut line = json!({ "file": file.display().to_string() });
            if let (Value::Object(line), Value::Object(reading)) =
                (&mut line, serde_json::to_value(&reading)?)
            {
                line.extend(reading);
            }
            cli::print(format_args!("{line}\n"))?;
        }
        Err(error) if arguments.json => {
            let error = error.to_string();
            let line = json!({ "file": file.display().to_string(), "error": error });
            cli::print(format_args!("{line}\n"))?;
        }
        Ok(reading) => {
            for line in reading.accepted.lines() {
                match named {
                    true => cli::print(format_args!("{}: {line}\n", file.display()))?,
                    false => cli::print(format_args!("{line}\n"))?,
                }
            }
            for text in predict::notes(&reading) {
                cli::note(format_args!("note: {}: {text}", file.display()));
            }
        }
        Err(error) => cli::note(format_args!("error: {error}")),
    }
    Ok(())
}

/// Writes DIR/NAME.png; of files of one name, NAME-2.png, ...
fn show(
    folder: &Path,
    file: &Path,
    reading: &Reading,
    shown: &mut HashSet<String>,
) -> anyhow::Result<()> {
    let stem = file.file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
    let names = (1..).map(|i| if i == 1 { stem.to_string() } else { format!("{stem}-{i}") });
    let name = names.into_iter().find(|name| shown.insert(name.clone())).expect("names");
    predict::write_seen(&folder.join(name + ".png"), reading)?;
    Ok(())
}
