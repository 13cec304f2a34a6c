//! The types of tensors' elements, by their names in PyTorch.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// The element types that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DType(Kind);

impl DType {
    /// With the name of the storage's class, and of the dtype, in `torch`.
    const ALL: [(Kind, &'static str, &'static str); 10] = [
        (Kind::Float, "FloatStorage", "float32"),
        (Kind::Double, "DoubleStorage", "float64"),
        (Kind::Half, "HalfStorage", "float16"),
        (Kind::BFloat16, "BFloat16Storage", "bfloat16"),
        (Kind::Int64, "LongStorage", "int64"),
        (Kind::Int, "IntStorage", "int32"),
        (Kind::Int16, "ShortStorage", "int16"),
        (Kind::Int8, "CharStorage", "int8"),
        (Kind::Uint8, "ByteStorage", "uint8"),
        (Kind::Bool, "BoolStorage", "bool"),
    ];

    /// The type of a tensor's elements.
    ///
    /// # Errors
    /// Where it is none that is read and written here.
    pub fn of(kind: Kind) -> Result<Self> {
        match Self::ALL.iter().any(|(k, ..)| *k == kind) {
            true => Ok(Self(kind)),
            false => Err(Error::Config(format!("tensors of {kind:?} are not supported"))),
        }
    }

    /// From a storage's class, such as `torch.FloatStorage`.
    pub fn from_storage(global: &str) -> Option<Self> {
        let name = global.strip_prefix("torch.")?;
        Self::ALL.iter().find(|(_, storage, _)| *storage == name).map(|(kind, ..)| Self(*kind))
    }

    /// From its name, such as `torch.float32`.
    pub fn from_name(global: &str) -> Option<Self> {
        let name = global.strip_prefix("torch.")?;
        Self::ALL.iter().find(|(.., dtype)| *dtype == name).map(|(kind, ..)| Self(*kind))
    }

    /// The class of its storage in `torch`.
    pub fn storage(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self.0).expect("one of the list").1
    }

    /// Its name in `torch`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self.0).expect("one of the list").2
    }

    /// As libtorch has it.
    pub fn kind(self) -> Kind {
        self.0
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        self.0.elt_size_in_bytes()
    }

    /// The elements of a tensor, row-major, little-endian.
    pub fn bytes(self, tensor: &Tensor) -> Result<Vec<u8>> {
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let numel = tensor.numel();
        let mut bytes = vec![0; numel * self.size()];
        tensor.f_copy_data_u8(&mut bytes, numel)?;
        Ok(bytes)
    }
}
