//! The segmentation graph of a line, which holds everything that may be a digit, and its likeliest
//! path that fits a pattern.
//!
//! The nodes lie between the pieces of a line. An edge joins a few pieces in a row that may be one
//! digit. A path fits if it also leads through the states of the pattern, as if the graph were
//! composed with a grammar. Source: LeCun et al. 1998, sections V and VI.

use super::budget::Budget;
use super::networks::Rating;
use super::pattern::{Pattern, Symbol};
use super::pieces::{Line, Pieces};
use crate::Result;
use crate::data::digit::PIXELS;
use crate::data::ink::{Area, Ink};
use crate::data::strokes;
use crate::data::to_mnist;

/// The largest number of pieces of a digit.
const MAX_PIECES_PER_DIGIT: usize = 8;
/// The cost of a cut through a component, as the logarithm of a likelihood. The other costs have
/// the same unit.
const CUT_COST: f32 = -1.5;
/// The cost of classifying a component as a blot, and the additional cost if it is as large as the
/// line is high.
const BLOT_COST: (f32, f32) = (-3.0, -6.0);
/// The cost of classifying a component as a mark of the pattern.
const MARK_COST: f32 = -1.0;
/// The class that marks such as `/` and `(` look like. What looks like another digit is no mark.
const LIKE_MARKS: usize = 1;
/// The smallest height of digits that can be read, in pixels.
const MIN_HEIGHT: usize = 6;
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
    /// Whether it is high enough to be read, and not cut off by the border of the picture.
    pub legible: bool,
    /// Whether it consists of one whole component and nothing else.
    whole: bool,
    /// Whether it ends at a cut through a component.
    pub cut: bool,
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

/// A path through the graph of a line.
pub struct Path {
    /// The logarithm of its likelihood.
    pub score: f32,
    /// The edges that are read as digits, each with its class, from left to right.
    pub digits: Vec<(usize, usize)>,
    /// The areas of the pieces that are left out.
    pub left_out: Vec<Area>,
}

/// The last step of the best path to a node and a state of the pattern.
#[derive(Clone, Copy)]
struct Step {
    /// The logarithm of the path's likelihood.
    sum: f32,
    /// The node and the state before this step.
    before: [usize; 2],
    /// The edge of this step and its class, if it is read as a digit.
    digit: Option<(usize, usize)>,
}

