//! The folder of a run: who may write to it, and which files belong to which run.

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

/// The file whose lock the process holds that trains in a folder. It goes when the process ends as it should.
const LOCK: &str = ".lock";

/// A folder that no other process trains in, for as long as this lives.
pub struct RunFolder {
    path: PathBuf,
    /// Holds the lock, which ends with the process; none where the file system has no locks.
    lock: Option<File>,
}

impl RunFolder {
    /// Makes the folder where it is missing, and locks it. Then removes temporary files that killed processes
    /// left: under the lock nobody writes them.
    ///
    /// # Errors
    /// Where another process has the lock, with its number; or the folder cannot be written to.
    pub fn open(path: &Path) -> Result<Self> {
        files::create_folder(path)?;
        let name = path.join(LOCK);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(&name).map_err(Error::writing(path))?;
            match file.try_lock() {
                // Its owner may have removed the file in between: then it keeps nobody out.
                Ok(()) if !is_same(&file, &name) => {}
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
    /// Removes the lock's file while it is still locked.
    fn drop(&mut self) {
        if self.lock.is_some() {
            let _ = fs::remove_file(self.path.join(LOCK));
        }
    }
}

/// Whether an open file is still the one of that name.
fn is_same(file: &File, name: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let (open, named) = (file.metadata().map(identity), fs::metadata(name).map(identity));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

/// A name for a new run that no other has: 32 hexadecimal digits.
pub fn new_run_id() -> String {
    // The standard library seeds each of these from the system's random numbers.
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}

/// Checks that the settings in a run's `config.json` are those that its checkpoint was made with. The number of
/// epochs, the device, the threads, the engine and the places of files may differ.
///
/// # Errors
/// Names each setting that differs, with both values.
pub fn check_settings(folder: &Path, found: &TrainConfig, made_with: &TrainConfig) -> Result<()> {
    const FREE: [&str; 7] = ["epochs", "device", "threads", "engine", "data", "init", "run"];
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
        .filter(|name| !FREE.contains(&name.split('.').next().unwrap_or_default()))
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

/// The settings by dotted names, such as `model.activation`.
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

/// The measurements of the first `epochs` epochs, one for each and in order, from the lines of a run's
/// `metrics.jsonl`; a note says which are missing, and how many were there twice.
///
/// # Errors
/// Where a line is of another run.
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
    let (mut right, mut missing) = (Vec::new(), Vec::new());
    for epoch in 1..=epochs {
        match lines.iter().rev().find(|line| line.epoch == epoch) {
            Some(line) => right.push(line.clone()),
            None => missing.push(epoch.to_string()),
        }
    }
    if !missing.is_empty() {
        let (path, missing) = (files::shown(&path), missing.join(", "));
        warn(format_args!("note: {path}: nothing is known of epoch {missing}"));
    }
    let count = lines.iter().filter(|line| line.epoch <= epochs).count();
    if count > right.len() {
        let (path, twice) = (files::shown(&path), count - right.len());
        warn(format_args!("note: {path}: left out {twice} lines of epochs that have a later one"));
    }
    Ok(right)
}

/// Reads the lines of a `metrics.jsonl`; none where it is missing.
///
/// # Errors
/// Where a line is broken.
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

/// Prints a line on stderr. Nothing happens where nobody reads it: `eprintln!` would panic.
fn warn(line: std::fmt::Arguments) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
