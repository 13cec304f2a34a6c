//! Separates ink from paper, in any colours and in uneven light.
//!
//! Ink differs from the paper around it, in narrow strokes. The differences of all ink have about
//! the same direction in colour space. Along that direction the values of the paper are estimated
//! by removing everything narrower than a third of the picture, so that shadows, which are wider,
//! count as paper. This is a morphological opening by reconstruction, which keeps the edges of
//! shadows where they are (Vincent 1993). The darkness of ink is measured relative to the light
//! that the paper there reflects.

use super::digit::{PIXELS, SIDE};
use super::picture::{Picture, Pixels};

/// The longest side of the reduced picture in which the direction of the ink's colour is estimated.
const MAX_SIDE_FOR_COLOURS: usize = 128;
/// The smallest difference from the paper, on a scale from 0 to 1, that counts as ink.
const MIN_CONTRAST: f32 = 0.06;
/// The smallest part of a rectangle that a sheet of paper covers, with digits on it. Broad digits
/// with small holes cover less.
const MIN_SHEET: f32 = 0.9;

/// A map of ink, row by row: 0 for paper to 1 for the strongest ink.
#[derive(Clone, Debug)]
pub struct Ink {
    width: usize,
    values: Vec<f32>,
}

/// A rectangle in a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The index of its first column.
    pub left: usize,
    /// The index of its first row.
    pub top: usize,
    /// The number of its columns.
    pub width: usize,
    /// The number of its rows.
    pub height: usize,
}

impl Area {
    /// Creates an area from its first and last columns and its first and last rows.
    pub fn spanning(columns: [usize; 2], rows: [usize; 2]) -> Self {
        let [[left, right], [top, bottom]] = [columns, rows];
        Self { left, top, width: right + 1 - left, height: bottom + 1 - top }
    }

    /// Returns the first column to the right of the area.
    pub fn right(&self) -> usize {
        self.left + self.width
    }

    /// Returns the first row below the area.
    pub fn bottom(&self) -> usize {
        self.top + self.height
    }

    /// Returns the smallest area that contains both.
    pub fn with(&self, other: &Self) -> Self {
        let (left, top) = (self.left.min(other.left), self.top.min(other.top));
        let width = self.right().max(other.right()) - left;
        Self { left, top, width, height: self.bottom().max(other.bottom()) - top }
    }
}

