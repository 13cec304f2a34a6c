//! Removes ink that is no writing: rules and frames, blots, holes, and rings around digits.

use super::budget::Budget;
use super::component::{Component, components};
use crate::Result;
use crate::data::ink::Area;

/// The largest number of components that are larger than specks; a picture that has more shows no
/// writing.
const MAX_COMPONENTS: usize = 8000;

/// Returns the components of a mask that may be writing; `None` if there are too many. Rules and
/// frames of the paper are erased from the mask, except where writing crosses them. Rings around
/// digits, solid components and components with too thick strokes are left out.
///
/// # Errors
/// If the budget is exhausted.
pub fn writing(
    mask: &mut [bool],
    width: usize,
    budget: &mut Budget,
) -> Result<Option<Vec<Component>>> {
    let height = mask.len() / width;
    let whole = Area { left: 0, top: 0, width, height };
    let mut found = components(mask, width);
    let frames: Vec<Area> =
        found.iter().filter(|component| is_frame(component, width)).map(|c| c.area).collect();
    let mut erased = erase_lines(mask, width, &whole, [width / 4, height / 4], |rule, length| {
        10 * rule.area.width >= 9 * length
    });
    for area in &frames {
        budget.spend(area.width * area.height)?;
        let shortest = 3 * area.width.min(area.height) / 5;
        erased |= erase_lines(mask, width, area, [shortest; 2], |_, _| true);
    }
    if erased {
        found = components(mask, width);
    }
    let large: Vec<Area> = found.iter().filter(|c| !is_speck(c)).map(|c| c.area).collect();
    if large.len() > MAX_COMPONENTS {
        return Ok(None);
    }
    budget.check_time()?;
    keep(&mut found, |component| {
        is_speck(component) || !large.iter().any(|other| encloses(&component.area, other))
    });
    keep(&mut found, |component| !is_solid(component));
    let mut strokes: Vec<f32> =
        found.iter().filter(|c| c.area.height >= 20).map(Component::stroke).collect();
    strokes.sort_by(f32::total_cmp);
    if let Some(&usual) = strokes.get(strokes.len() / 2) {
        // A large digit may have thicker strokes than the others, but it is no blot.
        keep(&mut found, |component| {
            let side = component.area.width.max(component.area.height);
            component.stroke() < (2.5 * usual).max(0.3 * side as f32)
        });
    }
    Ok(Some(found))
}

/// Whether a component is smaller than any readable part of a digit.
fn is_speck(component: &Component) -> bool {
    component.area.width.max(component.area.height) <= 2 || component.pixels.len() <= 2
}

/// Keeps the components that pass a test; keeps all if none passes.
fn keep(components: &mut Vec<Component>, test: impl Fn(&Component) -> bool) {
    let kept: Vec<bool> = components.iter().map(test).collect();
    if kept.contains(&true) {
        let mut kept = kept.into_iter();
        components.retain(|_| kept.next() == Some(true));
    }
}

/// Whether a component is fuller than any digit, such as a hole or a button.
fn is_solid(component: &Component) -> bool {
    let Area { width, height, .. } = component.area;
    let round = 20 * width > 9 * height && 20 * height > 9 * width;
    width.min(height) >= 20 && round && component.fill() > 0.74
}

/// Whether `outer` is a ring around `inner`, a possible digit.
fn encloses(outer: &Area, inner: &Area) -> bool {
    outer.left < inner.left
        && outer.top < inner.top
        && inner.right() < outer.right()
        && inner.bottom() < outer.bottom()
        && 20 * inner.height >= 7 * outer.height
}

