//! Reads and writes the zip archives of `torch.save` and TorchScript: `NAME/data.pkl` beside
//! `NAME/data/0`, `NAME/data/1`, ...
//!
//! Source of the layout: `torch/serialization.py` and `caffe2/serialize/inline_container.h` of
//! PyTorch 2.11.

use super::limits::{Limits, RAISE};
use super::resolve::{Resolved, Source, resolve};
use super::value::{Value, shown};
use super::zip::{self, ZipArchive};
use super::{pickle, pickle_write};
use crate::{Result, foreign};

/// The alignment of storages, in bytes. `torch.save` aligns them so that `torch.load(mmap=True)`
/// can map them into memory.
const ALIGNMENT: usize = 64;

/// The largest number of members. The largest models of PyTorch have some thousands.
const MAX_MEMBERS: usize = 10_000;

/// The contents of an archive.
#[derive(Debug)]
pub struct Archive {
    /// The value that was pickled in `data.pkl`.
    pub resolved: Resolved,
    /// The name of the folder within the archive, with a slash at its end; may be empty.
    pub root: String,
    /// The text of the member `version`: the version of the format, or of TorchScript's operators.
    pub version: Option<String>,
    /// The source code of a TorchScript archive, which is never run.
    pub code: Option<String>,
    /// Whether a member is compressed, which `torch.save` never does.
    pub compressed: bool,
}

/// Reads the bytes of an archive.
///
/// # Errors
/// If the bytes are not as expected; the message states what was expected and what was found.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Archive, String> {
    let mut members = Members::open(bytes)?;
    let root = members.root()?;
    let pickle_limit = limits.pickle_bytes() as u64;
    let order = members.read(&format!("{root}byteorder"), 16)?;
    let big_endian = match order.as_deref() {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(order) => {
            let order = String::from_utf8_lossy(order);
            return Err(format!("expected byte order little or big, found {}", shown(&order)));
        }
    };
    let version = members.read(&format!("{root}version"), 16)?;
    let version = version.map(|text| shown(String::from_utf8_lossy(&text).trim()));
    let code = members.code(&root, pickle_limit)?;
    let data =
        members.read(&format!("{root}data.pkl"), pickle_limit)?.ok_or("expected data.pkl")?;
    let pickle = pickle::parse(&data, limits)?;
    let compressed = members.compressed;
    let resolved = resolve(
        &pickle,
        limits,
        &mut Source {
            big_endian,
            storage: &mut |key| {
                let name = format!("{root}data/{key}");
                members.read(&name, limits.tensor_bytes())?.ok_or_else(|| {
                    format!("expected the storage {} in the archive, found none", shown(&name))
                })
            },
        },
    )?;
    Ok(Archive { resolved, root, version, code, compressed })
}

/// A zip archive that notes whether compressed members were read.
struct Members<'a> {
    zip: ZipArchive<'a>,
    /// Whether any member that was read so far is compressed.
    compressed: bool,
}

impl<'a> Members<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        if !bytes.starts_with(b"PK\x03\x04") {
            let found = foreign::name(bytes).unwrap_or("another form");
            return Err(format!("expected a zip archive, found {found}"));
        }
        Ok(Self { zip: ZipArchive::open(bytes, MAX_MEMBERS)?, compressed: false })
    }

    /// The folder that holds data.pkl: the outermost one.
    fn root(&self) -> Result<String, String> {
        self.zip
            .names()
            .filter_map(|name| Some(name.strip_suffix("data.pkl")?.to_owned()))
            .filter(|root| {
                root.is_empty() || (root.ends_with('/') && root.matches('/').count() == 1)
            })
            .min_by_key(String::len)
            .ok_or_else(|| self.without_pickle())
    }

    /// The message about a zip archive without data.pkl.
    fn without_pickle(&self) -> String {
        let any = |test: &dyn Fn(&str) -> bool| self.zip.names().any(test);
        let found = if any(&|name| name.ends_with("archive_format")) {
            "a torch.export program: save its state_dict in Python instead"
        } else if any(&|name| name.ends_with("model.json")) {
            "TorchScript of PyTorch 1.3 or older, which PyTorch 2.11 does not read either"
        } else if any(&|name| name.ends_with(".npy")) {
            "NumPy arrays (.npz): in Python, torch.save({name: torch.tensor(array) for name, array in \
             numpy.load(FILE).items()}, 'weights.pth')"
        } else {
            "a zip without data.pkl"
        };
        format!("expected a PyTorch archive, found {found}")
    }

    /// The bytes of a member; `None` if there is no such member. Fails if there are more than
    /// `limit` bytes, whatever size the header states.
    fn read(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
        self.compressed |= self.zip.is_compressed(name);
        let read = self.zip.read(name, limit);
        let name = shown(name);
        let read =
            read.map_err(|error| format!("{name} in the archive cannot be read ({error})"))?;
        let Some(bytes) = read else { return Ok(None) };
        if bytes.len() as u64 > limit {
            return Err(format!(
                "expected {name} in the archive to be at most {limit} bytes, found more; {RAISE}"
            ));
        }
        Ok(Some(bytes))
    }

    /// All source code of a TorchScript archive, except files that would exceed the limit together;
    /// `None` if there is no constants.pkl and so no TorchScript.
    fn code(&mut self, root: &str, limit: u64) -> Result<Option<String>, String> {
        if !self.zip.has(&format!("{root}constants.pkl")) {
            return Ok(None);
        }
        let folder = format!("{root}code/");
        let names: Vec<String> = self
            .zip
            .names()
            .filter(|name| name.starts_with(&folder) && name.ends_with(".py"))
            .map(str::to_owned)
            .collect();
        let mut code = String::new();
        for name in names {
            let left = limit.saturating_sub(code.len() as u64);
            // Files that are too long are left out: the code only serves for hints.
            let Ok(Some(text)) = self.read(&name, left) else { continue };
            code.push_str(&String::from_utf8_lossy(&text));
        }
        Ok(Some(code))
    }
}

/// Encodes a value as `torch.save` does. `torch.load(weights_only=True)` reads the result, also
/// with `mmap=True`.
///
/// # Errors
/// If the value holds something other than tensors and plain data, or the archive would be larger
/// than 4 GiB.
pub fn write(value: &Value) -> Result<Vec<u8>> {
    let mut storages = Vec::new();
    let pickle = pickle_write::write(value, &mut storages)?;
    let mut members: Vec<(String, &[u8])> =
        vec![("archive/data.pkl".to_owned(), &pickle), ("archive/byteorder".to_owned(), b"little")];
    members.extend(
        (0..)
            .zip(&storages)
            .map(|(key, storage): (usize, _)| (format!("archive/data/{key}"), *storage)),
    );
    members.push(("archive/version".to_owned(), b"3\n"));
    zip::write(&members, ALIGNMENT).map_err(crate::Error::Config)
}
