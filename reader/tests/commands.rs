//! Tests of the commands: output and exit codes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use lenet5_reader::predict;
use serde_json::Value;

use crate::util::{Ended, in_repository, program, run, temp};

const COMMANDS: [&str; 3] = ["predict", "serve", "inspect"];

fn json(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(text).unwrap()
}

#[test]
fn help_and_version() {
    let version = format!("lenet5 {}\n", env!("CARGO_PKG_VERSION"));
    for name in COMMANDS {
        let help = run(name, ["--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        assert!(
            help.stdout.contains(&format!("Usage: lenet5 {name} [OPTIONS]")),
            "{}",
            help.stdout
        );
        assert_eq!(run(name, ["--version"]).success(), version);
    }
    let help = run("--help", [""; 0]).success();
    assert!(help.contains("Usage: lenet5 <COMMAND>"), "{help}");
    assert!(COMMANDS.iter().all(|name| help.contains(&format!("\n  {name} "))), "{help}");
    assert_eq!(run("--version", [""; 0]).success(), version);
}

#[test]
fn wrong_usage_exits_with_2() {
    let table: &[(&str, &[&str], &str)] = &[
        ("inspect", &["in.pt", "out.pt"], "unexpected argument 'out.pt'"),
        ("serve", &["--timeout", "0"], "expected 0.1 to 3600 seconds"),
        ("serve", &["--reject-below", "2"], "expected a number from 0 to 1"),
        ("predict", &["7.png", "--digits", "0"], "expected a number of digits from 1 to 100"),
        ("predict", &["7.png", "--digits", "five"], "expected a number of digits such as 5"),
        ("predict", &["7.png", "--pattern", "##x"], "expected # for any digit, 0 to 9, and marks"),
        ("predict", &["7.png", "--digits=1", "--pattern=#"], "cannot be used with"),
        ("train", &[], "unrecognized subcommand 'train'"),
    ];
    for &(name, arguments, message) in table {
        let ended = run(name, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{name} {arguments:?}");
        assert!(ended.stderr.contains(message), "{name} {arguments:?}: {}", ended.stderr);
    }
}

/// A negative number is read as a number, so that the error is about its range.
#[test]
fn negative_numbers_are_read() {
    let ended = |command: &str, options: &[&str]| {
        let mut words = command.split(' ');
        let mut program = program(words.next().unwrap());
        program.args(words);
        for option in options {
            program.args([format!("--{option}"), "-1".to_owned()]);
        }
        Ended::from(program.output().unwrap())
    };
    for command in ["predict picture.png", "serve"] {
        let ended = ended(command, &["threads", "mean", "std"]);
        ended.fails_with("threads: expected 1 to 1024, found -1");
    }
    // Ranges that the parser checks: wrong usage. The message names the option and the value.
    for (command, options) in [
        ("predict picture.png", "digits max-pixels reject-below"),
        ("serve", "max-body max-pixels timeout max-connections queue batch-wait reject-below"),
    ] {
        for option in options.split(' ') {
            let ended = ended(command, &[option]);
            let message = format!("error: invalid value '-1' for '--{option} <");
            assert!(ended.code == Some(2) && ended.stderr.starts_with(&message), "{ended:?}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_created_is_named() {
    let folder = temp();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let inside = file.join("run");
    let hint = "name another place for the results";
    let a_file = format!("{}: expected a folder or nothing, found a file; {hint}", file.display());
    let in_file = format!(
        "{}: the folder cannot be made: Not a directory (os error 20); {hint}",
        inside.display()
    );
    for (path, message) in [(&file, &a_file), (&inside, &in_file)] {
        let show = format!("--show={}", path.display());
        run("predict", [show, file.display().to_string()]).fails_with(message);
    }
}

/// Makes a named pipe.
fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn pipes_devices_and_sockets_do_not_block() {
    let folder = temp();
    let path = |name: &str| folder.path().join(name);
    let (silent, socket, picture) = (path("pipe"), path("socket"), path("link.png"));
    pipe(&silent);
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // A link to a file is a file.
    std::os::unix::fs::symlink(in_repository("tests/pictures/407.png"), &picture).unwrap();
    let nobody = "expected data, found a pipe that nobody writes to";
    let device = "expected a file, found a device (of characters)";
    let ended: Ended = program("predict")
        .args([&silent, Path::new("/dev/zero"), Path::new("/dev/tty"), &socket, &picture])
        .output()
        .unwrap()
        .into();
    // The picture is read although the arguments before it are errors.
    assert_eq!((ended.code, ended.stdout), (Some(1), format!("{}: 407\n", picture.display())));
    assert_eq!(
        ended.stderr,
        format!(
            "error: {}: {nobody}\nerror: /dev/zero: {device}\nerror: /dev/tty: {device}\n\
             error: {}: expected a file, found a socket\n",
            silent.display(),
            socket.display()
        )
    );
    run("inspect", [&silent]).fails_with(&format!("{}: {nobody}", silent.display()));
    run("serve", ["--weights=/dev/zero"]).fails_with(&format!("/dev/zero: {device}"));
    // In a folder only regular files are read.
    assert_eq!(run("predict", [folder.path()]).success(), "407\n");
}

#[test]
fn pipes_with_data_are_read() {
    let picture = in_repository("tests/pictures/407.png");
    let ended = program("predict")
        .arg("/dev/stdin")
        .stdin(File::open(&picture).unwrap())
        .output()
        .map(Ended::from);
    assert_eq!(ended.unwrap().success(), "407\n");
    let script =
        "cat \"$1\" | \"$0\" predict /dev/stdin && \"$0\" predict <(sleep 0.1; cat \"$1\")";
    let ended = Command::new("bash")
        .args(["-c", script])
        .arg(program("predict").get_program())
        .arg(&picture)
        .output()
        .map(Ended::from);
    assert_eq!(ended.unwrap().success(), "407\n407\n");
    // A named pipe that is written to a little later.
    let folder = temp();
    let name = folder.path().join("pipe");
    pipe(&name);
    let child = program("inspect").arg(&name).stdout(Stdio::piped()).spawn().unwrap();
    fs::write(&name, fs::read(in_repository("weights/lenet5.pt")).unwrap()).unwrap();
    let text = Ended::from(child.wait_with_output().unwrap()).success();
    assert!(text.contains("LeNet-5, found at: the whole file"), "{text}");
}

#[test]
fn links_in_a_circle_have_an_end() {
    let folder = temp();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("a/b")).unwrap();
    fs::copy(in_repository("tests/pictures/407.png"), path("a/b/407.png")).unwrap();
    // Followed without a limit, these links make 2^40 paths.
    for name in ["a/b/one", "a/b/two", "a/three"] {
        std::os::unix::fs::symlink("..", path(name)).unwrap();
    }
    let found = path("a/b/407.png");
    for argument in [folder.path().to_owned(), path("**/*.png"), path("a/**/4*")] {
        let found_by = predict::find_pictures(std::slice::from_ref(&argument));
        let found_by: Vec<_> = found_by.into_iter().map(Result::unwrap).collect();
        assert_eq!(found_by, [&*found], "{}", argument.display());
    }
    let ended = program("predict").current_dir(folder.path()).arg("**/*.png").output();
    assert_eq!(Ended::from(ended.unwrap()).success(), "407\n");
}

#[test]
fn names_are_printed_without_tricks() {
    use std::os::unix::ffi::OsStrExt;
    let folder = temp();
    let at = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    let picture = fs::read(in_repository("tests/pictures/407.png")).unwrap();
    // (name, printed name)
    let table: [(&[u8], &str); 5] = [
        (b"1\nerror: 2.png", r"1\nerror: 2.png"),
        (b"\x1b[31mred.png", r"\u{1b}[31mred.png"),
        ("a\u{202e}gnp.png".as_bytes(), r"a\u{202e}gnp.png"),
        (b"\xff\\x.png", r"\xff\\x.png"),
        (
            "z\u{e9}ro e\u{301} \u{4e03} 'q' \"p\".png".as_bytes(),
            "z\u{e9}ro e\u{301} \u{4e03} 'q' \"p\".png",
        ),
    ];
    let shown = |name: &str| format!("{}/{name}", folder.path().display());
    for (name, printed) in table {
        let path = at(name);
        fs::write(&path, &picture).unwrap();
        let both = run("predict", [&path, &path]).success();
        let line = format!("{}: 407\n", shown(printed));
        assert_eq!(both, format!("{line}{line}"));
        let inspected = run("inspect", [&path]);
        assert!(inspected.stderr.starts_with(&format!("error: {}: ", shown(printed))));
        assert_eq!(inspected.stderr.lines().count(), 1);
        // JSON keeps the name.
        let line = json(&run("predict", [Path::new("--json"), &path]).success());
        match std::str::from_utf8(name) {
            Ok(name) => {
                assert_eq!((&line["file"], line.get("file_bytes")), (&shown(name).into(), None))
            }
            Err(_) => {
                let bytes: Vec<u8> = serde_json::from_value(line["file_bytes"].clone()).unwrap();
                assert_eq!(bytes, path.as_os_str().as_bytes());
            }
        }
        let weights = path.with_extension("pt");
        fs::copy(in_repository("weights/lenet5.pt"), &weights).unwrap();
        let text = run("inspect", [&weights]).success();
        let printed = shown(&printed.replace(".png", ".pt"));
        assert!(text.starts_with(&format!("file       {printed}, ")), "{text}");
        let line = json(&run("inspect", [Path::new("--json"), &weights]).success());
        assert_eq!(line.get("file_bytes").is_some(), std::str::from_utf8(name).is_err());
    }
}
