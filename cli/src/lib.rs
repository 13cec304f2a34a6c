//! Parts that the command-line programs share: arguments, exit codes, signals, output to closed
//! pipes, progress.

mod arguments;
mod manual;
mod progress;
pub mod system;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lenet5_core::kernels::simd::Isa;
use lenet5_core::{Error, Result, Weights, files};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

pub use arguments::{LimitArguments, ModelArguments, WeightsArguments, choice, confidence};
pub use progress::ProgressBar;

/// Parses the command line of a program. Wrong usage ends the program with exit code 2.
///
/// `--help` is short. The manual page, which `--man` prints, describes each value too.
/// `--completions SHELL` prints a script that completes the options in a shell.
pub fn parse<T: clap::Parser>() -> T {
    let command = with_short_help(with_negative_numbers(T::command()));
    let hint = "--man prints the manual page, --completions SHELL prints a script for a shell.";
    let after = command.get_after_help().map_or_else(String::new, |text| format!("{text}\n\n"));
    let command = command.max_term_width(100).after_help(after + hint);
    if let Some(text) = manual::requested(&command) {
        // A closed pipe is not an error.
        let _ = print(text);
        std::process::exit(0);
    }
    let matches = command.get_matches();
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut T::command()).exit())
}

/// Makes `--help` print what `-h` prints, in a command and its subcommands.
fn with_short_help(command: clap::Command) -> clap::Command {
    let help = clap::Arg::new("help").short('h').long("help").help("Print help");
    command
        .disable_help_flag(true)
        .arg(help.action(clap::ArgAction::HelpShort))
        .mut_subcommands(with_short_help)
}

/// Lets a negative number be the value of the option before it, in a command and its subcommands.
/// Otherwise clap takes `-1` for an unknown option, and the range check of the setting is not
/// reached.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| {
            let takes_value = argument.get_long().is_some() && argument.get_action().takes_values();
            if takes_value { argument.allow_negative_numbers(true) } else { argument }
        })
        .mut_subcommands(with_negative_numbers)
}

/// Calls `stop` at the first SIGHUP, SIGINT or SIGTERM. Its argument is the exit code that a shell
/// reports for a program which that signal ended: 128 plus the signal's number. A second signal
/// ends the program at once, with its own code.
///
/// A signal that is ignored when the program starts stays ignored: SIGHUP under `nohup`, SIGINT in
/// the background of a script.
///
/// # Errors
/// If the system rejects a signal handler.
pub fn on_signal(stop: impl FnOnce(u8) + Send + 'static) -> io::Result<()> {
    handle_signals(stop, None::<fn()>)
}

/// Calls `stop` as [`on_signal`] does at the first SIGINT or SIGTERM, and `reload` at each SIGHUP, which then stops
/// nothing. For this reason SIGHUP is handled even if it is ignored when the program starts, as under `nohup`.
///
/// # Errors
/// If the system rejects a signal handler.
pub fn on_signal_or_hangup(
    stop: impl FnOnce(u8) + Send + 'static,
    reload: impl FnMut() + Send + 'static,
) -> io::Result<()> {
    handle_signals(stop, Some(reload))
}

fn handle_signals(
    stop: impl FnOnce(u8) + Send + 'static,
    mut reload: Option<impl FnMut() + Send + 'static>,
) -> io::Result<()> {
    let reloads = reload.is_some();
    let mut handled = vec![SIGINT, SIGTERM];
    if !reloads {
        handled.push(SIGHUP);
    }
    handled.retain(|signal| !system::is_ignored(*signal));
    let stopping = Arc::new(AtomicBool::new(false));
    for &signal in &handled {
        // Both actions run in the signal handler, in this order: the first signal sets the flag
        // that makes the second one end the program, as `exit_now` does.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stopping))?;
        flag::register(signal, Arc::clone(&stopping))?;
    }
    if reloads {
        handled.push(SIGHUP);
    }
    let mut signals = Signals::new(&handled)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            match &mut reload {
                Some(reload) if signal == SIGHUP => reload(),
                _ => return stop((128 + signal) as u8),
            }
        }
    })?;
    Ok(())
}

/// Runs a command and returns its exit code: the command's own code, or 1 if it failed, with the
/// error on stderr. (Wrong usage ends the program in [`parse`], with 2.) If the reader of stdout
/// closes the pipe early (`| head`), the code is 0.
pub fn run(command: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    match Isa::from_environment().map_err(anyhow::Error::from).and_then(|_| command()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Ends the process at once, without running destructors, as other threads may still be working.
/// Files stay as the last write left them.
pub fn exit_now(code: u8) -> ! {
    signal_hook::low_level::exit(code.into())
}

/// Prints on stdout. Unlike `print!` it does not panic if stdout is closed or full.
///
/// # Errors
/// If writing fails.
pub fn print(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let printed = write!(stdout, "{text}").and_then(|()| stdout.flush());
    printed.map_err(|error| io::Error::new(error.kind(), format!("stdout: {error}")))
}

/// Prints a line on stderr. A closed stderr is ignored: `eprintln!` would panic.
pub fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints the notes about the weights of a file on stderr, such as assumed settings.
pub fn note_all(path: &Path, weights: &Weights) {
    for text in weights.notes() {
        note(format_args!("note: {}: {text}", files::shown(path)));
    }
}

/// Sets the number of threads that read pictures. `None` means all cores.
///
/// # Errors
/// If the number is below 1 or above 1,024, or the system cannot start the threads.
pub fn set_pool(threads: Option<i32>) -> Result<()> {
    let threads = match threads {
        None => 0,
        Some(threads @ 1..=1024) => threads as usize,
        Some(found) => {
            return Err(Error::Config(format!("threads: expected 1 to 1024, found {found}")));
        }
    };
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    built.map_err(|error| Error::Config(format!("threads: {error}")))
}
