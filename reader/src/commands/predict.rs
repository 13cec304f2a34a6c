//! Reads the digits in pictures.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lenet5_cli::{self as cli, WeightsArguments};
use lenet5_core::recognizer::{Reading, Recognizer};
use lenet5_core::{Network, PictureLimits, files};
use serde::Serialize;

use crate::predict;

/// Prints the digits that it finds in each picture, a line of them on each line.
#[derive(Parser)]
#[command(name = "predict", version)]
pub struct Arguments {
    /// Pictures of any format (PNG, JPEG, WebP, TIFF, GIF, BMP, ...), found by their content; folders of
    /// them; patterns such as 'scans/*.png'. A pipe such as /dev/stdin has a second until a program opens it to write, and
    /// a minute until its end; devices and sockets are refused.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// TorchScript, torch.save of any age, or safetensors, of which nothing is executed [default: those
    /// shipped, weights/lenet5.*]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Which of the shipped weights: of the network as PyTorch users write it today, or of the paper's of 1998.
    #[arg(long, default_value = "modern", value_parser = cli::choice::<Network>(), conflicts_with = "weights")]
    model: Network,
    #[command(flatten)]
    read: WeightsArguments,
    /// A line of JSON for each picture: file, text, accepted (the text with ? for each digit that is rejected),
    /// digits (label, confidence, probabilities, box as left, top, width and height, line, rejected), rejected,
    /// left_out (box and line of ink beside the digits that may be a sign or a point); or file, error.
    /// Where a name is not UTF-8, file_bytes has its bytes.
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
    /// The most seconds that finding the digits of a picture may take; on an idle machine none needs three.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_seconds: u64,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<i32>,
}

/// Runs the command.
///
/// # Errors
/// Where the weights cannot be read, or nothing can be written. A picture that cannot be read is no error: the exit code
/// tells.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    cli::set_pool(arguments.threads)?;
    let weights = arguments.read.open(arguments.weights.as_deref(), arguments.model)?;
    let recognizer = Recognizer::new(&weights)?.reject_below(arguments.reject_below);
    let recognizer = recognizer.time_limit(Duration::from_secs(arguments.max_seconds));
    let files = predict::pictures(&arguments.images);
    let many = files.len() > 1;
    if let Some(folder) = &arguments.show {
        files::create_folder(folder)?;
    }
    let limits =
        PictureLimits { pixels: arguments.max_pixels * 1_000_000, ..PictureLimits::default() };
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
    with_name: bool,
    reading: lenet5_core::Result<Reading>,
) -> anyhow::Result<()> {
    match reading {
        Ok(reading) if arguments.json => print_json(file, &reading)?,
        Err(error) if arguments.json => print_json(file, Failed { error: error.to_string() })?,
        Ok(reading) => {
            for line in reading.accepted.lines() {
                match with_name {
                    true => cli::print(format_args!("{}: {line}\n", files::shown(file)))?,
                    false => cli::print(format_args!("{line}\n"))?,
                }
            }
            for text in predict::notes(&reading) {
                cli::note(format_args!("note: {}: {text}", files::shown(file)));
            }
        }
        Err(error) => cli::note(format_args!("error: {error}")),
    }
    Ok(())
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a, T> {
    file: String,
    /// The bytes of the file's name, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<&'a [u8]>,
    #[serde(flatten)]
    result: T,
}

/// The result for a picture that cannot be read.
#[derive(Serialize)]
struct Failed {
    error: String,
}

fn print_json(file: &Path, result: impl Serialize) -> anyhow::Result<()> {
    let line = Line { file: file.display().to_string(), file_bytes: files::exact(file), result };
    cli::print(serde_json::to_string(&line)? + "\n")?;
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
