//! Reads and writes zip archives, as far as PyTorch's files need them: stored or deflated members
//! and zip64, but no encryption.
//!
//! Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::DeflateDecoder;

/// The signature of a member's local header.
const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
/// The signature of an entry of the central directory.
const DIRECTORY_ENTRY: [u8; 4] = *b"PK\x01\x02";
/// The signature of the end of the central directory.
const END_OF_DIRECTORY: [u8; 4] = *b"PK\x05\x06";
/// The signature of the locator of the zip64 end of the central directory.
const ZIP64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
/// The signature of the zip64 end of the central directory.
const ZIP64_END_OF_DIRECTORY: [u8; 4] = *b"PK\x06\x06";

/// The length of a local header in bytes, without the name and the extra field.
const LOCAL_HEADER_SIZE: usize = 30;
/// The length of the end of the central directory in bytes, without its comment.
const END_OF_DIRECTORY_SIZE: usize = 22;
/// The length of the longest comment in bytes.
const MAX_COMMENT: usize = 0xffff;

/// The value of a field that is too small for its content, which is then in the zip64 extra field.
const IN_ZIP64: u32 = u32::MAX;

/// A zip archive whose directory has been read.
pub struct ZipArchive<'a> {
    bytes: &'a [u8],
    members: Vec<Member>,
    by_name: HashMap<String, usize>,
}

/// An entry of the central directory.
struct Member {
    name: String,
    flags: u16,
    method: u16,
    crc32: u32,
    compressed: u64,
    header: u64,
}

impl<'a> ZipArchive<'a> {
    /// Reads the central directory of an archive that starts at the first byte.
    ///
    /// # Errors
    /// If the archive is broken or has too many members; the text is a part of a message.
    pub fn open(bytes: &'a [u8], max_members: usize) -> Result<Self, String> {
        let too_many =
            || format!("expected at most {max_members} members of the zip archive, found more");
        let end = find_end(bytes).ok_or(
            "expected a zip archive, found one that ends early: download or copy it again",
        )?;
        let (count, start) = directory(bytes, end)
            .ok_or_else(|| broken("the end of its directory cannot be read"))?;
        if count > max_members as u64 {
            return Err(too_many());
        }
        let mut rest = usize::try_from(start)
            .ok()
            .and_then(|start| bytes.get(start..end))
            .ok_or_else(|| broken("its directory lies beyond the end"))?;
        let mut members = Vec::new();
        let mut by_name = HashMap::new();
        for _ in 0..count {
            let (member, length) =
                Member::read(rest).ok_or_else(|| broken("an entry of its directory is cut off"))?;
            if by_name.insert(member.name.clone(), members.len()).is_some() {
                return Err(broken("two members have the same name"));
            }
            members.push(member);
            rest = &rest[length..];
        }
        let archive = Self { bytes, members, by_name };
        archive.check_overlaps(start)?;
        Ok(archive)
    }

    /// Checks that the members lie one after the other before the directory. An archive whose
    /// members share bytes could unpack to any size.
    fn check_overlaps(&self, directory: u64) -> Result<(), String> {
        let mut ranges = Vec::new();
        for member in &self.members {
            let (start, end) =
                self.data_range(member).ok_or_else(|| broken("a member lies beyond the end"))?;
            ranges.push((member.header, start, end));
        }
        ranges.sort_unstable();
        let starts = ranges.iter().skip(1).map(|(header, ..)| *header).chain([directory]);
        match ranges.iter().zip(starts).any(|((.., end), next)| *end > next) {
            true => Err("expected a zip archive, found one whose members overlap".to_owned()),
            false => Ok(()),
        }
    }

    /// The offsets of the start and the end of a member's data.
    fn data_range(&self, member: &Member) -> Option<(u64, u64)> {
        let header = self.bytes.get(usize::try_from(member.header).ok()?..)?;
        if !header.starts_with(&LOCAL_HEADER) {
            return None;
        }
        let length = LOCAL_HEADER_SIZE as u64
            + u64::from(u16_at(header, 26)?)
            + u64::from(u16_at(header, 28)?);
        let start = member.header.checked_add(length)?;
        Some((start, start.checked_add(member.compressed)?))
    }

