//! The key-value store of a job. Every question to it has an answer in bounded time, though the
//! process that holds the store may have died or hang.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::Launch;
use crate::libtorch::Store;
use crate::{Error, Result};

/// How long a process that lost a connection waits for the others to say that they are alive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// The time between two looks into the store.
const PAUSE: Duration = Duration::from_millis(20);

/// The store that all processes of a job share.
#[derive(Clone)]
pub struct JobStore {
    store: Arc<Store>,
    launch: Launch,
    timeout: Duration,
}

impl JobStore {
    /// Wraps an open store. A process that does not answer within `timeout` is given up.
    pub(crate) fn new(store: Store, launch: Launch, timeout: Duration) -> Self {
        Self { store: Arc::new(store), launch, timeout }
    }

    /// Returns the store of c10d.
    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// A key of this start of the job. The store survives restarts.
    pub fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.launch.restarts)
    }

    /// Works on the store. It is an error if it does not answer within the timeout.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        match within(self.timeout, move || work(&store)) {
            Some(Ok(result)) => Ok(result),
            Some(Err(error)) => Err(self.is_lost(&format!(" ({error})"))),
            None => Err(self.is_lost("")),
        }
    }

    /// The error for a store that does not answer.
    pub(crate) fn is_lost(&self, cause: &str) -> Error {
        let holder = if self.launch.agent_store { "torchrun" } else { "rank 0" };
        Error::Job(format!("{holder}, which holds the store, does not answer{cause}"))
    }

    /// Returns the value of a key, as it is; `None` if it is not set.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (key, timeout) = (key.to_owned(), self.timeout);
        self.ask(move |store| match store.has(&key)? {
            true => Ok(Some(store.get(&key, timeout)?)),
            false => Ok(None),
        })
    }

    /// Sets the value of a key, as it is.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_vec());
        self.ask(move |store| store.set(&key, &value))
    }

    /// Sets a key of this rank for the others to see; returns whether the store took it soon.
    pub(crate) fn tell(&self, key: &str, value: &[u8]) -> bool {
        let key = self.key(&format!("{key}/{}", self.launch.rank));
        let (store, value) = (Arc::clone(&self.store), value.to_vec());
        matches!(within(PATIENCE, move || store.set(&key, &value)), Some(Ok(())))
    }

    /// Returns an error if a rank has said that it failed.
    fn check_failure(&self, rank: usize) -> Result<()> {
        match self.get(&self.key(&format!("failed/{rank}")))? {
            None => Ok(()),
            Some(message) => {
                let message = String::from_utf8_lossy(&message);
                Err(Error::Job(format!("rank {rank} failed: {message}")))
            }
        }
    }

    /// Waits until a rank has set a key.
    ///
    /// # Errors
    /// If the rank has failed, or does not set it within the timeout.
    pub fn wait_for(&self, rank: usize, key: &str) -> Result<Vec<u8>> {
        let start = Instant::now();
        loop {
            if let Some(value) = self.get(&self.key(key))? {
                return Ok(value);
            }
            self.check_failure(rank)?;
            if start.elapsed() > self.timeout {
                let (seconds, size) = (self.timeout.as_secs(), self.launch.size);
                return Err(Error::Job(format!(
                    "expected {size} ranks, but rank {rank} has not arrived within {seconds} s"
                )));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits for a value that a rank sets, as long as the rank shows that it is alive, with
    /// [`Self::show_life`]. `None` if `stop` is set.
    ///
    /// # Errors
    /// If the rank has failed, or shows no life within the timeout.
    pub fn wait_alive(&self, rank: usize, key: &str, stop: &AtomicBool) -> Result<Option<Vec<u8>>> {
        let alive = self.key(&format!("alive/{rank}"));
        let (mut last, mut since) = (None, Instant::now());
        while !stop.load(Ordering::Relaxed) {
            if let Some(value) = self.get(&self.key(key))? {
                return Ok(Some(value));
            }
            self.check_failure(rank)?;
            let beat = self.get(&alive)?;
            if beat != last {
                (last, since) = (beat, Instant::now());
            }
            if since.elapsed() > self.timeout {
                return Err(Error::Job(format!("rank {rank} does not answer")));
            }
            std::thread::sleep(5 * PAUSE);
        }
        Ok(None)
    }

    /// Shows the other ranks that this one is alive, once a second from now on, in work that needs
    /// no other connection. If the store is lost, it sets `lost` and `stop`. If one rank was told
    /// to stop, it sets `stop` in all of them.
    pub fn show_life(&self, lost: Arc<AtomicBool>, stop: Arc<AtomicBool>) {
        let (store, timeout) = (Arc::downgrade(&self.store), self.timeout);
        let key = self.key(&format!("alive/{}", self.launch.rank));
        let stop_key = self.key("stop");
        std::thread::spawn(move || {
            for beat in 0_u64.. {
                let Some(store) = store.upgrade() else { break };
                let (key, stop_key) = (key.clone(), stop_key.clone());
                let shown = within(timeout, move || {
                    store.set(&key, beat.to_string().as_bytes())?;
                    store.has(&stop_key)
                });
                let Some(Ok(stops)) = shown else {
                    lost.store(true, Ordering::Relaxed);
                    stop.store(true, Ordering::Relaxed);
                    break;
                };
                if stops {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }

    /// Stops all ranks that show that they are alive.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn stop_all(&self) -> Result<()> {
        self.set(&self.key("stop"), b"1")
    }

    /// Waits until each of these ranks has set one of the keys. Returns the values, without those
    /// of ranks that are silent for `time`; `None` if the store does not answer.
    pub(crate) fn wait_for_all(
        &self,
        ranks: Vec<usize>,
        keys: &'static [&'static str],
        time: Duration,
    ) -> Option<BTreeMap<usize, (&'static str, String)>> {
        let own = self.clone();
        within(time + PATIENCE, move || {
            let (start, mut found) = (Instant::now(), BTreeMap::new());
            loop {
                for rank in &ranks {
                    for key in keys {
                        let name = own.key(&format!("{key}/{rank}"));
                        if !found.contains_key(rank) && own.store.has(&name)? {
                            let value = own.store.get(&name, own.timeout)?;
                            let value = String::from_utf8_lossy(&value).into_owned();
                            found.insert(*rank, (*key, value));
                        }
                    }
                }
                if found.len() == ranks.len() || start.elapsed() > time {
                    return Ok(found);
                }
                std::thread::sleep(PAUSE);
            }
        })?
        .ok()
    }
}

/// Runs work on the store in a thread of its own, as a store that hangs never answers. `None` if it
/// takes longer.
pub(crate) fn within<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Option<Result<T>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(time).ok()
}
