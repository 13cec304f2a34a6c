//! The programs start under their own names. The tests of lenet5-reader cover everything else.

use std::process::Command;

#[test]
fn help_and_version() {
    let programs = [
        ("predict", env!("CARGO_BIN_EXE_predict")),
        ("serve", env!("CARGO_BIN_EXE_serve")),
        ("inspect", env!("CARGO_BIN_EXE_inspect")),
    ];
    for (name, path) in programs {
        let output = |argument: &str| {
            let output = Command::new(path).arg(argument).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let help = output("--help");
        assert!(help.contains(&format!("Usage: {name} [OPTIONS]")), "{help}");
        assert_eq!(output("--version"), format!("lenet5 {}\n", env!("CARGO_PKG_VERSION")));
    }
}
