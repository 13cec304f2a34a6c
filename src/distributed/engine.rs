//! An engine whose work several processes share.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tch::{Device, Tensor};

use super::{Launch, Peers};
use crate::data::Dataset;
use crate::engine::{AfterStep, Data, Engine, Epoch, OptimizerState, Reducer, State, Totals};
use crate::recipe::TrainConfig;
use crate::{Error, Result, libtorch};

/// The settings that ranks need not share.
const OWN_SETTINGS: [&str; 5] = ["device", "threads", "run", "data", "init"];

/// Trains with an engine of this process and those of the other ranks. The engine adds up its
/// gradients with theirs; the rest is done here.
pub struct DataParallelEngine {
    own: Box<dyn Engine>,
    peers: Arc<Peers>,
    /// The test images that this rank evaluates.
    test_part: Range<usize>,
    test_count: usize,
    classes: usize,
}

impl DataParallelEngine {
    /// Waits for the other ranks, checks that they train the same, and opens this rank's engine on
    /// `device` with `open`, which gets the test images that this rank evaluates.
    ///
    /// # Errors
    /// If a rank does not arrive, or trains something else, or the engine cannot be opened.
    pub fn open(
        peers: &Arc<Peers>,
        recipe: &TrainConfig,
        state: &State,
        data: &Data,
        device: Device,
        open: impl FnOnce(&Data) -> Result<Box<dyn Engine>>,
    ) -> Result<Self> {
        peers.join(device, &facts(recipe, state, data)?)?;
        let test_count = data.test.len() as usize;
        let test_part = peers.launch().part(test_count);
        let test = data.test.split(test_part.start as i64).1.first(test_part.len() as i64);
        let own = open(&Data { train: data.train.first(i64::MAX), test })?;
        let classes = recipe.model.classes;
        Ok(Self { own, peers: Arc::clone(peers), test_part, test_count, classes })
    }

    /// Checks that the parameters of all ranks are the same, to the bit.
    fn compare_states(&self) -> Result<()> {
        let Launch { rank, size, .. } = *self.peers.launch();
        let mut checksums = vec![0; size];
        checksums[rank] = state_checksum(&self.own.state()?) as i64;
        let summed = self.peers.sum(vec![Tensor::f_from_slice(&checksums)?])?;
        let found = Vec::<i64>::try_from(&summed[0])?;
        let others: Vec<String> = (1..size)
            .filter(|rank| found[*rank] != found[0])
            .map(|rank| rank.to_string())
            .collect();
        match &others[..] {
            [] => Ok(()),
            _ => Err(Error::Job(format!(
                "after this epoch the parameters of rank {} differ from those of rank 0",
                others.join(" and of rank ")
            ))),
        }
    }
}

impl Engine for DataParallelEngine {
    fn train(&mut self, epoch: &Epoch, after_step: &mut AfterStep) -> Result<Totals> {
        let totals = self.own.train(epoch, after_step)?;
        self.compare_states()?;
        let sums = Tensor::f_from_slice(&[totals.loss, totals.misclassified as f64])?;
        let sums = Vec::<f64>::try_from(&self.peers.sum(vec![sums])?[0])?;
        Ok(Totals { loss: sums[0], misclassified: sums[1] as u64, ..totals })
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let mut all = vec![0.0; self.test_count * self.classes];
        if !self.test_part.is_empty() {
            let Range { start, end } = self.test_part;
            let part = &mut all[start * self.classes..end * self.classes];
            part.copy_from_slice(&self.own.logits()?);
        }
        Ok(Vec::try_from(&self.peers.sum(vec![Tensor::f_from_slice(&all)?])?[0])?)
    }

    fn state(&self) -> Result<State> {
        self.own.state()
    }

    fn measure(&mut self) -> Result<()> {
        self.own.measure()
    }

    fn profile(&self) -> Result<Option<String>> {
        self.own.profile()
    }
}

/// Returns what must be the same for all ranks.
fn facts(recipe: &TrainConfig, state: &State, data: &Data) -> Result<Map<String, Value>> {
    let mut facts = Map::new();
    let mut add = |name: &str, value: Value| facts.insert(name.to_owned(), value);
    add("the version of lenet5", json!(env!("CARGO_PKG_VERSION")));
    add("the version of libtorch", json!(libtorch::VERSION));
    let settings = serde_json::to_value(recipe).expect("settings are plain data");
    for (name, value) in settings.as_object().into_iter().flatten() {
        if !OWN_SETTINGS.contains(&name.as_str()) {
            add(name, value.clone());
        }
    }
    add("the number of training images", json!(data.train.len()));
    add("the number of test images", json!(data.test.len()));
    add("the checksum of the training images", json!(dataset_checksum(&data.train)?));
    add("the checksum of the test images", json!(dataset_checksum(&data.test)?));
    add("the checksum of the parameters", json!(state_checksum(state)));
    Ok(facts)
}

/// A checksum of all images and labels.
fn dataset_checksum(data: &Dataset) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    data.images().size().hash(&mut hasher);
    Vec::<u8>::try_from(data.images().flatten(0, -1))?.hash(&mut hasher);
    Vec::<i64>::try_from(data.labels())?.hash(&mut hasher);
    Ok(hasher.finish())
}

/// A checksum of the bits of all tensors.
fn state_checksum(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    let optimizer: &[&[crate::Array]] = match &state.optimizer {
        OptimizerState::Sgd { momentum_buffer } => &[momentum_buffer],
        OptimizerState::Adam { exp_avg, exp_avg_sq, .. } => &[exp_avg, exp_avg_sq],
        OptimizerState::Sdlm { curvature } => &[curvature],
        _ => &[],
    };
    for array in state.tensors.iter().chain(optimizer.iter().copied().flatten()) {
        array.shape().hash(&mut hasher);
        for value in array.to_f32().iter() {
            value.to_bits().hash(&mut hasher);
        }
    }
    hasher.finish()
}
