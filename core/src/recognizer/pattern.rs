//! Patterns: the form that a line of digits is known to have.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::{Error, Result};

/// The largest number of digits of a line that a pattern describes, and of characters of a pattern.
const MAX_LENGTH: usize = 100;
/// The characters that stand for a mark.
const MARKS: &str = "-.,/:+()";

/// The form that a line of digits is known to have, such as five digits or `####-###`.
///
/// In a pattern `#` is any digit, and 0 to 9 are that very digit. A mark, one of `- . , / : + ( )`,
/// is ink between digits that is not read; it may be absent. Spaces mean nothing.
///
/// The default pattern is any number of digits.
///
/// # Example
/// ```
/// use lenet5_core::recognizer::Pattern;
///
/// let telephone: Pattern = "###-####".parse()?;
/// let year: Pattern = "20##".parse()?;
/// let postcode = Pattern::digits(5..=5)?;
/// # Ok::<(), lenet5_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    symbols: Vec<Symbol>,
    /// The number of symbols after which a line may end.
    shortest: usize,
    /// Whether the last symbol repeats without end.
    repeats: bool,
    /// A description of the lines that fit, for error messages: "5 digits", "the form ##-##".
    description: String,
}

/// A symbol of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// Any digit.
    Any,
    /// One digit.
    Digit(usize),
    /// A mark, which is not read and may be absent.
    Mark,
}

impl Default for Pattern {
    fn default() -> Self {
        Self {
            symbols: vec![Symbol::Any],
            shortest: 0,
            repeats: true,
            description: "digits".to_owned(),
        }
    }
}

impl Pattern {
    /// Lines with this number of digits.
    ///
    /// # Errors
    /// [`Error::Config`] if the range is empty, or not within 1 to 100.
    pub fn digits(number: RangeInclusive<usize>) -> Result<Self> {
        let (&least, &most) = (number.start(), number.end());
        if least == 0 || most > MAX_LENGTH || least > most {
            return Err(Error::Config(format!(
                "expected a number of digits from 1 to {MAX_LENGTH}, or a range of such numbers, \
                 found {least} to {most}"
            )));
        }
        let description = match (least, most) {
            (1, 1) => "1 digit".to_owned(),
            _ if least == most => format!("{least} digits"),
            _ => format!("{least} to {most} digits"),
        };
        Ok(Self { symbols: vec![Symbol::Any; most], shortest: least, repeats: false, description })
    }

    /// Lines with a number of digits that is written as text: "5", or "3-6" for a range.
    ///
    /// # Errors
    /// [`Error::Config`] if the text is of another form, or [`Pattern::digits`] fails.
    pub fn parse_digits(text: &str) -> Result<Self> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            text.trim().parse::<usize>().map_err(|_| {
                Error::Config(format!(
                    "expected a number of digits such as 5, or a range such as 3-6, found {text}"
                ))
            })
        };
        Self::digits(number(least)?..=number(most)?)
    }

    /// Returns whether any number of digits fits.
    pub(super) fn is_any(&self) -> bool {
        self.repeats
    }

    /// The number of states. A state is the number of symbols before the next one; if the symbol
    /// repeats, there is one state.
    pub(super) fn states(&self) -> usize {
        if self.repeats { 1 } else { self.symbols.len() + 1 }
    }

    /// Returns the next symbol in a state, and the state after it.
    pub(super) fn next(&self, state: usize) -> Option<(Symbol, usize)> {
        let symbol = self.symbols.get(state)?;
        Some((*symbol, if self.repeats { state } else { state + 1 }))
    }

    /// The states in which a line may end.
    pub(super) fn ends(&self) -> std::ops::Range<usize> {
        self.shortest..self.states()
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |found: String| {
            Error::Config(format!(
                "expected # for any digit, 0 to 9, and marks ({MARKS} and spaces), found {found}"
            ))
        };
        let length = text.chars().count();
        if length > MAX_LENGTH {
            return Err(Error::Config(format!(
                "expected a pattern of at most {MAX_LENGTH} characters, found {length}"
            )));
        }
        let mut symbols = Vec::new();
        for character in text.chars().filter(|character| *character != ' ') {
            symbols.push(match (character, character.to_digit(10)) {
                ('#', _) => Symbol::Any,
                (_, Some(digit)) => Symbol::Digit(digit as usize),
                _ if MARKS.contains(character) => Symbol::Mark,
                _ => return Err(wrong(format!("{character:?}"))),
            });
        }
        if symbols.iter().all(|symbol| *symbol == Symbol::Mark) {
            let found = if text.is_empty() { "nothing" } else { "no digit" };
            return Err(wrong(found.to_owned()));
        }
        let shortest = symbols.len();
        Ok(Self { symbols, shortest, repeats: false, description: format!("the form {text}") })
    }
}

/// Writes what a line has to be: "3 to 5 digits", or "the form ##-##".
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_parsed() {
        let pattern: Pattern = "#4 - #".parse().unwrap();
        let expected = [Symbol::Any, Symbol::Digit(4), Symbol::Mark, Symbol::Any];
        let symbols: Vec<_> = (0..).map_while(|state| pattern.next(state)).collect();
        assert_eq!(symbols, expected.into_iter().zip(1..).collect::<Vec<_>>());
        assert_eq!((pattern.states(), pattern.ends()), (5, 4..5));
        assert_eq!(pattern.to_string(), "the form #4 - #");
        assert!("+(##) ##.##,##/##:##".parse::<Pattern>().is_ok());
        assert!("#".repeat(MAX_LENGTH).parse::<Pattern>().is_ok());
    }

    #[test]
    fn wrong_patterns_are_named() {
        let characters = "expected # for any digit, 0 to 9, and marks (-.,/:+() and spaces), found";
        let table = [
            ("".to_owned(), format!("{characters} nothing")),
            (" -".to_owned(), format!("{characters} no digit")),
            ("##x".to_owned(), format!("{characters} 'x'")),
            ("##\n".to_owned(), format!("{characters} '\\n'")),
            ("#\u{663}".to_owned(), format!("{characters} '\u{663}'")),
            (
                "#".repeat(MAX_LENGTH + 1),
                "expected a pattern of at most 100 characters, found 101".to_owned(),
            ),
        ];
        for (text, message) in table {
            assert_eq!(text.parse::<Pattern>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn numbers_of_digits() {
        let pattern = Pattern::digits(2..=3).unwrap();
        assert_eq!((pattern.states(), pattern.ends()), (4, 2..4));
        assert_eq!(pattern.to_string(), "2 to 3 digits");
        assert_eq!(Pattern::digits(1..=1).unwrap().to_string(), "1 digit");
        assert_eq!(Pattern::digits(100..=100).unwrap().to_string(), "100 digits");
        #[allow(clippy::reversed_empty_ranges)]
        for range in [0..=5, 1..=101, 4..=3] {
            let found = format!("found {} to {}", range.start(), range.end());
            let error = Pattern::digits(range).unwrap_err().to_string();
            assert!(error.ends_with(&found), "{error}");
        }
    }

    #[test]
    fn by_default_any_number_of_digits_fits() {
        let any = Pattern::default();
        assert!(any.is_any() && !Pattern::digits(1..=100).unwrap().is_any());
        assert_eq!((any.states(), any.ends()), (1, 0..1));
        assert_eq!(any.next(0), Some((Symbol::Any, 0)));
    }
}
