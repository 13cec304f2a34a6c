//! Groups components into lines of writing.
//!
//! Components that are as tall as the ones beside them are taken from left to right, and then the
//! lower ones. Each joins the line whose nearest components share most of its rows, or starts a new
//! line. A slope that all lines have in common is removed first.

use super::component::{Component, typical};
use crate::data::ink::Area;

/// The steepest slope of lines, about 10 degrees.
const MAX_SLOPE: f32 = 0.18;
/// The smallest number of pairs of neighbours from which a slope is estimated.
const MIN_NEIGHBOURS: usize = 4;
/// The number of components of a line that another one is compared with.
const COMPARED: usize = 3;

/// A tall component, which is a digit or a large part of one.
#[derive(Clone, Copy)]
struct Tall {
    /// The index of the component.
    index: usize,
    area: Area,
    /// The typical height of the components beside it and its own; `None` if none is beside it.
    around: Option<usize>,
    /// Its rows after removing the slope of the lines: the first one, and the one after the last.
    rows: [f32; 2],
}

/// Groups components into lines, from top to bottom. A small component that is near a tall one, and
/// above, below or within it, or at the upper right, as the bar of a 5, is a part of a digit. Other
/// small components (a comma, a dash, an underline, a speck) are left out. Returns the indices of
/// each line's components.
pub fn lines(components: &[Component]) -> Vec<Vec<usize>> {
    let areas: Vec<Area> = components.iter().map(|component| component.area).collect();
    let around: Vec<Option<usize>> = areas.iter().map(|area| height_around(area, &areas)).collect();
    let all = typical(areas.iter().map(|area| area.height));
    let is_tall = |i: &usize| {
        let height = areas[*i].height;
        5 * height >= 2 * around[*i].unwrap_or(all) && 4 * height >= all
    };
    let (tall, small): (Vec<_>, Vec<_>) = (0..areas.len()).partition(is_tall);
    let slope = slope(&tall.iter().map(|i| areas[*i]).collect::<Vec<_>>());
    let tall = tall.into_iter().map(|index| {
        let area = areas[index];
        let shift = slope * (area.left + area.right()) as f32 / 2.0;
        let rows = [area.top, area.bottom()].map(|row| row as f32 - shift);
        Tall { index, area, around: around[index], rows }
    });
    let lines = lines_of_tall(tall.collect());
    let mut found: Vec<Vec<usize>> =
        lines.iter().map(|line| line.iter().map(|tall| tall.index).collect()).collect();
    for i in small {
        let distances = lines.iter().enumerate().flat_map(|(number, line)| {
            let near = line.iter().filter_map(|Tall { area, around, .. }| {
                distance_to_whole(&areas[i], area, around.unwrap_or(all))
            });
            near.map(move |distance| (distance, number))
        });
        if let Some((_, line)) = distances.min() {
            found[line].push(i);
        }
    }
    found
}

/// The typical height of the areas beside one, and its own; `None` if none is beside it.
fn height_around(area: &Area, areas: &[Area]) -> Option<usize> {
    let beside = |other: &&Area| {
        let height = area.height.max(other.height);
        gaps(area, other)[0] <= 2 * height
            && 4 * shared_rows(area, other) >= area.height.min(other.height)
            && !are_stacked(area, other)
    };
    let mut heights: Vec<usize> = areas.iter().filter(beside).map(|area| area.height).collect();
    if heights.is_empty() {
        return None;
    }
    heights.push(area.height);
    Some(typical(heights.into_iter()))
}

/// The slope of the lines, in rows per column: the median of the slopes between neighbours.
fn slope(areas: &[Area]) -> f32 {
    let to_neighbour = |area: &Area| {
        let right = |other: &&Area| {
            other.left >= area.right()
                && 2 * shared_rows(area, other) >= area.height.min(other.height)
        };
        let next = areas.iter().filter(right).min_by_key(|other| other.left)?;
        let columns = (next.left + next.right()) as f32 - (area.left + area.right()) as f32;
        Some(2.0 * (next.bottom() as f32 - area.bottom() as f32) / columns)
    };
    let mut slopes: Vec<f32> = areas.iter().filter_map(to_neighbour).collect();
    slopes.sort_by(f32::total_cmp);
    let middle = slopes.get(slopes.len() / 2).filter(|_| slopes.len() >= MIN_NEIGHBOURS);
    middle.copied().unwrap_or(0.0).clamp(-MAX_SLOPE, MAX_SLOPE)
}

