//! Command-line arguments that several programs share.

use std::path::Path;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lenet5_core::model::{
    Activation, HiddenActivation, Input, LayerOrder, ModelOptions, Network, Pooling,
};
use lenet5_core::weights::Limits;
use lenet5_core::{Choice, Error, Result, Weights};

use super::note_all;

/// Creates a parser for an option with a fixed set of values, which `--help` lists.
pub fn choice<T: Choice>() -> impl TypedValueParser<Value = T> {
    let values = T::CHOICES.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values)
        .map(|name| T::from_name(&name).expect("the parser takes the listed names only"))
}

/// Parses a confidence, a number from 0 to 1.
///
/// # Errors
/// If the text is no number from 0 to 1.
pub fn confidence(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Settings of a network that cannot be inferred from the shapes of its weights.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "ModelArguments")]
pub struct ModelArguments {
    /// Activation [default: that of the file, or tanh]
    #[arg(long, value_parser = choice::<Activation>(), help_heading = "Network")]
    activation: Option<Activation>,
    /// Pooling in s2 and s4 [default: that of the file, or avg]
    #[arg(long, value_parser = choice::<Pooling>(), help_heading = "Network")]
    pooling: Option<Pooling>,
    /// Order of activation and pooling [default: that of the file, or activation-first]
    #[arg(long, value_name = "ORDER", value_parser = choice::<LayerOrder>(), help_heading = "Network")]
    layer_order: Option<LayerOrder>,
    /// Activation of c5 and f6 [default: that of the file, or same]
    #[arg(long, value_name = "WHICH", value_parser = choice::<HiddenActivation>(), help_heading = "Network")]
    hidden_activation: Option<HiddenActivation>,
    /// Conversion of 28x28 images to the input [default: that of the file, or padded]
    #[arg(long, value_parser = choice::<Input>(), help_heading = "Network")]
    input: Option<Input>,
    /// Mean of the pixels, which are 0 to 1 [default: that of the file, or 0]
    #[arg(long, value_name = "X", help_heading = "Network")]
    mean: Option<f64>,
    /// Standard deviation of the pixels [default: that of the file, or 1]
    #[arg(long, value_name = "X", help_heading = "Network")]
    std: Option<f64>,
}

impl ModelArguments {
    /// Returns the options that were given.
    pub fn options(&self) -> ModelOptions {
        ModelOptions {
            activation: self.activation,
            pooling: self.pooling,
            layer_order: self.layer_order,
            hidden_activation: self.hidden_activation,
            input: self.input,
            mean: self.mean,
            std: self.std,
        }
    }
}

/// Options for reading a file of weights.
#[derive(Clone, Debug, clap::Args)]
pub struct WeightsArguments {
    /// Settings that the file lacks, or that replace those in the file.
    #[command(flatten)]
    pub model: ModelArguments,
    /// The network in a file that holds several: its keys, separated by dots.
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// Limits on the memory used.
    #[command(flatten)]
    pub limits: LimitArguments,
}

/// Limits on the memory that reading a file of weights may use.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitArguments {
    /// Maximum memory for reading the file, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    max_memory: u64,
}

impl LimitArguments {
    /// Returns the limits in the form that the library takes.
    pub fn limits(&self) -> Limits {
        Limits { memory: self.max_memory << 20 }
    }
}

impl WeightsArguments {
    /// Reads a file, applies the settings that were given, and prints notes about it on stderr.
    ///
    /// # Errors
    /// The errors of [`Weights::read`] and [`Weights::set`].
    pub fn read(&self, path: &Path) -> Result<Weights> {
        let mut weights = self.read_as_stored(path)?;
        weights.set(&self.model.options())?;
        note_all(path, &weights);
        Ok(weights)
    }

    /// Reads a file with the settings that it holds, and with defaults for those that it lacks.
    ///
    /// # Errors
    /// The errors of [`Weights::read`].
    pub fn read_as_stored(&self, path: &Path) -> Result<Weights> {
        Weights::read_within(path, &self.limits.limits(), self.key.as_deref())
    }

    /// Reads a file as [`WeightsArguments::read`] does, or returns the shipped weights if `path`
    /// is `None`.
    ///
    /// # Errors
    /// The errors of [`Weights::read`] and [`Weights::set`].
    pub fn open(&self, path: Option<&Path>, shipped: Network) -> Result<Weights> {
        match self.own(path, || Weights::shipped(shipped))? {
            Some(weights) => Ok(weights),
            None => Weights::shipped(shipped),
        }
    }

    /// Reads a file as [`WeightsArguments::read`] does. If `path` is `None`, returns shipped weights
    /// with the settings that were given, or `None` if there are none.
    ///
    /// # Errors
    /// The errors of [`Weights::read`] and [`Weights::set`].
    pub fn own(
        &self,
        path: Option<&Path>,
        shipped: impl FnOnce() -> Result<Weights>,
    ) -> Result<Option<Weights>> {
        if let Some(path) = path {
            return self.read(path).map(Some);
        }
        if let Some(key) = &self.key {
            return Err(Error::Config(format!(
                "--key {key}: expected a file of several networks, by --weights"
            )));
        }
        let options = self.model.options();
        if options == ModelOptions::default() {
            return Ok(None);
        }
        let mut weights = shipped()?;
        weights.set(&options)?;
        Ok(Some(weights))
    }
}
