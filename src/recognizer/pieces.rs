//! The pieces that digits are made of: connected ink, cut where digits may touch, in lines.

use crate::data::ink::{Area, Ink};

/// Ink above this, of 1, makes pieces.
const STRONG: f32 = 0.4;
/// Ink above this belongs to the piece that it touches.
const WEAK: f32 = 0.15;
/// Rows of the pictures in which components are cut.
const CUT_HEIGHT: usize = 32;
/// The most pieces of a picture; one that has more is no writing.
const MOST_PIECES: usize = 2000;

/// Where the ink is: of each pixel the number of its piece, from 1; 0 for paper.
pub struct Pieces {
    /// Row by row, as in [`Ink`].
    pub labels: Vec<u16>,
    /// Of piece 1, 2, ...
    pub areas: Vec<Area>,
    /// Pieces from left to right, line by line from above.
    pub lines: Vec<Line>,
}

/// A line of writing.
pub struct Line {
    /// Numbers of its pieces.
    pub pieces: Vec<u16>,
    /// Rows of most of its digits.
    pub height: usize,
}

/// Connected ink.
struct Component {
    area: Area,
    pixels: Vec<usize>,
}

impl Pieces {
    /// Of ink. None where there is too much of it in pieces too small.
    pub fn of(ink: &Ink) -> Option<Self> {
        let mut strong: Vec<bool> = ink.values().iter().map(|value| *value > STRONG).collect();
        erase_rules(&mut strong, ink.width());
        let mut components = components(&strong, ink.width());
        let tallest = components.iter().map(|component| component.area.height).max()?;
        let speck = (tallest / 12).max(2);
        components.retain(|Component { area, pixels }| {
            area.width.max(area.height) > speck && pixels.len() > speck * speck / 2
        });
        if components.len() > MOST_PIECES {
            return None;
        }
        let mut pieces = Self {
            labels: vec![0; strong.len()],
            areas: Vec::new(),
            lines: Vec::new(),
        };
        for indices in lines(&components) {
            let height = typical_height(indices.iter().map(|i| &components[*i]));
            let mut numbers = Vec::new();
            for index in indices {
                numbers.extend(pieces.add(&components[index], ink));
            }
            numbers.sort_by_key(|number| {
                let area = &pieces.areas[usize::from(*number) - 1];
                area.left + area.right()
            });
            pieces.lines.push(Line { pieces: numbers, height });
        }
        if pieces.areas.len() > MOST_PIECES {
            return None;
        }
        pieces.grow(ink);
        Some(pieces)
    }

    /// Adds a component, cut into pieces; returns their numbers.
    fn add(&mut self, component: &Component, ink: &Ink) -> std::ops::Range<u16> {
        let first = self.areas.len() as u16 + 1;
        let area = &component.area;
        let cuts = cuts(component, ink);
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
        first..self.areas.len() as u16 + 1
    }