/// Groups tall components into lines, from top to bottom.
fn lines_of_tall(mut tall: Vec<Tall>) -> Vec<Vec<Tall>> {
    tall.sort_by_key(|Tall { area, around, .. }| {
        (around.is_some_and(|around| 4 * area.height < 3 * around), area.left)
    });
    let mut lines: Vec<Vec<Tall>> = Vec::new();
    for next in tall {
        let best_fit = |line: &Vec<Tall>| {
            let mut nearest: Vec<&Tall> = line.iter().collect();
            nearest.sort_by_key(|tall| gaps(&tall.area, &next.area)[0]);
            let nearest = nearest.into_iter().take(COMPARED);
            nearest.filter_map(|tall| fit(tall, &next)).max_by(f32::total_cmp)
        };
        let fits = lines.iter_mut().filter_map(|line| Some((best_fit(line)?, line)));
        match fits.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
            Some((_, line)) => line.push(next),
            None => lines.push(vec![next]),
        }
    }
    let middle = |line: &Vec<Tall>| {
        line.iter().map(|Tall { rows, .. }| rows[0] + rows[1]).sum::<f32>() / line.len() as f32
    };
    lines.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
    lines
}

/// How well two components fit in one line: the rows that both have, as a part of the rows that
/// either has. `None` if they share less than a third of the rows of the shorter one, and are not
/// parts of one digit either.
fn fit(a: &Tall, b: &Tall) -> Option<f32> {
    let [from, to] = [0, 1].map(|i| [a.rows[i].min(b.rows[i]), a.rows[i].max(b.rows[i])]);
    let (shared, whole) = ((to[0] - from[1]).max(0.0), to[1] - from[0]);
    let shorter = a.area.height.min(b.area.height) as f32;
    let Area { width, height: together, .. } = a.area.with(&b.area);
    let [across, down] = gaps(&a.area, &b.area);
    let near = 6 * across.max(down) <= together;
    let broken = match a.around.max(b.around) {
        Some(around) => near && 5 * together <= 7 * around,
        // Two digits above each other are taller than they are wide.
        None => {
            near && 5 * together <= 8 * width
                || are_stacked(&a.area, &b.area) && 8 * down <= a.area.height.max(b.area.height)
        }
    };
    (3.0 * shared >= shorter || broken).then_some(shared / whole)
}

/// The squared distance between a small area and a tall one, if the small one may be a part of the
/// same digit. `height` is the typical height of digits there.
fn distance_to_whole(small: &Area, tall: &Area, height: usize) -> Option<usize> {
    let [across, down] = gaps(small, tall);
    let distance = across * across + down * down;
    let underline = small.width > height && shared_rows(small, tall) == 0;
    let near = 25 * distance <= 4 * height * height;
    let stacked = 2 * shared_columns(small, tall) >= small.width;
    let upper_right = small.bottom() <= tall.top + tall.height / 3 && small.right() > tall.right();
    (near && (stacked || upper_right) && !underline).then_some(distance)
}

/// Whether two areas share half of the columns of the narrower one.
fn are_stacked(a: &Area, b: &Area) -> bool {
    2 * shared_columns(a, b) >= a.width.min(b.width)
}

/// The horizontal and the vertical gap between two areas, in pixels.
fn gaps(a: &Area, b: &Area) -> [usize; 2] {
    let gap = |a: [usize; 2], b: [usize; 2]| a[0].max(b[0]).saturating_sub(a[1].min(b[1]));
    [gap([a.left, a.right()], [b.left, b.right()]), gap([a.top, a.bottom()], [b.top, b.bottom()])]
}

/// The number of rows that both areas have.
fn shared_rows(a: &Area, b: &Area) -> usize {
    a.bottom().min(b.bottom()).saturating_sub(a.top.max(b.top))
}

/// The number of columns that both areas have.
fn shared_columns(a: &Area, b: &Area) -> usize {
    a.right().min(b.right()).saturating_sub(a.left.max(b.left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of components with these left, top, width and height.
    fn lines_of(areas: &[[usize; 4]]) -> Vec<Vec<usize>> {
        let component = |&[left, top, width, height]: &[usize; 4]| Component {
            area: Area { left, top, width, height },
            pixels: Vec::new(),
            border: 0,
        };
        lines(&areas.iter().map(component).collect::<Vec<_>>())
    }

    #[test]
    fn parts_of_a_broken_digit_are_in_one_line() {
        let count = |areas: &[[usize; 4]]| lines_of(areas).len();
        // A 5 whose upper half is a part of its own, to the right of the rest.
        assert_eq!(count(&[[8, 7, 16, 9], [4, 16, 8, 9]]), 1);
        // A 5 whose bar does not touch it, and other digits.
        assert_eq!(count(&[[4, 9, 10, 16], [15, 6, 9, 3], [40, 5, 12, 20], [70, 5, 12, 20]]), 1);
        // Two digits above each other.
        assert_eq!(count(&[[4, 4, 14, 20], [4, 28, 14, 20]]), 2);
        assert_eq!(count(&[[4, 4, 14, 20], [30, 4, 14, 20], [4, 26, 14, 20], [30, 26, 14, 20]]), 2);
    }

    #[test]
    fn a_dash_is_no_part_of_a_digit() {
        let components_with =
            |dash| lines_of(&[[4, 5, 12, 20], dash, [50, 5, 12, 20]]).concat().len();
        assert_eq!(components_with([22, 14, 10, 3]), 2);
        // At this place it is the bar of a 5.
        assert_eq!(components_with([17, 5, 10, 3]), 3);
    }
}
