//! Digits read from pictures: found, brought into MNIST's form, and read by the network.
//!
//! Connected ink is cut where digits may touch; each few pieces that follow each other may be a digit. A second
//! network, LeNet-5 with an eleventh class for what is no digit, says which of them are; the path through a
//! line that it finds likeliest is read.

mod budget;
mod classifier;
mod clutter;
mod component;
mod graph;
mod lines;
mod marks;
mod pieces;
pub mod training;

use std::borrow::Borrow;
use std::path::Path;
use std::time::Duration;

use rayon::prelude::*;
use serde::Serialize;

use crate::data::digit::{PIXELS, SIDE};
use crate::data::ink::{Area, Ink};
use crate::data::{Picture, as_in_mnist};
use crate::model::{ModelConfig, Network};
use crate::weights::Weights;
use crate::{Error, Result};
use budget::Budget;
use classifier::Classifier;
use graph::{Edge, Graph};
use pieces::Pieces;

/// The longest sides in which a picture is looked at: the second one where its digits are too small in the first.
const SIDES: [u32; 2] = [400, 1600];
/// Rows of digits that are not too small.
const LOWEST: usize = 48;
/// Higher digits than this are reduced before they are cut.
const HIGHEST: usize = 128;

/// Digits of a lower confidence are rejected where nothing else is asked for. Of MNIST's test digits these are
/// 0.5 %, a fifth of them misclassified.
pub const REJECT_BELOW: f32 = 0.05;

/// A confidence of no digit, where there are many.
const UNLIKELY: f32 = 0.01;

/// Reads the digits of pictures. Threads can share one.
///
/// # Example
/// ```
/// # #[cfg(feature = "pictures")]
/// # fn main() -> lenet5_core::Result<()> {
/// use lenet5_core::{Picture, PictureLimits, Recognizer};
///
/// let picture = Picture::open("../tests/pictures/407.png", &PictureLimits::default())?;
/// let reading = Recognizer::load("../weights/lenet5.safetensors")?.read(&picture)?;
/// assert_eq!(reading.text, "407");
/// assert!(reading.digits.iter().all(|digit| digit.confidence > 0.9));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "pictures"))]
/// # fn main() {}
/// ```
pub struct Recognizer {
    /// Reads digits.
    reader: Classifier,
    /// Tells digits from what is none.
    reject_network: Classifier,
    reject_below: f32,
    time_limit: Option<Duration>,
}

/// What a picture says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Its digits in reading order, a line of them on each line, with those that are rejected.
    pub text: String,
    /// The text with a question mark for each digit that is rejected.
    pub accepted: String,
    /// The same, one by one.
    pub digits: Vec<Digit>,
    /// Whether one of them is rejected.
    pub rejected: bool,
    /// Ink beside digits that is not read, and that may be a sign, a point, a comma or a dash.
    pub left_out: Vec<Mark>,
}

/// Ink that is not read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// Left, top, width and height in the picture, in pixels.
    #[serde(rename = "box")]
    pub area: [u32; 4],
    /// The line of the digits that it stands beside, from 0.
    pub line: usize,
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
    /// Its line, from 0.
    pub line: usize,
    /// Whether the confidence is below what was asked for.
    pub rejected: bool,
    /// What the network sees: 28x28, 0 for the paper to 255 for ink, row by row.
    #[serde(skip)]
    pub pixels: [u8; PIXELS],
}

/// What a layer makes of a digit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerOutput {
    /// input, or the paper's name: c1, s2, c3, s4, c5, f6, output.
    pub name: &'static str,
    /// Maps, rows, columns; of c5, f6 and output the units alone.
    pub shape: Vec<usize>,
    /// Row by row, map after map.
    pub values: Vec<f32>,
}

/// What may be digits in a picture, by line; and how many of its pixels make one of the areas'.
struct Found {
    lines: Vec<Graph>,
    /// Where ink is in no line.
    left_out: Vec<Area>,
    step: f32,
}