    /// Gives weak ink to the piece that it touches, from the strong outwards.
    fn grow(&mut self, ink: &Ink) {
        let width = ink.width();
        let mut front: Vec<usize> = (0..self.labels.len()).filter(|i| self.labels[*i] > 0).collect();
        while !front.is_empty() {
            let mut next = Vec::new();
            for pixel in front {
                let label = self.labels[pixel];
                for neighbour in neighbours(pixel, width, self.labels.len()) {
                    let value = ink.values()[neighbour];
                    // Outwards it fades.
                    if self.labels[neighbour] == 0
                        && value > WEAK
                        && value <= ink.values()[pixel] + 0.02
                    {
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

/// The up to eight pixels around one.
fn neighbours(pixel: usize, width: usize, pixels: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (pixel % width, pixel / width);
    let rows = y.saturating_sub(1)..(y + 2).min(pixels / width);
    let columns = move || x.saturating_sub(1)..(x + 2).min(width);
    rows.flat_map(move |y| columns().map(move |x| y * width + x)).filter(move |i| *i != pixel)
}

/// Connected parts of a mask, diagonals too.
fn components(mask: &[bool], width: usize) -> Vec<Component> {
    let mut seen = vec![false; mask.len()];
    let mut components = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || seen[start] {
            continue;
        }
        let mut pixels = vec![start];
        seen[start] = true;
        let (mut columns, mut rows) = ([usize::MAX, 0], [usize::MAX, 0]);
        let mut done = 0;
        while done < pixels.len() {
            let pixel = pixels[done];
            done += 1;
            let (x, y) = (pixel % width, pixel / width);
            columns = [columns[0].min(x), columns[1].max(x)];
            rows = [rows[0].min(y), rows[1].max(y)];
            for neighbour in neighbours(pixel, width, mask.len()) {
                if mask[neighbour] && !seen[neighbour] {
                    seen[neighbour] = true;
                    pixels.push(neighbour);
                }
            }
        }
        components.push(Component { area: Area::spanning(columns, rows), pixels });
    }
    components
}

/// Erases the rules of paper: thin lines from edge to edge, across or down, but where writing crosses them.
fn erase_rules(mask: &mut [bool], width: usize) {
    let height = mask.len() / width;
    let (shortest, thickest) = (width / 4, (height / 30).max(2));
    let across = rules(mask, width, shortest, thickest);
    let at = |i: usize| i % height * width + i / height;
    let turned: Vec<bool> = (0..mask.len()).map(|i| mask[at(i)]).collect();
    let down = rules(&turned, height, height / 4, (width / 30).max(2));
    for pixel in across.into_iter().chain(down.into_iter().map(at)) {
        mask[pixel] = false;
    }
}

/// The pixels of lines that go across nine tenths of a mask, made of runs not `shortest` alone.
fn rules(mask: &[bool], width: usize, shortest: usize, thickest: usize) -> Vec<usize> {
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
    let is_rule = |Component { area, pixels }: &Component| {
        area.width * 10 >= width * 9 && pixels.len() <= area.width * thickest
    };
    let mut erased = Vec::new();
    for rule in components(&long, width).iter().filter(|component| is_rule(component)) {
        let thickness = rule.pixels.len().div_ceil(rule.area.width);
        // Of a column that ink crosses nothing is erased.
        let reaches = |pixel: usize, step: usize, back: bool| {
            let mut at = pixel;
            for _ in 0..=thickness {
                let next = if back { at.checked_sub(step) } else { Some(at + step) };
                match next.filter(|next| mask.get(*next) == Some(&true)) {
                    Some(next) => at = next,
                    None => return false,
                }
            }
            true
        };
        erased.extend(rule.pixels.iter().copied().filter(|pixel| {
            !reaches(*pixel, width, true) && !reaches(*pixel, width, false)
        }));
    }
    erased
}

/// Components by line, from above; in each as they come.
fn lines(components: &[Component]) -> Vec<Vec<usize>> {
    let height = typical_height(components.iter());
    let (mut tall, small): (Vec<_>, Vec<_>) =
        (0..components.len()).partition(|i| 2 * components[*i].area.height >= height);
    tall.sort_by_key(|i| components[*i].area.top + components[*i].area.bottom());
    let mut lines: Vec<(Vec<usize>, Vec<Area>)> = Vec::new();
    for i in tall {
        let area = components[i].area;
        // With the nearest neighbour that shares half of the lower one's rows.
        let shares = |other: &Area| {
            let rows = area.bottom().min(other.bottom()).saturating_sub(area.top.max(other.top));
            2 * rows >= area.height.min(other.height)
        };
        let distance = |other: &Area| {
            area.left.max(other.left).saturating_sub(area.right().min(other.right()))
        };
        let nearest = |areas: &[Area]| {
            areas.iter().filter(|other| shares(other)).map(distance).min()
        };
        let line = (0..lines.len()).filter_map(|l| Some((nearest(&lines[l].1)?, l))).min();
        match line {
            Some((_, line)) => {
                lines[line].0.push(i);
                lines[line].1.push(area);
            }
            None => lines.push((vec![i], vec![area])),
        }
    }
    for i in small {
        let area = components[i].area;
        let distance = |other: &Area| {
            let gap = |a: [usize; 2], b: [usize; 2]| a[0].max(b[0]).saturating_sub(a[1].min(b[1]));
            let across = gap([area.left, area.right()], [other.left, other.right()]);
            let down = gap([area.top, area.bottom()], [other.top, other.bottom()]);
            across * across + down * down
        };
        let nearest = |line: &(Vec<usize>, Vec<Area>)| line.1.iter().map(distance).min();
        if let Some(line) = lines.iter_mut().min_by_key(|line| nearest(line)) {
            line.0.push(i);
        }
    }
    lines.sort_by_key(|(_, areas)| {
        areas.iter().map(|area| area.top + area.bottom()).sum::<usize>() / areas.len()
    });
    lines.into_iter().map(|(line, _)| line).collect()
}

/// The height of components, each counting as much as it is high: specks do not.
fn typical_height<'a>(components: impl Iterator<Item = &'a Component>) -> usize {
    let mut heights: Vec<usize> = components.map(|component| component.area.height).collect();
    heights.sort_unstable();
    let half = heights.iter().sum::<usize>().div_ceil(2);
    let mut sum = 0;
    let reached = |height: &&usize| {
        sum += **height;
        sum >= half
    };
    heights.iter().find(reached).copied().unwrap_or(0)
}

/// Where a component may be cut, from left to right: of each of its rows the first column to the right of the
/// cut. Cuts go down where they meet the least ink, a little to the left or right where that helps.
fn cuts(component: &Component, ink: &Ink) -> Vec<Vec<usize>> {
    let area = &component.area;
    // Narrower ones are one digit.
    if 5 * area.width < 2 * area.height || area.height < 8 {
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
    let seams: Vec<(f32, Vec<usize>)> = (0..width).map(|x| seam(&small, x)).collect();
    let most = 0.4 * height as f32;
    let radius = (height / 8).max(1);
    let mut cuts: Vec<Vec<usize>> = Vec::new();
    let mut last = None;
    for x in radius..width.saturating_sub(radius) {
        let cost = seams[x].0;
        let around = &seams[x - radius..=(x + radius).min(width - 1)];
        let best = around.iter().all(|(other, _)| cost <= *other);
        if best && cost <= most && last.is_none_or(|last| x > last + radius) {
            last = Some(x);
            let column = |row: usize| {
                let at = seams[x].1[row * height / area.height];
                area.left + (2 * at + 1) * area.width / (2 * width)
            };
            cuts.push((0..area.height).map(column).collect());
        }
    }
    cuts
}

/// The path from top to bottom that meets the least ink, around this column: the ink, and the columns.
fn seam(ink: &Ink, column: usize) -> (f32, Vec<usize>) {
    let (width, height) = (ink.width(), ink.height());
    let radius = height / 6;
    let (first, end) = (column.saturating_sub(radius), (column + radius + 1).min(width));
    let sideways = 0.1;
    let row = |y: usize| &ink.values()[y * width + first..y * width + end];
    let away = |i: usize| 0.01 * (first + i).abs_diff(column) as f32;
    let mut costs: Vec<f32> = row(0).iter().enumerate().map(|(i, v)| v + away(i)).collect();
    let mut came = Vec::with_capacity(height);
    for y in 1..height {
        let from = |i: usize| {
            let cost = |j: usize| costs[j] + if i == j { 0.0 } else { sideways };
            let near = i.saturating_sub(1)..(i + 2).min(costs.len());
            near.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).map_or((i, 0.0), |j| (j, cost(j)))
        };
        let steps: Vec<(usize, f32)> = (0..costs.len()).map(from).collect();
        costs = row(y).iter().enumerate().map(|(i, v)| v + away(i) + steps[i].1).collect();
        came.push(steps);
    }
    let best = |a: &usize, b: &usize| costs[*a].total_cmp(&costs[*b]);
    let mut at = (0..costs.len()).min_by(best).unwrap_or(0);
    let cost = costs[at];
    let mut path = vec![first + at];
    for steps in came.iter().rev() {
        at = steps[at].0;
        path.push(first + at);
    }
    path.reverse();
    (cost, path)
}
