//! Reads files without blocking for ever, writes them atomically, and formats their names.

use std::fmt::Write as _;
use std::fs::{self, File, FileType, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The prefix of the names of temporary files.
pub const TEMPORARY_PREFIX: &str = ".lenet5-";

/// The longest time until a program opens a pipe for writing.
const WRITER_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest time until all data of a pipe have arrived.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// The time between two attempts to read from a pipe.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// An open file or a pipe such as `/dev/stdin` or `<(command)`. Reading it never blocks for ever,
/// as a pipe has a time limit.
pub struct InputFile {
    file: File,
    is_pipe: bool,
    /// The time at which it was opened.
    start: Instant,
    /// Whether any data have arrived.
    has_data: bool,
}

/// Opens a file for reading. Every program opens the files that the user names with this function,
/// so that reading always ends.
///
/// Regular files and pipes are read. A pipe has time limits: one second until a program opens it
/// for writing, one minute until all of its data have arrived. Devices and sockets are refused
/// without being opened, because opening alone may have effects.
///
/// # Errors
/// If the file cannot be opened, or is neither a regular file nor a pipe.
pub fn open(path: &Path) -> Result<InputFile> {
    check_readable(path, fs::metadata(path).map_err(Error::io(path))?.file_type())?;
    // Without O_NONBLOCK, opening a pipe blocks until there is a writer. O_NONBLOCK also keeps
    // reading from blocking: some files in /proc and /sys count as regular files, but their data
    // only arrive when something happens.
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NONBLOCK | libc::O_NOCTTY,
    );
    let file = options.open(path).map_err(Error::io(path))?;
    // Another file may have taken its place since the first check.
    let kind = file.metadata().map_err(Error::io(path))?.file_type();
    check_readable(path, kind)?;
    Ok(InputFile { file, is_pipe: is_pipe(kind), start: Instant::now(), has_data: false })
}

fn check_readable(path: &Path, kind: FileType) -> Result<()> {
    if kind.is_file() || is_pipe(kind) {
        return Ok(());
    }
    if kind.is_dir() {
        // This is the error that reading the folder would give.
        return Err(Error::io(path)(folder_error()));
    }
    Err(Error::file(path, format!("expected a file, found {}", special(kind))))
}

#[cfg(unix)]
fn folder_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EISDIR)
}

#[cfg(not(unix))]
fn folder_error() -> io::Error {
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

/// The description of a file that is neither a regular file nor a pipe or folder.
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

/// Checks that a file is a regular one, for libraries that open it themselves.
///
/// # Errors
/// The errors of [`open`]; also if it is a pipe.
pub fn check_regular(path: &Path) -> Result<()> {
    match open(path)?.is_pipe {
        true => Err(Error::file(path, "expected a file, found a pipe: write its data to a file")),
        false => Ok(()),
    }
}

/// Reads a whole file that [`open`] accepts.
///
/// # Errors
/// The errors of [`open`]. Also if the file has more than `limit` bytes, with `hint` at the end of
/// the message, or if its data do not arrive in time.
pub fn read(path: &Path, limit: u64, hint: &str) -> Result<Vec<u8>> {
    let input = open(path)?;
    let mut bytes = Vec::new();
    // The size from the metadata is only reliable for regular files, and not for all of them.
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

/// Reads a text file of at most 64 MiB.
///
/// # Errors
/// The errors of [`read`]; also if the text is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, 64 << 20, "")?)
        .map_err(|_| Error::file(path, "expected text, found bytes that are not UTF-8"))
}

impl Read for InputFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let late = |text: &str| Err(io::Error::new(ErrorKind::TimedOut, text));
        loop {
            match self.file.read(buffer) {
                // A pipe without a writer also reports its end.
                Ok(0) if self.is_pipe && !self.has_data && !buffer.is_empty() => {
                    if self.start.elapsed() > WRITER_TIMEOUT {
                        return late("expected data, found a pipe that nobody writes to");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.is_pipe {
                        return late(
                            "expected a file, found one whose data come at some later time",
                        );
                    }
                    if self.start.elapsed() > END_TIMEOUT {
                        let seconds = END_TIMEOUT.as_secs();
                        return late(&format!("expected the end of the data within {seconds} s"));
                    }
                }
                read => {
                    self.has_data |= read.is_ok();
                    return read;
                }
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Formats a path for people, on one line and without hidden characters. Control characters, marks
/// that change the writing direction, invisible characters, backslashes and bytes that are not
/// UTF-8 are escaped as in Rust's string literals.
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

/// Whether a character is invisible: a control character, or one of Unicode's category "format".
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the exact bytes of a path that is not UTF-8, because JSON strings cannot hold it. `None`
/// for UTF-8.
pub fn exact(path: &Path) -> Option<&[u8]> {
    path.to_str().is_none().then_some(path.as_os_str().as_encoded_bytes())
}

/// Creates a folder and its parent folders; an existing folder remains as it is.
///
/// # Errors
/// If the folder cannot be created, for example because there is a file of that name.
pub fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| {
        let reason = match folder.metadata() {
            Ok(_) => "expected a folder or nothing, found a file".to_owned(),
            Err(_) => format!("the folder cannot be made: {error}"),
        };
        Error::file(folder, format!("{reason}; name another place for the results"))
    })
}

/// Writes `bytes` to a temporary file in the same folder, syncs it, and renames it to `path`.
/// Whether another program reads the file, the disk is full or this program is killed: there is
/// either the old file or the complete new one.
///
/// The new file has the permissions of the file that it replaces.
///
/// # Errors
/// If the folder is full or cannot be written to; the old file then remains.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = || Error::writing(path);
    // A symbolic link remains, and the file that it points to is replaced.
    let target = path.is_symlink().then(|| fs::canonicalize(path).map_err(io())).transpose()?;
    let path = target.as_deref().unwrap_or(path);
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        // A device or a pipe (/dev/null, /dev/stdout) is written to and not replaced.
        return fs::write(path, bytes).map_err(io());
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Without this check the message would name the temporary file.
    fs::metadata(folder).map_err(io())?;
    let replaced = fs::metadata(path).ok().map(|metadata| metadata.permissions());
    let (mut file, temporary) = Temporary::create(folder).map_err(io())?;
    if let Some(permissions) = replaced {
        file.set_permissions(permissions).map_err(io())?;
    }
    file.write_all(bytes).map_err(io())?;
    file.sync_all().map_err(io())?;
    fs::rename(&temporary.0, path).map_err(io())?;
    // The rename is only safe on disk after the folder is synced.
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io())?;
    Ok(())
}

/// The path of a temporary file, which is deleted on drop unless it has been renamed.
struct Temporary(PathBuf);

impl Temporary {
    /// Creates a file with a random name that no other file has.
    fn create(folder: &Path) -> io::Result<(File, Self)> {
        loop {
            // The standard library seeds each RandomState from the system's random numbers.
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