    /// Returns the names of all members, in the order of the directory.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// Returns whether there is a member with this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Returns whether a member is compressed.
    pub fn is_compressed(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|index| self.members[*index].method != 0)
    }

    /// Returns the data of a member, but at most the first `limit` + 1 bytes, whatever size the
    /// header states. Returns `None` if there is no such member.
    ///
    /// # Errors
    /// If the member cannot be read; the text states why.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
        let Some(&index) = self.by_name.get(name) else { return Ok(None) };
        let member = &self.members[index];
        if member.flags & 1 != 0 {
            return Err("it is encrypted".to_owned());
        }
        let (start, end) = self.data_range(member).expect("checked when the archive was opened");
        let stored = &self.bytes[start as usize..end as usize];
        let limit = limit.saturating_add(1);
        let mut data = Vec::new();
        match member.method {
            0 => stored.take(limit).read_to_end(&mut data),
            8 => DeflateDecoder::new(stored).take(limit).read_to_end(&mut data),
            method => return Err(format!("it is compressed by method {method}")),
        }
        .map_err(|error| error.to_string())?;
        if (data.len() as u64) < limit && crc32fast::hash(&data) != member.crc32 {
            return Err("its checksum is wrong".to_owned());
        }
        Ok(Some(data))
    }
}

impl Member {
    /// Reads the entry of the central directory at the start of `bytes`, and also returns its
    /// length.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        if !bytes.starts_with(&DIRECTORY_ENTRY) {
            return None;
        }
        let length = |at| u16_at(bytes, at).map(usize::from);
        let (name_length, extra_length, comment) = (length(28)?, length(30)?, length(32)?);
        let name = bytes.get(46..46 + name_length)?;
        let extra = bytes.get(46 + name_length..46 + name_length + extra_length)?;
        let all = 46 + name_length + extra_length + comment;
        bytes.get(..all)?;
        let [compressed, size, header] =
            [u32_at(bytes, 20)?, u32_at(bytes, 24)?, u32_at(bytes, 42)?];
        // The extra field only holds the values that do not fit in 32 bits, in this order.
        let mut wide = zip64(extra).as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut value =
            |narrow: u32| if narrow == IN_ZIP64 { wide.next() } else { Some(narrow.into()) };
        value(size)?;
        let (compressed, header) = (value(compressed)?, value(header)?);
        let member = Self {
            name: String::from_utf8_lossy(name).into_owned(),
            flags: u16_at(bytes, 8)?,
            method: u16_at(bytes, 10)?,
            crc32: u32_at(bytes, 16)?,
            compressed,
            header,
        };
        Some((member, all))
    }
}

fn broken(found: &str) -> String {
    format!("expected a zip archive, found a broken one ({found})")
}

/// The offset of the end of the central directory: the last one whose comment reaches to the end of
/// the file.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(END_OF_DIRECTORY_SIZE)?;
    (last.saturating_sub(MAX_COMMENT)..=last).rev().find(|&at| {
        bytes[at..].starts_with(&END_OF_DIRECTORY)
            && u16_at(bytes, at + 20).map(usize::from) == Some(last - at)
    })
}

/// The number of members and the offset of the central directory.
fn directory(bytes: &[u8], end: usize) -> Option<(u64, u64)> {
    let (count, start) = (u16_at(bytes, end + 10)?, u32_at(bytes, end + 16)?);
    let locator = end.checked_sub(20).filter(|at| bytes[*at..].starts_with(&ZIP64_LOCATOR));
    match locator {
        Some(locator) if count == u16::MAX || start == IN_ZIP64 => {
            let end64 = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
            let record =
                bytes.get(end64..).filter(|record| record.starts_with(&ZIP64_END_OF_DIRECTORY))?;
            Some((u64_at(record, 32)?, u64_at(record, 48)?))
        }
        _ => Some((count.into(), start.into())),
    }
}

