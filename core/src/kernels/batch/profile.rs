//! Where the time goes.

use std::time::Instant;

/// A part of the work on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Pictures into the lanes.
    Gather,
    /// C1, its activation, S2.
    C1,
    /// C3, its activation, S4.
    C3,
    /// C5 and its activation.
    C5,
    /// F6 and its activation.
    F6,
    /// The logits.
    Output,
    /// Cross-entropy and its derivative.
    Loss,
    /// Derivatives by F6's sums.
    OutputBack,
    /// Derivatives by C5's sums.
    F6Back,
    /// Derivatives by S4.
    C5Back,
    /// Derivatives by C3's sums.
    S4Back,
    /// Derivatives by C3's weights.
    C3Weights,
    /// Derivatives by S2.
    C3Back,
    /// Derivatives by C1's sums.
    S2Back,
    /// Derivatives by C1's weights.
    C1Weights,
    /// Inputs and derivatives of the linear layers to rows for each sample.
    Rows,
    /// Derivatives by the weights of C5, F6 and the output layer, and all sums over shards.
    LinearWeights,
    /// The optimizer.
    Update,
}

impl Phase {
    /// All, in their order, with layer and pass.
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

    /// Floating-point operations for a sample: two for each multiply-add of its sums.
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

/// Seconds by phase, summed over threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// In the order of [`Phase::ALL`].
    pub seconds: [f64; Phase::ALL.len()],
    /// Samples whose gradients were computed.
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

    /// As a table, beside `sgemm`, the operations per second of a matrix product on one thread.
    pub fn table(&self, classes: usize, sgemm: f64) -> String {
        let line = |layer: &str, pass: &str, seconds: f64, operations: f64| {
            let rate = operations * self.samples as f64 / seconds;
            let rates = match operations {
                0.0 => String::new(),
                _ => format!(" {:>8.1} {:>9.1}", rate / 1e9, 100.0 * rate / sgemm),
            };
            format!("{layer:8} {pass:14} {seconds:>9.4}{rates}\n")
        };
        let mut table = format!(
            "{:8} {:14} {:>9} {:>8} {:>9}\n",
            "layer", "pass", "seconds", "GFLOP/s", "% of sgemm"
        );
        let mut operations = 0.0;
        for ((phase, layer, pass), seconds) in Phase::ALL.into_iter().zip(self.seconds) {
            operations += phase.operations(classes);
            table += &line(layer, pass, seconds, phase.operations(classes));
        }
        table += &line("all", "", self.seconds.iter().sum(), operations);
        table + &format!("sgemm on one thread: {:.1} GFLOP/s\n", sgemm / 1e9)
    }
}

/// Measures phases that follow one another, where it is on.
pub(super) struct Clock {
    last: Option<Instant>,
    pub profile: Profile,
}

impl Clock {
    pub fn start(on: bool) -> Clock {
        Clock { last: on.then(Instant::now), profile: Profile::ZERO }
    }

    /// What went by since the last call was this phase.
    pub fn lap(&mut self, phase: Phase) {
        if let Some(last) = &mut self.last {
            let now = Instant::now();
            self.profile.seconds[phase as usize] += (now - *last).as_secs_f64();
            *last = now;
        }
    }
}
