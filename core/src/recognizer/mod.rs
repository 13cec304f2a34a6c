//! Reads the digits in pictures: finds them, converts them to MNIST's form, and classifies them.
//!
//! Connected ink is cut into pieces where digits may touch. One piece, or a few pieces in a row,
//! may be a digit. The reject network, a LeNet-5 with an eleventh class for everything that is no
//! digit, rates all of these candidates. The reading is the likeliest path through the segmentation
//! graph of each line.

mod budget;
mod classifier;
mod clutter;
mod component;
mod graph;
mod lines;
mod marks;
mod numbers;
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
use numbers::Parts;
use pieces::Pieces;

/// The longest sides to which pictures are reduced. The second one is tried if the digits are too
/// small in the first.
const LONGEST_SIDES: [u32; 2] = [400, 1600];
/// The height in pixels from which digits are large enough.
const MIN_HEIGHT: usize = 48;
/// The height in pixels to which taller digits are reduced before they are cut.
const MAX_HEIGHT: usize = 128;

/// The default confidence below which digits are rejected. This rejects 0.5 % of MNIST's test
/// digits, a fifth of them misclassified.
pub const REJECT_BELOW: f32 = 0.05;

/// If a picture has more than three digits and all confidences are below this, it shows no digits.
const MIN_CONFIDENCE_OF_MANY: f32 = 0.01;

/// Reads the digits in pictures. Several threads can share a recognizer.
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
    /// The network that classifies digits.
    classifier: Classifier,
    /// The reject network, which separates digits from everything else.
    reject_network: Classifier,
    reject_below: f32,
    time_limit: Option<Duration>,
}

/// The digits that were read in a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reading {
    /// All digits in reading order, including rejected ones, with one line of text for each line of
    /// digits.
    pub text: String,
    /// This text with a question mark in place of each rejected digit.
    pub accepted: String,
    /// The digits in the same order.
    pub digits: Vec<Digit>,
    /// Whether any digit is rejected.
    pub rejected: bool,
    /// Ink beside digits that was not read, and that may be a sign, a point, a comma or a dash.
    pub left_out: Vec<Mark>,
}

/// Ink beside digits that was not read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Mark {
    /// The bounding box in the picture in pixels: left, top, width, height.
    #[serde(rename = "box")]
    pub area: [u32; 4],
    /// The index of the line of digits that it stands beside.
    pub line: usize,
}

/// A digit in a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Digit {
    /// The class with the largest probability.
    pub label: usize,
    /// The confidence, 0 to 1: the probability of the class, times the probability that this is a
    /// digit at all; 0 if most of its line or of the picture is no number.
    pub confidence: f32,
    /// The probability of each class; their sum is 1.
    pub probabilities: Vec<f32>,
    /// The bounding box in the picture in pixels: left, top, width, height.
    #[serde(rename = "box")]
    pub area: [u32; 4],
    /// The index of its line.
    pub line: usize,
    /// Whether the confidence is below the limit, and the digit so rejected.
    pub rejected: bool,
    /// The network's picture of the digit: 28x28 pixels, row by row, 0 for paper to 255 for ink.
    #[serde(skip)]
    pub pixels: [u8; PIXELS],
}

/// The output of a layer for one digit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerOutput {
    /// The layer's name: "input", or the one in the paper: c1, s2, c3, s4, c5, f6 or output.
    pub name: &'static str,
    /// The number of maps, rows and columns; for c5, f6 and output only the number of units.
    pub shape: Vec<usize>,
    /// The values, map after map and row by row.
    pub values: Vec<f32>,
}

/// The segmentation graphs of a picture.
struct LineGraphs {
    lines: Vec<Graph>,
    /// The areas of ink that belongs to no line.
    left_out: Vec<Area>,
    /// The side of a pixel of the graphs' areas, in pixels of the picture.
    step: f32,
}

