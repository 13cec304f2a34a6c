//! The pieces that digits consist of: connected ink, cut where digits may touch, in lines.

use super::budget::Budget;
use super::clutter;
use super::component::{Component, components, neighbours, typical_height};
use super::lines::lines;
use super::marks;
use crate::Result;
use crate::data::ink::{Area, Ink, shifts_to_slope};
use crate::data::strokes::STRONG;

/// Ink above this value, on a scale from 0 to 1, belongs to the piece that it touches.
pub const WEAK: f32 = 0.15;
/// The width in pixels of the fading border of a piece.
const MAX_FADING: usize = 2;
/// The height in pixels to which components are reduced to find cuts.
const CUT_HEIGHT: usize = 32;
/// The slopes of cuts: columns to the right for each row upwards.
const SLOPES: [f32; 4] = [-0.25, 0.0, 0.25, 0.5];
/// The cost of a cut with a slope of 1, in pixels of ink that it crosses.
const SLOPE_COST: f32 = 5.0;
/// The largest cost of a cut, as a part of the component's height.
const MAX_CUT: f32 = 0.6;
/// The largest number of pieces of a picture; one that has more shows no writing.
const MAX_PIECES: usize = 2000;

/// Ink in pieces, which are numbered from 1.
pub struct Pieces {
    /// For each pixel of the ink, row by row, the number of its piece; 0 for paper.
    pub labels: Vec<u16>,
    /// The number of pixels in a row.
    width: usize,
    /// The bounding boxes of the pieces, from piece 1 on.
    pub areas: Vec<Area>,
    /// For each piece, from piece 1 on, the first and the last piece that were cut from the same
    /// component.
    pub origins: Vec<[u16; 2]>,
    /// The lines from top to bottom, with their pieces from left to right.
    pub lines: Vec<Line>,
    /// The areas of ink in no line that may be a sign or a point.
    pub left_out: Vec<Area>,
}

/// A line of writing.
pub struct Line {
    /// The numbers of its pieces.
    pub pieces: Vec<u16>,
    /// The typical height of its digits in pixels.
    pub height: usize,
}

impl Pieces {
    /// Returns the ink of some pieces alone, which must lie in `area`.
    pub fn cut_out(&self, ink: &Ink, numbers: &[u16], area: &Area) -> Ink {
        let mut chosen = vec![false; self.areas.len() + 1];
        for number in numbers {
            chosen[usize::from(*number)] = true;
        }
        let mut values = Vec::with_capacity(area.width * area.height);
        for y in area.top..area.bottom() {
            let row = y * ink.width() + area.left..y * ink.width() + area.right();
            let pixels = self.labels[row.clone()].iter().zip(&ink.values()[row]);
            values.extend(
                pixels.map(|(label, value)| if chosen[usize::from(*label)] { *value } else { 0.0 }),
            );
        }
        Ink::new(area.width, values)
    }

    /// Returns the bounding box of some pieces; `None` for no pieces.
    pub fn area(&self, numbers: &[u16]) -> Option<Area> {
        let areas = numbers.iter().map(|number| self.areas[usize::from(*number) - 1]);
        areas.reduce(|a, b| a.with(&b))
    }

    /// Returns the bounding box of all pieces.
    fn area_of_all(&self) -> Option<Area> {
        self.areas.iter().copied().reduce(|a, b| a.with(&b))
    }

