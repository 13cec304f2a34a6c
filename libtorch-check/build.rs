//! Checks the libtorch that `LIBTORCH` names. torch-sys itself checks only libtorch's own zip
//! archives and LIBTORCH_USE_PYTORCH, not the `torch` folder of a Python wheel; and a build script
//! of the main package would run only after torch-sys has been compiled.

use std::path::Path;
use std::{env, fs, process};

/// The version that tch 0.24.0 is made for, also pinned in scripts/requirements.txt.
const EXPECTED: &str = "2.11.0";

fn main() {
    for name in
        ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_USE_PYTORCH", "LIBTORCH_BYPASS_VERSION_CHECK"]
    {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some()
        || env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some()
    {
        return;
    }
    let Some(root) = env::var_os("LIBTORCH_INCLUDE").or_else(|| env::var_os("LIBTORCH")) else {
        return;
    };
    let root = Path::new(&root);
    // The newer path is first; PyTorch before 2.9 has only the second.
    let headers =
        ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"]
            .map(|header| root.join(header));
    let header = headers.iter().find(|header| header.exists()).unwrap_or(&headers[0]);
    println!("cargo::rerun-if-changed={}", header.display());
    match fs::read_to_string(header) {
        Err(error) => fail(&format!(
            "expected libtorch {EXPECTED} at {}, found none: {} ({error})\n  \
             run `make setup`, or set LIBTORCH to a folder that holds lib/ and include/ of libtorch {EXPECTED}",
            root.display(),
            header.display(),
        )),
        Ok(text) => {
            let found = version(&text);
            if found != EXPECTED {
                fail(&format!(
                    "expected libtorch {EXPECTED}, found {found} at {}\n  \
                     tch 0.24.0 works with PyTorch {EXPECTED}: run `make setup`, or `pip install torch=={EXPECTED}` where LIBTORCH points",
                    root.display(),
                ));
            }
        }
    }
}

/// Returns a version such as "2.11.0" from the header's `#define TORCH_VERSION_MAJOR 2` lines.
fn version(header: &str) -> String {
    let part = |name: &str| {
        header
            .lines()
            .find_map(|line| line.strip_prefix(&format!("#define TORCH_VERSION_{name} ")))
            .unwrap_or("?")
            .trim()
    };
    format!("{}.{}.{}", part("MAJOR"), part("MINOR"), part("PATCH"))
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    process::exit(1);
}