impl Step {
    /// No path leads here.
    const NONE: Self = Self { sum: f32::NEG_INFINITY, before: [0; 2], digit: None };
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
            let legible = area.height >= MIN_HEIGHT && !pieces.are_cut_off(numbers, &area);
            let edge = |pixels| Edge { from, to, area, pixels, legible, whole, cut };
            Ok(to_mnist(&digit).map(edge))
        })?;
        let edges = edges.into_iter().flatten().collect();
        let areas =
            line.pieces.iter().map(|number| pieces.areas[usize::from(*number) - 1]).collect();
        Ok(Self { edges, areas, height })
    }

    /// Builds the graph of a single digit.
    pub fn of_digit(area: Area, pixels: [u8; PIXELS]) -> Self {
        let (whole, cut) = (false, false);
        let edges = vec![Edge { from: 0, to: 1, area, pixels, legible: true, whole, cut }];
        Self { edges, areas: vec![area], height: area.height }
    }

    /// Finds the likeliest path that fits a pattern; `None` if there is none. `ratings` are those of
    /// the edges. With `allow_blots` a component may be a blot and no digit.
    pub fn best(&self, ratings: &[Rating], pattern: &Pattern, allow_blots: bool) -> Option<Path> {
        let log = |probability: f32| probability.max(1e-9).ln();
        let mut start = vec![Step::NONE; pattern.states()];
        start[0].sum = 0.0;
        skip_marks(&mut start, 0, pattern);
        // For each node and each state of the pattern: the best step to it.
        let mut best = vec![start];
        let mut edges = self.edges.iter().enumerate().peekable();
        for last in 0..self.areas.len() {
            let leave_out = |(state, step): (usize, &Step)| Step {
                sum: step.sum + LEFT_OUT_COST,
                before: [last, state],
                digit: None,
            };
            let mut found: Vec<Step> = best[last].iter().enumerate().map(leave_out).collect();
            while let Some((index, edge)) = edges.next_if(|(_, edge)| edge.to == last + 1) {
                let cut = if edge.cut { CUT_COST } else { 0.0 };
                let part = edge.area.height.max(edge.area.width) as f32 / self.height as f32;
                let Rating { is_digit, classes } = &ratings[index];
                let no_digit = log(1.0 - is_digit);
                let blot = BLOT_COST.0 + BLOT_COST.1 * part + no_digit;
                let like_mark = classes.get(LIKE_MARKS).copied().unwrap_or(0.0);
                let may_be_mark = edge.whole && is_digit * (1.0 - like_mark) < 0.5;
                let likeliest = likeliest(classes);
                // The state after the edge, its class if it is read as a digit, and the cost.
                let read = |class: usize, next: usize| {
                    let probability = classes.get(class)?;
                    Some((next, Some(class), cut + log(is_digit * probability)))
                };
                for (state, Step { sum, .. }) in best[edge.from].iter().enumerate() {
                    let expected = pattern.next(state).and_then(|(symbol, next)| match symbol {
                        Symbol::Any => read(likeliest, next),
                        Symbol::Digit(digit) => read(digit, next),
                        Symbol::Mark => may_be_mark.then_some((next, None, MARK_COST)),
                    });
                    let blot = (allow_blots && edge.whole).then_some((state, None, blot));
                    for (next, class, cost) in expected.into_iter().chain(blot) {
                        if sum + cost > found[next].sum {
                            let digit = class.map(|class| (index, class));
                            found[next] =
                                Step { sum: sum + cost, before: [edge.from, state], digit };
                        }
                    }
                }
            }
            skip_marks(&mut found, last + 1, pattern);
            best.push(found);
        }
        let end = self.areas.len();
        let sum = |state: &usize| best[end][*state].sum;
        let state = pattern.ends().max_by(|a, b| sum(a).total_cmp(&sum(b)))?;
        (sum(&state) > f32::NEG_INFINITY).then(|| self.path(&best, [end, state]))
    }

    /// Follows the best steps back from a node and a state to the start.
    fn path(&self, best: &[Vec<Step>], end: [usize; 2]) -> Path {
        let score = best[end[0]][end[1]].sum;
        let (mut digits, mut left_out, mut at) = (Vec::new(), Vec::new(), end);
        while at != [0, 0] {
            let Step { before, digit, .. } = best[at[0]][at[1]];
            match digit {
                Some(digit) => digits.push(digit),
                None => left_out
                    .extend(self.areas[before[0]..at[0]].iter().copied().reduce(|a, b| a.with(&b))),
            }
            at = before;
        }
        digits.reverse();
        Path { score, digits, left_out }
    }
}

/// Lets the marks of a pattern be absent at a node: the state after a mark is as good as the one
/// before it.
fn skip_marks(steps: &mut [Step], node: usize, pattern: &Pattern) {
    for state in 0..steps.len() {
        if let Some((Symbol::Mark, next)) = pattern.next(state)
            && steps[state].sum > steps[next].sum
        {
            steps[next] = Step { sum: steps[state].sum, before: [node, state], digit: None };
        }
    }
}

