//! Files: read without waiting for ever, written whole or not at all, and their names as text.

use std::fmt::Write as _;
use std::fs::{self, File, FileType, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How the names of temporary files begin.
pub const TEMPORARY_PREFIX: &str = ".lenet5-";

/// How long a pipe may take until a program opens it to write.
const UNTIL_WRITER: Duration = Duration::from_secs(1);
/// How long a pipe may take until all of its data have come.
const UNTIL_END: Duration = Duration::from_secs(60);
/// How long to wait for more data before a pipe is asked again.
const PAUSE: Duration = Duration::from_millis(1);

/// An open file, or a pipe such as `/dev/stdin` or `<(command)`, whose data come within a time limit.
pub struct Input {
    file: File,
    is_pipe: bool,
    /// When it was opened.
    start: Instant,
    /// Whether any data have come.
    begun: bool,
}

/// Opens a file for reading. Every program opens what it is given by this function: reading what it gives always ends.
///
/// Regular files and pipes are read. A pipe has a time limit: a second until a program opens it to write, a minute until
/// all of its data are there. Devices and sockets are refused without being opened, as that alone may have effects.
///
/// # Errors
/// Where it cannot be opened, or is of another kind.
pub fn open(path: &Path) -> Result<Input> {
    is_readable(path, fs::metadata(path).map_err(Error::io(path))?.file_type())?;
    // Without O_NONBLOCK, opening a pipe waits for its writer. Reading does not wait either: there are files in /proc
    // and /sys that count as regular, and whose data come when something happens.
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NONBLOCK | libc::O_NOCTTY,
    );
    let file = options.open(path).map_err(Error::io(path))?;
    // It may be another file by now.
    let kind = file.metadata().map_err(Error::io(path))?.file_type();
    is_readable(path, kind)?;
    Ok(Input { file, is_pipe: is_pipe(kind), start: Instant::now(), begun: false })
}

fn is_readable(path: &Path, kind: FileType) -> Result<()> {
    if kind.is_file() || is_pipe(kind) {
        return Ok(());
    }
    if kind.is_dir() {
        // In the words that reading it would give.
        return Err(Error::io(path)(is_a_folder()));
    }
    Err(Error::file(path, format!("expected a file, found {}", special(kind))))
}

#[cfg(unix)]
fn is_a_folder() -> io::Error {
    io::Error::from_raw_os_error(libc::EISDIR)
}

#[cfg(not(unix))]
fn is_a_folder() -> io::Error {
    ErrorKind::IsADirectory.into()
}

#[cfg(unix)]
fn is_pipe(kind: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
fn is_pipe(_: FileType) -> bool {
    false
}

/// Names a file that is neither a regular one nor a pipe or folder.
#[cfg(unix)]
fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        _ if kind.is_char_device() => "a device (of characters)",
        _ if kind.is_block_device() => "a device (of blocks)",
        _ if kind.is_socket() => "a socket",
        _ => "something else",
    }
}

#[cfg(not(unix))]
fn special(_: FileType) -> &'static str {
    "something else"
}

/// Checks that a file is a regular one: for libraries that open it themselves.
///
/// # Errors
/// As [`open`], and where it is a pipe.
pub fn check_regular(path: &Path) -> Result<()> {
    match open(path)?.is_pipe {
        true => Err(Error::file(path, "expected a file, found a pipe: write its data to a file")),
        false => Ok(()),
    }
}

/// Reads a file whole, as [`open`] opens it.
///
/// # Errors
/// As [`open`]; where there are more bytes than `limit`, with `hint` at the end of the message; and where the data do
/// not come.
pub fn read(path: &Path, limit: u64, hint: &str) -> Result<Vec<u8>> {
    let input = open(path)?;
    let mut bytes = Vec::new();
    // What the system says of the size counts for regular files only, and not for all of them.
    let size = input.file.metadata().map_err(Error::io(path))?.len();
    if size <= limit {
        input.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io(path))?;
    }
    if size > limit || bytes.len() as u64 > limit {
        let limit = match limit.is_multiple_of(1 << 20) {
            true => format!("{} MiB", limit >> 20),
            false => format!("{limit} bytes"),
        };
        return Err(Error::file(path, format!("expected at most {limit}, found more{hint}")));
    }
    Ok(bytes)
}