    /// Cuts ink into pieces. Returns `None` if it has too many parts to be writing.
    ///
    /// # Errors
    /// If the budget is exhausted.
    pub fn of(ink: &Ink, budget: &mut Budget) -> Result<Option<Self>> {
        let mut strong: Vec<bool> = ink.values().iter().map(|value| *value > STRONG).collect();
        let Some(mut writing) = clutter::writing(&mut strong, ink.width(), budget)? else {
            return Ok(None);
        };
        let speck = (typical_height(writing.iter()) / 12).max(2);
        writing.retain(|Component { area, pixels, .. }| {
            area.width.max(area.height) > speck && pixels.len() > speck * speck / 2
        });
        if writing.len() > MAX_PIECES {
            return Ok(None);
        }
        let mut pieces = Self {
            labels: vec![0; strong.len()],
            width: ink.width(),
            areas: Vec::new(),
            origins: Vec::new(),
            lines: Vec::new(),
            left_out: Vec::new(),
        };
        for indices in lines(&writing) {
            let height = typical_height(indices.iter().map(|i| &writing[*i]));
            let cuts = budget.map(&indices, |index| {
                let Area { width, height: rows, .. } = writing[*index].area;
                budget.spend(width * rows)?;
                Ok(cuts(&writing[*index], height, ink))
            })?;
            let mut numbers = Vec::new();
            for (index, cuts) in indices.into_iter().zip(cuts) {
                numbers.extend(pieces.add(&writing[index], &cuts, ink));
                if pieces.areas.len() > MAX_PIECES {
                    return Ok(None);
                }
            }
            numbers.sort_by_key(|number| {
                let area = &pieces.areas[usize::from(*number) - 1];
                area.left + area.right()
            });
            pieces.lines.push(Line { pieces: numbers, height });
        }
        let others = components(&strong, ink.width()).into_iter();
        let others =
            others.filter(|other| pieces.labels[other.pixels[0]] == 0).map(|other| other.area);
        let heights: Vec<usize> = pieces.lines.iter().map(|line| line.height).collect();
        pieces.left_out = marks::by_size(others.collect(), ink, &heights);
        pieces.grow(ink);
        Ok(Some(pieces))
    }

    /// Adds the pieces into which cuts divide a component, and returns their numbers.
    fn add(
        &mut self,
        component: &Component,
        cuts: &[Vec<usize>],
        ink: &Ink,
    ) -> std::ops::Range<u16> {
        let first = self.areas.len() as u16 + 1;
        let area = &component.area;
        let mut found: Vec<Option<([usize; 2], [usize; 2])>> = vec![None; cuts.len() + 1];
        let mut kept = Vec::with_capacity(component.pixels.len());
        for &pixel in &component.pixels {
            let (x, y) = (pixel % ink.width(), pixel / ink.width());
            let piece = cuts.iter().filter(|cut| cut[y - area.top] <= x).count();
            let ([left, right], [top, bottom]) = found[piece].unwrap_or(([x, x], [y, y]));
            found[piece] = Some(([left.min(x), right.max(x)], [top.min(y), bottom.max(y)]));
            kept.push((pixel, piece));
        }
        let mut numbers = vec![0; found.len()];
        for (number, found) in numbers.iter_mut().zip(found) {
            if let Some((columns, rows)) = found {
                self.areas.push(Area::spanning(columns, rows));
                *number = self.areas.len() as u16;
            }
        }
        for (pixel, piece) in kept {
            self.labels[pixel] = numbers[piece];
        }
        let last = self.areas.len() as u16;
        self.origins.resize(self.areas.len(), [first, last]);
        first..last + 1
    }

    /// Returns whether the pieces before and after this index in a line were cut from the same
    /// component.
    pub fn is_cut(&self, line: &[u16], index: usize) -> bool {
        let (before, after) = line.split_at(index);
        let origin = |number: &u16| self.origins[usize::from(*number) - 1];
        before.last().zip(after.first()).is_some_and(|(a, b)| origin(a) == origin(b))
    }

    /// Returns whether these are all pieces of one component and nothing else.
    pub fn are_whole(&self, numbers: &[u16]) -> bool {
        let [first, last] = self.origins[usize::from(numbers[0]) - 1];
        numbers.len() == usize::from(last - first) + 1
            && numbers.iter().all(|number| (first..=last).contains(number))
    }

    /// Whether pieces within `area` are cut off by the border of the picture: a large part of them
    /// lies along it. If the lines reach all four borders, the picture is cropped tightly, and
    /// nothing is cut off.
    pub fn are_cut_off(&self, numbers: &[u16], area: &Area) -> bool {
        let (width, height) = (self.width, self.labels.len() / self.width);
        let touches = |area: &Area| {
            [area.left == 0, area.top == 0, area.right() == width, area.bottom() == height]
        };
        if touches(area) == [false; 4]
            || self.area_of_all().is_some_and(|all| touches(&all) == [true; 4])
        {
            return false;
        }
        let is_ink = |x: usize, y: usize| numbers.contains(&self.labels[y * width + x]);
        let (columns, rows) = (area.left..area.right(), area.top..area.bottom());
        let along = columns.filter(|x| is_ink(*x, 0) || is_ink(*x, height - 1)).count()
            + rows.filter(|y| is_ink(0, *y) || is_ink(width - 1, *y)).count();
        10 * along > 3 * area.width.max(area.height)
    }

