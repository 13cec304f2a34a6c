//! Finds signs and points beside digits: ink that is not read, but may change the meaning of a
//! number.

use crate::data::ink::{Area, Ink};

/// The largest number of marks; more than that are a pattern.
const MAX_MARKS: usize = 1000;

/// The accepted digits of a line.
pub struct AcceptedDigits {
    /// The bounding boxes of the digits that are not rejected.
    pub areas: Vec<Area>,
    /// The typical height of the line's digits in pixels.
    pub height: usize,
}

/// Keeps the areas whose size is that of a sign or a point beside digits of these heights. Specks,
/// rules and areas that touch the border of the picture are left out.
pub fn by_size(mut areas: Vec<Area>, ink: &Ink, heights: &[usize]) -> Vec<Area> {
    let lowest = heights.iter().copied().min().unwrap_or(0);
    let highest = heights.iter().copied().max().unwrap_or(0);
    areas.retain(|area| {
        let inside = area.left > 0
            && area.top > 0
            && area.right() < ink.width()
            && area.bottom() < ink.height();
        inside && has_size(area, lowest, highest)
    });
    if areas.len() > MAX_MARKS { Vec::new() } else { areas }
}

/// Returns the index of the line that a mark belongs to: the one with the nearest digit that it
/// stands beside.
pub fn line_of(mark: &Area, lines: &[AcceptedDigits]) -> Option<usize> {
    let candidates =
        lines.iter().enumerate().filter(|(_, line)| has_size(mark, line.height, line.height));
    let distances = candidates.flat_map(|(number, line)| {
        let beside = line.areas.iter().filter_map(|digit| beside(mark, digit, line.height));
        beside.map(move |distance| (distance, number))
    });
    // A mark around a digit is a ring or a box and no sign.
    let around = lines.iter().flat_map(|line| &line.areas).any(|digit| holds(mark, digit));
    distances.min().filter(|_| !around).map(|(_, number)| number)
}

/// Whether a mark has the size of a point or a sign beside digits whose heights are in this range.
fn has_size(mark: &Area, lowest: usize, highest: usize) -> bool {
    let side = mark.width.max(mark.height);
    mark.width * mark.height >= 4 && 16 * side >= lowest && 5 * side <= 6 * highest
}

/// The gap between a mark and a digit in pixels, if the mark may be a sign or a point to the left
/// or right of the digit.
fn beside(mark: &Area, digit: &Area, height: usize) -> Option<usize> {
    let gap = mark.left.max(digit.left).saturating_sub(mark.right().min(digit.right()));
    let middle = 2 * mark.top + mark.height;
    // A comma reaches below the line, an apostrophe above it.
    let in_line = 10 * middle + 4 * height >= 20 * digit.top
        && 10 * middle <= 20 * digit.bottom() + 6 * height;
    let columns = mark.right().min(digit.right()).saturating_sub(mark.left.max(digit.left));
    let apart = mark.bottom() <= digit.top || digit.bottom() <= mark.top;
    let under = apart && 2 * columns > mark.width;
    (in_line && gap <= height && !under).then_some(gap)
}

/// Whether the centre of `inner` lies within `outer`, and `outer` is taller.
fn holds(outer: &Area, inner: &Area) -> bool {
    let [x, y] = [2 * inner.left + inner.width, 2 * inner.top + inner.height];
    (2 * outer.left..2 * outer.right()).contains(&x)
        && (2 * outer.top..2 * outer.bottom()).contains(&y)
        && outer.height > inner.height
}