/// Whether there is ink along all four sides of the component's area, and not much else.
fn is_frame(component: &Component, width: usize) -> bool {
    let area = &component.area;
    let band = (3 * area.width.min(area.height) / 50).max(2);
    if area.width.min(area.height) < 24 || component.fill() > 0.5 {
        return false;
    }
    // Which columns have ink at the upper and the lower side, and which rows at the left and the
    // right side.
    let mut columns = [vec![false; area.width], vec![false; area.width]];
    let mut rows = [vec![false; area.height], vec![false; area.height]];
    for pixel in &component.pixels {
        let (x, y) = (pixel % width - area.left, pixel / width - area.top);
        columns[0][x] |= y < band;
        columns[1][x] |= y + band >= area.height;
        rows[0][y] |= x < band;
        rows[1][y] |= x + band >= area.width;
    }
    columns.iter().chain(&rows).all(|side| {
        let inked = side.iter().filter(|inked| **inked).count();
        100 * inked >= 88 * side.len()
    })
}

/// Erases thin lines in an area, across and down. They consist of runs of at least `shortest`
/// pixels, and `is_rule` holds for them and the area's length in their direction. Pixels where
/// other ink crosses a line remain. Returns whether anything is erased.
fn erase_lines(
    mask: &mut [bool],
    width: usize,
    area: &Area,
    shortest: [usize; 2],
    is_rule: impl Fn(&Component, usize) -> bool,
) -> bool {
    let Area { left, top, width: columns, height: rows } = *area;
    let at = |x: usize, y: usize| (top + y) * width + left + x;
    let part: Vec<bool> = (0..rows).flat_map(|y| &mask[at(0, y)..][..columns]).copied().collect();
    let rules = |part: &[bool], across: usize, shortest: usize| {
        long_lines(part, across, shortest, |rule| is_rule(rule, across))
    };
    let turned = turned(&part, columns);
    let (across, down) = (rules(&part, columns, shortest[0]), rules(&turned, rows, shortest[1]));
    // Where lines cross each other, no other ink is in the way.
    let mut others = [part, turned];
    for rule in &across {
        for pixel in &rule.pixels {
            others[1][pixel % columns * rows + pixel / columns] = false;
        }
    }
    for rule in &down {
        for pixel in &rule.pixels {
            others[0][pixel % rows * columns + pixel / rows] = false;
        }
    }
    for pixel in across.iter().flat_map(|rule| uncrossed(rule, &others[0], columns)) {
        mask[at(pixel % columns, pixel / columns)] = false;
    }
    for pixel in down.iter().flat_map(|rule| uncrossed(rule, &others[1], rows)) {
        mask[at(pixel / rows, pixel % rows)] = false;
    }
    !across.is_empty() || !down.is_empty()
}

/// A mask with its columns as rows.
fn turned(mask: &[bool], width: usize) -> Vec<bool> {
    (0..width).flat_map(|x| mask[x..].iter().step_by(width)).copied().collect()
}

/// The thin lines across a mask, which consist of runs of at least `shortest` pixels.
fn long_lines(
    mask: &[bool],
    width: usize,
    shortest: usize,
    is_rule: impl Fn(&Component) -> bool,
) -> Vec<Component> {
    let mut long = vec![false; mask.len()];
    for (row, long) in mask.chunks_exact(width).zip(long.chunks_exact_mut(width)) {
        let mut from = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] && run.len() >= shortest.max(8) {
                long[from..from + run.len()].fill(true);
            }
            from += run.len();
        }
    }
    let thickest = (shortest / 8).max(2);
    let mut rules = components(&long, width);
    rules.retain(|rule| rule.pixels.len() <= rule.area.width * thickest && is_rule(rule));
    rules
}

/// The pixels of a line across a mask, except in columns where other ink crosses the line.
fn uncrossed(rule: &Component, mask: &[bool], width: usize) -> impl Iterator<Item = usize> {
    let thickness = rule.pixels.len().div_ceil(rule.area.width);
    let reaches = move |pixel: usize, back: bool| {
        let mut at = pixel;
        for _ in 0..=thickness {
            let next = if back { at.checked_sub(width) } else { Some(at + width) };
            match next.filter(|next| mask.get(*next) == Some(&true)) {
                Some(next) => at = next,
                None => return false,
            }
        }
        true
    };
    let pixels = rule.pixels.iter().copied();
    pixels.filter(move |pixel| !(reaches(*pixel, true) && reaches(*pixel, false)))
}
