//! Recognises files of other formats by their first bytes, and names a remedy.

/// The number of bytes that [`name`] examines.
pub const START: usize = 512;

/// The formats whose files begin with fixed bytes.
const MAGIC: [(&[u8], &str); 19] = [
    (b"version https://git-lfs", "a Git LFS pointer in place of the file: run `git lfs pull`"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n", "HDF5, as Keras writes"),
    (b"PAR1", "Parquet, as Hugging Face's data sets have it"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x1f\x8b", "gzip: unpack it first"),
    (b"BZh", "bzip2: unpack it first"),
    (b"\xfd7zXZ", "xz: unpack it first"),
    (b"(\xb5/\xfd", "zstd: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"\0\0\x08\x01", "IDX labels"),
    (b"\0\0\x08\x03", "IDX images"),
    (b"TFL3", "TensorFlow Lite"),
];

/// Describes the format of a file by its first [`START`] bytes, with a remedy if there is one.
/// Returns `None` for an unknown format.
pub fn name(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(START)];
    if start.is_empty() {
        return Some("an empty file");
    }
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(name);
    }
    match start {
        [0x80, 2..=5, ..] => return Some("a pickle that torch.save did not write"),
        [8, _, 0x12, ..] => return Some("ONNX, it seems"),
        _ if start.get(257..262) == Some(b"ustar") => {
            return Some("a tar archive: unpack it first");
        }
        _ if start.iter().all(|byte| *byte == 0) => {
            return Some("zeros, as an interrupted download leaves: download it again");
        }
        _ => {}
    }
    let text = text(start)?.trim_start().to_ascii_lowercase();
    Some(match text.as_bytes() {
        _ if ["<!doctype html", "<html", "<head", "<!--"]
            .iter()
            .any(|tag| text.starts_with(tag)) =>
        {
            "a web page (HTML), not the file behind it: download it again, from its direct address"
        }
        [b'<', ..] => "XML, perhaps a server's error message: download it again",
        [b'{' | b'[', ..] => "JSON, perhaps a server's error message: download it again",
        _ if text.lines().next().is_some_and(|line| line.matches(',').count() >= 4) => "CSV text",
        _ => "plain text",
    })
}

/// The start as text; `None` if it is not text. The last character may be cut off.
fn text(start: &[u8]) -> Option<&str> {
    let whole = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let whole = whole.strip_prefix('\u{feff}').unwrap_or(whole);
    let printable = |c: char| !c.is_control() || c.is_ascii_whitespace();
    (!whole.is_empty() && whole.chars().all(printable)).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn files_are_named() {
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 247752\n";
        for (bytes, expected) in [
            (lfs.as_bytes(), "a Git LFS pointer in place of the file: run `git lfs pull`"),
            (b"\n <!DOCTYPE html><html>", "a web page (HTML)"),
            (b"\xef\xbb\xbf<html>", "a web page (HTML)"),
            (b"<?xml version=\"1.0\"?><Error>", "XML, perhaps a server's error message"),
            (b"{\"error\": \"not found\"}", "JSON, perhaps a server's error message"),
            (b"label,pixel0,pixel1,pixel2,pixel3\n5,0,0,0,0\n", "CSV text"),
            (b"Entry not found", "plain text"),
            ("\u{e9}t\u{e9}".as_bytes(), "plain text"),
            (b"\xc3\xa9t\xc3", "plain text"),
            (b"", "an empty file"),
            (&[0; 600], "zeros, as an interrupted download leaves"),
        ] {
            let found = name(bytes).unwrap_or_default();
            assert!(found.starts_with(expected), "{expected}: {found}");
        }
        assert_eq!(name(b"\x01\x02\xff\xfe"), None);
        assert_eq!(name(b"text\0with zeros"), None);
    }
}
