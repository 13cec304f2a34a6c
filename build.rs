//! Compiles the C++ shim against the libtorch that torch-sys found, and sets the rpath, so that
//! binaries and tests run without environment variables. Where the CUDA headers are, too, so is the CUDA part, a
//! library of its own that becomes a part of the binary: it is loaded only on machines with a GPU.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    for source in ["shim.cpp", "shim.h", "guarded.h", "cuda_shim.cpp"] {
        println!("cargo::rerun-if-changed=src/libtorch/{source}");
    }
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let lib = PathBuf::from(
        env::var_os("DEP_TCH_LIBTORCH_LIB")
            .expect("torch-sys, a direct dependency, names libtorch's lib folder"),
    );
    let root = env::var_os("LIBTORCH_INCLUDE")
        .map_or_else(|| lib.parent().expect("lib/ has a parent").to_owned(), PathBuf::from);
    compiler(&root).file("src/libtorch/shim.cpp").compile("lenet5_shim");
    link(&lib);
    let built = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("cuda_shim.so");
    match cuda_headers(&root) {
        Some(headers) if lib.join("libtorch_cuda.so").exists() => {
            build_cuda_shim(&root, &headers, &lib, &built);
        }
        // An empty file says that there is none.
        _ => fs::write(&built, []).expect("OUT_DIR is writable"),
    }
}

/// C++ against libtorch's headers.
fn compiler(root: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .warnings(false) // of libtorch's headers
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"));
    build
}

/// CUDA's headers: those beside a PyTorch from pip, or of a CUDA toolkit. The headers of PyTorch's own wheels
/// alone are not complete; scripts/requirements-cuda-build.txt has the rest.
fn cuda_headers(root: &Path) -> Option<PathBuf> {
    let toolkit = env::var_os("CUDA_HOME").unwrap_or_else(|| "/usr/local/cuda".into());
    let mut beside = Vec::new();
    if let Some(packages) = fs::canonicalize(root).ok().as_deref().and_then(Path::parent) {
        beside.push(packages.join("nvidia/cu13/include"));
    }
    beside.push(PathBuf::from(toolkit).join("include"));
    let complete = |folder: &PathBuf| {
        let version = fs::read_to_string(folder.join("cuda.h")).unwrap_or_default();
        let nv = ["nv/target", "cccl/nv/target"].iter().any(|name| folder.join(name).exists());
        version.contains("#define CUDA_VERSION 13") && folder.join("crt").exists() && nv
    };
    beside.into_iter().find(complete)
}

fn build_cuda_shim(root: &Path, headers: &Path, lib: &Path, built: &Path) {
    let mut build = compiler(root);
    build
        .pic(true)
        .cargo_metadata(false)
        .include(headers)
        .include(headers.join("cccl"))
        .file("src/libtorch/cuda_shim.cpp");
    let objects = build.compile_intermediates();
    let status = build
        .get_compiler()
        .to_command()
        .args(["-shared", "-s", "-Wl,-z,defs", "-Wl,--no-as-needed", "-o"])
        .arg(built)
        .args(objects)
        .arg("-L")
        .arg(lib)
        .args(["-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"])
        .status()
        .expect("the compiler that cc found runs");
    assert!(status.success(), "linking the CUDA part of the shim failed");
}

/// The shim's archive comes after libtorch on the linker's line, so libtorch is named once more.
fn link(lib: &Path) {
    println!("cargo::rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
