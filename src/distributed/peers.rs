//! The connection of this process to the others of its job.

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use super::Launch;
use super::store::{JobStore, PATIENCE, within};
use crate::engine::Reducer;
use crate::libtorch::{Group, Store, cuda};
use crate::{Error, Result};

/// The other processes of the job, and the place of this process among them.
pub struct Peers {
    launch: Launch,
    timeout: Duration,
    store: JobStore,
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
            None => return Err(failed(what, &format!("no answer within {} s", timeout.as_secs()))),
        };
        Ok(Self {
            store: JobStore::new(store, launch.clone(), timeout),
            launch,
            timeout,
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

    /// Returns what connects the ranks, gloo or NCCL; `None` if they are not connected.
    pub fn backend(&self) -> Option<&'static str> {
        self.group().as_ref().map(Group::backend)
    }

    /// Returns the flag that is set in all processes in the same step, when one of them is told to
    /// stop.
    pub fn stop_agreed(&self) -> &AtomicBool {
        &self.stop_agreed
    }

    /// Returns the store of the job.
    pub fn store(&self) -> &JobStore {
        &self.store
    }

    /// Returns the value that rank 0 states; the other ranks wait for it.
    ///
    /// # Errors
    /// If rank 0 does not state it within the timeout, or has failed.
    pub fn from_first(&self, key: &str, value: Option<&[u8]>) -> Result<Vec<u8>> {
        if let Some(value) = value {
            self.store.set(&self.store.key(key), value)?;
            return Ok(value.to_vec());
        }
        self.store.wait_for(0, key)
    }

    /// Compares facts that must be the same for all ranks, and then connects the ranks: over NCCL
    /// if each of them has a GPU of its own, else over gloo.
    ///
    /// # Errors
    /// If a rank does not arrive within the timeout, or its facts differ; the message names it.
    pub fn join(&self, device: Device, facts: &Map<String, Value>) -> Result<()> {
        let uuid = match device {
            Device::Cuda(gpu) => cuda::uuid(gpu).ok(),
            _ => None,
        };
        let text = serde_json::to_vec(&(uuid, facts)).expect("facts are plain data");
        let own = self.store.key(&format!("facts/{}", self.launch.rank));
        if self.store.get(&own)?.is_some() {
            let rank = self.launch.rank;
            return Err(Error::Job(format!("this job has another process with RANK {rank}")));
        }
        self.store.set(&own, &text)?;
        let mut first: Option<Map<String, Value>> = None;
        let mut gpus = BTreeSet::new();
        for rank in 0..self.launch.size {
            let text = self.store.wait_for(rank, &format!("facts/{rank}"))?;
            type Stated = (Option<[u8; 16]>, Map<String, Value>);
            let (uuid, found): Stated = serde_json::from_slice(&text)
                .map_err(|error| Error::Job(format!("rank {rank} is another program: {error}")))?;
            let expected = first.get_or_insert_with(|| found.clone());
            if let Some(difference) = difference(expected, &found) {
                return Err(Error::Job(format!(
                    "all ranks need the same program, settings and data, but {difference} for rank \
                     {rank}"
                )));
            }
            gpus.extend(uuid);
        }
        let ranks = (self.launch.rank, self.launch.size);
        let (store, timeout) = (self.store.store(), self.timeout);
        let prefix = self.store.key("group");
        let has_own_gpus = gpus.len() == self.launch.size;
        let open = move || match device {
            Device::Cuda(gpu) if has_own_gpus => {
                Group::over_nccl(&store, &prefix, ranks, gpu, timeout)
            }
            _ => {
                let interface = std::env::var("GLOO_SOCKET_IFNAME").ok();
                Group::over_gloo(&store, &prefix, ranks, interface.as_deref(), timeout)
            }
        };
        let group = match within(timeout + PATIENCE, open) {
            Some(group) => group.map_err(|error| self.explained(error))?,
            None => return Err(self.store.is_lost("")),
        };
        *self.group() = Some(group);
        Ok(())
    }

    /// Waits for the other ranks at the end of the job, so that the store stays open for them.
    pub fn finish(&self) {
        self.store.tell("done", b"1");
        if self.is_first() {
            let (others, time) = (1..self.launch.size, self.timeout.min(10 * PATIENCE));
            self.store.wait_for_all(others.collect(), &["done", "fault"], time);
        }
    }

    /// Tells the other ranks why this one ends.
    pub fn report(&self, error: &str) {
        let told = self.store.tell("failed", error.as_bytes());
        *self.group() = None;
        if told && self.is_first() && !self.launch.agent_store {
            // The store ends with this process, so the others are given time to look into it.
            let others = 1..self.launch.size;
            self.store.wait_for_all(others.collect(), &["fault", "failed"], PATIENCE);
        }
    }

    fn group(&self) -> MutexGuard<'_, Option<Group>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out which rank a lost connection is due to. Each rank that notices it closes its own
    /// connections, so that all others notice it at once, and says in the store that it is alive.
    fn explained(&self, error: Error) -> Error {
        drop(self.group().take());
        let Launch { rank, size, .. } = self.launch;
        let others: Vec<usize> = (0..size).filter(|other| *other != rank).collect();
        let answers = match self.store.tell("fault", b"1") {
            true => self.store.wait_for_all(others.clone(), &["failed", "fault"], PATIENCE),
            false => None,
        };
        let Some(answers) = answers else {
            return self.store.is_lost(&format!(" ({error})"));
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
        let summed = match &*self.group() {
            Some(group) => group.sum(&bucket),
            None => Err(Error::Job("the ranks are not connected".to_owned())),
        };
        let summed = summed.map_err(|error| self.explained(error))?;
        let mut parts = summed.f_split_with_sizes(&sizes, 0)?;
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
