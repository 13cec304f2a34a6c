//! Writes event files, which TensorBoard shows as charts.
//!
//! An event file is a sequence of records. A record is the length of an event, a checksum of the
//! length, the event in the encoding of Protocol Buffers, and a checksum of the event. Only those
//! fields of the messages are declared here that this package writes.
//!
//! Source: TensorFlow's `tsl/lib/io/record_writer.h` and `tsl/lib/hash/crc32c.h` for the records,
//! `core/util/event.proto`, `core/framework/summary.proto` and `tsl/protobuf/histogram.proto` for
//! the messages.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lenet5_core::Picture;
use prost::{Message, Oneof};

use crate::{Error, Result};

/// The first part of the name of an event file. TensorBoard expects `tfevents` in the name.
const PREFIX: &str = "events.out.tfevents.";

/// The number of buckets of a histogram.
const BUCKETS: usize = 30;

/// An event file. Each process that continues a run adds a file to its folder, and TensorBoard
/// reads these files in the order of their names.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Creates a file whose name follows those of the folder's other event files. Events in the
    /// other files whose step is `first_step` or later are superseded: TensorBoard discards them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(folder: &Path, first_step: i64) -> Result<Self> {
        // The clock may have been set back since the last file was created.
        let seconds = match newest(folder)? {
            Some(newest) => since_1970().as_secs().max(newest.saturating_add(1)),
            None => since_1970().as_secs(),
        };
        let path = folder.join(format!("{PREFIX}{seconds:010}.lenet5.{}", process::id()));
        let file = File::create_new(&path).map_err(Error::writing(&path))?;
        let mut events = Self { path, file };
        events.append(0, Content::FileVersion("brain.Event:2".to_owned()))?;
        events.append(first_step, Content::SessionLog(SessionLog { status: SessionLog::START }))?;
        Ok(events)
    }

    /// Writes the values of a step to disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, step: i64, values: Vec<Value>) -> Result<()> {
        self.append(step, Content::Summary(Summary { values }))?;
        self.file.sync_data().map_err(Error::writing(&self.path))
    }

    fn append(&mut self, step: i64, content: Content) -> Result<()> {
        let event = Event { wall_time: since_1970().as_secs_f64(), step, content: Some(content) };
        let record = record(&event.encode_to_vec());
        self.file.write_all(&record).map_err(Error::writing(&self.path))
    }
}

/// Returns the time in the name of the folder's last event file, in seconds since 1970; `None` if
/// there is no event file.
///
/// # Errors
/// If the folder cannot be read.
pub fn newest(folder: &Path) -> Result<Option<u64>> {
    let mut newest = None;
    for entry in folder.read_dir().map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        if let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) {
            let seconds = rest.split('.').next().and_then(|seconds| seconds.parse().ok());
            newest = newest.max(Some(seconds.unwrap_or(0)));
        }
    }
    Ok(newest)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns the record of an event.
fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] =
        [&length, &checksum(&length).to_le_bytes(), event, &checksum(event).to_le_bytes()];
    parts.concat()
}

/// Returns the masked CRC-32C of the bytes. The mask keeps the checksum of bytes that hold their
/// own checksum from being a constant.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Message)]
struct Event {
    /// The time in seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "Content", tags = "3, 5, 7")]
    content: Option<Content>,
}

#[derive(Oneof)]
enum Content {
    /// The version of the format, in the first event of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl SessionLog {
    /// Training starts or continues; later steps are superseded.
    const START: i32 = 1;
}

#[derive(Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

/// A value of a step, with the name of the chart that shows it.
#[derive(Message)]
pub struct Value {
    /// The name of the chart. TensorBoard groups charts by the part before the slash.
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Kind", tags = "2, 4, 5")]
    kind: Option<Kind>,
}

#[derive(Oneof)]
enum Kind {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "4")]
    Image(Image),
    #[prost(message, tag = "5")]
    Histogram(Histogram),
}

#[derive(Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// The number of colour channels.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    png: Vec<u8>,
}

#[derive(Message)]
struct Histogram {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    /// The number of values.
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, tag = "4")]
    sum: f64,
    #[prost(double, tag = "5")]
    sum_squares: f64,
    /// The upper end of each bucket.
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    /// The number of values in each bucket.
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

