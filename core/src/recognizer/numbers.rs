//! Tells numbers from words, patterns and drawings, in which only a few parts look like digits.

/// The parts of a line or of a picture, counted.
#[derive(Clone, Copy, Default)]
pub struct Parts {
    /// The number of accepted digits.
    pub digits: usize,
    /// The number of rejected digits and blots that are half as high as the line or higher.
    pub others: usize,
}

impl Parts {
    /// Counts the parts of a line, given the confidence (0 for a blot) and the height of each, and
    /// the limit of confidence for digits.
    pub fn of_line(parts: &[(f32, usize)], line_height: usize, limit: f32) -> Self {
        let digits = parts.iter().filter(|(confidence, _)| *confidence >= limit).count();
        let high = |part: &&(f32, usize)| part.0 < limit && 2 * part.1 >= line_height;
        Self { digits, others: parts.iter().filter(high).count() }
    }

    /// Counts the parts of all lines of a picture.
    pub fn of_picture(lines: &[Self]) -> Self {
        lines.iter().fold(Self::default(), |sum, line| Self {
            digits: sum.digits + line.digits,
            others: sum.others + line.others,
        })
    }

    /// Whether this may be a number: at least three digits for every two other parts. One
    /// more part, such as a smudge, is allowed.
    pub fn may_be_number(self) -> bool {
        2 * self.digits + 3 >= 3 * self.others
    }
}

#[cfg(test)]
mod tests {
    use super::Parts;

    #[test]
    fn words_are_no_numbers() {
        let line = |parts: &[(f32, usize)]| Parts::of_line(parts, 40, 0.05);
        let number = line(&[(0.9, 40), (0.8, 38), (0.06, 40), (0.0, 42)]);
        assert!(number.may_be_number());
        // A low blot, such as a dash, does not count.
        assert_eq!(line(&[(0.9, 40), (0.0, 19), (0.0, 20)]).others, 1);
        let word = line(&[(0.9, 40), (0.0, 30), (0.01, 30), (0.0, 40)]);
        assert!(!word.may_be_number());
        assert!(Parts::of_picture(&[number, number, word]).may_be_number());
        assert!(!Parts::of_picture(&[number, word, word]).may_be_number());
    }
}
