//! Reads the format that `torch.save` had before PyTorch 1.6: five pickles one after another (magic
//! number, version, system, the value, the keys of its storages), then the storages.
//!
//! Source: `_legacy_save` and `_legacy_load` in `torch/serialization.py` of PyTorch 2.11.

use std::collections::HashMap;
use std::ops::Range;

use super::Limits;
use super::pickle::{self, Node, Pickle};
use super::resolve::{Resolved, Source, resolve, storage, storage_element_size};
use super::value::shown;

/// The magic number `0x1950a86a20f9469cfc6c`, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL_VERSION: i64 = 1001;

/// Whether the bytes start with the pickled magic number.
pub fn is_legacy(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(64)];
    pickle::parse(start, &Limits::default()).is_ok_and(|pickle| match &pickle.nodes[pickle.root] {
        Node::Bytes(bytes) => {
            let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            bytes[..length] == MAGIC
        }
        _ => false,
    })
}

/// Reads the bytes of a file that [`is_legacy`].
///
/// # Errors
/// If the bytes are not as expected; the message states what was expected and what was found.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Resolved, String> {
    let mut rest = bytes;
    let mut next = |what: &str| {
        let pickle =
            pickle::parse(rest, limits).map_err(|message| format!("{message} of {what}"))?;
        rest = &rest[pickle.length..];
        Ok::<_, String>(pickle)
    };
    next("the magic number")?;
    let version = next("the version of the format")?;
    match version.nodes[version.root] {
        Node::Int(PROTOCOL_VERSION) => {}
        _ => return Err(format!("expected version {PROTOCOL_VERSION} of torch.save's old format")),
    }
    check_byte_order(&next("the system's description")?)?;
    let value = next("the value")?;
    let keys = next("the keys of the storages")?;
    let storages = storages(rest, &value, &keys)?;
    resolve(
        &value,
        limits,
        &mut Source {
            big_endian: false,
            storage: &mut |key| {
                let range = storages.get(key).ok_or_else(|| {
                    format!("expected the storage {} in the file, found none", shown(key))
                })?;
                Ok(rest[range.clone()].to_vec())
            },
        },
    )
}

fn check_byte_order(system: &Pickle) -> Result<(), String> {
    let Node::Dict(items) = &system.nodes[system.root] else {
        return Err("expected the system's description as a dict".to_owned());
    };
    let big = items.iter().any(|&(key, value)| {
        matches!(&system.nodes[key], Node::Str(key) if key == "little_endian")
            && matches!(system.nodes[value], Node::Bool(false))
    });
    if big { Err("expected byte order little, found big".to_owned()) } else { Ok(()) }
}

/// The range of each storage's elements in `bytes`, by key. A storage consists of the number of its
/// elements (eight bytes) and the elements.
fn storages(
    bytes: &[u8],
    value: &Pickle,
    keys: &Pickle,
) -> Result<HashMap<String, Range<usize>>, String> {
    let mut sizes = HashMap::new();
    for node in &value.nodes {
        if let Some(storage) = storage(&value.nodes, node) {
            sizes.insert(storage.key, storage_element_size(storage.class));
        }
    }
    let Node::List(keys_found) = &keys.nodes[keys.root] else {
        return Err("expected the keys of the storages as a list".to_owned());
    };
    let mut ranges = HashMap::new();
    let mut offset = 0usize;
    for &key in keys_found {
        let Node::Str(key) = &keys.nodes[key] else {
            return Err("expected the key of a storage as a string".to_owned());
        };
        let element = sizes.get(key.as_str()).copied().flatten().ok_or_else(|| {
            format!("expected a storage of a known type, found {} of another", shown(key))
        })?;
        if ranges.contains_key(key) {
            return Err(format!("expected each storage once, found {} again", shown(key)));
        }
        let end = || format!("expected more of the storage {}, found the file's end", shown(key));
        let count = bytes.get(offset..).and_then(<[u8]>::first_chunk).ok_or_else(end)?;
        let start = offset + count.len();
        offset = usize::try_from(u64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(element)?.checked_add(start))
            .filter(|&offset| offset <= bytes.len())
            .ok_or_else(end)?;
        ranges.insert(key.clone(), start..offset);
    }
    Ok(ranges)
}
