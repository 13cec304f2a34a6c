//! The command `predict`: reads the digits in pictures.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lenet5_cli::{self as cli, WeightsArguments};
use lenet5_core::recognizer::{Pattern, Reading, Recognizer};
use lenet5_core::{Error, Network, PictureLimits, Weights, files};
use serde::Serialize;

use crate::predict;

/// Prints the digits that it finds in each picture, one line of output for each line of digits.
#[derive(Parser)]
#[command(
    name = "predict",
    display_name = "lenet5",
    version,
    after_help = "\
Examples:
  predict tests/pictures/407.png
  predict --json scans/ 'more/*.tif'
  predict --digits 5 forms/
  predict --reject-below 0.7 --show seen photo.jpg"
)]
pub struct PredictArguments {
    /// Pictures of any usual format, folders of pictures, or patterns such as 'scans/*.png'.
    ///
    /// The format is detected from the content: PNG, JPEG, WebP, TIFF, GIF, BMP and others. A program has one second
    /// to open a pipe such as /dev/stdin, and one minute to write all of its data. Devices and sockets are refused.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Weights in any form of PyTorch [default: the shipped weights]
    ///
    /// TorchScript, torch.save of any age, or safetensors. Nothing in the file is executed.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Which shipped weights: of the modern network, or of the network of 1998.
    #[arg(long, default_value = "modern", value_parser = cli::choice::<Network>(), conflicts_with = "weights")]
    model: Network,
    /// Weights of a reject network for these weights, of eleven classes [default: the shipped one]
    ///
    /// The two networks then decide on the class of a digit together, as the shipped ones do.
    #[arg(long, value_name = "FILE")]
    reject_weights: Option<PathBuf>,
    #[command(flatten)]
    read: WeightsArguments,
    /// Number of digits in each line, such as 5, or 3-6.
    ///
    /// The reading is then the likeliest one with so many digits. A line that clearly has another number of digits is
    /// left out, with a note. If no line fits, the picture is an error.
    #[arg(long, value_name = "N", value_parser = Pattern::parse_digits, conflicts_with = "pattern")]
    digits: Option<Pattern>,
    /// Form of each line, such as '####-###'.
    ///
    /// # is any digit, and 0 to 9 are that very digit. - . , / : + ( ) are marks between digits, which may be absent
    /// and are not printed. Spaces mean nothing. The reading is then the likeliest one of this form. A line that clearly
    /// has another form is left out, with a note. If no line fits, the picture is an error.
    #[arg(long, value_name = "FORM", allow_hyphen_values = true)]
    pattern: Option<Pattern>,
    /// Print one line of JSON for each picture.
    ///
    /// It holds file, text, accepted (the text with ? for each rejected digit), digits (label, confidence, probabilities, box as left, top, width and height, line, rejected), rejected,
    /// left_out (box and line of ink beside the digits that may be a sign or a point), other_lines (digits of lines that
    /// do not fit --digits or --pattern), score (the logarithm of the reading's likelihood, 0 at most, which compares
    /// readings of the same picture); or file and error.
    /// If a name is not UTF-8, file_bytes has its bytes.
    #[arg(long)]
    json: bool,
    /// Print digits of a lower confidence as ?; 0 rejects none [default: 0.5]
    ///
    /// The confidence is a number from 0 to 1: the chance that the digit is right. The default is 0 for networks that do
    /// not have ten classes. The book has a table of what other values reject.
    #[arg(long, value_name = "X", value_parser = cli::confidence)]
    reject_below: Option<f32>,
    /// Write each digit as the network sees it to PNG files in DIR, a new or empty folder.
    #[arg(long, value_name = "DIR")]
    show: Option<PathBuf>,
    /// Largest number of pixels of a picture, in millions.
    #[arg(long, value_name = "MILLIONS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    max_pixels: u64,
    /// Most seconds that finding the digits of a picture may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_seconds: u64,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<i32>,
}

/// Runs the command.
///
/// # Errors
/// If the weights cannot be read, or the output cannot be written. A picture that cannot be read does not stop the
/// command: its error is printed, and the exit code is 1.
pub fn run(arguments: &PredictArguments) -> anyhow::Result<ExitCode> {
    cli::set_pool(arguments.threads)?;
    let shipped = || Weights::for_reading(arguments.model);
    let own = arguments.read.own(arguments.weights.as_deref(), shipped)?;
    let recognizer = match (&own, &arguments.reject_weights) {
        (None, None) => Recognizer::shipped(arguments.model)?,
        (Some(own), None) => Recognizer::new(own)?,
        (_, Some(file)) => {
            let reading = own.map_or_else(shipped, Ok)?;
            Recognizer::with_reject_network(&reading, &Weights::read(file)?)?
        }
    };
    let recognizer = recognizer.reject_below(arguments.reject_below);
    let recognizer = recognizer.time_limit(Duration::from_secs(arguments.max_seconds));
    let files = predict::find_pictures(&arguments.images);
    let many = files.len() > 1;
    let mut shown = arguments.show.as_deref().map(ShownDigits::new).transpose()?;
    let limits =
        PictureLimits { pixels: arguments.max_pixels * 1_000_000, ..PictureLimits::default() };
    let pattern = arguments.digits.as_ref().or(arguments.pattern.as_ref());
    let pattern = pattern.cloned().unwrap_or_default();
    let mut failed = false;
    predict::read_files(&recognizer, files, &limits, &pattern, |file, reading| {
        failed |= reading.is_err();
        if let (Some(shown), Ok(reading)) = (&mut shown, &reading) {
            shown.write(file, reading)?;
        }
        print(arguments, file, many, reading)
    })?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(
    arguments: &PredictArguments,
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

/// A line of the output of `--json`.
#[derive(Serialize)]
struct ReadingLine<'a, T> {
    file: String,
    /// The bytes of the file's name if it is not UTF-8.
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
    let line =
        ReadingLine { file: file.display().to_string(), file_bytes: files::exact(file), result };
    cli::print(serde_json::to_string(&line)? + "\n")?;
    Ok(())
}

/// The folder for the pictures of `--show`.
struct ShownDigits {
    folder: PathBuf,
    used: HashSet<String>,
    /// The number of files so far, by stem.
    counts: HashMap<String, usize>,
}

impl ShownDigits {
    /// Creates the folder, or accepts an empty one, as no file of the user may be overwritten.
    fn new(folder: &Path) -> anyhow::Result<Self> {
        files::create_folder(folder)?;
        let mut entries = folder.read_dir().map_err(Error::io(folder))?;
        if entries.next().is_some() {
            anyhow::bail!(
                "--show {}: expected a new or an empty folder, found files in it",
                files::shown(folder)
            );
        }
        Ok(Self { folder: folder.to_owned(), used: HashSet::new(), counts: HashMap::new() })
    }

    /// Writes DIR/NAME.png; if several files have the same name, NAME-2.png and so on.
    fn write(&mut self, file: &Path, reading: &Reading) -> anyhow::Result<()> {
        let stem = file.file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
        let count = self.counts.entry(stem.to_string()).or_default();
        let name = loop {
            *count += 1;
            let name = if *count == 1 { stem.to_string() } else { format!("{stem}-{count}") };
            if self.used.insert(name.clone()) {
                break name;
            }
        };
        predict::write_digits(&self.folder.join(name + ".png"), reading)?;
        Ok(())
    }
}