    /// Adds the fading border around strong ink to its piece.
    fn grow(&mut self, ink: &Ink) {
        let width = ink.width();
        let mut front: Vec<usize> =
            (0..self.labels.len()).filter(|i| self.labels[*i] > 0).collect();
        for _ in 0..MAX_FADING {
            let mut next = Vec::new();
            for pixel in front {
                let label = self.labels[pixel];
                for neighbour in neighbours(pixel, width, self.labels.len()) {
                    let value = ink.values()[neighbour];
                    if self.labels[neighbour] == 0 && value > WEAK {
                        self.labels[neighbour] = label;
                        let area = &mut self.areas[usize::from(label) - 1];
                        let (x, y) = (neighbour % width, neighbour / width);
                        *area = area.with(&Area::spanning([x, x], [y, y]));
                        next.push(neighbour);
                    }
                }
            }
            front = next;
        }
    }
}

/// The cuts through a component, from left to right. A cut is, for each row of the component, the
/// first column to its right. Cuts run downwards, upright or at a slope, where they cross little
/// ink, with small shifts to the left or right.
fn cuts(component: &Component, line: usize, ink: &Ink) -> Vec<Vec<usize>> {
    let area = &component.area;
    // A narrower component is a single digit, and a lower one is a part of a digit.
    if 5 * area.width < 2 * area.height || area.height < 8 || 5 * area.height < 2 * line {
        return Vec::new();
    }
    let mut values = vec![0.0; area.width * area.height];
    for pixel in &component.pixels {
        let (x, y) = (pixel % ink.width() - area.left, pixel / ink.width() - area.top);
        values[y * area.width + x] = ink.values()[*pixel];
    }
    let own = Ink::new(area.width, values);
    let height = area.height.min(CUT_HEIGHT);
    let width = (area.width * height / area.height).max(1);
    let small = own.resized(width, height);
    let sloping = SLOPES.map(|slope| seams(&small, slope));
    let cost = |a: &&Seam, b: &&Seam| a.cost.total_cmp(&b.cost);
    let seams: Vec<&Seam> =
        (0..width).filter_map(|x| sloping.iter().map(|seams| &seams[x]).min_by(cost)).collect();
    let max_cost = MAX_CUT * height as f32;
    let radius = (height.max(line * height / area.height) / 12).max(1);
    let mut cuts: Vec<Vec<usize>> = Vec::new();
    let mut last = None;
    for x in radius..width.saturating_sub(radius) {
        let Seam { cost, columns } = seams[x];
        let mut around = seams[x - radius..=(x + radius).min(width - 1)].iter();
        let best = around.all(|other| *cost <= other.cost);
        if best && *cost <= max_cost && last.is_none_or(|last| x > last + radius) {
            last = Some(x);
            let column = |row: usize| {
                let column = columns[row * height / area.height];
                area.left + (2 * column + 1) * area.width / (2 * width)
            };
            cuts.push((0..area.height).map(column).collect());
        }
    }
    cuts
}

/// A path from the top to the bottom of ink.
struct Seam {
    /// The ink that it crosses, and additional costs of its slope and its shifts.
    cost: f32,
    /// Its column in each row.
    columns: Vec<usize>,
}

/// The cheapest seam near the line of this slope through each column's middle row.
fn seams(ink: &Ink, slope: f32) -> Vec<Seam> {
    let (width, height) = (ink.width(), ink.height());
    let shifts = shifts_to_slope(-slope, height);
    let upright = ink.with_shifted_rows(&shifts);
    let seam = |x: usize| {
        let Seam { cost, mut columns } = seam(&upright, x + shifts[height / 2]);
        for (column, shift) in columns.iter_mut().zip(&shifts) {
            *column = column.saturating_sub(*shift).min(width);
        }
        Seam { cost: cost + SLOPE_COST * slope.abs(), columns }
    };
    (0..width).map(seam).collect()
}