/// The class with the largest probability.
fn likeliest(classes: &[f32]) -> usize {
    let most = classes.iter().copied().fold(0.0, f32::max);
    classes.iter().position(|probability| *probability == most).unwrap_or(0)
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
            // So are lower or wider parts of a component than those of digits that touch.
            let is_part = [from, to].iter().any(|node| pieces.is_cut(&line.pieces, *node));
            let side = height.max(area.height);
            if is_part && (2 * area.height < side || 2 * area.width > 3 * side) {
                continue;
            }
            candidates.push((from, to, area));
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_PIXELS: [u8; PIXELS] = [0; PIXELS];

    /// The graph of components side by side, with an edge for each one and each two.
    fn graph(components: usize) -> Graph {
        let areas: Vec<Area> =
            (0..components).map(|i| Area { left: 30 * i, top: 0, width: 20, height: 28 }).collect();
        let mut edges = Vec::new();
        for to in 1..=components {
            for from in (to.saturating_sub(2)..to).rev() {
                let area = areas[from].with(&areas[to - 1]);
                let whole = to == from + 1;
                let (pixels, legible, cut) = (NO_PIXELS, true, false);
                edges.push(Edge { from, to, area, pixels, legible, whole, cut });
            }
        }
        Graph { edges, areas, height: 28 }
    }

    /// The ratings of edges: the probability that each is a digit, and its likeliest class.
    fn ratings(edges: [(f32, usize); 5], most: f32) -> Vec<Rating> {
        let other = (1.0 - most) / 9.0;
        let classes = |class| (0..10).map(|i| if i == class { most } else { other }).collect();
        let rating = |(is_digit, class)| Rating { is_digit, classes: classes(class) };
        edges.map(rating).into()
    }

    /// The classes on the best path through three components, which look like 4, 0 and 7. The
    /// last two together look a little like a 9.
    fn best(pattern: &Pattern) -> Option<(String, usize)> {
        // The edges: 4, 0, 4 and 0, 7, 0 and 7.
        let edges = [(0.99, 4), (0.99, 0), (0.001, 8), (0.99, 7), (0.02, 9)];
        let ratings = ratings(edges, 0.9);
        let path = graph(3).best(&ratings, pattern, true)?;
        assert!(path.score < 0.0);
        let text = path.digits.iter().map(|(_, class)| class.to_string()).collect();
        Some((text, path.left_out.len()))
    }

    #[test]
    fn the_best_path_that_fits() {
        let digits = |range| best(&Pattern::digits(range).unwrap());
        let found = |text: &str, left_out| Some((text.to_owned(), left_out));
        assert_eq!(best(&Pattern::default()), found("407", 0));
        assert_eq!(digits(3..=3), found("407", 0));
        assert_eq!(digits(1..=5), found("407", 0));
        assert_eq!(digits(2..=2), found("49", 0));
        assert_eq!(digits(1..=1), found("9", 1));
        assert_eq!(digits(4..=6), None);
        let form = |text: &str| best(&text.parse().unwrap());
        assert_eq!(form("###"), found("407", 0));
        assert_eq!(form("##7"), found("407", 0));
        assert_eq!(form("#18"), found("418", 0));
        assert_eq!(form("-##/#-"), found("407", 0));
        assert_eq!(form("4-#"), found("49", 0));
        assert_eq!(form("####"), None);
    }

    #[test]
    fn marks_are_left_out_where_the_pattern_has_them() {
        let best = |middle: usize, pattern: &str| {
            let edges = [(0.99, 4), (0.9, middle), (0.0, 8), (0.99, 7), (0.0, 9)];
            let path = graph(3).best(&ratings(edges, 0.99), &pattern.parse().unwrap(), true);
            path.expect("a path")
        };
        // A slash looks like a 1.
        let path = best(1, "#/#");
        assert_eq!((path.digits, path.left_out.len()), (vec![(0, 4), (3, 7)], 1));
        assert!(path.score > -2.0);
        // Without the mark, and with ink that looks like a 5, it is a blot, which costs more.
        for path in [best(1, "##"), best(5, "#/#")] {
            assert_eq!(path.left_out.len(), 1);
            assert!(path.score < -9.0);
        }
    }

    #[test]
    fn a_digit_that_the_network_does_not_know_is_not_read() {
        let ratings = [Rating { is_digit: 0.9, classes: vec![0.5, 0.5] }];
        let graph = graph(1);
        let best = |pattern: &str| graph.best(&ratings, &pattern.parse().unwrap(), true);
        assert!(best("7").is_none());
        assert_eq!(best("1").expect("a path").digits, [(0, 1)]);
    }
}
