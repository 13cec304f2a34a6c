//! Signs and points beside digits: ink that is not read, but that a number may mean otherwise without.

use super::pieces::Pieces;
use crate::data::ink::{Area, Ink};

/// The most marks that a picture is looked through for; where there are more, they are a pattern.
const MOST_MARKS: usize = 1000;

/// A line's digits.
pub struct Digits {
    /// Where those are that are not rejected.
    pub areas: Vec<Area>,
    /// Rows of most of them.
    pub height: usize,
}

/// Keeps the areas of ink that may be a sign or a point by their size, in a picture with these pieces: not
/// specks, not rules, and nothing that the picture's border cuts off.
pub fn by_size(mut areas: Vec<Area>, ink: &Ink, pieces: &Pieces) -> Vec<Area> {
    let heights = || pieces.lines.iter().map(|line| line.height);
    let (lowest, highest) = (heights().min().unwrap_or(0), heights().max().unwrap_or(0));
    areas.retain(|area| {
        let inside = area.left > 0
            && area.top > 0
            && area.right() < ink.width()
            && area.bottom() < ink.height();
        inside && has_size(area, lowest, highest)
    });
    if areas.len() > MOST_MARKS { Vec::new() } else { areas }
}

/// The line, by its index, that a mark belongs to: the one with the nearest digit that it stands beside.
pub fn line_of(mark: &Area, lines: &[Digits]) -> Option<usize> {
    let places =
        lines.iter().enumerate().filter(|(_, line)| has_size(mark, line.height, line.height));
    let distances = places.flat_map(|(number, line)| {
        let beside = line.areas.iter().filter_map(|digit| beside(mark, digit, line.height));
        beside.map(move |distance| (distance, number))
    });
    // What lies within a ring or a box is no reason to read the ring as a sign.
    let around = lines.iter().flat_map(|line| &line.areas).any(|digit| holds(mark, digit));
    distances.min().filter(|_| !around).map(|(_, number)| number)
}

/// Whether it is as large as a point or a sign beside digits of the lowest height, or of the highest one.
fn has_size(mark: &Area, lowest: usize, highest: usize) -> bool {
    let side = mark.width.max(mark.height);
    mark.width * mark.height >= 4 && 16 * side >= lowest && 5 * side <= 6 * highest
}

/// Columns between a mark and a digit, where it may be a sign or a point to the left or right of it.
fn beside(mark: &Area, digit: &Area, height: usize) -> Option<usize> {
    let gap = mark.left.max(digit.left).saturating_sub(mark.right().min(digit.right()));
    let middle = 2 * mark.top + mark.height;
    // A comma hangs below the line, an apostrophe rises above it.
    let in_line = 10 * middle + 4 * height >= 20 * digit.top
        && 10 * middle <= 20 * digit.bottom() + 6 * height;
    let columns = mark.right().min(digit.right()).saturating_sub(mark.left.max(digit.left));
    let apart = mark.bottom() <= digit.top || digit.bottom() <= mark.top;
    let under = apart && 2 * columns > mark.width;
    (in_line && gap <= height && !under).then_some(gap)
}

/// Whether the middle of `inner` is within `outer`, and `outer` is the larger one.
fn holds(outer: &Area, inner: &Area) -> bool {
    let [x, y] = [2 * inner.left + inner.width, 2 * inner.top + inner.height];
    (2 * outer.left..2 * outer.right()).contains(&x)
        && (2 * outer.top..2 * outer.bottom()).contains(&y)
        && outer.height > inner.height
}
