//! Files: read without waiting for ever, and written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::Builder;

use crate::{Error, Result};

/// How the names of temporary files begin.
pub(crate) const TEMPORARY_PREFIX: &str = ".lenet5-";

/// How long what comes through a pipe may take in all.
const PIPE_TIME: Duration = Duration::from_secs(30);

/// A file of the outside that is read without waiting for ever.
pub(crate) struct Source {
    file: File,
    end: Instant,
}

impl Source {
    /// Opens a file, or a pipe that somebody writes to.
    ///
    /// # Errors
    /// Where it is a folder, a device or a socket, which have no end; or cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        // A pipe is opened and read without waiting, and a terminal does not become ours.
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let found = |what: &str| Err(Error::file(path, format!("expected a file, found {what}")));
        let file = match options.open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                return found("a socket, or a device without a driver");
            }
            file => file.map_err(Error::io(path))?,
        };
        let kind = file.metadata().map_err(Error::io(path))?.file_type();
        match () {
            () if kind.is_dir() => found("a folder"),
            () if kind.is_char_device() || kind.is_block_device() => found("a device"),
            () if kind.is_socket() => found("a socket"),
            () => Ok(Self { file, end: Instant::now() + PIPE_TIME }),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                read => return read,
            }
        }
    }
}

impl Source {
    /// Waits until there is something to read, or the pipe's end.
    fn wait(&self) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        let mut waiting =
            libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives for the length of the call.
        match unsafe { libc::poll(&mut waiting, 1, left.as_millis() as libc::c_int) } {
            0 => Err(io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "expected a file that ends, found one that gave nothing for {} s",
                    PIPE_TIME.as_secs()
                ),
            )),
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
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
    let mut builder = Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A new file's mode is less the umask; tempfile's would be 0600.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let replaced = fs::metadata(path).ok().map(|metadata| metadata.permissions());
    let mut file = builder.tempfile_in(folder).map_err(io())?;
    if let Some(permissions) = replaced {
        file.as_file().set_permissions(permissions).map_err(io())?;
    }
    file.write_all(bytes).map_err(io())?;
    file.as_file().sync_all().map_err(io())?;
    file.persist(path).map_err(|error| Error::writing(path)(error.error))?;
    // The rename itself is on disk once the folder is.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io())
}
