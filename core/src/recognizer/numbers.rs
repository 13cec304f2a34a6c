//! Tells numbers from words, patterns and drawings, in which only some parts look like digits.
//!
//! Each part of a line is evidence: a clear digit that this is a number, a doubtful one or other
//! ink that it is something else. The evidence of all parts is added up, as are logarithms of
//! likelihoods.

/// The logarithm of the odds at which a part is no evidence for either: a likeness of 0.82, as
/// letters reach half as often as digits miss it.
const NEUTRAL: f32 = 1.5;
/// The range of the evidence of a part. So it takes three clear digits to outweigh one part that is
/// none, such as a smudge.
const RANGE: (f32, f32) = (-6.0, 2.5);
/// The evidence of cuts through connected ink, once for a line: drawings are cut into digits more
/// often than digits touch.
const CUT: f32 = -4.5;

/// The evidence that a line or a picture is a number: the logarithm of a ratio of likelihoods.
#[derive(Clone, Copy)]
pub struct Evidence {
    sum: f32,
    /// The smallest sum of a number.
    least: f32,
}

impl Evidence {
    /// Adds up the evidence of the parts of a line, given the likeness to a digit (0 for a blot) and the
    /// height of each. Parts below the limit do not count if they are less than half
    /// as high as the line. A lone digit at that limit just makes a number. `is_cut` tells whether
    /// digits were cut from connected ink.
    pub fn of_line(parts: &[(f32, usize)], line_height: usize, is_cut: bool, limit: f32) -> Self {
        let counts = |part: &&(f32, usize)| part.0 >= limit || 2 * part.1 >= line_height;
        let evidence =
            |(likeness, _): &(f32, usize)| relative_log_odds(*likeness).clamp(RANGE.0, RANGE.1);
        let sum: f32 = parts.iter().filter(counts).map(evidence).sum();
        let sum = if is_cut { sum + CUT } else { sum };
        Self { sum, least: relative_log_odds(limit) }
    }

    /// Adds up the evidence of all lines of a picture; `None` if it has no lines.
    pub fn of_picture(lines: &[Self]) -> Option<Self> {
        lines.iter().copied().reduce(|all, line| Self { sum: all.sum + line.sum, ..all })
    }

    /// Whether this may be a number.
    pub fn is_number(self) -> bool {
        self.sum >= self.least
    }
}

/// The logarithm of the odds of a likeness, relative to [`NEUTRAL`].
fn relative_log_odds(likeness: f32) -> f32 {
    (likeness / (1.0 - likeness)).ln() - NEUTRAL
}

#[cfg(test)]
mod tests {
    use super::Evidence;

    fn line(parts: &[(f32, usize)]) -> Evidence {
        Evidence::of_line(parts, 40, false, 0.05)
    }

    #[test]
    fn words_are_no_numbers() {
        // A number with a smudge.
        let number = line(&[(0.99, 40), (0.98, 38), (0.6, 40), (0.0, 42)]);
        assert!(number.is_number());
        let word = line(&[(0.99, 40), (0.3, 30), (0.2, 30), (0.01, 40)]);
        assert!(!word.is_number());
        let clear = line(&[(0.99, 40), (0.99, 40), (0.99, 40)]);
        assert!(Evidence::of_picture(&[clear, number, word]).unwrap().is_number());
        assert!(!Evidence::of_picture(&[number, word]).unwrap().is_number());
    }

    #[test]
    fn digits_that_touch_must_be_clearer() {
        let is_number = |parts: &[(f32, usize)]| {
            [false, true].map(|is_cut| Evidence::of_line(parts, 40, is_cut, 0.05).is_number())
        };
        assert_eq!(is_number(&[(0.99, 40), (0.8, 40)]), [true, true]);
        assert_eq!(is_number(&[(0.5, 40), (0.4, 40)]), [true, false]);
    }

    #[test]
    fn a_lone_digit_needs_the_limit() {
        assert!(line(&[(0.05, 40)]).is_number());
        assert!(!line(&[(0.049, 40)]).is_number());
        // A low blot, such as a dash, does not count; a high one does.
        assert!(line(&[(0.3, 40), (0.0, 19)]).is_number());
        assert!(!line(&[(0.3, 40), (0.0, 20)]).is_number());
        assert!(line(&[(1.0, 40)]).is_number());
        // A limit of 0 accepts everything.
        assert!(Evidence::of_line(&[(0.0, 40); 9], 40, true, 0.0).is_number());
    }
}
