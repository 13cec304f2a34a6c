//! PyTorch's random numbers, from a CPU generator whose state is separate from the global one.

use std::sync::{Mutex, PoisonError};

use lenet5_core::Array;
use tch::Tensor;

use super::tensors::{to_array, to_tensor};
use super::{generator_state, run_then_restore, set_generator_state};
use crate::Result;

/// The lock of libtorch's one global CPU generator, from which its functions draw.
static GLOBAL: Mutex<()> = Mutex::new(());

/// A CPU generator with a state of its own. The state is set in libtorch's global generator only
/// while numbers are drawn, so that two users in one process do not affect each other.
#[derive(Debug)]
pub struct Generator(Tensor);

impl Generator {
    /// Creates a generator in the state after `torch.manual_seed(seed)`.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub fn seeded(seed: i64) -> Result<Self> {
        let _lock = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        let before = generator_state()?;
        tch::manual_seed(seed);
        let own = generator_state()?;
        set_generator_state(&before)?;
        Ok(Self(own))
    }

    /// Creates a generator from a state that [`Generator::state`] or `torch.get_rng_state()`
    /// returned.
    ///
    /// # Errors
    /// If it is not a generator's state.
    pub fn from_state(state: &Array) -> Result<Self> {
        let _lock = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        let own = to_tensor(state)?;
        let before = generator_state()?;
        let checked = set_generator_state(&own);
        set_generator_state(&before)?;
        checked.map(|()| Self(own))
    }

    /// Returns the state, as `torch.get_rng_state()` does: 5,056 bytes, uint8.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub fn state(&self) -> Result<Array> {
        to_array(&self.0)
    }

    /// Runs `work`, during which libtorch's functions draw from this generator.
    ///
    /// # Errors
    /// If libtorch reports an error.
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
