//! Compiles the C++ shim against the libtorch that torch-sys found, and sets the rpath, so that
//! binaries and tests run without environment variables.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=src/libtorch/shim.cpp");
    println!("cargo::rerun-if-changed=src/libtorch/shim.h");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let lib = PathBuf::from(
        env::var_os("DEP_TCH_LIBTORCH_LIB")
            .expect("torch-sys, a direct dependency, names libtorch's lib folder"),
    );
    let root = env::var_os("LIBTORCH_INCLUDE")
        .map_or_else(|| lib.parent().expect("lib/ has a parent").to_owned(), PathBuf::from);
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false) // of libtorch's headers
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .file("src/libtorch/shim.cpp")
        .compile("lenet5_shim");
    link(&lib);
}

/// The shim's archive comes after libtorch on the linker's line, so libtorch is named once more.
fn link(lib: &Path) {
    println!("cargo::rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