impl Ink {
    /// Creates a map from values, row by row.
    ///
    /// # Panics
    /// If the values do not make whole rows.
    pub fn new(width: usize, values: Vec<f32>) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width));
        Self { width, values }
    }

    /// Creates a map from grey values, 0 for paper to 255 for ink.
    pub fn of_pixels(pixels: &[u8; PIXELS]) -> Self {
        Self::new(SIDE, pixels.iter().map(|grey| f32::from(*grey) / 255.0).collect())
    }

    /// Finds the ink in a picture. The picture is first reduced to at most `longest` pixels on a
    /// side. Returns the ink and the reduction factor: the width of one pixel of ink in pixels of
    /// the picture. Returns `None` if no ink is found.
    pub fn of(picture: &Picture, longest: u32) -> Option<(Self, u32)> {
        let step = picture.width().max(picture.height()).div_ceil(longest);
        let (colours, alpha) = Colours::of(picture, step);
        let mut best: Option<(Self, [f32; 3])> = None;
        for direction in colours.direction().into_iter().flat_map(|d| [d, d.map(|d| -d)]) {
            let [mut ink, values, paper] = colours.ink(direction);
            let Some(level) = ink.normalise() else { continue };
            let contrast = ink.contrast(&values, &paper);
            let stroke = ink.stroke();
            // The opposite direction is better only in two cases: its ink has much more contrast
            // and does not lie within the first ink; or its strokes are much finer and the first
            // ink is a sheet of paper on which they lie.
            let better =
                |(first, [first_level, first_contrast, first_stroke]): &(Self, [f32; 3])| {
                    let stronger = level > 1.5 * first_level && contrast > 1.2 * first_contrast;
                    let finer = 3.0 * stroke < *first_stroke && contrast > 0.6 * first_contrast;
                    let within = ink.is_within(first);
                    stronger && !within || finer && within && first.is_sheet()
                };
            if best.as_ref().is_none_or(better) {
                best = Some((ink, [level, contrast, stroke]));
            }
        }
        if let Some((ink, _)) = best {
            return Some((ink, step));
        }
        // Ink in the colour of the paper on a transparent background only shows in the alpha
        // channel.
        let mut ink = alpha;
        ink.normalise().map(|_| (ink, step))
    }

    /// Returns the brightness of a picture as ink: of a dark one on a bright border, how dark each
    /// pixel is, otherwise how bright. What is drawn on a transparent border counts as ink wholly.
    /// Larger pictures are reduced to at most `longest` pixels on a side.
    #[cfg(feature = "data-sets")]
    pub fn of_brightness(picture: &Picture, longest: u32) -> Self {
        let step = picture.width().max(picture.height()).div_ceil(longest);
        let (colours, alpha) = Colours::of(picture, step);
        if alpha.border_mean() < 0.5 {
            return alpha;
        }
        let brightness = |[r, g, b]: &[f32; 3]| 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let ink = Self::new(colours.width, colours.pixels.iter().map(brightness).collect());
        let is_bright = ink.border_mean() > 0.5;
        ink.map(|value| if is_bright { 1.0 - value } else { value }.clamp(0.0, 1.0))
    }

    /// The mean of the first and last rows and columns.
    #[cfg(feature = "data-sets")]
    fn border_mean(&self) -> f32 {
        let last = self.height() - 1;
        let rows = self.values.chunks_exact(self.width).enumerate();
        let border = rows.flat_map(|(y, row)| match y == 0 || y == last {
            true => row.to_vec(),
            false => vec![row[0], row[self.width - 1]],
        });
        let (sum, count) =
            border.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        sum / count
    }

    /// The mean difference between the values of the ink and the paper.
    fn contrast(&self, values: &Self, paper: &Self) -> f32 {
        let (mut sum, mut count) = (0.0, f32::MIN_POSITIVE);
        let pairs = values.values.iter().zip(&paper.values);
        for ((value, paper), _) in pairs.zip(&self.values).filter(|(_, ink)| **ink > 0.5) {
            sum += value - paper;
            count += 1.0;
        }
        sum / count
    }

    /// Whether the ink covers an eighth of the picture, and about all of a rectangle.
    fn is_sheet(&self) -> bool {
        let step = (self.values.len() as f32 / 20_000.0).sqrt().ceil().max(1.0) as usize;
        let mut points = Vec::new();
        for (y, row) in self.values.chunks_exact(self.width).enumerate().step_by(step) {
            let inside = row.iter().enumerate().step_by(step).filter(|(_, value)| **value > 0.5);
            points.extend(inside.map(|(x, _)| (x as f32, y as f32)));
        }
        let area = points.len() * step * step;
        8 * area > self.values.len() && area as f32 > MIN_SHEET * smallest_rectangle(&points)
    }

    /// The approximate width of the strokes in pixels: twice the area, divided by the length of the
    /// border.
    fn stroke(&self) -> f32 {
        let is_ink = |x: usize, y: usize| self.values[y * self.width + x] > 0.5;
        let (mut area, mut border) = (0.0, 1.0);
        for y in 1..self.height().saturating_sub(1) {
            for x in (1..self.width.saturating_sub(1)).filter(|x| is_ink(*x, y)) {
                area += 1.0;
                let around =
                    [is_ink(x - 1, y), is_ink(x + 1, y), is_ink(x, y - 1), is_ink(x, y + 1)];
                border += if around.contains(&false) { 1.0 } else { 0.0 };
            }
        }
        2.0 * area / border
    }

    /// Whether most of the ink lies within the extent of the other ink, estimated from their means
    /// and standard deviations.
    fn is_within(&self, other: &Self) -> bool {
        let mut spreads = self.spreads().into_iter().zip(other.spreads());
        spreads.all(|((a, own), (b, others))| (a - b).abs() + own <= 1.1 * others)
    }

    /// The mean and standard deviation of the columns of ink, then those of the rows.
    fn spreads(&self) -> [(f32, f32); 2] {
        let (mut sums, mut squares, mut count) = ([0.0; 2], [0.0; 2], f64::MIN_POSITIVE);
        for (y, row) in self.values.chunks_exact(self.width).enumerate() {
            for (x, _) in row.iter().enumerate().filter(|(_, value)| **value > 0.5) {
                for (i, position) in [x as f64, y as f64].into_iter().enumerate() {
                    sums[i] += position;
                    squares[i] += position * position;
                }
                count += 1.0;
            }
        }
        [0, 1].map(|i| {
            let mean = sums[i] / count;
            (mean as f32, (squares[i] / count - mean * mean).max(0.0).sqrt() as f32)
        })
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of rows.
    pub fn height(&self) -> usize {
        self.values.len() / self.width
    }

    /// Returns the values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Applies a function to all values.
    pub fn map(&self, change: impl Fn(f32) -> f32) -> Self {
        Self { width: self.width, values: self.values.iter().copied().map(change).collect() }
    }

    /// Returns the smallest area that contains all values above `threshold`; `None` if there are
    /// none.
    pub fn area(&self, threshold: f32) -> Option<Area> {
        let mut area: Option<([usize; 2], [usize; 2])> = None;
        for (y, row) in self.values.chunks_exact(self.width).enumerate() {
            let Some(first) = row.iter().position(|value| *value > threshold) else { continue };
            let last = row.iter().rposition(|value| *value > threshold).unwrap_or(first);
            area = Some(match area {
                None => ([first, last], [y, y]),
                Some(([left, right], [top, _])) => ([left.min(first), right.max(last)], [top, y]),
            });
        }
        area.map(|(columns, rows)| Area::spanning(columns, rows))
    }

    /// Returns the ink in an area.
    pub fn cropped(&self, area: &Area) -> Self {
        let rows = self.values.chunks_exact(self.width).skip(area.top).take(area.height);
        let values = rows.flat_map(|row| &row[area.left..area.right()]).copied().collect();
        Self { width: area.width, values }
    }

    /// Returns the column and row of the centre of mass, counted from the centre of the first
    /// pixel.
    pub fn centre(&self) -> (f32, f32) {
        let (mut x, mut y, mut mass) = (0.0, 0.0, f32::MIN_POSITIVE);
        for (row, values) in self.values.chunks_exact(self.width).enumerate() {
            for (column, value) in values.iter().enumerate() {
                x += value * column as f32;
                y += value * row as f32;
                mass += value;
            }
        }
        (x / mass, y / mass)
    }

    /// Moves each row to the right by its shift in columns; the width grows by the largest shift.
    pub fn with_shifted_rows(&self, shifts: &[usize]) -> Self {
        let width = self.width + shifts.iter().max().unwrap_or(&0);
        let mut values = vec![0.0; width * self.height()];
        let rows = self.values.chunks_exact(self.width).zip(values.chunks_exact_mut(width));
        for ((row, to), shift) in rows.zip(shifts) {
            to[*shift..shift + self.width].copy_from_slice(row);
        }
        Self::new(width, values)
    }

    /// Scales the ink. When it gets smaller, each value is the mean over the values that it covers;
    /// when it gets larger, values are interpolated linearly.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        let across = Taps::of(self.width, width);
        let down = Taps::of(self.height(), height);
        let mut rows = Vec::with_capacity(self.height() * width);
        for row in self.values.chunks_exact(self.width) {
            rows.extend(across.0.iter().map(|(first, weights)| {
                weights.iter().zip(&row[*first..]).map(|(w, value)| w * value).sum::<f32>()
            }));
        }
        let mut values = vec![0.0; width * height];
        for (to, (first, weights)) in values.chunks_exact_mut(width).zip(&down.0) {
            for (w, row) in weights.iter().zip(rows.chunks_exact(width).skip(*first)) {
                for (to, value) in to.iter_mut().zip(row) {
                    *to += w * value;
                }
            }
        }
        Self { width, values }
    }

    /// Scales the values so that paper is 0 and ink is 1. Returns the original level of the ink
    /// relative to the paper; `None` if there is nothing but paper.
    fn normalise(&mut self) -> Option<f32> {
        // A sample of the pixels is enough to estimate the paper.
        let stride = (self.values.len() / 20_000).max(1) | 1;
        let mut sorted: Vec<f32> = self.values.iter().step_by(stride).copied().collect();
        let paper = quantile(&mut sorted, 0.5);
        sorted.iter_mut().for_each(|value| *value = (*value - paper).abs());
        let deviation = 1.4826 * quantile(&mut sorted, 0.5);
        let above = |threshold: f32| -> Vec<f32> {
            let more = self.values.iter().map(|value| value - paper);
            more.filter(|value| *value > threshold).collect()
        };
        let least = MIN_CONTRAST.max(5.0 * deviation);
        // The level of ink is taken from the strongest values, as large parts of the paper may be
        // darker than the rest.
        let first = quantile(&mut above(least), 0.995);
        let level = quantile(&mut above(least.max(0.5 * first)), 0.6);
        if level < least {
            return None;
        }
        let noise = (4.0 * deviation).min(0.5 * level);
        for value in &mut self.values {
            *value -= paper;
            *value = if *value < noise { 0.0 } else { min(*value / level, 1.0) };
        }
        Some(level)
    }
}

