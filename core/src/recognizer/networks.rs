//! The two networks that judge what may be a digit: one reads digits, the other one also knows what
//! is no digit.

use super::classifier::Classifier;
use super::training::REJECT_CLASS;
use crate::data::digit::{PIXELS, SIDE};
use crate::weights::Weights;
use crate::{Error, Result};

/// If the networks are less sure than this of the class of a picture, they look at it again, turned
/// to either side.
const SURE: f32 = 0.95;
/// The angle in degrees by which pictures are turned then.
const ANGLE: f32 = 7.5;
/// Pictures that are digits with a lower probability are not looked at again.
const MIN_DIGIT: f32 = 0.01;
/// The power to which the mean of several probabilities is raised. Networks that agree are right
/// more often than each of them alone. Chosen as [`DIGIT_ODDS`] is.
const SHARPNESS: f32 = 1.3;
/// Among the candidates in pictures of digits, the odds of a digit are about so many times those
/// that the reject network learned, whose examples are half other things. Chosen for confidences
/// that are the chance to be right, on the development pictures and half of Optdigits.
const DIGIT_ODDS: f32 = 20.0;

/// The networks.
pub struct Networks {
    /// The network that classifies digits.
    pub reading: Classifier,
    /// The reject network, which separates digits from everything else.
    reject: Classifier,
    /// Whether the reject network takes part in the decision on the class.
    both: bool,
}

/// The judgement of the networks on a picture in MNIST's form.
pub struct Rating {
    /// The probability that it is a digit.
    pub is_digit: f32,
    /// The probabilities of the classes if it is one.
    pub classes: Vec<f32>,
}

impl Rating {
    /// Returns how much the picture looks like a digit of this class, 0 to 1: the probability of
    /// the class, times the probability that this is a digit.
    pub fn likeness(&self, class: usize) -> f32 {
        self.is_digit * self.classes[class]
    }

    /// Returns the confidence that the class is right, 0 to 1, in a picture of digits.
    pub fn confidence(&self, class: usize) -> f32 {
        let odds_part = DIGIT_ODDS * self.is_digit;
        odds_part / (odds_part + 1.0 - self.is_digit) * self.classes[class]
    }
}

/// Returns the likeness of a clear class that has this confidence.
pub fn likeness_at(confidence: f32) -> f32 {
    confidence / (confidence + DIGIT_ODDS * (1.0 - confidence))
}

impl Networks {
    /// Creates the networks. With `both`, the two networks decide on the class together.
    ///
    /// # Errors
    /// If tensors do not fit the settings, or the networks have other classes than expected.
    pub fn new(reading: &Weights, reject: &Weights, both: bool) -> Result<Self> {
        let expect = |what: &str, expected: usize, found: usize| match found == expected {
            true => Ok(()),
            false => Err(Error::Config(format!(
                "expected a {what} network of {expected} classes, found one of {found}"
            ))),
        };
        expect("reject", usize::from(REJECT_CLASS) + 1, reject.config.classes)?;
        if both {
            expect("reading", usize::from(REJECT_CLASS), reading.config.classes)?;
        }
        Ok(Self { reading: Classifier::new(reading)?, reject: Classifier::new(reject)?, both })
    }

    /// Judges pictures in MNIST's form.
    pub fn rate(&self, pictures: &[[u8; PIXELS]]) -> Vec<Rating> {
        let reject = self.reject.probabilities(pictures);
        let reading = self.reading.probabilities(pictures);
        let is_digit = reject.iter().map(|p| 1.0 - p[usize::from(REJECT_CLASS)]);
        if !self.both {
            let ratings = is_digit.zip(reading);
            return ratings.map(|(is_digit, classes)| Rating { is_digit, classes }).collect();
        }
        let mut opinions: Vec<Opinions> = reading.iter().zip(&reject).map(Opinions::of).collect();
        let mut ratings: Vec<Rating> = is_digit
            .zip(&opinions)
            .map(|(is_digit, opinions)| Rating { is_digit, classes: opinions.mean() })
            .collect();
        let unsure = |rating: &Rating| {
            rating.is_digit >= MIN_DIGIT && rating.classes.iter().all(|p| *p < SURE)
        };
        let again: Vec<usize> = (0..ratings.len()).filter(|i| unsure(&ratings[*i])).collect();
        for angle in [-ANGLE, ANGLE] {
            let turned: Vec<_> = again.iter().map(|i| turned(&pictures[*i], angle)).collect();
            let found = self.reading.probabilities(&turned);
            let found = found.iter().zip(self.reject.probabilities(&turned));
            for (i, (reading, reject)) in again.iter().zip(found) {
                opinions[*i].add(&Opinions::of((reading, &reject)));
            }
        }
        for i in again {
            ratings[i].classes = opinions[i].mean();
        }
        ratings
    }
}

/// The sums of the logarithms of several probabilities of each digit.
struct Opinions {
    sums: [f32; 10],
    count: f32,
}

impl Opinions {
    /// The opinions of the reading and of the reject network.
    fn of((reading, reject): (&Vec<f32>, &Vec<f32>)) -> Self {
        let log = |p: f32| p.max(f32::MIN_POSITIVE).ln();
        Self { sums: std::array::from_fn(|i| log(reading[i]) + log(reject[i])), count: 2.0 }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum += more;
        }
        self.count += other.count;
    }

    /// The geometric means, sharpened, and scaled so that their sum is 1.
    fn mean(&self) -> Vec<f32> {
        let most = self.sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = self.sums.map(|sum| ((sum - most) * SHARPNESS / self.count).exp());
        let sum: f32 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }
}

/// Turns a picture by an angle in degrees around its middle. Values are interpolated linearly.
fn turned(pixels: &[u8; PIXELS], degrees: f32) -> [u8; PIXELS] {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let middle = (SIDE as f32 - 1.0) / 2.0;
    let value = |x: f32, y: f32| match x >= 0.0 && y >= 0.0 && x < SIDE as f32 && y < SIDE as f32 {
        true => f32::from(pixels[y as usize * SIDE + x as usize]),
        false => 0.0,
    };
    std::array::from_fn(|i| {
        let (x, y) = ((i % SIDE) as f32 - middle, (i / SIDE) as f32 - middle);
        let (x, y) = (cos * x + sin * y + middle, cos * y - sin * x + middle);
        let (left, top) = (x.floor(), y.floor());
        let (across, down) = (x - left, y - top);
        let row = |y: f32| value(left, y) * (1.0 - across) + value(left + 1.0, y) * across;
        (row(top) * (1.0 - down) + row(top + 1.0) * down).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_grows_with_likeness() {
        let rating = |is_digit| Rating { is_digit, classes: vec![0.0, 1.0] };
        for (is_digit, confidence) in
            [(0.0, 0.0), (1.0 / 21.0, 0.5), (0.5, 20.0 / 21.0), (1.0, 1.0)]
        {
            let rating = rating(is_digit);
            assert!((rating.confidence(1) - confidence).abs() < 1e-6);
            assert!((likeness_at(confidence) - rating.likeness(1)).abs() < 1e-6);
            assert_eq!(rating.confidence(0), 0.0);
        }
    }
}
