//! Reads and writes the safetensors format: the length of a JSON header in eight bytes, the header,
//! then the bytes of the tensors.
//!
//! Source: the description of the format in the README of
//! <https://github.com/huggingface/safetensors>.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::limits::{Limits, RAISE};
use super::resolve::MAX_DIMENSIONS;
use super::value::{Value, shown};
use crate::{Array, DType};

/// The key of the text metadata in the header.
const METADATA_KEY: &str = "__metadata__";

/// The key of this crate's checksum in the metadata. A file that has it is checked.
const CHECKSUM_KEY: &str = "lenet5.crc32";

/// A tensor's entry in the header.
#[derive(Deserialize)]
struct TensorEntry {
    dtype: String,
    shape: Vec<usize>,
    /// The first byte and the one after the last, counted from the end of the header.
    data_offsets: (usize, usize),
}

/// Tensors in the order of their data, and the text metadata.
pub type Tensors = (Vec<(String, Value)>, BTreeMap<String, String>);

/// Reads the bytes of a safetensors file.
///
/// # Errors
/// If the bytes are not as expected; the message states what was expected and what was found.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Tensors, String> {
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if length > limits.pickle_bytes() as u64 {
        let limit = limits.pickle_bytes();
        return Err(format!("expected a header of at most {limit} bytes, found {length}; {RAISE}"));
    }
    let limit = limits.tensor_bytes();
    if bytes.len() as u64 > limit {
        return Err(format!("expected at most {limit} bytes, found {}; {RAISE}", bytes.len()));
    }
    let (header, data) = bytes
        .get(8..)
        .and_then(|rest| rest.split_at_checked(length as usize))
        .ok_or_else(|| broken("its header ends beyond the file"))?;
    let mut header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)
        .map_err(|error| broken(&format!("its header is no JSON object: {error}")))?;
    let mut metadata: BTreeMap<String, String> = match header.remove(METADATA_KEY) {
        None => BTreeMap::new(),
        Some(metadata) => serde_json::from_value(metadata)
            .map_err(|error| broken(&format!("its metadata are no text: {error}")))?,
    };
    let mut entries = Vec::new();
    for (name, entry) in header {
        let entry: TensorEntry = serde_json::from_value(entry)
            .map_err(|error| broken(&format!("{}: {error}", shown(&name))))?;
        entries.push((name, entry));
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut tensors = Vec::new();
    let mut next = 0;
    let mut checked = BTreeMap::new();
    for (name, TensorEntry { dtype, shape, data_offsets: (start, end) }) in entries {
        // The tensors fill the data without gaps and without overlaps.
        let bytes = (start == next).then(|| data.get(start..end)).flatten().ok_or_else(|| {
            broken(&format!("{}: bytes {start} to {end} do not follow the others", shown(&name)))
        })?;
        next = end;
        checked.insert(name.clone(), (dtype.clone(), shape.clone(), bytes));
        let value = match DType::from_safetensors(&dtype) {
            _ if shape.len() > MAX_DIMENSIONS => {
                Value::Foreign(format!("a tensor of {} dimensions", shape.len()))
            }
            None => Value::Foreign(format!("a tensor of {}", shown(&dtype))),
            Some(dtype) => Array::new(dtype, shape, bytes.to_vec())
                .map(Value::Tensor)
                .map_err(|error| broken(&format!("{}: {error}", shown(&name))))?,
        };
        tensors.push((name, value));
    }
    if next != data.len() {
        return Err(broken(&format!("expected {next} bytes of data, found {}", data.len())));
    }
    if let Some(expected) = metadata.remove(CHECKSUM_KEY) {
        let tensors = checked.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), dtype.as_str(), shape.as_slice(), *bytes)
        });
        let found = checksum(tensors, &metadata);
        if found != expected {
            return Err(format!(
                "expected the checksum {}, found {found}: the file is damaged, or its metadata are from another \
                 file; to save changed tensors, leave {CHECKSUM_KEY} out of the metadata",
                shown(&expected)
            ));
        }
    }
    Ok((tensors, metadata))
}

fn broken(found: &str) -> String {
    format!("expected safetensors, found a broken file ({found})")
}

/// Encodes tensors and metadata with a checksum of both. `safetensors.torch.load_file` reads the
/// result.
pub fn write(tensors: &[(String, Array)], mut metadata: BTreeMap<String, String>) -> Vec<u8> {
    let mut by_name: Vec<_> = tensors.iter().map(|(name, array)| (name, array)).collect();
    by_name.sort_by_key(|(name, _)| *name);
    let entries = by_name.iter().map(|(name, array)| {
        (name.as_str(), array.dtype().safetensors(), array.shape(), array.bytes())
    });
    let sum = checksum(entries, &metadata);
    metadata.insert(CHECKSUM_KEY.to_owned(), sum);
    // Tensors with the largest elements come first, so that all of them are aligned.
    by_name.sort_by_key(|(name, array)| (usize::MAX - array.dtype().size(), *name));
    let mut header = format!("{{{}:{}", json(METADATA_KEY), json(&metadata));
    let mut start = 0;
    for (name, array) in &by_name {
        let end = start + array.bytes().len();
        let _ = write!(
            header,
            ",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{start},{end}]}}",
            json(name),
            array.dtype().safetensors(),
            json(array.shape()),
        );
        start = end;
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    for (_, array) in by_name {
        bytes.extend(array.bytes());
    }
    bytes
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// The CRC-32 of the metadata and of the tensors (name, type, shape, bytes), each sorted by name,
/// in hexadecimal. `checksum` in scripts/lenet5.py computes it, too.
fn checksum<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a str, &'a [usize], &'a [u8])>,
    metadata: &BTreeMap<String, String>,
) -> String {
    let mut sum = crc32fast::Hasher::new();
    for (key, value) in metadata {
        sum.update(format!("{key}={value}\n").as_bytes());
    }
    for (name, dtype, shape, bytes) in tensors {
        sum.update(format!("{name} {dtype} {shape:?}\n").as_bytes());
        sum.update(bytes);
    }
    format!("{:08x}", sum.finalize())
}