/// The area of the smallest rectangle, in any direction, that contains about all points.
fn smallest_rectangle(points: &[(f32, f32)]) -> f32 {
    let side = |degrees: f32| {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let mut along: Vec<f32> = points.iter().map(|(x, y)| x * cos + y * sin).collect();
        quantile(&mut along, 0.99) - quantile(&mut along, 0.01)
    };
    let areas = (0..18).map(|i| 5.0 * i as f32).map(|angle| side(angle) * side(angle + 90.0));
    areas.fold(f32::INFINITY, f32::min)
}

/// For each scaled value, the index of the first original value that it depends on, and the weights
/// from that index on.
struct Taps(Vec<(usize, Vec<f32>)>);

impl Taps {
    fn of(from: usize, to: usize) -> Self {
        let step = from as f32 / to as f32;
        let reach = step.max(1.0);
        Self(
            (0..to)
                .map(|i| {
                    let middle = (i as f32 + 0.5) * step;
                    // The weights form a box as wide as the new value when scaling down, and a
                    // triangle when scaling up.
                    let weight = |index: usize| {
                        let left_edge = index as f32;
                        if step > 1.0 {
                            let (left, right) = (middle - step / 2.0, middle + step / 2.0);
                            ((left_edge + 1.0).min(right) - left_edge.max(left)).max(0.0)
                        } else {
                            (1.0 - (left_edge + 0.5 - middle).abs()).max(0.0)
                        }
                    };
                    let first = (middle - reach).floor().max(0.0) as usize;
                    let last = ((middle + reach).ceil() as usize).min(from);
                    let mut weights: Vec<f32> = (first..last).map(weight).collect();
                    let sum: f32 = weights.iter().sum();
                    weights.iter_mut().for_each(|weight| *weight /= sum);
                    (first, weights)
                })
                .collect(),
        )
    }
}

