//! Converts files of weights: `cargo run --release --bin convert weights/lenet5.pt
//! lenet5.safetensors`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5::data::{Dataset, Fit, Split};
use lenet5::detect::Detection;
use lenet5::model::ModelOptions;
use lenet5::weights::{self, Format, Inspection, Provenance};
use lenet5_cli::{self as cli, WeightsArguments};
use lenet5_core::files;

/// Reads LeNet-5's weights in any form that PyTorch writes, and writes them in another form.
///
/// The form of IN is detected from its content. No code in it is executed. OUT is written
/// completely or not at all. It holds all settings, so that no options are needed to read it.
/// Without OUT, IN is described, as by inspect.
#[derive(Parser)]
#[command(
    name = "convert",
    display_name = "lenet5",
    version,
    after_help = "\
Examples:
  convert theirs.pth ours.pt --activation relu --pooling max
  convert theirs.pth ours.safetensors --detect"
)]
struct ConvertArguments {
    /// Weights in any form of PyTorch.
    ///
    /// TorchScript, a file of any version of `torch.save` (a state dict, a checkpoint, a whole
    /// module), or safetensors.
    #[arg(value_name = "IN")]
    file: PathBuf,
    /// The file to write; without it, the content of IN is printed.
    #[arg(value_name = "OUT")]
    output: Option<PathBuf>,
    /// Form of OUT [default: by its suffix: .pt, .pth, .safetensors]
    #[arg(long, requires = "output", value_parser = cli::choice::<Format>())]
    format: Option<Format>,
    /// Find the settings by trial on training images.
    ///
    /// Settings that options or the file state are kept.
    #[arg(long, requires = "output")]
    detect: bool,
    /// Folder of IDX files for --detect, gzip or not [default: the embedded MNIST]
    #[arg(long, value_name = "DIR", requires = "detect")]
    data: Option<PathBuf>,
    #[command(flatten)]
    read: WeightsArguments,
}

fn main() -> ExitCode {
    let arguments: ConvertArguments = cli::parse();
    cli::run(|| {
        match &arguments.output {
            Some(output) => convert(&arguments, output)?,
            None => cli::print(Inspection::of(&arguments.file, &arguments.read.limits.limits())?)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn convert(arguments: &ConvertArguments, output: &Path) -> anyhow::Result<()> {
    let format = arguments.format.or_else(|| Format::from_path(output)).with_context(|| {
        format!(
            "{}: expected the suffix .pt, .pth or .safetensors, or --format",
            files::shown(output)
        )
    })?;
    let mut weights = if arguments.detect {
        arguments.read.read_as_stored(&arguments.file)?
    } else {
        arguments.read.read(&arguments.file)?
    };
    if arguments.detect {
        let classes = weights.config.classes;
        let data = Dataset::open(arguments.data.as_deref(), Split::Train, classes, Fit::Auto)?;
        let known = &arguments.read.model.options();
        let detection = Detection::run(&weights, known, &data)?;
        cli::print(&detection)?;
        let (best, runner_up) = detection.best()?;
        weights.config = best.clone();
        weights.provenance = Provenance::Known;
        cli::note_all(&arguments.file, &weights);
        cli::note(format_args!("detected: {best}"));
        if let Some(other) = runner_up {
            cli::note(format_args!(
                "note: nearly as likely: {}; for it: {}",
                other.config,
                ModelOptions::of(&other.config)
            ));
        }
        for config in detection.equivalent(&weights.config) {
            cli::note(format_args!("note: equally good, except for noise: {config}"));
        }
    }
    weights::write(&weights, output, format)?;
    cli::note(format_args!("wrote {} ({})", files::shown(output), format.title()));
    Ok(())
}