/// The zip64 part of an extra field; empty if there is none.
fn zip64(mut extra: &[u8]) -> &[u8] {
    while let [id0, id1, length0, length1, rest @ ..] = extra {
        let length = usize::from(u16::from_le_bytes([*length0, *length1])).min(rest.len());
        if (*id0, *id1) == (1, 0) {
            return &rest[..length];
        }
        extra = &rest[length..];
    }
    &[]
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_le_bytes(*word))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// Encodes an archive of stored members, each with its data at a multiple of `alignment` bytes.
///
/// # Errors
/// If the archive would be larger than 4 GiB.
pub fn write(members: &[(String, &[u8])], alignment: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    let narrow = |size: usize| {
        u32::try_from(size)
            .map_err(|_| "expected an archive below 4 GiB, found a larger one".to_owned())
    };
    for (name, data) in members {
        let header = narrow(out.len())?;
        let size = narrow(data.len())?;
        // The part that both headers share: version 2.0, no flags, stored, 1980-01-01, checksum,
        // sizes, length of the name.
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc32fast::hash(data).to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());

        // PyTorch also aligns by an extra field of this kind: "FB", its length, any bytes.
        let data_start = out.len() + LOCAL_HEADER_SIZE + name.len() + 4;
        let padding = data_start.next_multiple_of(alignment) - data_start;
        out.extend(LOCAL_HEADER);
        out.extend(&common);
        out.extend((padding as u16 + 4).to_le_bytes());
        out.extend(name.bytes());
        out.extend(b"FB");
        out.extend((padding as u16).to_le_bytes());
        out.resize(out.len() + padding, b'Z');
        out.extend(*data);

        directory.extend(DIRECTORY_ENTRY);
        directory.extend([20, 0]);
        directory.extend(&common);
        // The entry has no extra field, no comment, the first disk and no attributes.
        directory.extend([0; 12]);
        directory.extend(header.to_le_bytes());
        directory.extend(name.bytes());
    }
    let start = narrow(out.len())?;
    let count = (members.len() as u16).to_le_bytes();
    out.extend(&directory);
    out.extend(END_OF_DIRECTORY);
    out.extend([0; 4]);
    out.extend(count);
    out.extend(count);
    out.extend(narrow(directory.len())?.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_read_as_it_was_written() {
        let members =
            [("a/data.pkl".to_owned(), &b"hello"[..]), ("a/data/0".to_owned(), &[7; 1000])];
        let bytes = write(&members, 64).unwrap();
        let archive = ZipArchive::open(&bytes, 10).unwrap();
        assert_eq!(archive.names().collect::<Vec<_>>(), ["a/data.pkl", "a/data/0"]);
        for (name, data) in members {
            assert_eq!(archive.read(&name, 1000).unwrap().unwrap(), data);
            let (start, _) = archive.data_range(&archive.members[archive.by_name[&name]]).unwrap();
            assert_eq!(start % 64, 0);
        }
        assert_eq!(archive.read("a/data/0", 10).unwrap().unwrap().len(), 11);
        assert!(archive.read("a/data/1", 10).unwrap().is_none());
    }

    #[test]
    fn broken_archives_are_refused() {
        let good = write(&[("a".to_owned(), &b"hello"[..])], 64).unwrap();
        let error = |bytes: &[u8]| {
            ZipArchive::open(bytes, 10).and_then(|archive| archive.read("a", 10)).unwrap_err()
        };
        for length in 0..good.len() {
            assert!(error(&good[..length]).contains("ends early"), "{length}");
        }
        let data = good.windows(5).position(|window| window == b"hello").unwrap();
        let mut flipped = good.clone();
        flipped[data] ^= 1;
        assert_eq!(error(&flipped), "its checksum is wrong");
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let _ = ZipArchive::open(&bytes, 10).and_then(|archive| archive.read("a", 10));
            }
        }
    }
}