/// The larger number. Other than `f32::max` it is one instruction on all processors, also in
/// WebAssembly, as neither number is NaN.
fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller number, with one instruction as in [`max`].
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The quantile of the values for `part`, 0 to 1; 0 if there are no values.
fn quantile(values: &mut [f32], part: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let index = ((values.len() - 1) as f32 * part) as usize;
    *values.select_nth_unstable_by(index, f32::total_cmp).1
}

/// A picture whose colour channels range from 0 to 1.
struct Colours {
    width: usize,
    pixels: Vec<[f32; 3]>,
}

/// The sums of red, green, blue and alpha over blocks of `step` x `step` pixels.
struct BlockSums {
    sums: Vec<[f32; 4]>,
    /// The number of blocks in a row.
    columns: usize,
    /// The number of pixels in a row.
    width: usize,
    step: usize,
}

impl BlockSums {
    /// Adds all pixels, which consist of N values each, row by row. `convert` converts a pixel to
    /// red, green, blue and alpha.
    fn add<T: Copy, const N: usize>(&mut self, values: &[T], convert: impl Fn([T; N]) -> [f32; 4]) {
        let pixels = values.as_chunks().0;
        for (y, row) in pixels.chunks_exact(self.width).enumerate() {
            let sums = &mut self.sums[y / self.step * self.columns..];
            for (sum, block) in sums.iter_mut().zip(row.chunks(self.step)) {
                for pixel in block {
                    let values = convert(*pixel);
                    *sum = [0, 1, 2, 3].map(|i| sum[i] + values[i]);
                }
            }
        }
    }
}

