//! The segmentation graph of a line: what may be digits, and the path through them that is likeliest.
//!
//! Its nodes lie between the pieces of a line; an edge joins a few pieces that follow each other to what may be
//! one digit. Source: LeCun et al. 1998, section V.

use super::budget::Budget;
use super::pieces::{Line, Pieces};
use crate::Result;
use crate::data::digit::PIXELS;
use crate::data::ink::{Area, Ink};
use crate::data::strokes;
use crate::data::to_mnist;

/// The most pieces of a digit.
const MOST_JOINED: usize = 5;
/// What a cut through connected ink costs, as the logarithm of a likelihood.
const CUT: f32 = -1.5;
/// What taking connected ink for a blot costs, and how much more where it is as large as the line is high.
const BLOT: (f32, f32) = (-3.0, -6.0);
/// What leaving out a piece of connected ink costs.
const LOST: f32 = -30.0;

/// What may be a digit.
pub struct Edge {
    /// The first of its line's pieces.
    pub from: usize,
    /// The first of those after it.
    pub to: usize,
    /// Where it is.
    pub area: Area,
    /// It in MNIST's form.
    pub pixels: [u8; PIXELS],
    /// Whether it is all that is connected, and nothing else.
    whole: bool,
    /// Whether it ends where what is connected is cut.
    cut: bool,
}

/// A line's graph.
pub struct Graph {
    /// In the order of their last piece.
    pub edges: Vec<Edge>,
    /// Where the line's pieces are.
    areas: Vec<Area>,
    /// Rows of most of the line's digits.
    pub height: usize,
}

impl Graph {
    /// The graph of a line.
    ///
    /// # Errors
    /// Where the budget is spent.
    pub fn of(ink: &Ink, pieces: &Pieces, line: &Line, budget: &mut Budget) -> Result<Self> {
        let height = line.height.max(1);
        let mut pen = 0.0;
        if let Some(area) = pieces.area(&line.pieces) {
            budget.spend(area.width * area.height)?;
            pen = strokes::width(&pieces.cut_out(ink, &line.pieces, &area));
        }
        let mut edges = Vec::new();
        for to in 1..=line.pieces.len() {
            for from in (to.saturating_sub(MOST_JOINED)..to).rev() {
                let numbers = &line.pieces[from..to];
                let Some(area) = pieces.area(numbers) else { continue };
                // Wider than any digit, or with a gap that none has.
                let [a, b] = [&line.pieces[from], &line.pieces[(from + 1).min(to - 1)]];
                let [a, b] = [a, b].map(|number| pieces.areas[usize::from(*number) - 1]);
                if 2 * b.left.saturating_sub(a.right()) > height {
                    break;
                }
                if to > from + 1 && 4 * area.width > 9 * height.max(area.height) {
                    break;
                }
                budget.spend(area.width * area.height)?;
                let digit = strokes::redrawn(pieces.cut_out(ink, numbers, &area), pen);
                if let Some(pixels) = to_mnist(&digit) {
                    let whole = pieces.are_whole(numbers);
                    let cut = pieces.is_cut(&line.pieces, to);
                    edges.push(Edge { from, to, area, pixels, whole, cut });
                }
            }
        }
        let areas =
            line.pieces.iter().map(|number| pieces.areas[usize::from(*number) - 1]).collect();
        Ok(Self { edges, areas, height })
    }

    /// The graph of a digit alone.
    pub fn of_digit(area: Area, pixels: [u8; PIXELS]) -> Self {
        let edges = vec![Edge { from: 0, to: 1, area, pixels, whole: false, cut: false }];
        Self { edges, areas: vec![area], height: area.height }
    }

    /// The edges of the likeliest path, by the probabilities that they are digits, and read right; and where it
    /// leaves out pieces. With `blots` what is connected may be no digit at all.
    pub fn best(&self, digits: &[f32], right: &[f32], blots: bool) -> (Vec<usize>, Vec<Area>) {
        let log = |probability: f32| probability.max(1e-9).ln();
        // Of each node the best sum to there, the node before it, and the edge that is read between them.
        let mut best: Vec<(f32, usize, Option<usize>)> = vec![(0.0, 0, None)];
        let mut edges = self.edges.iter().enumerate().peekable();
        for last in 0..self.areas.len() {
            let mut found = (best[last].0 + LOST, last, None);
            while let Some((index, edge)) = edges.next_if(|(_, edge)| edge.to == last + 1) {
                let before = best[edge.from].0;
                let cut = if edge.cut { CUT } else { 0.0 };
                let read = before + cut + log(digits[index] * right[index]);
                if read > found.0 {
                    found = (read, edge.from, Some(index));
                }
                let part = edge.area.height.max(edge.area.width) as f32 / self.height as f32;
                let blot = before + BLOT.0 + BLOT.1 * part + log(1.0 - digits[index]);
                if blots && edge.whole && blot > found.0 {
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
