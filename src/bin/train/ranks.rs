//! Training as one of several processes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lenet5::distributed::{Launch, Peers};
use lenet5::train::{checkpoint_path, new_run_folder, read_config};
use tch::Device;

use crate::{TrainArguments, stop_on_signal, train};

/// Trains as one of several processes. An error is told to the others, and to torchrun.
pub fn train_with_others(arguments: TrainArguments, launch: Launch) -> anyhow::Result<ExitCode> {
    let (rank, error_file) = (launch.rank, launch.error_file.clone());
    let connect = || {
        let signal = stop_on_signal()?;
        let timeout = Duration::from_secs(arguments.timeout.unwrap_or(60));
        let peers = Arc::new(Peers::connect(launch, timeout, Arc::clone(&signal.received))?);
        anyhow::Ok((signal, peers))
    };
    let result = connect().and_then(|(signal, peers)| {
        let result = train(arguments, Some((signal, Arc::clone(&peers))));
        match &result {
            Ok(_) => peers.finish(),
            Err(error) => peers.report(&format!("{error:#}")),
        }
        result
    });
    result.map_err(|error| {
        if let Some(file) = error_file {
            let message = serde_json::json!({ "message": format!("rank {rank}: {error:#}") });
            let _ = std::fs::write(file, message.to_string());
        }
        error.context(format!("rank {rank}"))
    })
}

/// The folder of a run.
pub enum Folder {
    /// It holds a run, which goes on.
    Old(PathBuf),
    /// It is for a new run.
    New(PathBuf),
    /// It is for a new run, and was made for it.
    Numbered(PathBuf),
}

impl Folder {
    pub fn path(&self) -> &Path {
        match self {
            Self::Old(path) | Self::New(path) | Self::Numbered(path) => path,
        }
    }
}

impl TrainArguments {
    /// Whether only deterministic kernels are allowed.
    pub fn is_deterministic(&self) -> anyhow::Result<bool> {
        Ok(match &self.resume {
            Some(folder) => read_config(folder)?.deterministic,
            None => self.settings.deterministic,
        })
    }

    pub fn folder(&self) -> lenet5::Result<Folder> {
        Ok(match (&self.resume, &self.out) {
            (Some(folder), _) => Folder::Old(folder.clone()),
            (None, Some(folder)) => Folder::New(folder.clone()),
            (None, None) => Folder::Numbered(new_run_folder("runs".as_ref())?),
        })
    }

    /// The folder that rank 0 chooses. If torchrun has restarted the job, the run goes on from its
    /// checkpoint.
    pub fn shared_folder(&self, peers: &Peers) -> anyhow::Result<Folder> {
        const KEY: &str = "folder";
        let mut chosen = None;
        if peers.is_first() {
            // The key has no prefix of this start, so that it survives a restart.
            let before = if peers.launch().restarts > 0 { peers.store().get(KEY)? } else { None };
            let folder = match (before, &self.resume) {
                (Some(bytes), None) => {
                    let path = PathBuf::from(String::from_utf8(bytes)?);
                    let has_checkpoint = checkpoint_path(&path).exists();
                    if has_checkpoint { Folder::Old(path) } else { Folder::New(path) }
                }
                _ => self.folder()?,
            };
            let path = std::path::absolute(folder.path())?;
            let path = path.to_str().context("expected a folder whose path is UTF-8")?;
            peers.store().set(KEY, path.as_bytes())?;
            let is_old = matches!(folder, Folder::Old(_));
            chosen = Some((folder, serde_json::to_vec(&(is_old, path))?));
        }
        let shared = peers.from_first(KEY, chosen.as_ref().map(|(_, shared)| shared.as_slice()))?;
        if let Some((folder, _)) = chosen {
            return Ok(folder);
        }
        let (is_old, path): (bool, PathBuf) = serde_json::from_slice(&shared)?;
        Ok(if is_old { Folder::Old(path) } else { Folder::New(path) })
    }
}

/// The CPU threads of a process that shares its machine with others, if nothing else sets them.
pub fn threads_of_rank(launch: &Launch) -> Option<i32> {
    let cores = std::thread::available_parallelism().ok()?.get();
    let unset = std::env::var_os("OMP_NUM_THREADS").is_none();
    unset.then(|| (cores / launch.local_size).clamp(1, 1024) as i32)
}

/// The GPU of a process that shares its machine with others.
pub fn device_of_rank(device: Device, launch: &Launch) -> Device {
    let gpus = tch::Cuda::device_count().max(1) as usize;
    match device {
        Device::Cuda(0) => Device::Cuda(launch.local_rank % gpus),
        other => other,
    }
}
