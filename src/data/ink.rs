//! Ink told from paper, in any colours and uneven light.
//!
//! Ink is what differs from the paper around it in strokes: the difference points into some direction of colour
//! space, the same for all ink. Along that direction the paper is what is left when everything narrower than a
//! third of the picture is taken away (a morphological opening), so that shadows, which are wider, are paper.
//! How dark ink is, is told as a part of what the paper reflects there.

use image::{DynamicImage, GenericImageView};

use super::images::{PIXELS, SIDE};

/// The longest side in which pictures are looked at; larger ones are reduced.
const LONGEST: u32 = 1600;
/// The longest side in which the colour of ink is looked for.
const LONGEST_COLOURS: u32 = 320;
/// What differs less from its paper is no ink, of 1.
const FAINTEST: f32 = 0.06;

/// A map of ink: 0 is the paper, 1 as much as there is.
#[derive(Clone, Debug)]
pub struct Ink {
    width: usize,
    values: Vec<f32>,
}

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Columns to the left of it.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Area {
    /// From first and last columns and rows.
    pub fn spanning(columns: [usize; 2], rows: [usize; 2]) -> Self {
        let [[left, right], [top, bottom]] = [columns, rows];
        Self { left, top, width: right + 1 - left, height: bottom + 1 - top }
    }

    /// The first column to the right of it.
    pub fn right(&self) -> usize {
        self.left + self.width
    }

    /// The first row below it.
    pub fn bottom(&self) -> usize {
        self.top + self.height
    }

    /// The smallest area that holds both.
    pub fn with(&self, other: &Self) -> Self {
        let (left, top) = (self.left.min(other.left), self.top.min(other.top));
        let width = self.right().max(other.right()) - left;
        Self { left, top, width, height: self.bottom().max(other.bottom()) - top }
    }
}

impl Ink {
    /// From values, row by row.
    ///
    /// # Panics
    /// Where they are no whole rows.
    pub fn new(width: usize, values: Vec<f32>) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width));
        Self { width, values }
    }

    /// From grey values, 255 for ink.
    pub fn of_pixels(pixels: &[u8; PIXELS]) -> Self {
        Self::new(SIDE, pixels.iter().map(|grey| f32::from(*grey) / 255.0).collect())
    }

    /// Of a picture, and how many of its pixels are one here on a side. None where nothing stands out.
    pub fn of(picture: &DynamicImage) -> Option<(Self, u32)> {
        let step = picture.width().max(picture.height()).div_ceil(LONGEST);
        let (colours, alpha) = Colours::of(picture, step);
        let mut ink = match colours.ink() {
            // What is drawn in the colour of the paper on nothing at all.
            None if alpha.values.iter().any(|alpha| *alpha < 0.5) => alpha,
            found => found?,
        };
        ink.normalise()?;
        Some((ink, step))
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.values.len() / self.width
    }

    /// Row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The smallest area that holds everything above `threshold`; none where nothing is.
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

    /// A part of it.
    pub fn cropped(&self, area: &Area) -> Self {
        let rows = self.values.chunks_exact(self.width).skip(area.top).take(area.height);
        let values = rows.flat_map(|row| &row[area.left..area.right()]).copied().collect();
        Self { width: area.width, values }
    }

    /// Column and row of the centre of mass, counted from the middle of the first pixel.
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

    /// Scaled: where it gets smaller each value is the mean over what it covers, where it gets larger it is
    /// interpolated linearly.
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

    /// Moves the paper to 0 and the ink to 1. None where there is nothing but paper.
    fn normalise(&mut self) -> Option<()> {
        let mut sorted = self.values.clone();
        let paper = quantile(&mut sorted, 0.5);
        sorted.iter_mut().for_each(|value| *value = (*value - paper).abs());
        let noise = 1.4826 * quantile(&mut sorted, 0.5);
        let above = |threshold: f32| -> Vec<f32> {
            let more = self.values.iter().map(|value| value - paper);
            more.filter(|value| *value > threshold).collect()
        };
        let least = FAINTEST.max(5.0 * noise);
        let first = quantile(&mut above(least), 0.9);
        let level = quantile(&mut above(least.max(0.5 * first)), 0.6);
        if level < least {
            return None;
        }
        let floor = (4.0 * noise).min(0.5 * level);
        for value in &mut self.values {
            *value -= paper;
            *value = if *value < floor { 0.0 } else { (*value / level).min(1.0) };
        }
        Some(())
    }
}

/// Of each value after scaling the first one that it is made of, and the weights from there on.
struct Taps(Vec<(usize, Vec<f32>)>);

