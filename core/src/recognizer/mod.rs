//! Reads the digits in pictures: finds them, converts them to MNIST's form, and classifies them.
//!
//! Connected ink is cut into pieces where digits may touch. One piece, or a few pieces in a row,
//! may be a digit. The reject network, a LeNet-5 with an eleventh class for everything that is no
//! digit, rates all of these candidates. The reading is the likeliest path through the segmentation
//! graph of each line. A [`Pattern`] tells which paths are possible, such as those of five digits.

mod budget;
mod classifier;
mod clutter;
mod component;
mod graph;
mod lines;
mod marks;
mod networks;
mod numbers;
mod pattern;
mod pieces;
pub mod training;
mod turn;

use std::borrow::Borrow;
use std::path::Path;
use std::time::Duration;

use rayon::prelude::*;
use serde::Serialize;

use crate::data::digit::{PIXELS, SIDE};
use crate::data::ink::{Area, Ink};
use crate::data::{Picture, as_in_mnist, strokes, to_mnist};
use crate::model::{ModelConfig, Network};
use crate::weights::Weights;
use crate::{Error, Result};
use budget::Budget;
use graph::{Edge, Graph, Path as GraphPath};
use networks::{Networks, Rating};
use numbers::Evidence;
pub use pattern::Pattern;
use pieces::Pieces;
use turn::Turn;

/// The longest sides to which pictures are reduced. The second one is tried if the digits are too
/// small in the first.
const LONGEST_SIDES: [u32; 2] = [400, 1600];
/// The height in pixels from which digits are large enough.
const MIN_HEIGHT: usize = 48;
/// The height in pixels to which taller digits are reduced before they are cut.
const MAX_HEIGHT: usize = 128;

/// The default confidence below which digits are rejected: those that are rather wrong than right.
pub const REJECT_BELOW: f32 = 0.5;

/// If a picture has more than three digits and all likenesses are below this, it shows no digits.
const MIN_LIKENESS_OF_MANY: f32 = 0.01;

/// A line fits a pattern if its score is at most this much below its score without the pattern. Of
/// strings of five digits that do not overlap, 2 to 8 % fit if the pattern says four or six.
const MAX_LOSS: f32 = 6.0;
/// If the mean likeness of several digits is below this, the picture may lie on its side.
const MIN_MEAN_LIKENESS: f32 = 0.6;
/// A picture is turned if then it has so many digits with such a mean likeness.
const MIN_TURNED: (usize, f32) = (3, 0.7);

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
    networks: Networks,
    codes: Option<Vec<Vec<f32>>>,
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
    /// The digits of each line that does not fit the pattern, as they are read without it. They
    /// are not in the text.
    pub other_lines: Vec<String>,
    /// The logarithm of the likelihood of the paths through the segmentation graphs, at most 0.
    /// It compares readings of the same picture.
    pub score: f32,
    /// The mean likeness of the digits. It counts as 0 in lines that are no numbers, and for digits
    /// that are cut from connected ink, as letters on their side can be cut into digits.
    #[serde(skip)]
    mean_likeness: f32,
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
    /// The class with the largest probability, or the one that the pattern states.
    pub label: usize,
    /// The confidence, 0 to 1: the chance that the label is right, if this is a picture of digits;
    /// 0 if its line or the picture seems to be no number.
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
    /// How the picture was turned, and its width and height before that.
    turn: (Turn, [u32; 2]),
    /// The rest of the time limit.
    remaining_time: Option<Duration>,
}

impl LineGraphs {
    /// Converts an area to a box in the picture.
    fn to_picture_box(&self, area: &Area) -> [u32; 4] {
        let scaled = |length: usize| (length as f32 * self.step).round() as u32;
        let (left, top) = (scaled(area.left), scaled(area.top));
        let (turn, size) = self.turn;
        turn.undo([left, top, scaled(area.right()) - left, scaled(area.bottom()) - top], size)
    }
}

impl Reading {
    /// Whether the picture may lie on its side. The direction of a single digit is not known.
    fn is_doubtful(&self) -> bool {
        self.digits.len() > 1 && self.mean_likeness < MIN_MEAN_LIKENESS
    }

    /// Whether this reading of the turned picture replaces another one.
    fn is_clearer_than(&self, other: &Self) -> bool {
        let (count, likeness) = MIN_TURNED;
        self.digits.len() >= count && self.mean_likeness >= likeness.max(other.mean_likeness)
    }
}

/// A segmentation graph with the ratings of its edges.
struct RatedGraph<'a> {
    graph: &'a Graph,
    ratings: &'a [Rating],
}

