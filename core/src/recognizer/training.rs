//! Training examples for the networks that read pictures: digits in MNIST's form, and the wrong
//! candidates that cutting and joining strings of digits yields.

use rayon::prelude::*;

use super::budget::Budget;
use super::graph::Graph;
use super::pieces::{Pieces, WEAK};
use crate::data::digit::{PIXELS, SIDE};
use crate::data::ink::{Ink, shifts_to_slope};
use crate::data::{strokes, to_mnist};
pub use crate::random::Random;

/// The class of the reject network for everything that is no digit.
pub const REJECT_CLASS: u8 = 10;

/// A string of digits.
pub struct Text {
    /// The ink of all digits.
    pub ink: Ink,
    /// The ink of each digit alone, at its position in `ink`.
    layers: Vec<Ink>,
}

impl Text {
    /// Draws digits in MNIST's form side by side with a margin. `gaps` are the columns between the
    /// ink of neighbours (negative for overlaps), `shifts` the rows by which digits are moved down.
    pub fn of(digits: &[[u8; PIXELS]], gaps: &[i64], shifts: &[i64]) -> Self {
        const MARGIN: i64 = 4;
        let inks: Vec<Ink> = digits.iter().map(Ink::of_pixels).collect();
        let columns =
            |ink: &Ink| ink.area(0.0).map_or((0, SIDE as i64), |a| (a.left as i64, a.width as i64));
        let mut at = MARGIN;
        let mut offsets = Vec::new();
        for (ink, gap) in inks.iter().zip(gaps.iter().chain([&0])) {
            let (left, width) = columns(ink);
            offsets.push(at - left);
            at += width + gap;
        }
        let right = offsets.iter().zip(&inks).map(|(at, ink)| {
            let (left, width) = columns(ink);
            at + left + width
        });
        let width = (right.max().unwrap_or(0) + MARGIN) as usize;
        let lowest = shifts.iter().copied().min().unwrap_or(0);
        let highest = shifts.iter().copied().max().unwrap_or(0);
        let height = SIDE + (highest - lowest) as usize;
        let mut all = vec![0.0_f32; width * height];
        let mut layers = Vec::new();
        for ((ink, at), shift) in inks.iter().zip(offsets).zip(shifts) {
            let mut values = vec![0.0; width * height];
            for (i, value) in ink.values().iter().enumerate().filter(|(_, value)| **value > 0.0) {
                let x = (at + (i % SIDE) as i64) as usize;
                let y = i / SIDE + (shift - lowest) as usize;
                values[y * width + x] = *value;
                all[y * width + x] = all[y * width + x].max(*value);
            }
            layers.push(Ink::new(width, values));
        }
        Self { ink: Ink::new(width, all), layers }
    }

    /// Changes the ink of all digits and of each one.
    fn map(&self, change: impl Fn(&Ink) -> Ink) -> Self {
        Self { ink: change(&self.ink), layers: self.layers.iter().map(change).collect() }
    }

    fn scaled(&self, by: f32) -> Self {
        let side = |length: usize| (length as f32 * by).round() as usize;
        self.map(|ink| ink.resized(side(ink.width()), side(ink.height())))
    }

    /// Gives upright lines a slope: columns to the right for each row upwards.
    fn sheared(&self, slope: f32) -> Self {
        let shifts = shifts_to_slope(slope, self.ink.height());
        self.map(|ink| ink.with_shifted_rows(&shifts))
    }
}

/// A picture in MNIST's form, and its class.
pub type Example = ([u8; PIXELS], u8);

/// Converts a digit, drawn on `width` columns, to MNIST's form as the reader does: its strokes get
/// MNIST's width. Grey values are 0 for paper to 255 for ink. `None` if there is no ink.
pub fn normalised(grey: &[u8], width: usize) -> Option<[u8; PIXELS]> {
    let ink = Ink::new(width, grey.iter().map(|grey| f32::from(*grey) / 255.0).collect());
    let part = ink.cropped(&ink.area(WEAK)?);
    let pen = strokes::width(&part);
    to_mnist(&strokes::redrawn(part, pen))
}

/// Creates at least `count` examples, with [`REJECT_CLASS`] for those that show no digit. They are
/// the candidates for digits in strings of `digits`, and some strokes and blots. A candidate that
/// shows most of a digit, but not all, is left out.
pub fn candidates(digits: &[Example], count: usize, seed: u64) -> Vec<Example> {
    const PART: usize = 1000;
    let parts = (0..count.div_ceil(PART) as u64).into_par_iter();
    let part = |part| {
        let mut random = Random::new((seed << 32) + part);
        let mut examples = Vec::new();
        while examples.len() < PART {
            add_candidates(digits, &mut examples, &mut random);
        }
        examples
    };
    parts.flat_map_iter(part).collect()
}