impl Value {
    /// Creates a number, which is rounded to float32.
    pub fn scalar(tag: &str, number: f64) -> Self {
        Self { tag: tag.to_owned(), kind: Some(Kind::Scalar(number as f32)) }
    }

    /// Creates the histogram of finite numbers, with buckets of equal width.
    pub fn histogram(tag: &str, numbers: &[f64]) -> Self {
        let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let max = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let buckets = if min < max { BUCKETS } else { 1 };
        let width = (max - min) / buckets as f64;
        let mut bucket = vec![0.0; buckets];
        for number in numbers {
            // Without a width the index is that of NaN: 0.
            bucket[(((number - min) / width) as usize).min(buckets - 1)] += 1.0;
        }
        let inner = (1..buckets).map(|index| min + width * index as f64);
        let histogram = Histogram {
            min,
            max,
            num: numbers.len() as f64,
            sum: numbers.iter().sum(),
            sum_squares: numbers.iter().map(|number| number * number).sum(),
            bucket_limit: inner.chain([max]).collect(),
            bucket,
        };
        Self { tag: tag.to_owned(), kind: Some(Kind::Histogram(histogram)) }
    }

    /// Creates a picture, which must have colours of 8 bits.
    ///
    /// # Errors
    /// If the picture has pixels of another form.
    pub fn picture(tag: &str, picture: &Picture) -> Result<Self> {
        let image = Image {
            height: picture.height() as i32,
            width: picture.width() as i32,
            colorspace: 3,
            png: picture.to_png()?,
        };
        Ok(Self { tag: tag.to_owned(), kind: Some(Kind::Image(image)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are from RFC 3720, and from TensorBoard's `masked_crc32c`.
    #[test]
    fn checksums_are_those_of_tensorflow() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(checksum(b""), 0xa282_ead8);
        assert_eq!(checksum(b"123456789"), 3_347_755_237);
    }

    /// The bytes are those of TensorBoard's `RecordWriter` for the same events.
    #[test]
    fn records_have_known_bytes() {
        let scalar = Summary { values: vec![Value::scalar("a", 0.25)] };
        let version = Content::FileVersion("brain.Event:2".to_owned());
        for (step, content, expected) in [
            (
                3,
                Content::Summary(scalar),
                "1700000000000000e7cef81e09000000000000f83f10032a0a0a080a0161150000803e2e69947b",
            ),
            (
                0,
                version,
                "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
            ),
        ] {
            let event = Event { wall_time: 1.5, step, content: Some(content) };
            let record = record(&event.encode_to_vec());
            let digits: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits, expected);
        }
    }

    #[test]
    fn histograms_count_each_number_once() {
        let of = |numbers: &[f64]| match Value::histogram("a", numbers).kind {
            Some(Kind::Histogram(histogram)) => histogram,
            _ => panic!("expected a histogram"),
        };
        let numbers: Vec<f64> = (0..=60).map(f64::from).collect();
        let histogram = of(&numbers);
        assert_eq!((histogram.min, histogram.max, histogram.num), (0.0, 60.0, 61.0));
        assert_eq!((histogram.sum, histogram.sum_squares), (1830.0, 73810.0));
        assert_eq!(histogram.bucket_limit[..2], [2.0, 4.0]);
        assert_eq!(histogram.bucket_limit[29], 60.0);
        assert_eq!(histogram.bucket[..2], [2.0, 2.0]);
        assert_eq!(histogram.bucket[29], 3.0);
        let constant = of(&[-1.5; 7]);
        assert_eq!((constant.bucket_limit, constant.bucket), (vec![-1.5], vec![7.0]));
    }

    #[test]
    fn files_are_named_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let later = since_1970().as_secs() + 1000;
        std::fs::write(folder.path().join(format!("{PREFIX}{later}.host.1.v2")), "").unwrap();
        for number in 1..=2 {
            let file = EventFile::create(folder.path(), 0).unwrap();
            let name = file.path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with(&format!("{PREFIX}{}.", later + number)), "{name}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error() {
        let path = PathBuf::from("/dev/full");
        let file = File::options().write(true).open(&path).unwrap();
        let error = EventFile { path, file }.write(0, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "/dev/full: cannot be written: No space left on device (os error 28)");
    }
}
