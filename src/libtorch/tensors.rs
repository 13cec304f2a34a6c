//! Converts between libtorch's tensors and the core's arrays.

use lenet5_core::{Array, DType};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// The element types that both support.
const KINDS: [(DType, Kind); 10] = [
    (DType::F32, Kind::Float),
    (DType::F64, Kind::Double),
    (DType::F16, Kind::Half),
    (DType::BF16, Kind::BFloat16),
    (DType::I64, Kind::Int64),
    (DType::I32, Kind::Int),
    (DType::I16, Kind::Int16),
    (DType::I8, Kind::Int8),
    (DType::U8, Kind::Uint8),
    (DType::Bool, Kind::Bool),
];

/// Copies an array to a tensor on the CPU.
///
/// # Errors
/// If libtorch reports an error.
pub fn to_tensor(array: &Array) -> Result<Tensor> {
    let kind = KINDS.iter().find(|(dtype, _)| *dtype == array.dtype()).map(|(_, kind)| *kind);
    let kind =
        kind.ok_or_else(|| Error::Torch(format!("no tensors of {}", array.dtype().name())))?;
    Ok(Tensor::f_from_data_size(array.bytes(), &sizes(array.shape()), kind)?)
}

/// Copies a tensor on any device to an array.
///
/// # Errors
/// If arrays do not support the tensor's element type, or libtorch reports an error.
pub fn to_array(tensor: &Tensor) -> Result<Array> {
    let kind = tensor.f_kind()?;
    let dtype = KINDS.iter().find(|(_, other)| *other == kind).map(|(dtype, _)| *dtype);
    let dtype = dtype.ok_or_else(|| Error::Torch(format!("no arrays of {kind:?}")))?;
    let tensor = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
    let count = tensor.numel();
    let mut bytes = vec![0; count * dtype.size()];
    tensor.f_copy_data_u8(&mut bytes, count)?;
    let shape = tensor.size().iter().map(|size| *size as usize).collect();
    Ok(Array::new(dtype, shape, bytes)?)
}

/// Copies arrays to tensors on the CPU.
///
/// # Errors
/// The errors of [`to_tensor`].
pub fn to_tensors(arrays: &[Array]) -> Result<Vec<Tensor>> {
    arrays.iter().map(to_tensor).collect()
}

/// Copies tensors to arrays.
///
/// # Errors
/// The errors of [`to_array`].
pub fn to_arrays(tensors: &[Tensor]) -> Result<Vec<Array>> {
    tensors.iter().map(to_array).collect()
}

/// Converts a shape to libtorch's type.
pub fn sizes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|size| *size as i64).collect()
}