/// The cheapest seam near a column.
fn seam(ink: &Ink, column: usize) -> Seam {
    let (width, height) = (ink.width(), ink.height());
    let radius = height / 8;
    let (first, end) = (column.saturating_sub(radius), (column + radius + 1).min(width));
    let sideways = 0.1;
    let row = |y: usize| &ink.values()[y * width + first..y * width + end];
    let away = |i: usize| 0.2 * (first + i).abs_diff(column) as f32;
    let mut costs: Vec<f32> = row(0).iter().enumerate().map(|(i, v)| v + away(i)).collect();
    // For each row from the second one on, and each column, the column in the row before.
    let mut previous: Vec<usize> = Vec::with_capacity(height * costs.len());
    for y in 1..height {
        let from = |i: usize| {
            let cost = |j: usize| costs[j] + if i == j { 0.0 } else { sideways };
            let near = i.saturating_sub(1)..(i + 2).min(costs.len());
            near.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).map_or((i, 0.0), |j| (j, cost(j)))
        };
        let step = |(i, value): (usize, &f32)| {
            let (before, cost) = from(i);
            previous.push(before);
            value + away(i) + cost
        };
        costs = row(y).iter().enumerate().map(step).collect();
    }
    let best = |a: &usize, b: &usize| costs[*a].total_cmp(&costs[*b]);
    let mut at = (0..costs.len()).min_by(best).unwrap_or(0);
    let cost = costs[at];
    let mut columns = vec![first + at];
    for before in previous.rchunks(costs.len()) {
        at = before[at];
        columns.push(first + at);
    }
    columns.reverse();
    Seam { cost, columns }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cuts through two strokes of this slope that a bar joins, and how often a cut separates
    /// them in all rows above and below the bar.
    fn cuts_between_strokes(slope: f32) -> (usize, usize) {
        const SIDE: usize = 40;
        let shift = |y: usize| (slope * (20.0 - y as f32)).round() as isize;
        let is_stroke = |x: usize, y: usize, left: usize| {
            let x = (x as isize - shift(y)) as usize;
            (8..32).contains(&y) && (left..left + 3).contains(&x)
        };
        let is_bar = |x: usize, y: usize| (19..21).contains(&y) && (14..26).contains(&x);
        let is_ink = |x, y| is_stroke(x, y, 12) || is_stroke(x, y, 25) || is_bar(x, y);
        let value = |i: usize| if is_ink(i % SIDE, i / SIDE) { 1.0 } else { 0.0 };
        let ink = Ink::new(SIDE, (0..SIDE * SIDE).map(value).collect());
        let mask: Vec<bool> = ink.values().iter().map(|value| *value > 0.0).collect();
        let [component] = &components(&mask, SIDE)[..] else { panic!("the strokes are joined") };
        let found = cuts(component, 24, &ink);
        let between = |cut: &&Vec<usize>| {
            cut.iter().zip(component.area.top..).all(|(column, y)| {
                let (left, right) = (15 + shift(y), 25 + shift(y));
                (left..=right).contains(&(*column as isize))
            })
        };
        (found.len(), found.iter().filter(between).count())
    }

    #[test]
    fn cuts_run_along_the_slope() {
        for slope in [-0.25, 0.0, 0.25, 0.5] {
            let (cuts, between) = cuts_between_strokes(slope);
            assert!(between >= 1, "{slope}: none of {cuts} cuts");
        }
    }

    #[test]
    fn ink_along_the_border_is_cut_off() {
        let is_cut_off = |area: Area, others: &[Area]| {
            let mut labels = vec![0; 400];
            for y in area.top..area.bottom() {
                labels[20 * y + area.left..20 * y + area.right()].fill(1);
            }
            let areas = [&[area], others].concat();
            let (origins, lines, left_out) = (Vec::new(), Vec::new(), Vec::new());
            Pieces { labels, width: 20, areas, origins, lines, left_out }.are_cut_off(&[1], &area)
        };
        let area = |left, width| Area { left, top: 5, width, height: 10 };
        assert!(is_cut_off(area(0, 6), &[]));
        assert!(!is_cut_off(area(1, 6), &[]));
        // The tip of a stroke may touch the border.
        assert!(!is_cut_off(Area { left: 5, top: 0, width: 3, height: 12 }, &[]));
        // Writing that reaches all four borders is cropped tightly.
        assert!(!is_cut_off(area(0, 6), &[Area { left: 10, top: 0, width: 10, height: 20 }]));
    }
}