impl Taps {
    fn of(from: usize, to: usize) -> Self {
        let step = from as f32 / to as f32;
        let reach = step.max(1.0);
        Self(
            (0..to)
                .map(|i| {
                    let middle = (i as f32 + 0.5) * step;
                    // A box of a value's own width where it gets smaller, else a tent.
                    let weight = |at: usize| {
                        let at = at as f32;
                        if step > 1.0 {
                            let (left, right) = (middle - step / 2.0, middle + step / 2.0);
                            ((at + 1.0).min(right) - at.max(left)).max(0.0)
                        } else {
                            (1.0 - (at + 0.5 - middle).abs()).max(0.0)
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

/// Below which this part of the values lies; 0 where there are none.
fn quantile(values: &mut [f32], part: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((values.len() - 1) as f32 * part) as usize;
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

/// A picture in colours from 0 to 1.
struct Colours {
    width: usize,
    pixels: Vec<[f32; 3]>,
}

impl Colours {
    /// Of a picture over white, `step` x `step` pixels made one; and how opaque they are.
    fn of(picture: &DynamicImage, step: u32) -> (Self, Ink) {
        let (width, height) = picture.dimensions();
        let (columns, rows) = (width.div_ceil(step), height.div_ceil(step));
        let mut sums = vec![[0.0_f32; 4]; (columns * rows) as usize];
        let mut add = |i: usize, colour: [f32; 3], alpha: f32| {
            let (x, y) = (i as u32 % width, i as u32 / width);
            let sum = &mut sums[(y / step * columns + x / step) as usize];
            for (sum, channel) in sum.iter_mut().zip(colour) {
                *sum += 1.0 - alpha + alpha * channel.clamp(0.0, 1.0);
            }
            sum[3] += alpha;
        };
        let byte = |value: u8| f32::from(value) / 255.0;
        match picture {
            DynamicImage::ImageLuma8(grey) => {
                for (i, grey) in grey.as_raw().iter().enumerate() {
                    add(i, [byte(*grey); 3], 1.0);
                }
            }
            DynamicImage::ImageRgb8(_)
            | DynamicImage::ImageRgba8(_)
            | DynamicImage::ImageLumaA8(_) => {
                for (i, pixel) in picture.to_rgba8().pixels().enumerate() {
                    let [r, g, b, alpha] = pixel.0.map(byte);
                    add(i, [r, g, b], alpha);
                }
            }
            _ => {
                for (i, pixel) in picture.to_rgba32f().pixels().enumerate() {
                    let [r, g, b, alpha] = pixel.0;
                    add(i, [r, g, b], alpha.clamp(0.0, 1.0));
                }
            }
        }
        let side = |i: u32, length: u32| (length - i * step).min(step) as f32;
        let scaled = sums.iter().enumerate().map(|(i, sum)| {
            let (x, y) = (i as u32 % columns, i as u32 / columns);
            sum.map(|sum| sum / (side(x, width) * side(y, height)))
        });
        let (mut pixels, mut alpha) = (Vec::new(), Vec::new());
        for [r, g, b, a] in scaled {
            pixels.push([r, g, b]);
            alpha.push(a);
        }
        (Self { width: columns as usize, pixels }, Ink::new(columns as usize, alpha))
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width
    }

    /// How much each pixel reflects less than its paper, or more where the ink is the brighter one, as a part of
    /// the most that it could. None where all pixels are the same.
    fn ink(&self) -> Option<Ink> {
        let direction = self.direction()?;
        let along = |pixel: &[f32; 3]| -> f32 {
            pixel.iter().zip(direction).map(|(channel, d)| channel * d).sum()
        };
        let most: f32 = direction.iter().map(|d| d.max(0.0)).sum();
        let values = Ink::new(self.width, self.pixels.iter().map(along).collect());
        let paper = values.opened();
        let differences = values.values.iter().zip(&paper.values).map(|(value, paper)| {
            // Where the paper itself is as bright or dark as ink can be, nothing is to be seen.
            (value - paper) / (most - paper).max(0.15)
        });
        Some(Ink::new(self.width, differences.collect()))
    }

    /// The direction of colour space, of length 1, into which what is narrow differs from what is around it:
    /// the mean difference from the local mean, large differences counting for more, as ink is rarer than paper.
    fn direction(&self) -> Option<[f32; 3]> {
        let (width, height) = (self.width, self.height());
        let step = (width.max(height) as u32).div_ceil(LONGEST_COLOURS) as usize;
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
    /// The mean over squares of 2 x `radius` + 1 pixels, fewer at the border.
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

    /// Without what is narrower than a third of the picture: the largest of the smallest values, on a coarse
    /// grid, with smooth transitions.
    fn opened(&self) -> Self {
        let (width, height) = (self.width, self.height());
        let step = (width.min(height) / 48).max(width.max(height) / 256).max(1);
        let coarse = self.resized(width.div_ceil(step), height.div_ceil(step));
        let radius = (coarse.width.min(coarse.height()) / 6).max(1);
        let opened = coarse.extremes(radius, f32::min).extremes(radius, f32::max);
        opened.blurred((radius / 2).max(1)).resized(width, height)
    }

    /// The smallest or largest value in squares of 2 x `radius` + 1 pixels.
    fn extremes(&self, radius: usize, pick: fn(f32, f32) -> f32) -> Self {
        let rows = |image: &Self| {
            let mut values = Vec::with_capacity(image.values.len());
            for row in image.values.chunks_exact(image.width) {
                values.extend((0..row.len()).map(|x| {
                    let (first, end) = (x.saturating_sub(radius), (x + radius + 1).min(row.len()));
                    row[first + 1..end].iter().copied().fold(row[first], pick)
                }));
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
