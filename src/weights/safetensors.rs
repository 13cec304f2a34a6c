//! The safetensors format.

use std::collections::{BTreeMap, HashMap};

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

/// The key of the checksum in the metadata; as long as it is present, it is checked.
const CHECKSUM_KEY: &str = "lenet5.crc32";

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
    let mut text = metadata.metadata().clone().unwrap_or_default();
    if let Some(expected) = text.remove(CHECKSUM_KEY) {
        let found = checksum(file.iter(), &text);
        if found != expected {
            return Err(format!(
                "expected the checksum {expected}, found {found}: the file is damaged, or its \
                 metadata are from another file; to save changed tensors, leave {CHECKSUM_KEY} out \
                 of the metadata"
            ));
        }
    }
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
    Ok((tensors, text))
}

/// Writes tensors and metadata with a checksum of both; `safetensors.torch.load_file` reads the result.
///
/// # Errors
/// Where a tensor's type has no counterpart.
pub fn write(
    tensors: &[(String, Tensor)],
    mut metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
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
    let sum = checksum(views.iter().map(|(name, view)| (*name, view.clone())), &metadata);
    metadata.insert(CHECKSUM_KEY.to_owned(), sum);
    let mut bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| Error::Config(format!("cannot write safetensors: {error}")))?;
    sort_metadata(&mut bytes);
    Ok(bytes)
}

/// CRC-32 of the metadata and the tensors, each in the order of their names, in hexadecimal. `checksum` in
/// scripts/lenet5.py computes it too.
fn checksum<'a>(
    tensors: impl Iterator<Item = (&'a str, TensorView<'a>)>,
    metadata: &HashMap<String, String>,
) -> String {
    let mut sum = crc32fast::Hasher::new();
    for (key, value) in BTreeMap::from_iter(metadata) {
        sum.update(format!("{key}={value}\n").as_bytes());
    }
    for (name, view) in BTreeMap::from_iter(tensors) {
        sum.update(format!("{name} {:?} {:?}\n", view.dtype(), view.shape()).as_bytes());
        sum.update(view.data());
    }
    format!("{:08x}", sum.finalize())
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
