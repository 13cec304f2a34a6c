//! Lines of writing.

use super::component::{Component, typical_height};
use crate::data::ink::Area;

/// A line: which components, and where the tall ones are.
struct Line {
    components: Vec<usize>,
    areas: Vec<Area>,
}

/// Components by line, from above; in each as they come. What is small belongs to what is near and above or below
/// or within it: a digit's part. Else it is a comma, a dash, an underline, a speck, and is left out.
pub fn lines(components: &[Component]) -> Vec<Vec<usize>> {
    let height = typical_height(components.iter());
    let (mut tall, small): (Vec<_>, Vec<_>) =
        (0..components.len()).partition(|i| 5 * components[*i].area.height >= 2 * height);
    tall.sort_by_key(|i| components[*i].area.top + components[*i].area.bottom());
    let mut lines: Vec<Line> = Vec::new();
    for i in tall {
        let area = components[i].area;
        // With the nearest that belongs to it.
        let nearest = |line: &Line| {
            let beside = line.areas.iter().filter(|other| are_in_line(&area, other));
            beside.map(|other| gaps(&area, other)[0]).min()
        };
        match (0..lines.len()).filter_map(|l| Some((nearest(&lines[l])?, l))).min() {
            Some((_, line)) => {
                lines[line].components.push(i);
                lines[line].areas.push(area);
            }
            None => lines.push(Line { components: vec![i], areas: vec![area] }),
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
    lines.sort_by_key(|Line { areas, .. }| {
        areas.iter().map(|area| area.top + area.bottom()).sum::<usize>() / areas.len()
    });
    lines.into_iter().map(|line| line.components).collect()
}

/// Whether two share half of the lower one's rows; or half of the narrower one's columns where hardly anything is
/// between them: a digit in two parts.
fn are_in_line(a: &Area, b: &Area) -> bool {
    let rows = shared([a.top, a.bottom()], [b.top, b.bottom()]);
    let columns = shared([a.left, a.right()], [b.left, b.right()]);
    let broken = 2 * columns >= a.width.min(b.width) && 8 * gaps(a, b)[1] <= a.height.max(b.height);
    2 * rows >= a.height.min(b.height) || broken
}

/// Columns and rows between two areas.
fn gaps(a: &Area, b: &Area) -> [usize; 2] {
    let gap = |a: [usize; 2], b: [usize; 2]| a[0].max(b[0]).saturating_sub(a[1].min(b[1]));
    [gap([a.left, a.right()], [b.left, b.right()]), gap([a.top, a.bottom()], [b.top, b.bottom()])]
}

/// How much two ranges share.
fn shared(a: [usize; 2], b: [usize; 2]) -> usize {
    a[1].min(b[1]).saturating_sub(a[0].max(b[0]))
}
