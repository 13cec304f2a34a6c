//! What the binaries share: exit codes, output that may be cut off, threads.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::model::{ModelOptions, Network};
use crate::weights::{Limits, Weights};
use crate::{Error, Result, files};

/// Reads the command line; wrong usage ends the program with 2.
///
/// A negative number is an option's value everywhere: without this the parser takes `-1` for an unknown option, and the
/// setting's own check has no word.
pub fn parse<T: clap::Parser>() -> T {
    let command = T::command().mut_args(|argument| {
        let takes_value = argument.get_long().is_some() && argument.get_action().takes_values();
        if takes_value { argument.allow_negative_numbers(true) } else { argument }
    });
    T::from_arg_matches(&command.get_matches())
        .unwrap_or_else(|error| error.format(&mut T::command()).exit())
}

/// Calls `stop` at the first SIGHUP, SIGINT or SIGTERM, with the exit code that a shell gives to a program that such a
/// signal ended: 128 and the signal's number. A second signal ends the program at once, with its own code.
///
/// A signal that is ignored when the program starts stays ignored: SIGHUP under `nohup`, SIGINT in the background of
/// a script.
///
/// # Errors
/// Where the system refuses a handler.
pub fn on_signal(stop: impl FnOnce(u8) + Send + 'static) -> io::Result<()> {
    let mut heeded = vec![SIGHUP, SIGINT, SIGTERM];
    heeded.retain(|signal| !is_ignored(*signal));
    let stopping = Arc::new(AtomicBool::new(false));
    for &signal in &heeded {
        // In the handler itself, and in this order: the first signal sets the flag that the second one finds. It calls
        // `_exit`, see `exit_now`.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stopping))?;
        flag::register(signal, Arc::clone(&stopping))?;
    }
    let mut signals = Signals::new(&heeded)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            stop((128 + signal) as u8);
        }
    })?;
    Ok(())
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: it only asks, and `action` is filled in where the call succeeds.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Runs a command: 0 done, 1 failed, with the error on stderr; wrong usage is clap's, with 2.
/// A reader that closes our output early (`| head`) has got what it wanted: 0.
pub fn run(command: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    match command() {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// How a command reads a file of weights.
#[derive(clap::Args)]
pub struct ReadOptions {
    /// Settings that the file does not say, or says wrongly.
    #[command(flatten)]
    pub model: ModelOptions,
    /// Where the network is in a file that holds several, such as a teacher and a student: the keys that lead
    /// to it, with dots between them.
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// The limits.
    #[command(flatten)]
    pub limits: LimitOptions,
}

/// What reading a file of weights may take.
#[derive(clap::Args)]
pub struct LimitOptions {
    /// The most memory that reading the file may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    max_memory: u64,
}

impl LimitOptions {
    /// As the reader takes it.
    pub fn limits(&self) -> Limits {
        Limits { memory: self.max_memory << 20 }
    }
}

impl ReadOptions {
    /// Reads a file, sets what was given, and notes on stderr what the user should know.
    ///
    /// # Errors
    /// As [`Weights::read`] and [`Weights::set`].
    pub fn read(&self, path: &Path) -> Result<Weights> {
        let mut weights = self.read_as_stored(path)?;
        weights.set(&self.model)?;
        note_all(path, &weights);
        Ok(weights)
    }

    /// Reads a file with the settings that it says or that are assumed.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn read_as_stored(&self, path: &Path) -> Result<Weights> {
        Weights::read_within(path, &self.limits.limits(), self.key.as_deref())
    }

    /// The same, of the shipped weights where no file is named.
    ///
    /// # Errors
    /// As [`Weights::read`] and [`Weights::set`].
    pub fn open(&self, path: Option<&Path>, shipped: Network) -> Result<Weights> {
        let Some(path) = path else {
            let mut weights = Weights::shipped(shipped)?;
            weights.set(&self.model)?;
            return Ok(weights);
        };
        self.read(path)
    }
}

/// Notes on stderr what the user should know of weights.
pub fn note_all(path: &Path, weights: &Weights) {
    for text in weights.notes() {
        note(format_args!("note: {}: {text}", files::shown(path)));
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Ends the process at once, as a second signal does; the files are as the last write left them.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` runs no destructors. `std::process::exit` would run libtorch's while the main
    // thread is still within libtorch, which crashes.
    unsafe { libc::_exit(code.into()) }
}

/// Prints on stdout without a panic where it is closed or full.
///
/// # Errors
/// As `write` has them.
pub fn print(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let printed = write!(stdout, "{text}").and_then(|()| stdout.flush());
    printed.map_err(|error| io::Error::new(error.kind(), format!("stdout: {error}")))
}

/// Prints a line on stderr; where nobody reads it, nothing happens: `eprintln!` would panic.
pub fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A confidence on the command line.
///
/// # Errors
/// Where it is not from 0 to 1.
pub fn confidence(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Sets the number of threads that read pictures; none leaves all cores.
///
/// # Errors
/// Where the system has no more threads.
pub fn set_pool(threads: Option<i32>) -> Result<()> {
    let threads = threads.map_or(0, |threads| threads.max(0) as usize);
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    built.map_err(|error| Error::Config(format!("threads: {error}")))
}

/// Sets the number of CPU threads that libtorch's kernels use; none leaves its choice, all cores.
///
/// # Errors
/// Where the number is below 1 or above 1,024.
pub fn set_threads(threads: Option<i32>) -> Result<()> {
    match threads {
        None => Ok(()),
        Some(threads @ 1..=1024) => {
            tch::set_num_threads(threads);
            Ok(())
        }
        Some(found) => Err(Error::Config(format!("threads: expected 1 to 1024, found {found}"))),
    }
}
