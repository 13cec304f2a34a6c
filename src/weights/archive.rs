//! The zip archive of `torch.save` and of TorchScript: `NAME/data.pkl` beside `NAME/data/0`, ...
//!
//! Source: the layout that PyTorch 2.11's `torch/serialization.py` writes.

use std::io::{Cursor, Read, Write};

use zip::read::{ArchiveOffset, Config};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::pickle::{self, MAX_PICKLE_BYTES};
use super::value::{self, MAX_TENSOR_BYTES, Value};
use crate::Result;

/// `torch.save` aligns storages so that `torch.load(mmap=True)` can map them.
const ALIGNMENT: u16 = 64;

/// What an archive holds.
#[derive(Debug)]
pub struct Archive {
    /// The pickled value.
    pub value: Value,
    /// Whether it is TorchScript: it then has code, which is not looked at.
    pub torchscript: bool,
    /// The extra file `config.json`, which this crate writes into TorchScript.
    pub config: Option<String>,
}

/// Reads an archive.
///
/// # Errors
/// What was expected and what was found.
pub fn read(bytes: &[u8]) -> Result<Archive, String> {
    // The archive starts where the file does. Left to find the start itself, zip 9.8 mistakes the
    // directory's second entry for it where the first one is as long as the zip64 records at the end,
    // which PyTorch always writes: with a NAME of 21 characters.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut zip = ZipArchive::with_config(config, Cursor::new(bytes))
        .map_err(|error| format!("expected a zip archive, found a broken one ({error})"))?;
    let root = zip
        .file_names()
        .filter_map(|name| Some(name.ok()?.strip_suffix("data.pkl")?.to_owned()))
        .filter(|root| root.matches('/').count() <= 1)
        .min_by_key(|root| root.len())
        .ok_or("expected a PyTorch archive, found a zip without data.pkl")?;
    let torchscript = zip.index_for_name(&format!("{root}constants.pkl")).is_some();
    if let Some(order) = member(&mut zip, &format!("{root}byteorder"), 16)?
        && order != b"little"
    {
        return Err(format!(
            "expected byte order little, found {}",
            String::from_utf8_lossy(&order)
        ));
    }
    let config = member(&mut zip, &format!("{root}extra/config.json"), MAX_PICKLE_BYTES as u64)?
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let name = format!("{root}data.pkl");
    let data = member(&mut zip, &name, MAX_PICKLE_BYTES as u64)?.ok_or("expected data.pkl")?;
    let pickle = pickle::parse(&data)?;
    let value = value::resolve(&pickle, &mut |key| {
        let name = format!("{root}data/{key}");
        member(&mut zip, &name, MAX_TENSOR_BYTES)?.ok_or_else(|| {
            format!("expected the storage {} in the archive, found none", value::shown(&name))
        })
    })?;
    Ok(Archive { value, torchscript, config })
}

/// The bytes of a member, at most `limit` whatever the header says.
fn member(
    zip: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, String> {
    let Some(index) = zip.index_for_name(name) else { return Ok(None) };
    let mut file = zip
        .by_index(index)
        .map_err(|error| format!("{name} in the archive cannot be read ({error})"))?;
    let mut bytes = Vec::new();
    file.by_ref()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name} in the archive cannot be read ({error})"))?;
    if bytes.len() as u64 > limit {
        return Err(format!(
            "expected {name} in the archive to be at most {limit} bytes, found more"
        ));
    }
    Ok(Some(bytes))
}

/// Writes what `torch.save` would: `torch.load(weights_only=True)`, also with `mmap=True`, reads it.
///
/// # Errors
/// Where a tensor's type has no storage class here.
pub fn write(value: &Value) -> Result<Vec<u8>> {
    let mut storages = Vec::new();
    let pickle = pickle::write(value, &mut storages)?;
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT);
    let mut add = |name: &str, bytes: &[u8]| -> zip::result::ZipResult<()> {
        zip.start_file(format!("archive/{name}"), options)?;
        Ok(zip.write_all(bytes)?)
    };
    (|| {
        add("data.pkl", &pickle)?;
        add("byteorder", b"little")?;
        for (key, storage) in storages.iter().enumerate() {
            add(&format!("data/{key}"), storage)?;
        }
        add("version", b"3\n")
    })()
    .and_then(|()| zip.finish())
    .map(Cursor::into_inner)
    .map_err(|error| crate::Error::Config(format!("cannot write a zip archive: {error}")))
}