impl Colours {
    /// Draws a picture on white and averages blocks of `step` x `step` pixels. Also returns the
    /// mean opacity of the blocks.
    fn of(picture: &Picture, step: u32) -> (Self, Ink) {
        let (width, height) = (picture.width(), picture.height());
        let (columns, rows) = (width.div_ceil(step), height.div_ceil(step));
        let mut sums = BlockSums {
            sums: vec![[0.0; 4]; (columns * rows) as usize],
            columns: columns as usize,
            width: width as usize,
            step: step as usize,
        };
        let bytes: [f32; 256] = std::array::from_fn(|value| value as f32 / 255.0);
        let byte = |value: u8| bytes[usize::from(value)];
        let word = |value: u16| f32::from(value) / 65535.0;
        let opaque = |[r, g, b]: [f32; 3]| [r, g, b, 1.0];
        let on_white = |colour: [f32; 3], alpha: f32| {
            let [r, g, b] = colour.map(|channel| 1.0 - alpha + alpha * channel.clamp(0.0, 1.0));
            [r, g, b, alpha]
        };
        match &picture.pixels {
            Pixels::Grey8(grey) => sums.add(grey, |[grey]| opaque([byte(grey); 3])),
            Pixels::Grey16(grey) => sums.add(grey, |[grey]| opaque([word(grey); 3])),
            Pixels::Rgb8(colours) => sums.add(colours, |pixel| opaque(pixel.map(byte))),
            Pixels::Rgb16(colours) => sums.add(colours, |pixel| opaque(pixel.map(word))),
            Pixels::GreyAlpha8(grey) => {
                sums.add(grey, |[grey, alpha]| on_white([byte(grey); 3], byte(alpha)));
            }
            Pixels::Rgba8(colours) => {
                sums.add(colours, |[r, g, b, alpha]| on_white([r, g, b].map(byte), byte(alpha)));
            }
            Pixels::Rgba16(colours) => {
                sums.add(colours, |[r, g, b, alpha]| on_white([r, g, b].map(word), word(alpha)));
            }
            Pixels::RgbaF32(colours) => {
                sums.add(colours, |[r, g, b, alpha]| on_white([r, g, b], alpha.clamp(0.0, 1.0)));
            }
        }
        let side = |i: u32, length: u32| (length - i * step).min(step) as f32;
        let mut pixels = Vec::with_capacity(sums.sums.len());
        let mut alpha = Vec::with_capacity(sums.sums.len());
        for (y, row) in (0..).zip(sums.sums.chunks_exact(sums.columns)) {
            for (x, sum) in (0..).zip(row) {
                let [r, g, b, a] = sum.map(|sum| sum / (side(x, width) * side(y, height)));
                pixels.push([r, g, b]);
                alpha.push(a);
            }
        }
        (Self { width: columns as usize, pixels }, Ink::new(columns as usize, alpha))
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width
    }

