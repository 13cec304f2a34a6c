//! How the processes of a job find each other: the environment variables that torchrun, Slurm or a
//! script sets.

use std::ops::Range;
use std::path::PathBuf;

use crate::{Error, Result};

/// The most processes of a job.
const MAX_SIZE: u64 = 1 << 16;
/// The port of PyTorch's store if nothing names one.
const DEFAULT_PORT: u16 = 29500;

/// The place of this process in a job of several processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The number of this process, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
    /// The number of processes on this machine.
    pub local_size: usize,
    /// The number of this process on its machine, from 0.
    pub local_rank: usize,
    /// The host and the port of the store.
    pub address: (String, u16),
    /// Whether the store is held by torchrun instead of by rank 0.
    pub agent_store: bool,
    /// How often torchrun has restarted the job. The store survives restarts.
    pub restarts: u64,
    /// The file in which torchrun expects the error of this process.
    pub error_file: Option<PathBuf>,
}

impl Launch {
    /// Returns the part of `count` items that is for this process.
    pub fn part(&self, count: usize) -> Range<usize> {
        count * self.rank / self.size..count * (self.rank + 1) / self.size
    }

    /// Reads the environment. `None` if this process is alone.
    ///
    /// # Errors
    /// If a variable is missing, or its value is no number or out of range.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from(&|name| std::env::var(name).ok())
    }

    /// Reads the environment through a function.
    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<u64>> {
            let Some(text) = variable(name) else { return Ok(None) };
            text.trim()
                .parse()
                .map(Some)
                .map_err(|_| Error::config(format!("{name}: expected a number, found {text:?}")))
        };
        let required = |name: &str, other: &str| {
            number(name)?.ok_or_else(|| {
                Error::config(format!("expected {name}, as {other} is set; it is not set"))
            })
        };
        let (rank, size, local_rank, local_size, host);
        if variable("RANK").is_some() || variable("WORLD_SIZE").is_some() {
            (rank, size) = (required("RANK", "WORLD_SIZE")?, required("WORLD_SIZE", "RANK")?);
            (local_rank, local_size) = (number("LOCAL_RANK")?, number("LOCAL_WORLD_SIZE")?);
            host = None;
        } else if let Some(tasks) = number("SLURM_STEP_NUM_TASKS")?.filter(|tasks| *tasks > 1) {
            (rank, size) = (required("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")?, tasks);
            local_rank = number("SLURM_LOCALID")?;
            // It looks like `4(x2),3`, with the counts of all nodes. This node has one of them.
            let counts = variable("SLURM_STEP_TASKS_PER_NODE").unwrap_or_default();
            let largest = counts
                .split(',')
                .filter_map(|count| count.split('(').next().and_then(|count| count.parse().ok()));
            local_size = largest.max();
            host = variable("SLURM_STEP_NODELIST").as_deref().map(first_host);
        } else {
            return Ok(None);
        }
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(Error::config(format!(
                "WORLD_SIZE: expected 1 to {MAX_SIZE} processes, found {size}"
            )));
        }
        if rank >= size {
            return Err(Error::config(format!(
                "RANK: expected a number below WORLD_SIZE, {size}, found {rank}"
            )));
        }
        let Some(host) = variable("MASTER_ADDR").filter(|host| !host.is_empty()).or(host) else {
            return Err(Error::config("expected MASTER_ADDR, the host of rank 0; it is not set"));
        };
        let port = match number("MASTER_PORT")? {
            Some(port) => u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
                Error::config(format!("MASTER_PORT: expected 1 to 65535, found {port}"))
            })?,
            // Jobs that share a machine should not share a port.
            None => {
                number("SLURM_JOB_ID")?.map_or(DEFAULT_PORT, |job| 20_000 + (job % 10_000) as u16)
            }
        };
        Ok(Some(Self {
            rank: rank as usize,
            size: size as usize,
            local_rank: local_rank.unwrap_or(0) as usize,
            local_size: local_size.unwrap_or(1).max(1) as usize,
            address: (host, port),
            agent_store: variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            restarts: number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
            error_file: variable("TORCHELASTIC_ERROR_FILE").map(PathBuf::from),
        }))
    }
}

/// The first host of a list in Slurm's form, such as `gpu[03-05,9],login`.
fn first_host(list: &str) -> String {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    match rest.strip_prefix('[') {
        Some(numbers) => {
            let end = numbers.find([',', '-', ']']).unwrap_or(numbers.len());
            format!("{name}{}", &numbers[..end])
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Option<Launch>, String> {
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Launch::from(&find).map_err(|error| error.to_string())
    }

    #[test]
    fn a_process_alone_is_no_job() {
        assert_eq!(launch(&[]), Ok(None));
        // Within salloc or sbatch, but not started by srun.
        assert_eq!(launch(&[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")]), Ok(None));
        assert_eq!(launch(&[("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_PROCID", "0")]), Ok(None));
    }

    #[test]
    fn torchrun_sets_its_variables() {
        let mut variables = vec![
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "node1"),
            ("MASTER_PORT", "4321"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("TORCHELASTIC_ERROR_FILE", "e.json"),
        ];
        let expected = Launch {
            rank: 3,
            size: 4,
            local_rank: 1,
            local_size: 2,
            address: ("node1".to_owned(), 4321),
            agent_store: true,
            restarts: 2,
            error_file: Some("e.json".into()),
        };
        assert_eq!(launch(&variables), Ok(Some(expected)));
        variables[0].1 = "4";
        assert!(
            launch(&variables).unwrap_err().contains("RANK: expected a number below WORLD_SIZE, 4")
        );
        variables[0].1 = "0";
        for size in ["0", "4294967298"] {
            variables[1].1 = size;
            assert!(launch(&variables).unwrap_err().contains("WORLD_SIZE: expected 1 to 65536"));
        }
        variables[1].1 = "4";
        variables[0].1 = "x";
        assert_eq!(launch(&variables).unwrap_err(), "RANK: expected a number, found \"x\"");
        variables[0].1 = "0";
        variables[5].1 = "70000";
        assert!(launch(&variables).unwrap_err().contains("expected 1 to 65535, found 70000"));
        assert!(launch(&variables[1..]).unwrap_err().contains("expected RANK"));
        assert!(launch(&variables[..4]).unwrap_err().contains("expected MASTER_ADDR"));
    }

    #[test]
    fn slurm_sets_its_variables() {
        let variables = [
            ("SLURM_STEP_NUM_TASKS", "6"),
            ("SLURM_PROCID", "5"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_TASKS_PER_NODE", "2(x3)"),
            ("SLURM_STEP_NODELIST", "gpu[03-05]"),
            ("SLURM_JOB_ID", "1234567"),
        ];
        let found = launch(&variables).unwrap().unwrap();
        assert_eq!((found.rank, found.size, found.local_rank, found.local_size), (5, 6, 1, 2));
        assert_eq!(found.address, ("gpu03".to_owned(), 24567));
        for (list, host) in
            [("a,b", "a"), ("a", "a"), ("n-[1,3]", "n-1"), ("n[07]", "n07"), ("a,n[1-2]", "a")]
        {
            assert_eq!(first_host(list), host);
        }
    }
}