/// Joins digits to a text, line by line. If there are more than ten classes, spaces separate the
/// labels.
fn joined(digits: &[Digit], show: impl Fn(&Digit) -> String) -> String {
    let lines = digits.chunk_by(|a, b| a.line == b.line).map(|line| {
        let long = line.iter().any(|digit| digit.probabilities.len() > 10);
        line.iter().map(&show).collect::<Vec<_>>().join(if long { " " } else { "" })
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl Recognizer {
    /// Creates a recognizer with the weights of a file in any format that [`Weights::read`]
    /// supports.
    ///
    /// # Errors
    /// The errors of [`Weights::read`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(&Weights::read(path.as_ref())?)
    }

    /// Creates a recognizer with the weights that ship with the program.
    ///
    /// # Errors
    /// Only if the build is broken: the tests read these weights.
    pub fn shipped(network: Network) -> Result<Self> {
        Self::new(&Weights::shipped(network)?)
    }

    /// Creates a recognizer with these weights.
    ///
    /// # Errors
    /// If the tensors do not fit the settings.
    pub fn new(weights: &Weights) -> Result<Self> {
        Ok(Self {
            classifier: Classifier::new(weights)?,
            reject_network: Classifier::new(&Weights::reject_network()?)?,
            // The reject network only knows digits, so with other classes nothing is rejected.
            reject_below: if weights.config.classes == 10 { REJECT_BELOW } else { 0.0 },
            time_limit: None,
        })
    }

    /// Limits the time for reading a picture, without decoding; reading fails if it takes longer.
    /// By default there is no limit.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time_limit = Some(time);
        self
    }

    /// Sets the confidence, 0 to 1, below which digits are rejected; 0 rejects none, and `None`
    /// changes nothing. The default is [`REJECT_BELOW`] for a network of ten classes and 0 for
    /// others.
    pub fn reject_below(mut self, confidence: impl Into<Option<f32>>) -> Self {
        self.reject_below = confidence.into().unwrap_or(self.reject_below);
        self
    }

    /// Returns the settings of the network.
    pub fn config(&self) -> &ModelConfig {
        self.classifier.config()
    }

    /// Reads the digits in a picture.
    ///
    /// # Errors
    /// [`Error::Picture`] if the picture shows no digits, or the time limit is exceeded.
    pub fn read(&self, picture: &Picture) -> Result<Reading> {
        self.read_all(std::slice::from_ref(picture)).remove(0)
    }

    /// Reads several pictures on all cores, with all digits in one batch. Each result is that of
    /// [`Recognizer::read`].
    pub fn read_all(&self, pictures: &[Picture]) -> Vec<Result<Reading>> {
        self.read_by(pictures, Ok)
    }

    /// Reads pictures as [`Recognizer::read_all`] does, but opens each of them with `open`. So
    /// there are only as many pictures in memory at a time as there are cores.
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
        let (reject_classes, classes) =
            (self.reject_network.probabilities(&all), self.classifier.probabilities(&all));
        let mut first = 0;
        found
            .into_iter()
            .map(|found| {
                let found = found?;
                let edges: usize = found.lines.iter().map(|line| line.edges.len()).sum();
                let range = first..first + edges;
                first += edges;
                self.resolve(&found, &reject_classes[range.clone()], &classes[range])
            })
            .collect()
    }

    /// The likeliest reading of the graphs, by the reject network's and the classifier's
    /// probabilities for all edges.
    fn resolve(
        &self,
        found: &LineGraphs,
        reject_classes: &[Vec<f32>],
        classes: &[Vec<f32>],
    ) -> Result<Reading> {
        let is_digit: Vec<f32> =
            reject_classes.iter().map(|p| 1.0 - p[usize::from(training::REJECT_CLASS)]).collect();
        let top_class: Vec<f32> =
            classes.iter().map(|p| p.iter().copied().fold(0.0, f32::max)).collect();
        let (mut digits, mut accepted, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = Vec::new();
        // A limit of 0 accepts everything, so that each line may be a number.
        let limit = self.reject_below.min(REJECT_BELOW);
        // If nothing seems to be a digit, the second attempt does not allow blots, so that
        // something has to be a digit.
        for allow_blots in [true, false] {
            if !digits.is_empty() {
                break;
            }
            (accepted, others) = (Vec::new(), found.left_out.clone());
            parts.clear();
            let mut first = 0;
            for (line_index, line) in found.lines.iter().enumerate() {
                let range = first..first + line.edges.len();
                let (path, left_out) =
                    line.best(&is_digit[range.clone()], &top_class[range.clone()], allow_blots);
                let mut line_parts: Vec<_> =
                    left_out.iter().map(|area| (0.0, area.height)).collect();
                others.extend(left_out);
                let mut areas = Vec::new();
                for edge in path {
                    let Edge { area, pixels, .. } = &line.edges[edge];
                    let edge = first + edge;
                    let confidence = is_digit[edge] * top_class[edge];
                    let probabilities = classes[edge].clone();
                    let label = probabilities.iter().position(|p| *p == top_class[edge]);
                    let rejected = confidence < self.reject_below;
                    line_parts.push((confidence, area.height));
                    areas.extend((!rejected).then_some(*area));
                    digits.push(Digit {
                        label: label.unwrap_or(0),
                        confidence,
                        probabilities,
                        area: to_picture_box(area, found.step),
                        line: line_index,
                        rejected,
                        pixels: *pixels,
                    });
                }
                accepted.push(marks::AcceptedDigits { areas, height: line.height });
                parts.push(Parts::of_line(&line_parts, line.height, limit));
                first = range.end;
            }
        }
        // Pictures of stars, leaves or cloth have many parts, none of which is like a digit.
        let largest_confidence = digits.iter().map(|digit| digit.confidence).fold(0.0, f32::max);
        if digits.is_empty() || digits.len() > 3 && largest_confidence < MIN_CONFIDENCE_OF_MANY {
            return Err(Error::Picture("expected digits, found nothing that is one".to_owned()));
        }
        let picture = Parts::of_picture(&parts);
        let is_number = |line: usize| picture.may_be_number() && parts[line].may_be_number();
        for digit in digits.iter_mut().filter(|digit| !is_number(digit.line)) {
            (digit.confidence, digit.rejected) = (0.0, true);
            accepted[digit.line].areas.clear();
        }
        let text = joined(&digits, |digit| digit.label.to_string());
        let rejected = digits.iter().any(|digit| digit.rejected);
        let accepted_text = joined(&digits, |digit| match digit.rejected {
            true => "?".to_owned(),
            false => digit.label.to_string(),
        });
        let left_out = others.iter().filter_map(|mark| {
            let line = marks::line_of(mark, &accepted)?;
            Some(Mark { area: to_picture_box(mark, found.step), line })
        });
        Ok(Reading {
            text,
            accepted: accepted_text,
            digits,
            rejected,
            left_out: left_out.collect(),
        })
    }

    /// Computes the outputs of all layers for [`Digit::pixels`]. The first one is the input as the
    /// network takes it.
    pub fn layers(&self, pixels: &[u8; PIXELS]) -> Vec<LayerOutput> {
        self.classifier.layers(pixels)
    }
}

/// Finds everything that may be a digit in a picture.
fn find(picture: &Picture, mut budget: Budget) -> Result<LineGraphs> {
    if let Some(pixels) = as_in_mnist(picture) {
        let ink = Ink::of_pixels(&pixels);
        let margin = (picture.width() as usize - SIDE) / 2;
        let mut area = ink.area(0.1).expect("it has ink");
        area.left += margin;
        area.top += margin;
        let lines = vec![Graph::of_digit(area, pixels)];
        return Ok(LineGraphs { lines, left_out: Vec::new(), step: 1.0 });
    }
    let nothing = |what: &str| Err(Error::Picture(format!("expected digits, found {what}")));
    let mut found = nothing("an empty picture: nothing in it stands out from its background");
    for side in LONGEST_SIDES {
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
            // The result of the smaller picture remains.
            Ok(None) => found = found.or_else(|_| nothing("nothing that looks like writing")),
            Err(error) => {
                budget.check_time()?;
                found = found.or(Err(error));
            }
        }
    }
    found
}

