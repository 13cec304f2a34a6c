//! Components: connected ink.

use crate::data::ink::Area;

/// A component: connected ink.
pub struct Component {
    /// The bounding box.
    pub area: Area,
    /// The indices of the pixels in the picture.
    pub pixels: Vec<usize>,
    /// The number of pixels at the border of the component.
    pub border: usize,
}

impl Component {
    /// Returns the approximate width of its strokes in pixels.
    pub fn stroke(&self) -> f32 {
        2.0 * self.pixels.len() as f32 / self.border.max(1) as f32
    }

    /// Returns the fraction of its bounding box that is ink.
    pub fn fill(&self) -> f32 {
        self.pixels.len() as f32 / (self.area.width * self.area.height) as f32
    }
}

/// The directions to the eight pixels around a pixel, row by row.
const AROUND: [(isize, isize); 8] =
    [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)];

/// Returns the up to eight pixels around a pixel.
pub fn neighbours(pixel: usize, width: usize, pixels: usize) -> impl Iterator<Item = usize> {
    let (x, y, height) = (pixel % width, pixel / width, pixels / width);
    AROUND.into_iter().filter_map(move |(dx, dy)| {
        // A position to the left of or above the picture wraps around to a huge one.
        let (x, y) = (x.wrapping_add_signed(dx), y.wrapping_add_signed(dy));
        (x < width && y < height).then_some(y * width + x)
    })
}

/// Returns the components of a mask. Diagonal neighbours are connected.
pub fn components(mask: &[bool], width: usize) -> Vec<Component> {
    let mut seen = vec![false; mask.len()];
    let mut components = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || seen[start] {
            continue;
        }
        let mut pixels = vec![start];
        seen[start] = true;
        let (mut columns, mut rows) = ([usize::MAX, 0], [usize::MAX, 0]);
        let (mut done, mut border) = (0, 0);
        while done < pixels.len() {
            let pixel = pixels[done];
            done += 1;
            let (x, y) = (pixel % width, pixel / width);
            columns = [columns[0].min(x), columns[1].max(x)];
            rows = [rows[0].min(y), rows[1].max(y)];
            let mut around = 0;
            for neighbour in neighbours(pixel, width, mask.len()) {
                around += usize::from(mask[neighbour]);
                if mask[neighbour] && !seen[neighbour] {
                    seen[neighbour] = true;
                    pixels.push(neighbour);
                }
            }
            border += usize::from(around < 8);
        }
        components.push(Component { area: Area::spanning(columns, rows), pixels, border });
    }
    components
}

/// Returns the typical height of components.
pub fn typical_height<'a>(components: impl Iterator<Item = &'a Component>) -> usize {
    typical(components.map(|component| component.area.height))
}

/// Returns the typical one of some heights. Each counts in proportion to its value, so that specks
/// hardly matter.
pub fn typical(heights: impl Iterator<Item = usize>) -> usize {
    let mut heights: Vec<usize> = heights.collect();
    heights.sort_unstable();
    let half = heights.iter().sum::<usize>().div_ceil(2);
    let mut sum = 0;
    let reached = |height: &&usize| {
        sum += **height;
        sum >= half
    };
    heights.iter().find(reached).copied().unwrap_or(0)
}
