//! Reads images and labels from tables of text: CSV as in Kaggle's contests, and the zip codes'
//! numbers as the book "The Elements of Statistical Learning" publishes them.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::source::{MAX_TEXT, decompressed};
use super::{Form, MAX_BYTES, RawImages};
use crate::{Error, Result, files, foreign};

/// The number of rows and of columns of a zip code's digit.
const ZIP_SIDE: usize = 16;
/// The names of the column with the labels.
const LABEL_NAMES: [&str; 5] = ["label", "class", "target", "y", "digit"];
/// The length of the longest line in bytes.
const MAX_LINE: u64 = 64 << 20;

/// Images and labels of a table, with the number of rows and of columns of an image.
pub struct Table {
    form: Form,
    side: usize,
    images: Vec<u8>,
    labels: Vec<u64>,
}

/// Reads a table, plain or compressed with gzip. Numbers with commas between them are pixels from 0
/// to 255 with a column of labels, which has a name such as "label" or is the first. Numbers with
/// spaces between them are the zip codes': a label, and 16x16 values from -1 for paper to 1 for ink.
///
/// # Errors
/// If the file cannot be read, or a line is not as expected.
pub fn read(path: &Path) -> Result<RawImages> {
    let fail = |message: String| Error::file(path, message);
    let reader = BufReader::new(files::open(path)?);
    let table = decompressed(reader).map_err(|error| broken(&error)).and_then(decode);
    let Table { form, side, images, labels } = table.map_err(fail)?;
    Ok(RawImages {
        width: side,
        height: side,
        images,
        labels,
        images_path: path.to_owned(),
        labels_path: path.to_owned(),
        form,
        has_parts: false,
        notes: Vec::new(),
    })
}

/// Decodes a table of either form.
///
/// # Errors
/// If the text is not as expected; the message states what was expected and what was found.
pub fn decode(mut reader: impl BufRead) -> Result<Table, String> {
    let start = reader.fill_buf().map_err(|error| broken(&error))?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let has_commas = line.contains(&b',');
    let mut reader = reader.take(MAX_TEXT + 1);
    let table = match has_commas {
        true => decode_csv(&mut reader),
        false => decode_zip_codes(BufReader::new(&mut reader)),
    };
    if reader.limit() == 0 {
        return Err(format!("expected at most {} MiB of text, found more", MAX_TEXT >> 20));
    }
    table
}

fn decode_csv(reader: impl Read) -> Result<Table, String> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(reader);
    let mut record = csv::ByteRecord::new();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let mut layout: Option<Layout> = None;
    while reader.read_byte_record(&mut record).map_err(|error| broken_csv(&error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let layout = match &layout {
            Some(layout) => layout,
            None => {
                let names: Vec<_> = record
                    .iter()
                    .map(|name| String::from_utf8_lossy(name).to_lowercase())
                    .collect();
                let found = Layout::of(&names)?;
                let has_names = found.has_names;
                let layout = layout.insert(found);
                if has_names {
                    continue;
                }
                layout
            }
        };
        for (column, field) in record.iter().enumerate() {
            let value = number(field).ok_or_else(|| {
                format!(
                    "expected a whole number from 0 on, found {:?} in line {line}, column {}",
                    String::from_utf8_lossy(&field[..field.len().min(40)]),
                    column + 1
                )
            })?;
            if column == layout.label {
                labels.push(value);
            } else {
                images.push(u8::try_from(value).map_err(|_| {
                    format!(
                        "expected pixels from 0 to 255, found {value} in line {line}, column {}",
                        column + 1
                    )
                })?);
            }
        }
        check_size(images.len())?;
    }
    let side = layout.ok_or("expected CSV text, found none")?.side;
    Ok(Table { form: Form::Csv, side, images, labels })
}

/// The columns of a CSV file.
struct Layout {
    /// The index of the column with the labels.
    label: usize,
    side: usize,
    /// Whether the first line has the names of the columns.
    has_names: bool,
}