impl RatedGraph<'_> {
    fn best(&self, pattern: &Pattern, allow_blots: bool) -> Option<GraphPath> {
        self.graph.best(self.ratings, pattern, allow_blots)
    }

    /// The digits of a path.
    fn text(&self, path: &GraphPath) -> String {
        let classes = self.ratings.iter().map(|rating| rating.classes.len()).max();
        joined_labels(path.digits.iter().map(|(_, label)| label.to_string()), classes)
    }
}

/// The likeliest path of each line that fits a pattern, and the texts of the lines that do not fit.
fn fitting_paths(lines: &[RatedGraph], pattern: &Pattern) -> (Vec<Option<GraphPath>>, Vec<String>) {
    let any = Pattern::default();
    let best = |allow_blots| -> Vec<_> {
        let best = |line: &RatedGraph| line.best(&any, allow_blots);
        lines.iter().map(|line| best(line).expect("any path fits")).collect()
    };
    let (mut plain, mut allow_blots) = (best(true), true);
    if plain.iter().all(|path| path.digits.is_empty()) {
        // Nothing seems to be a digit. Without blots, something has to be a digit.
        (plain, allow_blots) = (best(false), false);
    }
    if pattern.is_any() {
        return (plain.into_iter().map(Some).collect(), Vec::new());
    }
    let mut other_lines = Vec::new();
    let paths = lines.iter().zip(plain).map(|(line, plain)| {
        let path = line.best(pattern, allow_blots);
        let path = path.filter(|path| path.score >= plain.score - MAX_LOSS);
        if path.is_none() && !plain.digits.is_empty() {
            other_lines.push(line.text(&plain));
        }
        path
    });
    (paths.collect(), other_lines)
}

/// The error for a picture without a line that fits a pattern, and with other lines.
fn no_line_fits(pattern: &Pattern, others: &[String]) -> Error {
    let first = match others[0].get(..40) {
        Some(start) => format!("{start}..."),
        None => others[0].clone(),
    };
    let more = match others.len() {
        1 => String::new(),
        2 => " and another line".to_owned(),
        lines => format!(" and {} other lines", lines - 1),
    };
    Error::Picture(format!("expected a line of {pattern}, found {first}{more}"))
}

/// Joins the labels of a line. If there are more than ten classes, spaces separate them.
fn joined_labels(labels: impl Iterator<Item = String>, classes: Option<usize>) -> String {
    let long = classes.is_some_and(|classes| classes > 10);
    labels.collect::<Vec<_>>().join(if long { " " } else { "" })
}

