//! Groups components into lines of writing.

use super::component::{Component, typical_height};
use crate::data::ink::Area;

/// A line of writing.
struct LineOfComponents {
    /// The indices of its components.
    components: Vec<usize>,
    /// The bounding boxes of its tall components.
    areas: Vec<Area>,
}

/// Groups components into lines, from top to bottom. A small component that is near a tall one, and
/// above, below or within it, is a part of a digit. Other small components (a comma, a dash, an
/// underline, a speck) are left out. Returns the indices of each line's components.
pub fn lines(components: &[Component]) -> Vec<Vec<usize>> {
    let height = typical_height(components.iter());
    let (mut tall, small): (Vec<_>, Vec<_>) =
        (0..components.len()).partition(|i| 5 * components[*i].area.height >= 2 * height);
    tall.sort_by_key(|i| components[*i].area.top + components[*i].area.bottom());
    let mut lines: Vec<LineOfComponents> = Vec::new();
    for i in tall {
        let area = components[i].area;
        // Joins the line of the nearest component that belongs to it.
        let nearest = |line: &LineOfComponents| {
            let beside = line.areas.iter().filter(|other| are_in_line(&area, other));
            beside.map(|other| gaps(&area, other)[0]).min()
        };
        match (0..lines.len()).filter_map(|l| Some((nearest(&lines[l])?, l))).min() {
            Some((_, line)) => {
                lines[line].components.push(i);
                lines[line].areas.push(area);
            }
            None => lines.push(LineOfComponents { components: vec![i], areas: vec![area] }),
        }
    }
    for i in small {
        let area = components[i].area;
        let is_part = |other: &Area| {
            let [across, down] = gaps(&area, other);
            let columns = shared([area.left, area.right()], [other.left, other.right()]);
            let rows = shared([area.top, area.bottom()], [other.top, other.bottom()]);
            let underline = area.width > height && rows == 0;
            let near = 25 * (across * across + down * down) <= 4 * height * height;
            near && 2 * columns >= area.width && !underline
        };
        if let Some(line) = lines.iter_mut().find(|line| line.areas.iter().any(is_part)) {
            line.components.push(i);
        }
    }
    lines.sort_by_key(|LineOfComponents { areas, .. }| {
        areas.iter().map(|area| area.top + area.bottom()).sum::<usize>() / areas.len()
    });
    lines.into_iter().map(|line| line.components).collect()
}

/// Whether two areas are in one line: they share half of the rows of the shorter one. Or they are
/// parts of one digit: they share half of the columns of the narrower one, with hardly any gap
/// between them.
fn are_in_line(a: &Area, b: &Area) -> bool {
    let rows = shared([a.top, a.bottom()], [b.top, b.bottom()]);
    let columns = shared([a.left, a.right()], [b.left, b.right()]);
    let broken = 2 * columns >= a.width.min(b.width) && 8 * gaps(a, b)[1] <= a.height.max(b.height);
    2 * rows >= a.height.min(b.height) || broken
}

/// The horizontal and the vertical gap between two areas, in pixels.
fn gaps(a: &Area, b: &Area) -> [usize; 2] {
    let gap = |a: [usize; 2], b: [usize; 2]| a[0].max(b[0]).saturating_sub(a[1].min(b[1]));
    [gap([a.left, a.right()], [b.left, b.right()]), gap([a.top, a.bottom()], [b.top, b.bottom()])]
}

/// The length that two ranges share.
fn shared(a: [usize; 2], b: [usize; 2]) -> usize {
    a[1].min(b[1]).saturating_sub(a[0].max(b[0]))
}
