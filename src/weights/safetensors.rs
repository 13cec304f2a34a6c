//! The safetensors format.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use super::dtype::DType;
use super::limits::{Limits, RAISE};
use super::resolve::MAX_DIMENSIONS;
use super::value::{Value, shown};
use crate::{Error, Result};

const KINDS: [(Dtype, Kind); 7] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::U8, Kind::Uint8),
];

/// Tensors in the order of their data, and the text metadata.
pub type Contents = (Vec<(String, Value)>, HashMap<String, String>);

/// Reads a file's bytes.
///
/// # Errors
/// What was expected and what was found.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Contents, String> {
    let broken = |error| format!("expected safetensors, found a broken file ({error})");
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if header > limits.pickle_bytes() as u64 {
        let limit = limits.pickle_bytes();
        return Err(format!("expected a header of at most {limit} bytes, found {header}; {RAISE}"));
    }
    let limit = limits.tensor_bytes();
    if bytes.len() as u64 > limit {
        return Err(format!("expected at most {limit} bytes, found {}; {RAISE}", bytes.len()));
    }
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let view = file.tensor(&name).map_err(broken)?;
        if view.shape().len() > MAX_DIMENSIONS {
            let what = format!("a tensor of {} dimensions", view.shape().len());
            tensors.push((name, Value::Foreign(what)));
            continue;
        }
        let Some((_, kind)) = KINDS.iter().find(|(dtype, _)| *dtype == view.dtype()) else {
            let what = format!("a tensor of {:?}", view.dtype());
            tensors.push((name, Value::Foreign(what)));
            continue;
        };
        let shape: Vec<i64> = view
            .shape()
            .iter()
            .map(|&size| i64::try_from(size))
            .collect::<Result<_, _>>()
            .map_err(|_| format!("{}: expected sizes below 2^63", shown(&name)))?;
        let tensor = Tensor::f_from_data_size(view.data(), &shape, *kind)
            .map_err(|error| format!("{}: {}", shown(&name), Error::from(error)))?;
        tensors.push((name, Value::Tensor(tensor)));
    }
    Ok((tensors, metadata.metadata().clone().unwrap_or_default()))
}

/// Writes tensors and metadata; `safetensors.torch.load_file` reads the result.
///
/// # Errors
/// Where a tensor's type has no counterpart.
pub fn write(tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let mut buffers = Vec::new();
    for (name, tensor) in tensors {
        let dtype = KINDS
            .iter()
            .find(|(_, kind)| *kind == tensor.kind())
            .map(|(dtype, _)| *dtype)
            .ok_or_else(|| {
                Error::Config(format!("{name}: {:?} is not supported", tensor.kind()))
            })?;
        let shape: Vec<usize> = tensor.size().iter().map(|&size| size as usize).collect();
        buffers.push((name, dtype, shape, DType::of(tensor.kind())?.bytes(tensor)?));
    }
    let mut views = Vec::new();
    for (name, dtype, shape, data) in &buffers {
        let view = TensorView::new(*dtype, shape.clone(), data)
            .map_err(|error| Error::Config(format!("{name}: {error}")))?;
        views.push((name.as_str(), view));
    }
    let mut bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| Error::Config(format!("cannot write safetensors: {error}")))?;
    sort_metadata(&mut bytes);
    Ok(bytes)
}

/// The crate writes the metadata in the order of a `HashMap`, another one each time: sorted, the
/// same weights make the same file, with the same checksum. The header's length stays.
fn sort_metadata(bytes: &mut [u8]) {
    let (length, rest) = bytes.split_first_chunk_mut::<8>().expect("a header");
    let header = &mut rest[..u64::from_le_bytes(*length) as usize];
    let mut json: serde_json::Value = serde_json::from_slice(header).expect("a JSON header");
    if let Some(metadata) = json["__metadata__"].as_object_mut() {
        metadata.sort_keys();
    }
    let sorted = json.to_string();
    header.fill(b' ');
    header[..sorted.len()].copy_from_slice(sorted.as_bytes());
}
