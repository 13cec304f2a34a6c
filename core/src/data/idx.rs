//! Reads the IDX format of MNIST and related data sets, plain or compressed with gzip.
//!
//! An IDX file consists of a magic number (two zero bytes, the element type, the number of
//! dimensions), the dimensions as big-endian u32, and the elements. Only unsigned bytes (type 8) and
//! QMNIST's labels (int32, type 12) are read. Source: the description of the format on the MNIST page,
//! <http://yann.lecun.com/exdb/mnist/>.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{Error, Result, files, foreign};

/// The size of the largest file that is read, in bytes after decompression: nearly twice that of
/// EMNIST's largest file.
pub const MAX_BYTES: u64 = 1 << 30;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The magic number of unsigned bytes, to which the number of dimensions is added.
const BYTES: u32 = 0x0800;
/// The magic number of QMNIST's labels: int32 in two dimensions.
const QMNIST_LABELS: u32 = 0x0c02;
/// The number of int32 for each image in QMNIST's labels: the label, the writer and others.
const QMNIST_COLUMNS: usize = 8;

/// An array of bytes, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxArray {
    /// The sizes of the dimensions, the slowest one first.
    pub dimensions: Vec<usize>,
    /// The elements; their number is the product of `dimensions`.
    pub data: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes with `dimensions` dimensions.
///
/// # Errors
/// If the file cannot be read, is no IDX file of that kind, is larger than [`MAX_BYTES`], or has
/// another length than its header states.
pub fn read(path: &Path, dimensions: u8) -> Result<IdxArray> {
    decode(BufReader::new(files::open(path)?), dimensions)
        .map_err(|message| Error::file(path, message))
}

/// Reads IDX data as [`read`] does, from any reader.
///
/// # Errors
/// If the bytes are not as expected; the message states what was expected and what was found.
pub fn decode(reader: impl BufRead, dimensions: u8) -> Result<IdxArray, String> {
    let (_, array) = decode_one_of(reader, &[BYTES + u32::from(dimensions)])?;
    Ok(array)
}

/// Reads an IDX file of labels: unsigned bytes, or QMNIST's rows of eight int32, whose first column
/// is the label.
///
/// # Errors
/// If the file cannot be read, is no such file, is larger than [`MAX_BYTES`], or a label is
/// negative.
pub fn read_labels(path: &Path) -> Result<Vec<u64>> {
    decode_labels(BufReader::new(files::open(path)?)).map_err(|message| Error::file(path, message))
}

/// Reads labels as [`read_labels`] does, from any reader.
///
/// # Errors
/// If the bytes are not as expected; the message states what was expected and what was found.
pub fn decode_labels(reader: impl BufRead) -> Result<Vec<u64>, String> {
    let (magic, array) = decode_one_of(reader, &[BYTES + 1, QMNIST_LABELS])?;
    if magic != QMNIST_LABELS {
        return Ok(array.data.iter().map(|label| u64::from(*label)).collect());
    }
    if array.dimensions[1] != QMNIST_COLUMNS {
        let sizes = array.dimensions;
        return Err(format!(
            "expected QMNIST's labels with {QMNIST_COLUMNS} columns, found dimensions {sizes:?}"
        ));
    }
    let rows = array.data.chunks_exact(4 * QMNIST_COLUMNS).enumerate();
    rows.map(|(index, row)| {
        let label = i32::from_be_bytes([row[0], row[1], row[2], row[3]]);
        u64::try_from(label)
            .map_err(|_| format!("expected labels from 0 on, found {label} at index {index}"))
    })
    .collect()
}

/// Decodes IDX data that have one of these magic numbers, and returns that number too.
fn decode_one_of(
    mut reader: impl BufRead,
    magic_numbers: &[u32],
) -> Result<(u32, IdxArray), String> {
    let start = reader.fill_buf().map_err(|error| broken(&error))?;
    if start.is_empty() {
        return Err("expected an IDX file, found an empty file".to_owned());
    }
    if start.starts_with(&GZIP_MAGIC) {
        decode_plain(MultiGzDecoder::new(reader), magic_numbers)
    } else {
        decode_plain(reader, magic_numbers)
    }
}

fn decode_plain(mut reader: impl Read, magic_numbers: &[u32]) -> Result<(u32, IdxArray), String> {
    let mut start = Vec::new();
    let limit = foreign::START as u64;
    reader.by_ref().take(limit).read_to_end(&mut start).map_err(|error| broken(&error))?;
    let found = describe(&start);
    let mut reader = (&start[..]).chain(reader);
    let magic = u32::from_be_bytes(header_word(&mut reader, "the magic number")?);
    let expected = magic_numbers[0];
    let dimensions = magic & 0xff;
    if !magic_numbers.contains(&magic) {
        let dimensions = expected & 0xff;
        let found = found.map_or_else(String::new, |found| format!(": {found}"));
        return Err(format!(
            "expected IDX magic number 0x{expected:08x} (unsigned bytes, {dimensions} dimension(s)), \
             found 0x{magic:08x}{found}"
        ));
    }
    let mut sizes = Vec::new();
    for i in 1..=dimensions {
        let size = u32::from_be_bytes(header_word(&mut reader, &format!("dimension {i}"))?);
        sizes.push(size as usize);
    }
    let element = if magic == QMNIST_LABELS { 4 } else { 1 };
    let length = sizes
        .iter()
        .try_fold(element, |product: u64, &size| product.checked_mul(size as u64))
        .filter(|&length| length <= MAX_BYTES)
        .ok_or_else(|| {
            format!("expected at most {MAX_BYTES} bytes of data, found dimensions {sizes:?}")
        })?;
    // The vector grows as data arrives, so that a header alone cannot make it allocate memory.
    let mut data = Vec::new();
    reader.by_ref().take(length + 1).read_to_end(&mut data).map_err(|error| broken(&error))?;
    if data.len() as u64 != length {
        let found =
            if data.len() as u64 > length { "more".to_owned() } else { data.len().to_string() };
        return Err(format!(
            "expected {length} bytes of data for dimensions {sizes:?}, found {found}"
        ));
    }
    data.shrink_to_fit();
    Ok((magic, IdxArray { dimensions: sizes, data }))
}

/// Describes a file whose magic number is not the expected one, if its format is known.
fn describe(start: &[u8]) -> Option<String> {
    let [0, 0, kind @ (0x08 | 0x09 | 0x0b..=0x0e), dimensions @ 1..=4, sizes @ ..] = start else {
        return foreign::name(start).map(str::to_owned);
    };
    let sizes = sizes.as_chunks::<4>().0.iter().map(|size| u32::from_be_bytes(*size));
    let sizes: Vec<u32> = sizes.take((*dimensions).into()).collect();
    let kind = match kind {
        0x08 => "unsigned bytes",
        0x09 => "signed bytes",
        0x0b => "int16",
        0x0c => "int32",
        0x0d => "float32",
        _ => "float64",
    };
    Some(format!("IDX of {kind} in {dimensions} dimension(s), of sizes {sizes:?}"))
}

fn header_word(reader: &mut impl Read, what: &str) -> Result<[u8; 4], String> {
    let mut word = [0; 4];
    reader.read_exact(&mut word).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            format!("expected an IDX file, found the end of the file within {what}")
        }
        _ => broken(&error),
    })?;
    Ok(word)
}

fn broken(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return "expected IDX data, found gzip that ends early: download or copy it again"
            .to_owned();
    }
    format!("expected IDX data, plain or gzip, found a broken stream ({error})")
}
