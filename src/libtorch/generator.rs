//! PyTorch's random numbers: the state of a CPU generator of one's own.

use std::sync::{Mutex, PoisonError};

use lenet5_core::Array;
use tch::Tensor;

use super::tensors::{to_array, to_tensor};
use super::{generator_state, run_then_restore, set_generator_state};
use crate::Result;

/// libtorch has one global CPU generator, from which its functions draw.
static GLOBAL: Mutex<()> = Mutex::new(());

/// A CPU generator of its own. It lends its state to libtorch's global generator for as long as something is drawn:
/// so two users in one process do not disturb each other.
#[derive(Debug)]
pub struct Generator(Tensor);

impl Generator {
    /// A generator in the state after `torch.manual_seed(seed)`.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn seeded(seed: i64) -> Result<Self> {
        let _lock = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        let before = generator_state()?;
        tch::manual_seed(seed);
        let own = generator_state()?;
        set_generator_state(&before)?;
        Ok(Self(own))
    }

    /// A generator in a state that [`Generator::state`] gave, or `torch.get_rng_state()`.
    ///
    /// # Errors
    /// Where it is not a generator's state.
    pub fn from_state(state: &Array) -> Result<Self> {
        let _lock = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        let own = to_tensor(state)?;
        let before = generator_state()?;
        let checked = set_generator_state(&own);
        set_generator_state(&before)?;
        checked.map(|()| Self(own))
    }

    /// The state, as `torch.get_rng_state()` gives it: 5,056 bytes, uint8.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn state(&self) -> Result<Array> {
        to_array(&self.0)
    }

    /// Runs `work`, in which libtorch's functions draw from this generator.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn draw<R>(&mut self, work: impl FnOnce() -> R) -> Result<R> {
        let _lock = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        let before = generator_state()?;
        set_generator_state(&self.0)?;
        let (result, restored) = run_then_restore(work, || -> Result<Tensor> {
            let after = generator_state()?;
            set_generator_state(&before)?;
            Ok(after)
        });
        self.0 = restored?;
        Ok(result)
    }
}
