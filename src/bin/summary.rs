//! Prints the table of layers: `cargo run --release --bin summary`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lenet5::charts;
use lenet5::data::{Dataset, Split, examples, to_input};
use lenet5::model::{LeNet5, ModelConfig, Network, Summary};
use lenet5::recipe::Distortions;
use lenet5::weights::Weights;
use lenet5::{Picture, PictureLimits, Recognizer};
use lenet5_cli::{self as cli, ModelArguments};
use lenet5_core::files;
use tch::{Device, Kind, Tensor};

/// Prints LeNet-5's layers: output shapes, parameters, connections, multiply-adds.
#[derive(Parser)]
#[command(
    name = "summary",
    display_name = "lenet5",
    version,
    after_help = "\
Examples:
  summary --model original
  summary --activations 7 --out layers.png"
)]
struct SummaryArguments {
    /// The network: the modern one, or the original one of 1998.
    #[arg(long, default_value = "modern", value_parser = cli::choice::<Network>())]
    model: Network,
    #[command(flatten)]
    options: ModelArguments,
    /// Draw the distortions of `train --distort` as FILE, a PNG. Each row shows a digit and nine
    /// distorted copies of it.
    #[arg(long, value_name = "FILE")]
    distortions: Option<PathBuf>,
    /// Draw the outputs of each layer for a digit. IMAGE is a picture, whose first digit is taken,
    /// or the index of a test image.
    #[arg(long, value_name = "IMAGE", requires = "out")]
    activations: Option<String>,
    /// The PNG file that --activations writes.
    #[arg(long, value_name = "FILE", requires = "activations")]
    out: Option<PathBuf>,
    /// Weights for --activations [default: the shipped weights]
    #[arg(long, value_name = "FILE", requires = "activations")]
    weights: Option<PathBuf>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments: SummaryArguments = cli::parse();
    cli::run(|| {
        if let Some(path) = &arguments.distortions {
            charts::sheet(path, &examples(&Distortions::default())?)?;
            cli::note(format_args!("wrote {}", files::shown(path)));
            return Ok(ExitCode::SUCCESS);
        }
        if let (Some(image), Some(path)) = (&arguments.activations, &arguments.out) {
            draw_activations(&arguments, image, path)?;
            cli::note(format_args!("wrote {}", files::shown(path)));
            return Ok(ExitCode::SUCCESS);
        }
        let mut config = match arguments.model {
            Network::Modern => ModelConfig::default(),
            Network::Original => ModelConfig::original(),
        };
        arguments.options.options().apply(&mut config);
        config.validate()?;
        let summary = Summary::new(&config);
        if arguments.json {
            cli::print(serde_json::to_string(&summary)? + "\n")?;
        } else {
            cli::print(&summary)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn draw_activations(arguments: &SummaryArguments, image: &str, path: &Path) -> anyhow::Result<()> {
    let mut weights = match &arguments.weights {
        Some(file) => Weights::read(file)?,
        None => Weights::shipped(arguments.model)?,
    };
    weights.set(&arguments.options.options())?;
    let bytes = match image.parse::<i64>() {
        Ok(number) => {
            let data = Dataset::embedded(Split::Test, 10)?;
            anyhow::ensure!(
                (0..data.len()).contains(&number),
                "--activations: expected a picture, or the number of a test image from 0 to {}, found {number}",
                data.len() - 1
            );
            data.images().get(number).unsqueeze(0)
        }
        Err(_) => {
            let file = Path::new(image);
            let picture = Picture::open(file, &PictureLimits::default())?;
            let reading = Recognizer::new(&weights)?.read(&picture);
            let reading = reading.map_err(|error| error.in_file(file))?;
            Tensor::from_data_size(&reading.digits[0].pixels, &[1, 28, 28], Kind::Uint8)
        }
    };
    let model = LeNet5::from_weights(&weights, Device::Cpu)?;
    let input = to_input(&bytes, model.config());
    let layers = tch::no_grad(|| model.layers(&input));
    Ok(charts::layers(path, &input, &layers)?)
}