/// Digits as a text, line by line; labels of more than ten classes with spaces between them.
fn joined(digits: &[Digit], show: impl Fn(&Digit) -> String) -> String {
    let lines = digits.chunk_by(|a, b| a.line == b.line).map(|line| {
        let long = line.iter().any(|digit| digit.probabilities.len() > 10);
        line.iter().map(&show).collect::<Vec<_>>().join(if long { " " } else { "" })
    });
    lines.collect::<Vec<_>>().join("\n")
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
        Ok(Self {
            reader: Classifier::new(weights)?,
            reject_network: Classifier::new(&Weights::reject_network()?)?,
            // The reject network knows digits alone.
            reject_below: if weights.config.classes == 10 { REJECT_BELOW } else { 0.0 },
            time_limit: None,
        })
    }

    /// Gives up a picture that takes longer, decoding not counted; the default is no limit.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time_limit = Some(time);
        self
    }

    /// Rejects digits whose confidence is below this, 0 to 1; 0 rejects none. Without it, or with none given, a
    /// network of ten classes has [`REJECT_BELOW`], and others have 0.
    pub fn reject_below(mut self, confidence: impl Into<Option<f32>>) -> Self {
        self.reject_below = confidence.into().unwrap_or(self.reject_below);
        self
    }

    /// The network's settings.
    pub fn config(&self) -> &ModelConfig {
        self.reader.config()
    }

    /// Reads a picture.
    ///
    /// # Errors
    /// [`Error::Picture`] where there is nothing to read in it.
    pub fn read(&self, picture: &Picture) -> Result<Reading> {
        self.read_all(std::slice::from_ref(picture)).remove(0)
    }

    /// Reads pictures, all digits in one batch, on all cores; of each what [`Recognizer::read`] gives.
    pub fn read_all(&self, pictures: &[Picture]) -> Vec<Result<Reading>> {
        self.read_by(pictures, Ok)
    }

    /// The same of pictures that `open` gives: as many are in memory at a time as there are cores.
    pub fn read_by<'a, T: Sync, P: Borrow<Picture>>(
        &self,
        sources: &'a [T],
        open: impl Fn(&'a T) -> Result<P> + Sync,
    ) -> Vec<Result<Reading>> {
        let find = |source| {
            let picture = open(source)?;
            find(picture.borrow(), Budget::new(self.time_limit))
        };
        let found: Vec<_> = sources.par_iter().with_max_len(1).map(find).collect();
        let graphs = || found.iter().flatten().flat_map(|found| &found.lines);
        let all: Vec<_> =
            graphs().flat_map(|graph| graph.edges.iter().map(|edge| edge.pixels)).collect();
        let (judgements, read) =
            (self.reject_network.probabilities(&all), self.reader.probabilities(&all));
        let mut first = 0;
        found
            .into_iter()
            .map(|found| {
                let found = found?;
                let edges: usize = found.lines.iter().map(|line| line.edges.len()).sum();
                let range = first..first + edges;
                first += edges;
                self.resolve(&found, &judgements[range.clone()], &read[range])
            })
            .collect()
    }

    /// The likeliest reading of what was found, by the probabilities of all edges.
    fn resolve(
        &self,
        found: &Found,
        judgements: &[Vec<f32>],
        read: &[Vec<f32>],
    ) -> Result<Reading> {
        let digit: Vec<f32> = judgements
            .iter()
            .map(|classes| 1.0 - classes[usize::from(training::NO_DIGIT)])
            .collect();
        let right: Vec<f32> =
            read.iter().map(|read| read.iter().copied().fold(0.0, f32::max)).collect();
        let (mut digits, mut accepted, mut others) = (Vec::new(), Vec::new(), Vec::new());
        // Where nothing seems to be a digit, something has to be one.
        for blots in [true, false] {
            if !digits.is_empty() {
                break;
            }
            (accepted, others) = (Vec::new(), found.left_out.clone());
            let mut first = 0;
            for (number, line) in found.lines.iter().enumerate() {
                let range = first..first + line.edges.len();
                let (path, left_out) =
                    line.best(&digit[range.clone()], &right[range.clone()], blots);
                others.extend(left_out);
                let mut areas = Vec::new();
                for edge in path {
                    let Edge { area, pixels, .. } = &line.edges[edge];
                    let edge = first + edge;
                    let confidence = digit[edge] * right[edge];
                    let probabilities = read[edge].clone();
                    let label = probabilities.iter().position(|p| *p == right[edge]);
                    let rejected = confidence < self.reject_below;
                    areas.extend((!rejected).then_some(*area));
                    digits.push(Digit {
                        label: label.unwrap_or(0),
                        confidence,
                        probabilities,
                        area: in_picture(area, found.step),
                        line: number,
                        rejected,
                        pixels: *pixels,
                    });
                }
                accepted.push(marks::Digits { areas, height: line.height });
                first = range.end;
            }
        }
        // Stars, leaves, cloth: much, and none of it like a digit.
        let surest = digits.iter().map(|digit| digit.confidence).fold(0.0, f32::max);
        if digits.is_empty() || digits.len() > 3 && surest < UNLIKELY {
            return Err(Error::Picture("expected digits, found nothing that is one".to_owned()));
        }
        let text = joined(&digits, |digit| digit.label.to_string());
        let rejected = digits.iter().any(|digit| digit.rejected);
        let sure = joined(&digits, |digit| match digit.rejected {
            true => "?".to_owned(),
            false => digit.label.to_string(),
        });
        let left_out = others.iter().filter_map(|mark| {
            let line = marks::line_of(mark, &accepted)?;
            Some(Mark { area: in_picture(mark, found.step), line })
        });
        Ok(Reading { text, accepted: sure, digits, rejected, left_out: left_out.collect() })
    }

    /// What the layers make of a digit, from [`Digit::pixels`]: the input as the network takes it, then layer by
    /// layer.
    pub fn layers(&self, pixels: &[u8; PIXELS]) -> Vec<LayerOutput> {
        self.reader.layers(pixels)
    }
}

