//! Turns a picture that may lie on its side.

use crate::data::ink::Ink;

/// How a picture is turned before it is read.
#[derive(Clone, Copy, PartialEq)]
pub enum Turn {
    /// Not at all.
    None,
    /// By 90 degrees to the left, so that its right side is at the top.
    Left,
    /// By 90 degrees to the right, so that its left side is at the top.
    Right,
}

impl Turn {
    /// Turns ink.
    pub fn ink(self, ink: Ink) -> Ink {
        if self == Self::None {
            return ink;
        }
        let (width, height) = (ink.width(), ink.height());
        let value = |i: usize| {
            let (x, y) = (i % height, i / height);
            match self {
                Self::Left => ink.values()[x * width + (width - 1 - y)],
                _ => ink.values()[(height - 1 - x) * width + y],
            }
        };
        Ink::new(height, (0..width * height).map(value).collect())
    }

    /// Converts a box in the turned picture (left, top, width, height) to the box in the original
    /// picture of this width and height.
    pub fn undo(self, [left, top, width, height]: [u32; 4], [columns, rows]: [u32; 2]) -> [u32; 4] {
        match self {
            Self::None => [left, top, width, height],
            Self::Left => [columns.saturating_sub(top + height), left, height, width],
            Self::Right => [top, rows.saturating_sub(left + width), height, width],
        }
    }
}