    /// The ink in each pixel for a direction in colour space from paper to ink, as a fraction of the
    /// largest possible difference from the paper. Also returns the values of the picture and of
    /// the paper along this direction.
    fn ink(&self, direction: [f32; 3]) -> [Ink; 3] {
        let along = |pixel: &[f32; 3]| -> f32 {
            pixel.iter().zip(direction).map(|(channel, d)| channel * d).sum()
        };
        let most: f32 = direction.iter().map(|d| d.max(0.0)).sum();
        let values = Ink::new(self.width, self.pixels.iter().map(along).collect());
        let paper = values.opened();
        let pairs = values.values.iter().zip(&paper.values);
        // If the paper is about as bright or dark as ink can be, hardly any difference is possible.
        let parts = pairs.map(|(value, paper)| (value - paper) / max(most - paper, 0.3));
        [Ink::new(self.width, parts.collect()), values, paper]
    }

    /// The direction in colour space, of length 1, in which narrow parts differ from their
    /// surroundings. It is the mean difference from the local mean. Large differences count more,
    /// as there is less ink than paper.
    fn direction(&self) -> Option<[f32; 3]> {
        let (width, height) = (self.width, self.height());
        let step = width.max(height).div_ceil(MAX_SIDE_FOR_COLOURS);
        let (columns, rows) = (width.div_ceil(step), height.div_ceil(step));
        let channel = |c: usize| {
            let values = self.pixels.iter().map(|pixel| pixel[c]).collect();
            Ink::new(width, values).resized(columns, rows)
        };
        let channels = [channel(0), channel(1), channel(2)];
        let radius = (columns.min(rows) / 6).max(1);
        let means = [0, 1, 2].map(|c| channels[c].blurred(radius));
        let mut sum = [0.0_f32; 3];
        for i in 0..columns * rows {
            let d = [0, 1, 2].map(|c| channels[c].values[i] - means[c].values[i]);
            let square: f32 = d.iter().map(|d| d * d).sum();
            for (sum, d) in sum.iter_mut().zip(d) {
                *sum += square * d;
            }
        }
        let length = sum.iter().map(|sum| sum * sum).sum::<f32>().sqrt();
        (length > 1e-9).then(|| sum.map(|sum| sum / length))
    }
}

impl Ink {
    /// The mean over squares of 2 x `radius` + 1 pixels, which are cut off at the border.
    fn blurred(&self, radius: usize) -> Self {
        let rows = |image: &Self| {
            let mut values = Vec::with_capacity(image.values.len());
            let mut sums = Vec::with_capacity(image.width + 1);
            for row in image.values.chunks_exact(image.width) {
                sums.clear();
                sums.push(0.0_f64);
                sums.extend(row.iter().scan(0.0, |sum, value| {
                    *sum += f64::from(*value);
                    Some(*sum)
                }));
                values.extend((0..image.width).map(|x| {
                    let (first, end) = (x.saturating_sub(radius), (x + radius + 1).min(row.len()));
                    ((sums[end] - sums[first]) / (end - first) as f64) as f32
                }));
            }
            Self { width: image.width, values }
        };
        rows(&rows(self).transposed()).transposed()
    }

    /// Removes everything narrower than a third of the picture.
    fn opened(&self) -> Self {
        let (width, height) = (self.width, self.height());
        let step = (width.min(height) / 48).max(width.max(height) / 256).max(1);
        // The opening runs on a coarse grid that holds the smallest value of each cell. So its
        // result never exceeds the picture.
        let columns = width.div_ceil(step);
        let mut least = vec![f32::INFINITY; columns * height.div_ceil(step)];
        for (y, row) in self.values.chunks_exact(width).enumerate() {
            let cells = &mut least[y / step * columns..][..columns];
            for (cell, values) in cells.iter_mut().zip(row.chunks(step)) {
                *cell = values.iter().copied().fold(*cell, min);
            }
        }
        let coarse = Self { width: columns, values: least };
        let radius = (columns.min(coarse.height()) / 6).max(1);
        let opened = coarse.extremes(radius, min).extremes(radius, max);
        let mut markers = vec![0.0; self.values.len()];
        for (y, row) in markers.chunks_exact_mut(width).enumerate() {
            let cells = &opened.values[y / step * columns..][..columns];
            for (markers, cell) in row.chunks_mut(step).zip(cells) {
                markers.fill(*cell);
            }
        }
        // Values along the border are paper, too, if they extend farther than a stroke that the
        // border cuts off.
        let ring = ring(width, height);
        let along: Vec<f32> = ring.iter().map(|i| self.values[*i]).collect();
        let radius = width.min(height) / 4;
        for (i, value) in ring.iter().zip(opened_around(&along, radius)) {
            markers[*i] = markers[*i].max(value);
        }
        Self { width, values: markers }.reconstructed(self)
    }

