//! How much of the machine one file may take.

/// What to do about a limit, for messages.
pub(super) const RAISE: &str = "--max-memory raises this";

/// Bounds on what reading one file of weights may take. Everything is derived from the memory, so
/// that one number can be raised for an unusual file.
///
/// LeNet-5's weights are 250 kB; the default leaves room for a checkpoint a hundred times as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most memory that reading may take, in bytes, beside what the program takes without it.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 1 << 30 }
    }
}

impl Limits {
    /// The largest file, which is held whole.
    pub fn file_bytes(&self) -> u64 {
        self.memory / 4
    }

    /// The most bytes of tensors, storages and strings that a file yields. While one is made, there
    /// are copies of it.
    pub fn tensor_bytes(&self) -> u64 {
        self.memory / 16
    }

    /// The longest pickle, header of safetensors, and code of TorchScript. LeNet-5's state dict takes
    /// about 1,500 bytes.
    pub fn pickle_bytes(&self) -> usize {
        usize::try_from(self.memory / 256).unwrap_or(usize::MAX)
    }

    /// The most values, those in memo entries counted each time that they are used; each takes 72 bytes,
    /// in a vector that may just have doubled.
    pub fn values(&self) -> usize {
        usize::try_from(self.memory / 1024).unwrap_or(usize::MAX)
    }
}