impl Layout {
    /// Detects the columns from the fields of the first line.
    fn of(fields: &[String]) -> Result<Self, String> {
        let has_names = number(fields.first().map_or(&b""[..], |name| name.as_bytes())).is_none();
        let named = fields
            .iter()
            .position(|name| LABEL_NAMES.contains(&name.trim_start_matches('\u{feff}')));
        let columns = fields.len();
        let is_square = |pixels: usize| pixels > 0 && pixels.isqrt() * pixels.isqrt() == pixels;
        match columns.checked_sub(1).filter(|pixels| is_square(*pixels)) {
            Some(pixels) => Ok(Self { label: named.unwrap_or(0), side: pixels.isqrt(), has_names }),
            None if is_square(columns) && named.is_none() => Err(format!(
                "expected a label and the pixels of a square image in each line, found {columns} pixels \
                 without a label, as Kaggle's test.csv has them: hold training images out with --validation"
            )),
            None => Err(format!(
                "expected a label and the pixels of a square image in each line (785 columns for 28x28), \
                 found {columns} columns"
            )),
        }
    }
}

/// Parses a whole number, which may be written with a point, as in "12.0".
fn number(field: &[u8]) -> Option<u64> {
    let digits = match field.iter().position(|byte| *byte == b'.') {
        Some(point) if field[point + 1..].iter().all(|byte| *byte == b'0') => &field[..point],
        Some(_) => return None,
        None => field,
    };
    let is_short = (1..=18).contains(&digits.len());
    let all_digits = is_short && digits.iter().all(u8::is_ascii_digit);
    all_digits.then(|| digits.iter().fold(0, |sum, digit| 10 * sum + u64::from(digit - b'0')))
}

fn decode_zip_codes(mut reader: impl BufRead) -> Result<Table, String> {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_line(&mut line);
        if read.map_err(|error| broken(&error))? == 0 {
            break;
        }
        let count = line.split_whitespace().count();
        if count == 0 {
            continue;
        }
        if count != 1 + ZIP_SIDE * ZIP_SIDE {
            let name = foreign::name(line.as_bytes()).filter(|_| number == 1);
            let name = name.filter(|name| !["plain text", "CSV text"].contains(name));
            let name = name.map_or_else(String::new, |name| format!(": {name}"));
            return Err(format!(
                "expected a label and {} values in each line, as in the zip codes' files, found {count} in \
                 line {number}{name}",
                ZIP_SIDE * ZIP_SIDE
            ));
        }
        for (column, field) in line.split_whitespace().enumerate() {
            let value = field.parse::<f32>().ok().filter(|value| match column {
                0 => (0.0..65536.0).contains(value) && value.fract() == 0.0,
                _ => (-1.0..=1.0).contains(value),
            });
            match value {
                Some(label) if column == 0 => labels.push(label as u64),
                Some(value) => images.push((127.5 * (value + 1.0)).round() as u8),
                None => {
                    let expected = if column == 0 { "a label" } else { "a number from -1 to 1" };
                    let field: String = field.chars().take(40).collect();
                    return Err(format!(
                        "expected {expected}, found {field:?} in line {number}, column {}",
                        column + 1
                    ));
                }
            }
        }
        check_size(images.len())?;
    }
    Ok(Table { form: Form::ZipCodes, side: ZIP_SIDE, images, labels })
}

fn check_size(bytes: usize) -> Result<(), String> {
    match bytes as u64 > MAX_BYTES {
        true => Err(format!("expected at most {MAX_BYTES} pixels, found more")),
        false => Ok(()),
    }
}

fn broken_csv(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Io(error) => broken(error),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("expected {expected_len} columns in each line, found {len} in line {line}")
        }
        _ => format!("expected CSV text, found {error}"),
    }
}

fn broken(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            "expected a table, found gzip that ends early: download or copy it again".to_owned()
        }
        std::io::ErrorKind::InvalidData => {
            "expected a table of text, found bytes that are no text".to_owned()
        }
        _ => format!("expected a table, plain or gzip, found a broken stream ({error})"),
    }
}