    /// Reconstructs the map under another one. The new value of a pixel is the largest value that
    /// can be carried there along a path on which the other map is nowhere smaller. Paths with many
    /// turns back are not found.
    fn reconstructed(mut self, under: &Self) -> Self {
        const PASSES: usize = 3;
        let (width, height) = (self.width, self.height());
        let under = |y: usize| &under.values[y * width..(y + 1) * width];
        let mut carried = Carried::new(width);
        // Whether each row has changed since it was last carried down, or up.
        let [mut down, mut up] = [vec![true; height], vec![true; height]];
        for _ in 0..PASSES {
            for y in 1..height {
                let (before, to) = self.values.split_at_mut(y * width);
                if std::mem::take(&mut down[y - 1])
                    && carried.carry(&before[(y - 1) * width..], &mut to[..width], under(y))
                {
                    (down[y], up[y]) = (true, true);
                }
            }
            for y in (0..height - 1).rev() {
                let (to, after) = self.values.split_at_mut((y + 1) * width);
                if std::mem::take(&mut up[y + 1])
                    && carried.carry(&after[..width], &mut to[y * width..], under(y))
                {
                    (down[y], up[y]) = (true, true);
                }
            }
        }
        self
    }

    /// The smallest or the largest value in squares of 2 x `radius` + 1 pixels, which are cut off
    /// at the border.
    fn extremes(&self, radius: usize, pick: impl Fn(f32, f32) -> f32 + Copy) -> Self {
        let rows = |image: &Self| {
            let mut values = Vec::with_capacity(image.values.len());
            for row in image.values.chunks_exact(image.width) {
                // Copies of the outer values do not change the extremes.
                let mut padded = vec![row[0]; radius];
                padded.extend(row);
                padded.resize(row.len() + 2 * radius, row[row.len() - 1]);
                values.extend(extremes_of_windows(padded, 2 * radius + 1, pick));
            }
            Self { width: image.width, values }
        };
        rows(&rows(self).transposed()).transposed()
    }

    fn transposed(&self) -> Self {
        let height = self.height();
        let mut values = vec![0.0; self.values.len()];
        for (y, row) in self.values.chunks_exact(self.width).enumerate() {
            for (x, value) in row.iter().enumerate() {
                values[x * height + y] = *value;
            }
        }
        Self { width: height, values }
    }
}

/// The indices of the pixels at the border of a picture, all around.
fn ring(width: usize, height: usize) -> Vec<usize> {
    let right = (1..height).map(|y| y * width + width - 1);
    let below = (0..width - 1).rev().map(|x| (height - 1) * width + x);
    let left = (1..height - 1).rev().map(|y| y * width);
    (0..width).chain(right).chain(below).chain(left).filter(|i| *i < width * height).collect()
}

/// Removes from values around a ring everything that is shorter than 2 x `radius` + 1.
fn opened_around(values: &[f32], radius: usize) -> Vec<f32> {
    let radius = radius.min(values.len() / 2);
    let around = |values: &[f32]| -> Vec<f32> {
        let (first, last) = (&values[..radius], &values[values.len() - radius..]);
        [last, values, first].concat()
    };
    let least = extremes_of_windows(around(values), 2 * radius + 1, min);
    extremes_of_windows(around(&least), 2 * radius + 1, max)
}

