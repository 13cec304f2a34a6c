//! The manual page and the shell completions of a program.

use std::ffi::OsString;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// Returns the text that the command line asks for: `[SUBCOMMAND] --man` for the manual page, or
/// `--completions SHELL`.
pub fn requested(command: &Command) -> Option<String> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let arguments: Vec<&str> =
        arguments.iter().map(|argument| argument.to_str()).collect::<Option<_>>()?;
    match arguments[..] {
        ["--man"] => Some(manual(command, command.get_name().to_owned())),
        [name, "--man"] => {
            let subcommand = command.find_subcommand(name)?;
            Some(manual(subcommand, format!("{}-{name}", command.get_name())))
        }
        ["--completions", shell] => {
            let shell = Shell::from_str(shell, true).ok()?;
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), command.get_name(), &mut text);
            Some(utf8(text))
        }
        _ => None,
    }
}

/// Returns the manual page of a command under this name, in the format of `man`.
fn manual(command: &Command, name: String) -> String {
    let command = command.clone().display_name(name).disable_help_subcommand(true);
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).expect("a vector takes all bytes");
    utf8(text)
}

fn utf8(text: Vec<u8>) -> String {
    String::from_utf8(text).expect("options and their descriptions are UTF-8")
}