/// Reads a text of at most 64 MiB.
///
/// # Errors
/// As [`read`], and where it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, 64 << 20, "")?)
        .map_err(|_| Error::file(path, "expected text, found bytes that are not UTF-8"))
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let late = |text: &str| Err(io::Error::new(ErrorKind::TimedOut, text));
        loop {
            match self.file.read(buffer) {
                // A pipe that nobody writes to yet is at its end, too.
                Ok(0) if self.is_pipe && !self.begun && !buffer.is_empty() => {
                    if self.start.elapsed() > UNTIL_WRITER {
                        return late("expected data, found a pipe that nobody writes to");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.is_pipe {
                        return late(
                            "expected a file, found one whose data come at some later time",
                        );
                    }
                    if self.start.elapsed() > UNTIL_END {
                        let seconds = UNTIL_END.as_secs();
                        return late(&format!("expected the end of the data within {seconds} s"));
                    }
                }
                read => {
                    self.begun |= read.is_ok();
                    return read;
                }
            }
            thread::sleep(PAUSE);
        }
    }
}

/// A file's name as text for people, on one line and without tricks: control characters, marks that change the order
/// of writing, invisible characters, backslashes and bytes that are not UTF-8 are escaped, as in a string of Rust.
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match is_hidden(c) || c == '\\' {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether a character is not seen as itself: control characters, and those of Unicode's category "format".
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The exact bytes of a name that is not UTF-8, for JSON, whose strings cannot hold it.
pub fn exact(path: &Path) -> Option<&[u8]> {
    path.to_str().is_none().then(|| path.as_os_str().as_encoded_bytes())
}

/// Makes a folder, and those that it lies in; one that is there already is left as it is.
///
/// # Errors
/// Where it cannot be made; a file of that name is one such reason.
pub fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| {
        let reason = match folder.metadata() {
            Ok(_) => "expected a folder or nothing, found a file".to_owned(),
            Err(_) => format!("the folder cannot be made: {error}"),
        };
        Error::file(folder, format!("{reason}; name another place for the results"))
    })
}

/// Writes `bytes` to a temporary sibling, syncs it, and renames it to `path`: a reader, a full disk
/// or a kill at any moment sees the old file or the new one, never a part.
///
/// The new file has the permissions of the one that it replaces.
///
/// # Errors
/// Where the folder cannot be written to, or is full; the old file then stays.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = || Error::writing(path);
    // A link stays one: what it points to is replaced.
    let target = path.is_symlink().then(|| fs::canonicalize(path).map_err(io())).transpose()?;
    let path = target.as_deref().unwrap_or(path);
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        // A device or a pipe (/dev/null, /dev/stdout) is written to, not replaced.
        return fs::write(path, bytes).map_err(io());
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Else the message would name the temporary file.
    fs::metadata(folder).map_err(io())?;
    let replaced = fs::metadata(path).ok().map(|metadata| metadata.permissions());
    let (mut file, temporary) = Temporary::create(folder).map_err(io())?;
    if let Some(permissions) = replaced {
        file.set_permissions(permissions).map_err(io())?;
    }
    file.write_all(bytes).map_err(io())?;
    file.sync_all().map_err(io())?;
    fs::rename(&temporary.0, path).map_err(io())?;
    // The rename itself is on disk once the folder is.
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io())?;
    Ok(())
}

/// The path of a temporary file, which is removed when this is dropped, unless it has been renamed.
struct Temporary(PathBuf);

impl Temporary {
    /// Creates a file with a name that no other has.
    fn create(folder: &Path) -> io::Result<(File, Self)> {
        loop {
            // The standard library seeds each of these from the system's random numbers.
            let random = RandomState::new().hash_one(std::process::id());
            let path = folder.join(format!("{TEMPORARY_PREFIX}{random:016x}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, Self(path))),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