/// Joins digits to a text, line by line.
fn joined(digits: &[Digit], show: impl Fn(&Digit) -> String) -> String {
    let lines = digits.chunk_by(|a, b| a.line == b.line).map(|line| {
        let classes = line.iter().map(|digit| digit.probabilities.len()).max();
        joined_labels(line.iter().map(&show), classes)
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

    /// Creates a recognizer with the weights that ship with the program for reading: those of
    /// [`Weights::for_reading`] and of the reject network.
    ///
    /// # Errors
    /// Only if the build is broken: the tests read these weights.
    pub fn shipped(network: Network) -> Result<Self> {
        let weights = Weights::for_reading(network)?;
        match network {
            Network::Modern => Self::with_reject_network(&weights, &Weights::reject_network()?),
            Network::Original => Self::new(&weights),
        }
    }

    /// Creates a recognizer with these weights. They alone decide on the class of a digit.
    ///
    /// # Errors
    /// If the tensors do not fit the settings.
    pub fn new(weights: &Weights) -> Result<Self> {
        Ok(Self::with(Networks::new(weights, &Weights::reject_network()?, false)?, weights))
    }

    /// Creates a recognizer with these weights, and with those of a reject network of eleven
    /// classes, the last of which is everything that is no digit. The two networks decide on the
    /// class of a digit together.
    ///
    /// # Errors
    /// If the tensors do not fit the settings, or the networks do not have ten and eleven classes.
    pub fn with_reject_network(weights: &Weights, reject: &Weights) -> Result<Self> {
        Ok(Self::with(Networks::new(weights, reject, true)?, weights))
    }

    fn with(networks: Networks, weights: &Weights) -> Self {
        // The reject network only knows digits, so with other classes nothing is rejected.
        let ten = networks.reading.config().classes == 10;
        let reject_below = if ten { REJECT_BELOW } else { 0.0 };
        Self { networks, codes: weights.codes(), reject_below, time_limit: None }
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
        self.networks.reading.config()
    }

    /// Returns the codes of the classes, as [`Weights::codes`] does.
    pub fn codes(&self) -> Option<&[Vec<f32>]> {
        self.codes.as_deref()
    }

    /// Reads the digits in a picture.
    ///
    /// # Errors
    /// [`Error::Picture`] if the picture shows no digits, or the time limit is exceeded.
    pub fn read(&self, picture: &Picture) -> Result<Reading> {
        self.read_as(picture, &Pattern::default())
    }

    /// Reads the digits in a picture whose lines have this form. Lines that do not fit are left
    /// out, see [`Reading::other_lines`].
    ///
    /// # Errors
    /// [`Error::Picture`] if the picture shows no digits, no line fits, or the time limit is
    /// exceeded.
    pub fn read_as(&self, picture: &Picture, pattern: &Pattern) -> Result<Reading> {
        self.read_by(&[()], |()| Ok(picture), |()| pattern).remove(0)
    }

    /// Reads several pictures on all cores, with all digits in one batch. Each result is that of
    /// [`Recognizer::read`].
    pub fn read_all(&self, pictures: &[Picture]) -> Vec<Result<Reading>> {
        let any = Pattern::default();
        self.read_by(pictures, Ok, |_| &any)
    }

    /// Reads pictures as [`Recognizer::read_all`] does, but opens each of them with `open`, and
    /// reads it by the pattern that `pattern` returns. So there are only as many pictures in memory
    /// at a time as there are cores.
    pub fn read_by<'a, 'p, T: Sync, P: Borrow<Picture>>(
        &self,
        sources: &'a [T],
        open: impl Fn(&'a T) -> Result<P> + Sync,
        pattern: impl Fn(&'a T) -> &'p Pattern,
    ) -> Vec<Result<Reading>> {
        let find = |source, turn, time| {
            let picture = open(source)?;
            let budget = Budget::new(time).all_cores(sources.len() == 1);
            find(picture.borrow(), turn, budget)
        };
        let upright = sources.par_iter().with_max_len(1);
        let upright = upright.map(|source| find(source, Turn::None, self.time_limit)).collect();
        let (mut readings, times) = self.read_found(upright, sources.iter().map(&pattern));
        // Weights of other classes may have low confidences in all pictures.
        let doubtful = |reading: &Result<Reading>| reading.as_ref().is_ok_and(Reading::is_doubtful);
        let doubtful: Vec<usize> = (0..sources.len())
            .filter(|i| self.config().classes == 10 && doubtful(&readings[*i]))
            .collect();
        for turn in [Turn::Left, Turn::Right] {
            let turned = doubtful.par_iter().with_max_len(1);
            let turned = turned.map(|i| find(&sources[*i], turn, times[*i])).collect();
            let patterns = doubtful.iter().map(|i| pattern(&sources[*i]));
            for (i, turned) in doubtful.iter().zip(self.read_found(turned, patterns).0) {
                match (&readings[*i], turned) {
                    (Ok(reading), Ok(turned)) if turned.is_clearer_than(reading) => {
                        readings[*i] = Ok(turned);
                    }
                    _ => (),
                }
            }
        }
        readings
    }

    /// Reads the digits in the graphs of several pictures by their patterns, in one batch. Also
    /// returns the rest of each picture's time limit.
    fn read_found<'p>(
        &self,
        found: Vec<Result<LineGraphs>>,
        patterns: impl Iterator<Item = &'p Pattern>,
    ) -> (Vec<Result<Reading>>, Vec<Option<Duration>>) {
        let graphs = || found.iter().flatten().flat_map(|found| &found.lines);
        let all: Vec<_> =
            graphs().flat_map(|graph| graph.edges.iter().map(|edge| edge.pixels)).collect();
        let ratings = self.networks.rate(&all);
        let mut first = 0;
        found
            .into_iter()
            .zip(patterns)
            .map(|(found, pattern)| {
                let found = match found {
                    Ok(found) => found,
                    Err(error) => return (Err(error), None),
                };
                let edges: usize = found.lines.iter().map(|line| line.edges.len()).sum();
                let range = first..first + edges;
                first += edges;
                let reading = self.resolve(&found, &ratings[range], pattern);
                (reading, found.remaining_time)
            })
            .unzip()
    }

    /// The likeliest reading of the graphs that fits a pattern, by the ratings of all edges.
    fn resolve(
        &self,
        found: &LineGraphs,
        ratings: &[Rating],
        pattern: &Pattern,
    ) -> Result<Reading> {
        let mut first = 0;
        let mut lines = Vec::new();
        for graph in &found.lines {
            let range = first..first + graph.edges.len();
            first = range.end;
            lines.push(RatedGraph { graph, ratings: &ratings[range] });
        }
        let (paths, other_lines) = fitting_paths(&lines, pattern);
        let (mut digits, mut likenesses, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
        let (mut others, mut score) = (found.left_out.clone(), 0.0);
        let (mut evidence, mut largest_likeness) = (Vec::new(), 0.0_f32);
        // A limit of 0 accepts everything, so that each line may be a number.
        let limit = networks::likeness_at(self.reject_below.min(REJECT_BELOW));
        for (line_index, (line, path)) in lines.iter().zip(paths).enumerate() {
            let (mut areas, mut line_parts, mut is_cut) = (Vec::new(), Vec::new(), false);
            if let Some(path) = path {
                score += path.score;
                line_parts.extend(path.left_out.iter().map(|area| (0.0, area.height)));
                others.extend(path.left_out);
                for (edge, label) in path.digits {
                    let Edge { area, pixels, legible, cut, .. } = &line.graph.edges[edge];
                    let rating = &line.ratings[edge];
                    let (likeness, confidence) = match legible {
                        true => (rating.likeness(label), rating.confidence(label)),
                        false => (0.0, 0.0),
                    };
                    let rejected = confidence < self.reject_below;
                    line_parts.push((likeness, area.height));
                    largest_likeness = largest_likeness.max(likeness);
                    likenesses.push(if *cut { 0.0 } else { likeness });
                    is_cut |= cut;
                    areas.extend((!rejected).then_some(*area));
                    digits.push(Digit {
                        label,
                        confidence,
                        probabilities: rating.classes.clone(),
                        area: found.to_picture_box(area),
                        line: line_index,
                        rejected,
                        pixels: *pixels,
                    });
                }
            }
            let height = line.graph.height;
            accepted.push(marks::AcceptedDigits { areas, height });
            evidence.push(Evidence::of_line(&line_parts, height, is_cut, limit));
        }
        if digits.is_empty() && !other_lines.is_empty() {
            return Err(no_line_fits(pattern, &other_lines));
        }
        // Pictures of stars, leaves or cloth have many parts, none of which is like a digit.
        if digits.is_empty() || digits.len() > 3 && largest_likeness < MIN_LIKENESS_OF_MANY {
            return Err(Error::Picture("expected digits, found nothing that is one".to_owned()));
        }
        let is_picture_of_number = Evidence::of_picture(&evidence).is_some_and(Evidence::is_number);
        let is_number = |line: usize| is_picture_of_number && evidence[line].is_number();
        let all = digits.iter_mut().zip(&mut likenesses);
        for (digit, likeness) in all.filter(|(digit, _)| !is_number(digit.line)) {
            (digit.confidence, digit.rejected, *likeness) = (0.0, true, 0.0);
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
            Some(Mark { area: found.to_picture_box(mark), line })
        });
        Ok(Reading {
            text,
            accepted: accepted_text,
            digits,
            rejected,
            left_out: left_out.collect(),
            other_lines,
            score,
            mean_likeness: likenesses.iter().sum::<f32>() / likenesses.len() as f32,
        })
    }

    /// Returns the probabilities of the classes for pictures of single digits in MNIST's form:
    /// 28x28 pixels, row by row, 0 for paper to 255 for ink. Here the network decides alone; the
    /// reject network takes no part.
    pub fn classify(&self, pictures: &[[u8; PIXELS]]) -> Vec<Vec<f32>> {
        self.networks.reading.probabilities(pictures)
    }

    /// Computes the outputs of all layers for [`Digit::pixels`]. The first one is the input as the
    /// network takes it.
    pub fn layers(&self, pixels: &[u8; PIXELS]) -> Vec<LayerOutput> {
        self.networks.reading.layers(pixels)
    }
}

/// Finds everything that may be a digit in a picture.
fn find(picture: &Picture, turn: Turn, mut budget: Budget) -> Result<LineGraphs> {
    if let Some(pixels) = as_in_mnist(picture) {
        let ink = Ink::of_pixels(&pixels);
        let margin = (picture.width() as usize - SIDE) / 2;
        let mut area = ink.area(0.1).expect("it has ink");
        area.left += margin;
        area.top += margin;
        let lines = vec![Graph::of_digit(area, pixels)];
        let turn = (Turn::None, [picture.width(), picture.height()]);
        let remaining_time = budget.remaining_time();
        return Ok(LineGraphs { lines, left_out: Vec::new(), step: 1.0, turn, remaining_time });
    }
    let longest = picture.width().max(picture.height());
    let nothing = |what: &str| Error::Picture(format!("expected digits, found {what}"));
    let mut error = nothing("an empty picture: nothing in it stands out from its background");
    let mut low = None;
    for side in LONGEST_SIDES {
        budget.check_time()?;
        let Some((ink, step)) = Ink::of(picture, side) else { continue };
        budget.allow(ink.values().len());
        error = match InkInPieces::of(ink, step, turn, &mut budget) {
            Ok(Some(found)) if found.is_low() && longest > side && low.is_none() => {
                low = Some(found);
                continue;
            }
            Ok(Some(found)) => match found.graphs(&budget) {
                Ok(graphs) => return Ok(graphs),
                Err(error) => error,
            },
            Ok(None) => nothing("nothing that looks like writing"),
            Err(error) => error,
        };
        budget.check_time()?;
    }
    // The result of the smaller picture remains.
    let Some(found) = low else { return Err(error) };
    budget.allow(found.ink.values().len());
    found.graphs(&budget)
}

/// Returns the digit in a picture that shows one, as the networks see it: 28x28 grey values, 0 for
/// paper to 255 for ink. All writing in the picture counts as one digit.
///
/// # Errors
/// [`Error::Picture`] if the picture shows no writing.
pub fn single_digit(picture: &Picture) -> Result<[u8; PIXELS]> {
    if let Some(pixels) = as_in_mnist(picture) {
        return Ok(pixels);
    }
    let nothing =
        || Error::Picture("expected a digit, found nothing that looks like writing".to_owned());
    let mut budget = Budget::new(None);
    let (ink, step) = Ink::of(picture, LONGEST_SIDES[0]).ok_or_else(nothing)?;
    budget.allow(ink.values().len());
    let found = InkInPieces::of(ink, step, Turn::None, &mut budget)?.ok_or_else(nothing)?;
    let InkInPieces { ink, pieces, .. } = found;
    let all: Vec<u16> = (1..=pieces.areas.len() as u16).collect();
    let area = pieces.area(&all).ok_or_else(nothing)?;
    let digit = pieces.cut_out(&ink, &all, &area);
    let pen = strokes::width(&digit);
    to_mnist(&strokes::redrawn(digit, pen)).ok_or_else(nothing)
}

/// Ink that is cut into pieces.
struct InkInPieces {
    ink: Ink,
    pieces: Pieces,
    /// The side of a pixel of ink in pixels of the picture.
    step: f32,
    /// How the picture was turned, and its width and height before that.
    turn: (Turn, [u32; 2]),
}

impl InkInPieces {
    /// Turns ink and cuts it into pieces, after reducing it so that digits are at most
    /// [`MAX_HEIGHT`] high. `step` is the side of a pixel of ink in pixels of the picture. Returns
    /// `None` if there is no writing.
    fn of(ink: Ink, step: u32, turn: Turn, budget: &mut Budget) -> Result<Option<Self>> {
        let turn_of = (turn, [ink.width(), ink.height()].map(|side| side as u32 * step));
        let (ink, step) = (turn.ink(ink), step as f32);
        let Some(pieces) = Pieces::of(&ink, budget)? else { return Ok(None) };
        let heights = pieces.lines.iter().map(|line| line.height);
        let Some(height) = heights.max() else { return Ok(None) };
        if height <= MAX_HEIGHT {
            return Ok(Some(Self { ink, pieces, step, turn: turn_of }));
        }
        let factor = height as f32 / MAX_HEIGHT as f32;
        let side = |length: usize| ((length as f32 / factor).round() as usize).max(1);
        let ink = ink.resized(side(ink.width()), side(ink.height()));
        let pieces = Pieces::of(&ink, budget)?.filter(|pieces| !pieces.lines.is_empty());
        Ok(pieces.map(|pieces| Self { ink, pieces, step: step * factor, turn: turn_of }))
    }

    /// Returns whether a line is too small to be read well.
    fn is_low(&self) -> bool {
        self.pieces.lines.iter().any(|line| line.height < MIN_HEIGHT)
    }

    /// Builds the graphs of all lines.
    fn graphs(self, budget: &Budget) -> Result<LineGraphs> {
        let Self { ink, pieces, step, turn } = self;
        let lines = budget.map(&pieces.lines, |line| Graph::of(&ink, &pieces, line, budget))?;
        let (left_out, remaining_time) = (pieces.left_out, budget.remaining_time());
        Ok(LineGraphs { lines, left_out, step, turn, remaining_time })
    }
}
