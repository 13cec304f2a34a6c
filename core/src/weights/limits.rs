//! Limits on the memory that reading one file may take.

/// The remedy that messages about a limit name.
pub(super) const RAISE: &str = "--max-memory raises this";

/// Limits on the memory that reading one file of weights may take. All limits are derived from
/// `memory`, so that one number can be raised for an unusually large file.
///
/// The weights of LeNet-5 take 250 kB; the default is enough for checkpoints that are a hundred
/// times as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest amount of memory that reading may take, in bytes, in addition to what the
    /// program takes without it.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 1 << 30 }
    }
}

impl Limits {
    /// The size of the largest file in bytes. A file is held in memory as a whole.
    pub fn file_bytes(&self) -> u64 {
        self.memory / 4
    }

    /// The largest number of bytes of tensors, storages and strings that a file may hold together.
    /// It is a small part of the memory, as there are several copies while a tensor is built.
    pub fn tensor_bytes(&self) -> u64 {
        self.memory / 16
    }

    /// The length in bytes of the longest pickle, safetensors header or TorchScript code. The
    /// pickle of LeNet-5's state dict takes about 1,500 bytes.
    pub fn pickle_bytes(&self) -> usize {
        usize::try_from(self.memory / 256).unwrap_or(usize::MAX)
    }

    /// The largest number of values. A value counts each time that it is referred to. It takes 72
    /// bytes, in a vector that may just have doubled its capacity.
    pub fn values(&self) -> usize {
        usize::try_from(self.memory / 1024).unwrap_or(usize::MAX)
    }
}
