//! Runs programs for the tests of all packages, with signals as at a terminal.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// Makes a program handle SIGHUP, SIGINT and SIGTERM as at a terminal. In the background of a
/// script, the tests ignore SIGINT, and the program would inherit that.
pub fn as_at_a_terminal(command: &mut Command) {
    handling([libc::SIGHUP, libc::SIGINT, libc::SIGTERM], libc::SIG_DFL, command);
}

/// Makes a program start with these signals ignored, or with their default action.
#[allow(unsafe_code)]
pub fn handling<const N: usize>(signals: [i32; N], how: libc::sighandler_t, command: &mut Command) {
    // SAFETY: between fork and exec the closure calls only `signal`, which is allowed there.
    unsafe {
        command.pre_exec(move || {
            for signal in signals {
                libc::signal(signal, how);
            }
            Ok(())
        });
    }
}

/// The result of a program.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Ended {
    /// Returns the stdout of a program that succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Asserts that the program failed with this message and printed nothing on stdout.
    #[track_caller]
    pub fn fails_with(&self, message: &str) {
        assert_eq!(
            (self.code, self.stderr.as_str(), self.stdout.as_str()),
            (Some(1), format!("error: {message}\n").as_str(), "")
        );
    }
}