/// The graphs of all lines of ink, and whether a line is too small to be read well. `step` is the
/// side of a pixel of ink in pixels of the picture. `None` if there is no writing.
fn graphs(ink: Ink, step: f32, budget: &mut Budget) -> Result<Option<(LineGraphs, bool)>> {
    let Some((ink, pieces, reduced)) = reduced_pieces(ink, budget)? else { return Ok(None) };
    let lines = pieces.lines.iter().map(|line| Graph::of(&ink, &pieces, line, budget));
    let lines = lines.collect::<Result<_>>()?;
    let low = pieces.lines.iter().any(|line| line.height < MIN_HEIGHT);
    let left_out = pieces.left_out.clone();
    Ok(Some((LineGraphs { lines, left_out, step: step * reduced }, low)))
}

/// Cuts ink into pieces, after reducing it so that digits are at most [`MAX_HEIGHT`] high. Returns
/// the reduced ink, the pieces and the reduction factor.
fn reduced_pieces(ink: Ink, budget: &mut Budget) -> Result<Option<(Ink, Pieces, f32)>> {
    let Some(pieces) = Pieces::of(&ink, budget)? else { return Ok(None) };
    let Some(height) = pieces.lines.iter().map(|line| line.height).max() else { return Ok(None) };
    if height <= MAX_HEIGHT {
        return Ok(Some((ink, pieces, 1.0)));
    }
    let factor = height as f32 / MAX_HEIGHT as f32;
    let side = |length: usize| ((length as f32 / factor).round() as usize).max(1);
    let ink = ink.resized(side(ink.width()), side(ink.height()));
    let pieces = Pieces::of(&ink, budget)?.filter(|pieces| !pieces.lines.is_empty());
    Ok(pieces.map(|pieces| (ink, pieces, factor)))
}

fn to_picture_box(area: &Area, step: f32) -> [u32; 4] {
    let scaled = |length: usize| (length as f32 * step).round() as u32;
    let (left, top) = (scaled(area.left), scaled(area.top));
    [left, top, scaled(area.right()) - left, scaled(area.bottom()) - top]
}