/// Adds the candidates of a string of random digits, and perhaps a scribble.
fn add_candidates(digits: &[Example], examples: &mut Vec<Example>, random: &mut Random) {
    let length = random.between(1, 5);
    let chosen: Vec<Example> =
        (0..length).map(|_| digits[random.between(0, digits.len() as i64 - 1) as usize]).collect();
    let pictures: Vec<_> = chosen.iter().map(|(pixels, _)| *pixels).collect();
    let gaps: Vec<i64> = (1..length).map(|_| random.between(-4, 4)).collect();
    let shifts: Vec<i64> = (0..length).map(|_| random.between(-2, 2)).collect();
    let mut text = Text::of(&pictures, &gaps, &shifts);
    if random.unit() < 0.6 {
        // The string is redrawn as with a finer or a broader pen.
        text = text.scaled(1.0 + 4.0 * random.unit());
        if random.unit() < 0.5 {
            text = text.sheared(0.8 * random.unit() - 0.3);
        }
        let threshold = 0.2 + 0.45 * random.unit();
        text.ink = text.ink.map(|value| (5.0 * (value - threshold) + 0.5).clamp(0.0, 1.0));
    }
    let mut budget = Budget::new(None);
    budget.allow(text.ink.values().len());
    let Ok(Some(pieces)) = Pieces::of(&text.ink, &mut budget) else { return };
    for line in &pieces.lines {
        let Ok(graph) = Graph::of(&text.ink, &pieces, line, &budget) else { continue };
        for edge in graph.edges {
            let numbers = &line.pieces[edge.from..edge.to];
            // For each digit: the sum of its ink, and the sum within the edge.
            let parts: Vec<[f32; 2]> = text
                .layers
                .iter()
                .map(|layer| {
                    let (mut all, mut held) = (0.0, 0.0);
                    for (label, value) in pieces.labels.iter().zip(layer.values()) {
                        all += value;
                        held += if numbers.contains(label) { *value } else { 0.0 };
                    }
                    [all, held]
                })
                .collect();
            let most = |a: &usize, b: &usize| parts[*a][1].total_cmp(&parts[*b][1]);
            let Some(main) = (0..parts.len()).max_by(most) else { continue };
            let [all, held] = parts[main];
            let foreign = parts.iter().map(|part| part[1]).sum::<f32>() - held;
            if held > 0.9 * all && foreign < 0.1 * all {
                examples.push((edge.pixels, chosen[main].1));
            } else if held < 0.75 * all || foreign > 0.2 * all {
                examples.push((edge.pixels, REJECT_CLASS));
            }
        }
    }
    examples.extend(scribble(random).map(|pixels| (pixels, REJECT_CLASS)));
}

/// Draws strokes that are no digit: a bar, a cross, a blot or a few points.
fn scribble(random: &mut Random) -> Option<[u8; PIXELS]> {
    const SIZE: usize = 60;
    let kind = random.between(0, 3);
    let pen = 2.0 + 4.0 * random.unit();
    let turn = 0.5 * (random.unit() - 0.5) + if kind == 1 { 0.7 } else { 0.0 };
    let (long, wide) = (10.0 + 18.0 * random.unit(), 10.0 + 18.0 * random.unit());
    let dots: Vec<[f32; 2]> = (0..random.between(1, 4))
        .map(|_| [40.0 * (random.unit() - 0.5), 40.0 * (random.unit() - 0.5)])
        .collect();
    let inside = |x: f32, y: f32| {
        let (x, y) = (x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin());
        match kind {
            0 => x.abs() < long && y.abs() < pen,
            1 => (x.abs() < long && y.abs() < pen) || (x.abs() < pen && y.abs() < wide),
            2 => (x / long).powi(2) + (y / wide).powi(2) < 1.0,
            _ => dots.iter().any(|[i, j]| (x - i).powi(2) + (y - j).powi(2) < 4.0 * pen * pen),
        }
    };
    let middle = SIZE as f32 / 2.0;
    let value = |i: usize| {
        let (x, y) = ((i % SIZE) as f32 - middle, (i / SIZE) as f32 - middle);
        if inside(x, y) { 1.0 } else { 0.0 }
    };
    to_mnist(&Ink::new(SIZE, (0..SIZE * SIZE).map(value).collect()))
}
