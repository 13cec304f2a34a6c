//! The segmentation graph of a line, which holds everything that may be a digit, and its likeliest
//! path.
//!
//! The nodes lie between the pieces of a line. An edge joins a few pieces in a row that may be one
//! digit. Source: LeCun et al. 1998, section V.

use super::budget::Budget;
use super::pieces::{Line, Pieces};
use crate::Result;
use crate::data::digit::PIXELS;
use crate::data::ink::{Area, Ink};
use crate::data::strokes;
use crate::data::to_mnist;

/// The largest number of pieces of a digit.
const MAX_PIECES_PER_DIGIT: usize = 5;
/// The cost of a cut through a component, as the logarithm of a likelihood. The other costs have
/// the same unit.
const CUT_COST: f32 = -1.5;
/// The cost of classifying a component as a blot, and the additional cost if it is as large as the
/// line is high.
const BLOT_COST: (f32, f32) = (-3.0, -6.0);
/// The cost of leaving out a piece.
const LEFT_OUT_COST: f32 = -30.0;

/// An edge of the graph: pieces that may be one digit.
pub struct Edge {
    /// The index of its first piece in the line.
    pub from: usize,
    /// The index of the first piece after it in the line.
    pub to: usize,
    /// Its bounding box.
    pub area: Area,
    /// The digit in MNIST's form.
    pub pixels: [u8; PIXELS],
    /// Whether it consists of one whole component and nothing else.
    whole: bool,
    /// Whether it ends at a cut through a component.
    cut: bool,
}

/// The segmentation graph of a line.
pub struct Graph {
    /// The edges in the order of their last piece.
    pub edges: Vec<Edge>,
    /// The bounding boxes of the line's pieces.
    areas: Vec<Area>,
    /// The typical height of the line's digits in pixels.
    pub height: usize,
}

impl Graph {
    /// Builds the graph of a line.
    ///
    /// # Errors
    /// If the budget is exhausted.
    pub fn of(ink: &Ink, pieces: &Pieces, line: &Line, budget: &Budget) -> Result<Self> {
        let height = line.height.max(1);
        let mut pen = 0.0;
        if let Some(area) = pieces.area(&line.pieces) {
            budget.spend(area.width * area.height)?;
            pen = strokes::width(&pieces.cut_out(ink, &line.pieces, &area));
        }
        let edges = budget.map(&candidates(pieces, line), |&(from, to, area)| {
            budget.spend(area.width * area.height)?;
            let numbers = &line.pieces[from..to];
            let digit = strokes::redrawn(pieces.cut_out(ink, numbers, &area), pen);
            let whole = pieces.are_whole(numbers);
            let cut = pieces.is_cut(&line.pieces, to);
            Ok(to_mnist(&digit).map(|pixels| Edge { from, to, area, pixels, whole, cut }))
        })?;
        let edges = edges.into_iter().flatten().collect();
        let areas =
            line.pieces.iter().map(|number| pieces.areas[usize::from(*number) - 1]).collect();
        Ok(Self { edges, areas, height })
    }

    /// Builds the graph of a single digit.
    pub fn of_digit(area: Area, pixels: [u8; PIXELS]) -> Self {
        let edges = vec![Edge { from: 0, to: 1, area, pixels, whole: false, cut: false }];
        Self { edges, areas: vec![area], height: area.height }
    }

    /// Finds the likeliest path. `digits` are the probabilities that the edges are digits, `class`
    /// those of their likeliest classes. With `allow_blots` a component may be a blot and no digit.
    /// Returns the edges of the path and the areas of the pieces that it leaves out.
    pub fn best(
        &self,
        digits: &[f32],
        class: &[f32],
        allow_blots: bool,
    ) -> (Vec<usize>, Vec<Area>) {
        let log = |probability: f32| probability.max(1e-9).ln();
        // For each node: the best sum up to it, the node before it, and the edge between them if it
        // is read as a digit.
        let mut best: Vec<(f32, usize, Option<usize>)> = vec![(0.0, 0, None)];
        let mut edges = self.edges.iter().enumerate().peekable();
        for last in 0..self.areas.len() {
            let mut found = (best[last].0 + LEFT_OUT_COST, last, None);
            while let Some((index, edge)) = edges.next_if(|(_, edge)| edge.to == last + 1) {
                let before = best[edge.from].0;
                let cut = if edge.cut { CUT_COST } else { 0.0 };
                let read = before + cut + log(digits[index] * class[index]);
                if read > found.0 {
                    found = (read, edge.from, Some(index));
                }
                let part = edge.area.height.max(edge.area.width) as f32 / self.height as f32;
                let blot = before + BLOT_COST.0 + BLOT_COST.1 * part + log(1.0 - digits[index]);
                if allow_blots && edge.whole && blot > found.0 {
                    found = (blot, edge.from, None);
                }
            }
            best.push(found);
        }
        let (mut path, mut left_out, mut node) = (Vec::new(), Vec::new(), self.areas.len());
        while node > 0 {
            let (_, before, edge) = best[node];
            match edge {
                Some(edge) => path.push(edge),
                None => left_out
                    .extend(self.areas[before..node].iter().copied().reduce(|a, b| a.with(&b))),
            }
            node = before;
        }
        path.reverse();
        (path, left_out)
    }
}

/// The pieces in a row of a line that may be one digit, in the order of the last piece: the index
/// of the first piece, the index after the last one, and their bounding box.
fn candidates(pieces: &Pieces, line: &Line) -> Vec<(usize, usize, Area)> {
    let height = line.height.max(1);
    let mut candidates = Vec::new();
    for to in 1..=line.pieces.len() {
        for from in (to.saturating_sub(MAX_PIECES_PER_DIGIT)..to).rev() {
            let Some(area) = pieces.area(&line.pieces[from..to]) else { continue };
            // Pieces wider than any digit, or with a wider gap than any digit has, are no digit.
            let [a, b] = [&line.pieces[from], &line.pieces[(from + 1).min(to - 1)]];
            let [a, b] = [a, b].map(|number| pieces.areas[usize::from(*number) - 1]);
            if 2 * b.left.saturating_sub(a.right()) > height {
                break;
            }
            if to > from + 1 && 4 * area.width > 9 * height.max(area.height) {
                break;
            }
            candidates.push((from, to, area));
        }
    }
    candidates
}