/// Finds what may be digits.
fn find(picture: &Picture, mut budget: Budget) -> Result<Found> {
    if let Some(pixels) = as_in_mnist(picture) {
        let ink = Ink::of_pixels(&pixels);
        let margin = (picture.width() as usize - SIDE) / 2;
        let mut area = ink.area(0.1).expect("it has ink");
        area.left += margin;
        area.top += margin;
        let lines = vec![Graph::of_digit(area, pixels)];
        return Ok(Found { lines, left_out: Vec::new(), step: 1.0 });
    }
    let nothing = |what: &str| Err(Error::Picture(format!("expected digits, found {what}")));
    let mut found = nothing("an empty picture: nothing in it stands out from its background");
    for side in SIDES {
        budget.check_time()?;
        let Some((ink, step)) = Ink::of(picture, side) else { continue };
        budget.allow(ink.values().len());
        match graphs(ink, step as f32, &mut budget) {
            Ok(Some((now, low))) => {
                found = Ok(now);
                let largest = picture.width().max(picture.height());
                if largest <= side || !low {
                    break;
                }
            }
            // The reading in fewer pixels stays.
            Ok(None) => found = found.or_else(|_| nothing("nothing that looks like writing")),
            Err(error) => {
                budget.check_time()?;
                found = found.or(Err(error));
            }
        }
    }
    found
}

/// The graphs of the lines in ink, of which each pixel stands for `step` of the picture's; and whether there are
/// lines that are too low to be read well. None where there is no writing.
fn graphs(ink: Ink, step: f32, budget: &mut Budget) -> Result<Option<(Found, bool)>> {
    let Some((ink, pieces, reduced)) = reduced_pieces(ink, budget)? else { return Ok(None) };
    let lines = pieces.lines.iter().map(|line| Graph::of(&ink, &pieces, line, budget));
    let lines = lines.collect::<Result<_>>()?;
    let low = pieces.lines.iter().any(|line| line.height < LOWEST);
    let left_out = pieces.left_out.clone();
    Ok(Some((Found { lines, left_out, step: step * reduced }, low)))
}

/// Ink in pieces, reduced so that digits are not higher than they need to be; and by how much.
fn reduced_pieces(ink: Ink, budget: &mut Budget) -> Result<Option<(Ink, Pieces, f32)>> {
    let Some(pieces) = Pieces::of(&ink, budget)? else { return Ok(None) };
    let Some(height) = pieces.lines.iter().map(|line| line.height).max() else { return Ok(None) };
    if height <= HIGHEST {
        return Ok(Some((ink, pieces, 1.0)));
    }
    let by = height as f32 / HIGHEST as f32;
    let side = |length: usize| ((length as f32 / by).round() as usize).max(1);
    let ink = ink.resized(side(ink.width()), side(ink.height()));
    let pieces = Pieces::of(&ink, budget)?.filter(|pieces| !pieces.lines.is_empty());
    Ok(pieces.map(|pieces| (ink, pieces, by)))
}

fn in_picture(area: &Area, step: f32) -> [u32; 4] {
    let scaled = |length: usize| (length as f32 * step).round() as u32;
    let (left, top) = (scaled(area.left), scaled(area.top));
    [left, top, scaled(area.right()) - left, scaled(area.bottom()) - top]
}
