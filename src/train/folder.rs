//! The folder of a run: its lock, and checks that its files belong to the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use lenet5_core::files;

use super::{EpochMetrics, metrics_path};
use crate::recipe::TrainConfig;
use crate::{Error, Result};

/// The name of the lock file, which is locked by the process that trains in the folder. It is
/// removed when the process ends normally.
const LOCK: &str = ".lock";

/// A folder in which no other process trains, as long as this value exists.
pub struct RunFolder {
    path: PathBuf,
    /// The open lock file. The system releases the lock when the process ends. `None` if the file
    /// system does not support locks.
    lock: Option<File>,
}

impl RunFolder {
    /// Creates the folder if it is missing, locks it, and removes temporary files of processes that
    /// were killed. The lock ensures that no other process is writing one.
    ///
    /// # Errors
    /// If another process holds the lock; the message names the process. Also if the folder cannot
    /// be written to.
    pub fn open(path: &Path) -> Result<Self> {
        files::create_folder(path)?;
        let lock_path = path.join(LOCK);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(&lock_path).map_err(Error::writing(path))?;
            match file.try_lock() {
                // The previous owner may have removed the file after it was opened here. Then the
                // lock has no effect, and the loop tries again.
                Ok(()) if !is_same(&file, &lock_path) => {}
                Ok(()) => {
                    let owner = format!("process {}\n", std::process::id());
                    let written = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
                    written.map_err(Error::writing(path))?;
                    let folder = Self { path: path.to_owned(), lock: Some(file) };
                    folder.remove_leftovers()?;
                    return Ok(folder);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    let _ = file.take(100).read_to_string(&mut owner);
                    let owner = if owner.is_empty() { "another process" } else { owner.trim() };
                    return Err(Error::file(
                        path,
                        format!("expected a folder that nobody trains in, found {owner} training"),
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    let path = files::shown(path);
                    warn(format_args!(
                        "note: {path}: the file system has no locks ({error}): let no other process \
                         train there"
                    ));
                    return Ok(Self { path: PathBuf::new(), lock: None });
                }
            }
        }
    }

    /// Removes temporary files of processes that were killed.
    fn remove_leftovers(&self) -> Result<()> {
        for entry in self.path.read_dir().map_err(Error::io(&self.path))? {
            let entry = entry.map_err(Error::io(&self.path))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && entry.file_name().to_string_lossy().starts_with(files::TEMPORARY_PREFIX) {
                fs::remove_file(entry.path()).map_err(Error::io(&entry.path()))?;
            }
        }
        Ok(())
    }
}

impl Drop for RunFolder {
    /// Removes the lock file while it is still locked.
    fn drop(&mut self) {
        if self.lock.is_some() {
            let _ = fs::remove_file(self.path.join(LOCK));
        }
    }
}

/// Returns whether `path` still refers to the open file.
fn is_same(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let (open, named) = (file.metadata().map(identity), fs::metadata(path).map(identity));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

/// Creates a random identifier of a run: 32 hexadecimal digits.
pub fn new_run_id() -> String {
    // The standard library seeds each `RandomState` from the system's random numbers.
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}

/// Checks that the settings in a run's `config.json` are those of its checkpoint. The number of
/// epochs, the device, the threads, the engine, the paths of files and the event files may differ.
///
/// # Errors
/// If a setting differs; the message names all such settings, with both values.
pub fn check_settings(folder: &Path, found: &TrainConfig, made_with: &TrainConfig) -> Result<()> {
    const MAY_DIFFER: [&str; 8] =
        ["epochs", "device", "threads", "engine", "data", "init", "tensorboard", "run"];
    if let (Some(ours), Some(theirs)) = (&found.run, &made_with.run)
        && ours != theirs
    {
        return Err(Error::file(
            folder,
            format!(
                "expected the files of one run, found config.json of run {ours} and checkpoint.pth of \
                 run {theirs}"
            ),
        ));
    }
    let [found, made_with] = [found, made_with].map(settings_by_name);
    let names: BTreeSet<&String> = found.keys().chain(made_with.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("none".to_owned(), ToString::to_string);
    let different: Vec<String> = names
        .into_iter()
        .filter(|name| !MAY_DIFFER.contains(&name.split('.').next().unwrap_or_default()))
        .filter(|name| found.get(*name) != made_with.get(*name))
        .map(|name| {
            let (expected, found) = (shown(made_with.get(name)), shown(found.get(name)));
            format!("{name} {expected}, found {found}")
        })
        .collect();
    if different.is_empty() {
        return Ok(());
    }
    Err(Error::file(
        &folder.join("config.json"),
        format!(
            "expected the settings that the checkpoint was made with: {}",
            different.join("; ")
        ),
    ))
}

/// Returns the settings by dotted names, such as `model.activation`.
fn settings_by_name(config: &TrainConfig) -> BTreeMap<String, Value> {
    fn collect(prefix: &str, object: Map<String, Value>, all: &mut BTreeMap<String, Value>) {
        for (name, value) in object {
            match value {
                Value::Object(inner) => collect(&format!("{prefix}{name}."), inner, all),
                value => drop(all.insert(format!("{prefix}{name}"), value)),
            }
        }
    }
    let mut all = BTreeMap::new();
    if let Ok(Value::Object(object)) = serde_json::to_value(config) {
        collect("", object, &mut all);
    }
    all
}

/// Returns the measurements of the first `epochs` epochs from the lines of a run's `metrics.jsonl`,
/// one per epoch, in order. Notes on stderr say which are missing and how many lines were
/// superseded.
///
/// # Errors
/// If a line belongs to another run.
pub fn repair_metrics(
    folder: &Path,
    lines: Vec<EpochMetrics>,
    epochs: u32,
    run: Option<&str>,
) -> Result<Vec<EpochMetrics>> {
    let path = metrics_path(folder);
    let foreign = lines.iter().filter_map(|line| line.run.as_deref()).find(|id| Some(*id) != run);
    if let (Some(foreign), Some(run)) = (foreign, run) {
        return Err(Error::file(
            &path,
            format!("expected measurements of run {run}, found some of run {foreign}"),
        ));
    }
    let (mut repaired, mut missing) = (Vec::new(), Vec::new());
    for epoch in 1..=epochs {
        match lines.iter().rev().find(|line| line.epoch == epoch) {
            Some(line) => repaired.push(line.clone()),
            None => missing.push(epoch.to_string()),
        }
    }
    if !missing.is_empty() {
        let (path, missing) = (files::shown(&path), missing.join(", "));
        warn(format_args!("note: {path}: no measurements of epoch {missing}"));
    }
    let count = lines.iter().filter(|line| line.epoch <= epochs).count();
    if count > repaired.len() {
        let (path, superseded) = (files::shown(&path), count - repaired.len());
        warn(format_args!(
            "note: {path}: ignored {superseded} lines, as later lines are of the same epochs"
        ));
    }
    Ok(repaired)
}

/// Reads the lines of a `metrics.jsonl`; a missing file has none.
///
/// # Errors
/// If a line is damaged.
pub fn read_lines(path: &Path) -> Result<Vec<EpochMetrics>> {
    let text = match files::read_text(path) {
        Ok(text) => text,
        Err(lenet5_core::Error::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    text.lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|error| {
                Error::file(path, format!("expected a line of metrics, found {error}"))
            })
        })
        .collect()
}

/// Prints a line on stderr. A closed stderr is ignored: `eprintln!` would panic.
fn warn(line: std::fmt::Arguments) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
