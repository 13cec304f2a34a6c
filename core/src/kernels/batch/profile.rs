//! The time that each phase of the work on a batch takes.

use std::time::Instant;

use crate::kernels::simd::Isa;

/// A part of the work on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The images are put into the lanes.
    Gather,
    /// C1, its activation and S2.
    C1,
    /// C3, its activation and S4.
    C3,
    /// C5 and its activation.
    C5,
    /// F6 and its activation.
    F6,
    /// The logits.
    Output,
    /// The cross-entropy and its gradient with respect to the logits.
    Loss,
    /// The gradient with respect to F6's sums.
    OutputBack,
    /// The gradient with respect to C5's sums.
    F6Back,
    /// The gradient with respect to S4.
    C5Back,
    /// The gradient with respect to C3's sums.
    S4Back,
    /// The gradient with respect to C3's weights.
    C3Weights,
    /// The gradient with respect to S2.
    C3Back,
    /// The gradient with respect to C1's sums.
    S2Back,
    /// The gradient with respect to C1's weights.
    C1Weights,
    /// The inputs of the linear layers, and the gradients with respect to their sums, are transposed to a row for each sample.
    Rows,
    /// The gradient with respect to the weights of C5, F6 and the output layer, and all sums over the shards.
    LinearWeights,
    /// The optimizer's step.
    Update,
}

impl Phase {
    /// All phases in their order, each with its layer and its direction.
    pub const ALL: [(Phase, &'static str, &'static str); 18] = [
        (Phase::Gather, "input", "gather"),
        (Phase::C1, "c1, s2", "forward"),
        (Phase::C3, "c3, s4", "forward"),
        (Phase::C5, "c5", "forward"),
        (Phase::F6, "f6", "forward"),
        (Phase::Output, "output", "forward"),
        (Phase::Loss, "loss", "both"),
        (Phase::OutputBack, "output", "back, inputs"),
        (Phase::F6Back, "f6", "back, inputs"),
        (Phase::C5Back, "c5", "back, inputs"),
        (Phase::S4Back, "s4", "back"),
        (Phase::C3Weights, "c3", "back, weights"),
        (Phase::C3Back, "c3", "back, inputs"),
        (Phase::S2Back, "s2", "back"),
        (Phase::C1Weights, "c1", "back, weights"),
        (Phase::Rows, "linear", "transpose"),
        (Phase::LinearWeights, "linear", "back, weights"),
        (Phase::Update, "all", "update"),
    ];

    /// The number of floating-point operations for one sample: two for each multiply-add.
    pub fn operations(self, classes: usize) -> f64 {
        let (c1, c3, c5, f6, output) = (6 * 784 * 25, 1600 * 150, 48_000, 10_080, 84 * classes);
        2.0 * match self {
            Phase::C1 | Phase::C1Weights => c1,
            Phase::C3 | Phase::C3Weights | Phase::C3Back => c3,
            Phase::C5 | Phase::C5Back => c5,
            Phase::F6 | Phase::F6Back => f6,
            Phase::Output | Phase::OutputBack => output,
            Phase::LinearWeights => c5 + f6 + output,
            _ => 0,
        } as f64
    }
}

/// The seconds of each phase, summed over the threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// The seconds, in the order of [`Phase::ALL`].
    pub seconds: [f64; Phase::ALL.len()],
    /// The number of samples whose gradients were computed.
    pub samples: usize,
}

impl Profile {
    pub(super) const ZERO: Profile = Profile { seconds: [0.0; Phase::ALL.len()], samples: 0 };

    pub(super) fn add(&mut self, other: &Profile) {
        for (sum, seconds) in self.seconds.iter_mut().zip(other.seconds) {
            *sum += seconds;
        }
        self.samples += other.samples;
    }

    /// The profile as a table. `sgemm`, the operations per second of a matrix product on one thread, is there for
    /// comparison. C3 counts as a convolution without Winograd's algorithm, which takes fewer operations.
    pub fn table(&self, classes: usize, isa: Isa, sgemm: f64) -> String {
        let line = |layer: &str, direction: &str, seconds: f64, operations: f64| {
            let rate = operations * self.samples as f64 / seconds;
            let rates = match operations {
                0.0 => String::new(),
                _ => format!(" {:>8.1} {:>9.1}", rate / 1e9, 100.0 * rate / sgemm),
            };
            format!("{layer:8} {direction:14} {seconds:>9.4}{rates}\n")
        };
        let mut table = format!(
            "{:8} {:14} {:>9} {:>8} {:>9}\n",
            "layer", "pass", "seconds", "GFLOP/s", "% of sgemm"
        );
        let mut operations = 0.0;
        for ((phase, layer, direction), seconds) in Phase::ALL.into_iter().zip(self.seconds) {
            operations += phase.operations(classes);
            table += &line(layer, direction, seconds, phase.operations(classes));
        }
        table += &line("all", "", self.seconds.iter().sum(), operations);
        table += &format!("sgemm on one thread: {:.1} GFLOP/s\n", sgemm / 1e9);
        let reason = match isa.name() {
            "portable" if Isa::available().len() == 1 => {
                " (plain Rust, which is slower: this CPU has neither AVX2 nor NEON)"
            }
            _ => "",
        };
        table + &format!("instruction set: {}{reason}\n", isa.name())
    }
}

/// Measures the times of consecutive phases, if it is on.
pub(super) struct Clock {
    last: Option<Instant>,
    pub profile: Profile,
}

impl Clock {
    pub fn start(on: bool) -> Clock {
        Clock { last: on.then(Instant::now), profile: Profile::ZERO }
    }

    /// Adds the time since the last call to this phase.
    pub fn lap(&mut self, phase: Phase) {
        if let Some(last) = &mut self.last {
            let now = Instant::now();
            self.profile.seconds[phase as usize] += (now - *last).as_secs_f64();
            *last = now;
        }
    }
}
