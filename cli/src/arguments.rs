//! Arguments that several programs have.

use std::path::Path;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lenet5_core::model::{
    Activation, HiddenActivation, Input, LayerOrder, ModelOptions, Network, Pooling,
};
use lenet5_core::weights::Limits;
use lenet5_core::{Choice, Result, Weights};

use super::note_all;

/// Parses the value of an option with a fixed set of values, which `--help` lists.
pub fn choice<T: Choice>() -> impl TypedValueParser<Value = T> {
    let values = T::CHOICES.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values)
        .map(|name| T::from_name(&name).expect("the parser takes the listed names only"))
}

/// Parses a confidence.
///
/// # Errors
/// Where it is not from 0 to 1.
pub fn confidence(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// The settings of a network that the shapes of its weights do not tell.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "ModelArguments")]
pub struct ModelArguments {
    /// Activation [default: as the file says, else tanh]
    #[arg(long, value_parser = choice::<Activation>())]
    activation: Option<Activation>,
    /// Pooling in s2 and s4 [default: as the file says, else avg]
    #[arg(long, value_parser = choice::<Pooling>())]
    pooling: Option<Pooling>,
    /// Order of activation and pooling [default: as the file says, else activation-first]
    #[arg(long, value_name = "ORDER", value_parser = choice::<LayerOrder>())]
    layer_order: Option<LayerOrder>,
    /// Activation of c5 and f6 [default: as the file says, else same]
    #[arg(long, value_name = "WHICH", value_parser = choice::<HiddenActivation>())]
    hidden_activation: Option<HiddenActivation>,
    /// How a 28x28 image becomes the input [default: as the file says, else padded]
    #[arg(long, value_parser = choice::<Input>())]
    input: Option<Input>,
    /// Subtracted from the pixels, which are 0..1 [default: as the file says, else 0]
    #[arg(long, value_name = "X")]
    mean: Option<f64>,
    /// Divides the pixels after that [default: as the file says, else 1]
    #[arg(long, value_name = "X")]
    std: Option<f64>,
}

impl ModelArguments {
    /// The options that were given.
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

/// How a program reads a file of weights.
#[derive(Clone, Debug, clap::Args)]
pub struct WeightsArguments {
    /// Settings that the file does not hold, or holds wrongly.
    #[command(flatten)]
    pub model: ModelArguments,
    /// Where the network is in a file that holds several, such as a teacher and a student: the keys that lead
    /// to it, with dots between them.
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// The limits.
    #[command(flatten)]
    pub limits: LimitArguments,
}

/// The memory that reading a file of weights may take.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitArguments {
    /// The most memory that reading the file may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    max_memory: u64,
}

impl LimitArguments {
    /// The limits in the form that the reader takes.
    pub fn limits(&self) -> Limits {
        Limits { memory: self.max_memory << 20 }
    }
}

impl WeightsArguments {
    /// Reads a file, applies the settings that were given, and prints on stderr what the user should know.
    ///
    /// # Errors
    /// As [`Weights::read`] and [`Weights::set`].
    pub fn read(&self, path: &Path) -> Result<Weights> {
        let mut weights = self.read_as_stored(path)?;
        weights.set(&self.model.options())?;
        note_all(path, &weights);
        Ok(weights)
    }

    /// Reads a file with the settings that it holds or that are assumed.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn read_as_stored(&self, path: &Path) -> Result<Weights> {
        Weights::read_within(path, &self.limits.limits(), self.key.as_deref())
    }

    /// As [`WeightsArguments::read`]; where no file is named, the shipped weights.
    ///
    /// # Errors
    /// As [`Weights::read`] and [`Weights::set`].
    pub fn open(&self, path: Option<&Path>, shipped: Network) -> Result<Weights> {
        let Some(path) = path else {
            let mut weights = Weights::shipped(shipped)?;
            weights.set(&self.model.options())?;
            return Ok(weights);
        };
        self.read(path)
    }
}
