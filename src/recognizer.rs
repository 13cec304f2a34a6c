//! Digits read from pictures: found, brought into MNIST's form, and read by the network.

mod network;

use std::path::Path;

use image::DynamicImage;
use serde::Serialize;

use crate::Result;
use crate::data::images::{PIXELS, SIDE};
use crate::model::{ModelConfig, Network};
use crate::weights::Weights;
use network::Classifier;

/// Reads the digits of pictures. Threads can share one.
pub struct Recognizer {
    classifier: Classifier,
}

/// What a picture says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Its digits in reading order, a line of them on each line.
    pub text: String,
    /// The same, one by one.
    pub digits: Vec<Digit>,
    /// Whether one of them is rejected.
    pub rejected: bool,
}

/// A digit of a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Digit {
    /// The class whose probability is largest.
    pub label: usize,
    /// How sure that is, 0 to 1: the class's probability, times that of being a digit at all.
    pub confidence: f32,
    /// Of each class; they add up to 1.
    pub probabilities: Vec<f32>,
    /// Left, top, width and height in the picture, in pixels.
    #[serde(rename = "box")]
    pub area: [u32; 4],
    /// Whether the confidence is below what was asked for.
    pub rejected: bool,
    /// What the network sees: 28x28, 0 for the paper to 255 for ink, row by row.
    #[serde(skip)]
    pub pixels: [u8; PIXELS],
}

/// What a layer makes of a digit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Activation {
    /// The paper's name: c1, s2, c3, s4, c5, f6, output.
    pub name: &'static str,
    /// Maps, rows, columns; of c5, f6 and output the units alone.
    pub shape: Vec<i64>,
    /// Row by row, map after map.
    pub values: Vec<f32>,
}

impl Recognizer {
    /// With the weights of a file, in any of the forms that [`Weights::read`] knows.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(&Weights::read(path.as_ref())?)
    }

    /// With the weights that ship with the program.
    ///
    /// # Errors
    /// None that a build which passes its tests has.
    pub fn shipped(network: Network) -> Result<Self> {
        Self::new(&Weights::shipped(network)?)
    }

    /// With these weights.
    ///
    /// # Errors
    /// Where the tensors do not fit the settings.
    pub fn new(weights: &Weights) -> Result<Self> {
        Ok(Self { classifier: Classifier::new(weights)? })
    }

    /// The network's settings.
    pub fn config(&self) -> &ModelConfig {
        self.classifier.config()
    }

    /// Rejects digits whose confidence is below this, 0 to 1; none without it.
    pub fn reject_below(self, _confidence: f32) -> Self {
        self
    }

    /// Reads a picture.
    ///
    /// # Errors
    /// [`Error::Picture`](crate::Error::Picture) where there is nothing to read in it.
    pub fn read(&self, picture: &DynamicImage) -> Result<Reading> {
        self.read_all(std::slice::from_ref(picture)).remove(0)
    }

    /// Reads pictures, all digits in one batch, on all cores; of each what [`Recognizer::read`] gives.
    pub fn read_all(&self, pictures: &[DynamicImage]) -> Vec<Result<Reading>> {
        pictures
            .iter()
            .map(|picture| {
                let side = SIDE as u32;
                let small = picture.resize_exact(side, side, image::imageops::FilterType::Triangle);
                let pixels: [u8; PIXELS] = small.into_luma8().into_raw().try_into().expect("a size");
                let probabilities = self.classifier.probabilities(&[pixels])?.remove(0);
                let best = |a: &usize, b: &usize| probabilities[*a].total_cmp(&probabilities[*b]);
                let label = (0..probabilities.len()).max_by(best).expect("classes");
                let area = [0, 0, picture.width(), picture.height()];
                let confidence = probabilities[label];
                let digit =
                    Digit { label, confidence, probabilities, area, rejected: false, pixels };
                Ok(Reading { text: label.to_string(), digits: vec![digit], rejected: false })
            })
            .collect()
    }

    /// What the layers make of a digit, from [`Digit::pixels`]: the input as the network takes it, 32x32 (28x28
    /// for some settings), then layer by layer.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn activations(&self, pixels: &[u8; PIXELS]) -> Result<Vec<Activation>> {
        self.classifier.activations(pixels)
    }
}
