//! The segmentation graph of a line: what may be digits, and the path through them that is likeliest.
//!
//! Its nodes lie between the pieces of a line; an edge joins a few pieces that follow each other to what may be
//! one digit. Source: LeCun et al. 1998, section V.

use super::pieces::{Line, Pieces};
use crate::data::images::{PIXELS, to_mnist};
use crate::data::ink::{Area, Ink};
use crate::data::strokes;

/// The most pieces of a digit.
const MOST_JOINED: usize = 5;
/// What leaving out a piece costs that is no digit, by the line's height.
const LEFT_OUT: f32 = -4.0;

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
}

/// A line's graph.
pub struct Graph {
    /// In the order of their last piece.
    pub edges: Vec<Edge>,
    /// Of each piece what leaving it out costs.
    skips: Vec<f32>,
}

impl Graph {
    /// Of a line.
    pub fn of(ink: &Ink, pieces: &Pieces, line: &Line) -> Self {
        let area = |number: &u16| pieces.areas[usize::from(*number) - 1];
        let height = line.height.max(1);
        let pen = strokes::width(ink, &pieces.labels, &line.pieces);
        let mut edges = Vec::new();
        for to in 1..=line.pieces.len() {
            for from in (to.saturating_sub(MOST_JOINED)..to).rev() {
                let numbers = &line.pieces[from..to];
                let joined = numbers.iter().map(area).reduce(|a, b| a.with(&b));
                let Some(joined) = joined else { continue };
                // Wider than any digit, or with a gap that no digit has.
                if to > from + 1 && 2 * joined.width > 3 * height.max(joined.height) {
                    break;
                }
                let digit = strokes::cut_out(ink, &pieces.labels, numbers, &joined, pen);
                if let Some(pixels) = to_mnist(&digit) {
                    edges.push(Edge { from, to, area: joined, pixels });
                }
            }
        }
        // Where a piece is small beside the line it may be a blot.
        let skip = |number: &u16| {
            let area = area(number);
            let part = area.width.max(area.height) as f32 / height as f32;
            LEFT_OUT - 12.0 * part
        };
        Self { edges, skips: line.pieces.iter().map(skip).collect() }
    }

    /// Of a digit alone.
    pub fn of_digit(area: Area, pixels: [u8; PIXELS]) -> Self {
        Self { edges: vec![Edge { from: 0, to: 1, area, pixels }], skips: vec![f32::NEG_INFINITY] }
    }

    /// The edges of the likeliest path, by the logarithms of their likelihoods.
    pub fn best(&self, likelihoods: &[f32]) -> Vec<usize> {
        // Of each node the best sum to there, and the edge that leads there.
        let mut sums = vec![(0.0_f32, None); self.skips.len() + 1];
        let mut next = 0;
        for node in 1..sums.len() {
            let mut best = (sums[node - 1].0 + self.skips[node - 1], None);
            while let Some(edge) = self.edges.get(next).filter(|edge| edge.to == node) {
                let sum = sums[edge.from].0 + likelihoods[next];
                if sum > best.0 {
                    best = (sum, Some(next));
                }
                next += 1;
            }
            sums[node] = best;
        }
        let (mut path, mut node) = (Vec::new(), self.skips.len());
        while node > 0 {
            match sums[node].1 {
                Some(edge) => {
                    path.push(edge);
                    node = self.edges[edge].from;
                }
                None => node -= 1,
            }
        }
        path.reverse();
        path
    }
}