/// The smallest or the largest of each `length` successive values.
fn extremes_of_windows(
    mut values: Vec<f32>,
    length: usize,
    pick: impl Fn(f32, f32) -> f32,
) -> Vec<f32> {
    // Each step joins two windows, which may overlap.
    let mut joined = 1;
    while joined < length {
        let step = joined.min(length - joined);
        let count = values.len() - step;
        for i in 0..count {
            values[i] = pick(values[i], values[i + step]);
        }
        values.truncate(count);
        joined += step;
    }
    values
}

/// The values that a reconstruction carries along a row, in both directions.
struct Carried {
    right: Vec<f32>,
    left: Vec<f32>,
}

impl Carried {
    fn new(width: usize) -> Self {
        Self { right: vec![0.0; width], left: vec![0.0; width] }
    }

    /// Carries values from one row to the next one, and then along that row in both directions.
    /// Returns whether the row changes.
    fn carry(&mut self, from: &[f32], to: &mut [f32], under: &[f32]) -> bool {
        let start = |((to, from), under): ((&f32, &f32), &f32)| max(*to, min(*from, *under));
        let pixels = to.iter().zip(from).zip(under);
        let rightwards = pixels.clone().zip(&mut self.right);
        let leftwards = pixels.zip(&mut self.left).rev();
        let mut last = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for ((a, right), (b, left)) in rightwards.zip(leftwards) {
            last = (max(start(a), min(last.0, *a.1)), max(start(b), min(last.1, *b.1)));
            (*right, *left) = last;
        }
        let mut changes = false;
        for ((to, right), left) in to.iter_mut().zip(&self.right).zip(&self.left) {
            let value = max(*right, *left);
            changes |= value != *to;
            *to = value;
        }
        changes
    }
}

/// The shifts of rows, see [`Ink::with_shifted_rows`], that turn upright lines into lines of a slope:
/// the columns to the right for each row upwards.
pub fn shifts_to_slope(slope: f32, height: usize) -> Vec<usize> {
    let shift = |row: usize| (slope * (height - 1 - row) as f32).round() as isize;
    let least = shift(0).min(0);
    (0..height).map(|row| (shift(row) - least) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shifted_to_a_slope() {
        assert_eq!(shifts_to_slope(1.0, 3), [2, 1, 0]);
        assert_eq!(shifts_to_slope(-1.0, 3), [0, 1, 2]);
        let ink = Ink::new(2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let shifted = ink.with_shifted_rows(&[2, 1, 0]);
        assert_eq!(shifted.width(), 4);
        assert_eq!(shifted.values(), [0.0, 0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 5.0, 6.0, 0.0, 0.0]);
    }

    #[test]
    fn sheets_are_rectangles_in_any_direction() {
        const SIDE: usize = 100;
        let is_sheet = |inside: &dyn Fn(f32, f32) -> bool| {
            let position = |i: usize| i as f32 - SIDE as f32 / 2.0;
            let value =
                |i: usize| f32::from(u8::from(inside(position(i % SIDE), position(i / SIDE))));
            Ink::new(SIDE, (0..SIDE * SIDE).map(value).collect()).is_sheet()
        };
        for degrees in [0.0_f32, 13.0, 45.0, 80.0] {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let rectangle = |x: f32, y: f32, width: f32, height: f32| {
                (x * cos + y * sin).abs() < width && (y * cos - x * sin).abs() < height
            };
            assert!(is_sheet(&|x, y| rectangle(x, y, 40.0, 20.0)));
            // It is still a sheet with a digit on it.
            assert!(is_sheet(&|x, y| rectangle(x, y, 40.0, 20.0) && !rectangle(x, y, 2.0, 12.0)));
            // This one is too small.
            assert!(!is_sheet(&|x, y| rectangle(x, y, 20.0, 10.0)));
        }
        // This is a 0 with a small hole.
        let oval = |x: f32, y: f32, size: f32| (x / 0.7).hypot(y) < size;
        assert!(!is_sheet(&|x, y| oval(x, y, 45.0) && !oval(x, y, 8.0)));
    }
}
