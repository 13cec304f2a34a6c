//! The connection of this process to the others of its job.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::Launch;
use crate::engine::Reducer;
use crate::libtorch::{Group, Store};
use crate::{Error, Result};

/// How long a process that lost the connection waits for the others to say that they are alive.
const PATIENCE: Duration = Duration::from_secs(3);
/// The time between two looks into the store.
const PAUSE: Duration = Duration::from_millis(20);

/// The other processes of the job, and the place of this process among them.
pub struct Peers {
    launch: Launch,
    timeout: Duration,
    store: Arc<Store>,
    /// The connection over which tensors are added up; `None` before all have arrived, and after an
    /// error.
    group: Mutex<Option<Group>>,
    /// Whether this process was told to stop.
    stop_wanted: Arc<AtomicBool>,
    /// Whether one of the processes was told to stop. All of them set it in the same step.
    stop_agreed: AtomicBool,
}

impl Peers {
    /// Connects to the store of the job. `stop_wanted` is set when this process is to stop.
    ///
    /// # Errors
    /// If the host is unknown, the port is in use, or there is no store within `timeout`.
    pub fn connect(
        launch: Launch,
        timeout: Duration,
        stop_wanted: Arc<AtomicBool>,
    ) -> Result<Self> {
        let (host, port) = (launch.address.0.as_str(), launch.address.1);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::Job(format!("MASTER_ADDR {host}, MASTER_PORT {port}: {what} ({error})"))
        };
        (host, port)
            .to_socket_addrs()
            .map_err(|error| failed("expected the host of rank 0, found no such host", &error))?;
        let serves = launch.rank == 0 && !launch.agent_store;
        let what = match serves {
            true => "rank 0 cannot open its store there",
            false => "no store of rank 0 or of torchrun answers there",
        };
        let address = launch.address.clone();
        let open = move || Store::open((&address.0, address.1), serves, "lenet5", timeout);
        let store = match within(timeout + PATIENCE, open) {
            Some(store) => store.map_err(|error| failed(what, &error))?,
            None => return Err(failed(what, &"it accepts a connection, and is silent")),
        };
        Ok(Self {
            launch,
            timeout,
            store: Arc::new(store),
            group: Mutex::new(None),
            stop_wanted,
            stop_agreed: AtomicBool::new(false),
        })
    }

    /// Returns the place of this process.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Returns whether this process is the one that prints and writes.
    pub fn is_first(&self) -> bool {
        self.launch.rank == 0
    }

    /// Returns the flag that is set in all processes in the same step, when one of them is told to
    /// stop.
    pub fn stop_agreed(&self) -> &AtomicBool {
        &self.stop_agreed
    }

    /// Returns the value of a key that is kept when torchrun restarts the job.
    ///
    /// # Errors
    /// If the connection to the store is lost.
    pub fn remembered(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.look(key)
    }

    /// Sets a key that is kept when torchrun restarts the job.
    ///
    /// # Errors
    /// If the connection to the store is lost.
    pub fn remember(&self, key: &str, value: &[u8]) -> Result<()> {
        self.put(key, value)
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// If the connection to the store is lost.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        self.put(&self.key(key), value)
    }

    /// Shows the other ranks that this one is alive, once a second from now on, in work that needs
    /// no other connection. If the store is lost, it sets `lost` and `stop`.
    pub fn show_life(self: &Arc<Self>, lost: Arc<AtomicBool>, stop: Arc<AtomicBool>) {
        let peers = Arc::downgrade(self);
        std::thread::spawn(move || {
            for beat in 0_u64.. {
                let Some(peers) = peers.upgrade() else { break };
                let (store, timeout) = (Arc::clone(&peers.store), peers.timeout);
                let key = peers.key(&format!("alive/{}", peers.launch.rank));
                drop(peers);
                let shown = within(timeout, move || store.set(&key, beat.to_string().as_bytes()));
                if !matches!(shown, Some(Ok(()))) {
                    lost.store(true, Ordering::Relaxed);
                    stop.store(true, Ordering::Relaxed);
                    break;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }

    /// Waits for a value that a rank sets, as long as the rank shows that it is alive. `None` if
    /// `stop` is set.
    ///
    /// # Errors
    /// If the rank has failed, or shows no life within the timeout.
    pub fn wait_alive(&self, rank: usize, key: &str, stop: &AtomicBool) -> Result<Option<Vec<u8>>> {
        let (value, alive) = (self.key(key), self.key(&format!("alive/{rank}")));
        let (mut last, mut since) = (Vec::new(), Instant::now());
        while !stop.load(Ordering::Relaxed) {
            if let Some(value) = self.look(&value)? {
                return Ok(Some(value));
            }
            self.check_failure(rank)?;
            let beat = self.look(&alive)?.unwrap_or_default();
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

    /// Returns the value that rank 0 states; the other ranks wait for it.
    ///
    /// # Errors
    /// If rank 0 does not state it within the timeout, or has failed.
    pub fn from_first(&self, key: &str, value: Option<&[u8]>) -> Result<Vec<u8>> {
        if let Some(value) = value {
            self.put(&self.key(key), value)?;
            return Ok(value.to_vec());
        }
        self.wait_for(0, key)
    }

    /// Compares facts that must be the same for all ranks, and then connects the ranks.
    ///
    /// # Errors
    /// If a rank does not arrive within the timeout, or its facts differ; the message names it.
    pub fn join(&self, facts: &Map<String, Value>) -> Result<()> {
        let text = serde_json::to_vec(facts).expect("facts are plain data");
        self.put(&self.key(&format!("facts/{}", self.launch.rank)), &text)?;
        let mut first: Option<Map<String, Value>> = None;
        for rank in 0..self.launch.size {
            let text = self.wait_for(rank, &format!("facts/{rank}"))?;
            let found: Map<String, Value> = serde_json::from_slice(&text)
                .map_err(|error| Error::Job(format!("rank {rank} is another program: {error}")))?;
            let expected = first.get_or_insert_with(|| found.clone());
            if let Some(difference) = difference(expected, &found) {
                return Err(Error::Job(format!(
                    "all ranks need the same program, settings and data, but {difference} for rank \
                     {rank}"
                )));
            }
        }
        let ranks = (self.launch.rank, self.launch.size);
        let interface = std::env::var("GLOO_SOCKET_IFNAME").ok();
        let prefix = self.key("gloo");
        let (store, timeout) = (Arc::clone(&self.store), self.timeout);
        let open = move || Group::open(&store, &prefix, ranks, interface.as_deref(), timeout);
        let group = match within(timeout + PATIENCE, open) {
            Some(group) => group.map_err(|error| self.explained(error))?,
            None => return Err(self.store_is_lost("")),
        };
        *self.group() = Some(group);
        Ok(())
    }

    /// Waits for the other ranks at the end of the job, so that the store stays open for them.
    pub fn finish(&self) {
        let _ = self.put(&self.key(&format!("done/{}", self.launch.rank)), b"1");
        if self.is_first() {
            let others = 1..self.launch.size;
            self.wait_for_all(
                others.collect(),
                &["done", "fault"],
                self.timeout.min(10 * PATIENCE),
            );
        }
    }

    /// Tells the other ranks why this one ends.
    pub fn report(&self, error: &str) {
        let told = self.tell("failed", error.as_bytes());
        *self.group() = None;
        if told && self.is_first() && !self.launch.agent_store {
            // The store ends with this process, so the others are given time to look into it.
            self.wait_for_all((1..self.launch.size).collect(), &["fault", "failed"], PATIENCE);
        }
    }

    /// Works on the store, which may have died or hang with the process that holds it.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        match within(self.timeout, move || work(&store)) {
            Some(Ok(result)) => Ok(result),
            Some(Err(error)) => Err(self.store_is_lost(&format!(" ({error})"))),
            None => Err(self.store_is_lost("")),
        }
    }

    /// The error for a store that does not answer.
    fn store_is_lost(&self, cause: &str) -> Error {
        let holder = if self.launch.agent_store { "torchrun" } else { "rank 0" };
        Error::Job(format!("{holder}, which holds the store, does not answer{cause}"))
    }

    /// Returns the value of a key; `None` if it is not set.
    fn look(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (key, timeout) = (key.to_owned(), self.timeout);
        self.ask(move |store| match store.has(&key)? {
            true => Ok(Some(store.get(&key, timeout)?)),
            false => Ok(None),
        })
    }

    /// Sets the value of a key.
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_vec());
        self.ask(move |store| store.set(&key, &value))
    }

    /// A key of this start of the job. The store survives restarts.
    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.launch.restarts)
    }

    fn group(&self) -> MutexGuard<'_, Option<Group>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an error if a rank has said that it failed.
    fn check_failure(&self, rank: usize) -> Result<()> {
        match self.look(&self.key(&format!("failed/{rank}")))? {
            None => Ok(()),
            Some(message) => {
                let message = String::from_utf8_lossy(&message);
                Err(Error::Job(format!("rank {rank} failed: {message}")))
            }
        }
    }

    /// Sets a key of this rank for the others to see; returns whether the store took it in time.
    fn tell(&self, key: &str, value: &[u8]) -> bool {
        let (store, key) =
            (Arc::clone(&self.store), self.key(&format!("{key}/{}", self.launch.rank)));
        let value = value.to_vec();
        matches!(within(PATIENCE, move || store.set(&key, &value)), Some(Ok(())))
    }

    /// Waits until a rank has set a key.
    fn wait_for(&self, rank: usize, key: &str) -> Result<Vec<u8>> {
        let start = Instant::now();
        loop {
            if let Some(value) = self.look(&self.key(key))? {
                return Ok(value);
            }
            self.check_failure(rank)?;
            if start.elapsed() > self.timeout {
                let seconds = self.timeout.as_secs();
                let size = self.launch.size;
                return Err(Error::Job(format!(
                    "expected {size} ranks, but rank {rank} has not arrived within {seconds} s"
                )));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until each of these ranks has set one of the keys. Returns the values, without those
    /// of ranks that are silent; `None` if the store does not answer.
    fn wait_for_all(
        &self,
        ranks: Vec<usize>,
        keys: &'static [&'static str],
        time: Duration,
    ) -> Option<BTreeMap<usize, (&'static str, String)>> {
        let (store, restarts) = (Arc::clone(&self.store), self.launch.restarts);
        let timeout = self.timeout;
        within(time + PATIENCE, move || {
            let (start, mut found) = (Instant::now(), BTreeMap::new());
            loop {
                let silent: Vec<usize> =
                    ranks.iter().copied().filter(|rank| !found.contains_key(rank)).collect();
                for rank in silent {
                    for key in keys {
                        let name = format!("{restarts}/{key}/{rank}");
                        if !found.contains_key(&rank) && store.has(&name)? {
                            let value = store.get(&name, timeout)?;
                            let value = String::from_utf8_lossy(&value).into_owned();
                            found.insert(rank, (*key, value));
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

    /// Finds out which rank a lost connection is due to. Each rank that notices it closes its own
    /// connections, so that all others notice it at once, and says in the store that it is alive.
    fn explained(&self, error: Error) -> Error {
        let _closed = self.group().take();
        let Launch { rank, size, .. } = self.launch;
        let others: Vec<usize> = (0..size).filter(|other| *other != rank).collect();
        let answers = match self.tell("fault", b"1") {
            true => self.wait_for_all(others.clone(), &["failed", "fault"], PATIENCE),
            false => None,
        };
        let Some(answers) = answers else {
            return self.store_is_lost(&format!(" ({error})"));
        };
        let failed = answers.iter().find(|(_, (key, _))| *key == "failed");
        if let Some((rank, (_, message))) = failed {
            return Error::Job(format!("rank {rank} failed: {message}"));
        }
        let silent: Vec<String> = others
            .iter()
            .filter(|rank| !answers.contains_key(rank))
            .map(|rank| format!("rank {rank}"))
            .collect();
        Error::Job(match &silent[..] {
            [] => format!("the connection between ranks is lost ({error})"),
            [rank] => format!("{rank} does not answer ({error})"),
            ranks => format!("{} do not answer ({error})", ranks.join(" and ")),
        })
    }
}

impl Reducer for Peers {
    fn part<'a>(&self, batch: &'a [i64]) -> &'a [i64] {
        &batch[self.launch.part(batch.len())]
    }

    fn sum(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let stop = self.stop_wanted.load(Ordering::Relaxed);
        let like = |tensor: &Tensor| (tensor.kind(), tensor.device());
        let mut flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten(0, -1)).collect();
        flat.push(Tensor::f_full([1], i64::from(stop), like(&tensors[0]))?);
        let sizes: Vec<i64> = flat.iter().map(|tensor| tensor.numel() as i64).collect();
        let bucket = Tensor::f_cat(&flat, 0)?;
        let mut bucket = bucket.to_device(tch::Device::Cpu);
        let summed = match &*self.group() {
            Some(group) => group.sum_(&mut bucket),
            None => Err(Error::Job("the ranks are not connected".to_owned())),
        };
        summed.map_err(|error| self.explained(error))?;
        let mut parts = bucket.to_device(tensors[0].device()).f_split_with_sizes(&sizes, 0)?;
        let flags = parts.pop().expect("the flag is the last part");
        if flags.to_kind(Kind::Double).f_double_value(&[0])? > 0.0 {
            self.stop_agreed.store(true, Ordering::Relaxed);
        }
        Ok(parts.iter().zip(&tensors).map(|(part, tensor)| part.view_as(tensor)).collect())
    }
}

/// The first fact that differs, with both values.
fn difference(expected: &Map<String, Value>, found: &Map<String, Value>) -> Option<String> {
    let keys = expected.keys().chain(found.keys());
    let shown =
        |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    keys.map(|key| (key, expected.get(key), found.get(key)))
        .find(|(_, expected, found)| expected != found)
        .map(|(key, a, b)| format!("{key} is {} for rank 0 and {}", shown(a), shown(b)))
}

/// Runs work on the store in a thread of its own, as a store that hangs never answers. `None` if it
/// takes longer.
fn within<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Option<Result<T>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fact_that_differs_is_named() {
        let facts = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let ours = facts(r#"{"the version of lenet5": "0.1.0", "limit": null, "lr": 0.1}"#);
        assert_eq!(difference(&ours, &ours), None);
        let other_version = r#"{"the version of lenet5": "0.2.0", "limit": null, "lr": 0.2}"#;
        assert_eq!(
            difference(&ours, &facts(other_version)).unwrap(),
            r#"the version of lenet5 is "0.1.0" for rank 0 and "0.2.0""#
        );
        let newer = r#"{"the version of lenet5": "0.1.0", "limit": null, "lr": 0.1, "new": 1}"#;
        assert_eq!(difference(&ours, &facts(newer)).unwrap(), "new is nothing for rank 0 and 1");
    }
}
