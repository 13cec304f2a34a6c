//! Files written whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use tempfile::Builder;

use crate::{Error, Result};

/// How the names of temporary files begin.
pub(crate) const TEMPORARY_PREFIX: &str = ".lenet5-";

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
