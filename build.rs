//! Compiles the C++ shim against the libtorch that torch-sys found, and sets the rpath, so that
//! binaries and tests run without environment variables. If CUDA's headers are found, the CUDA part
//! is compiled too. It is a library of its own, which is embedded in the binary and loaded only on
//! machines with a GPU.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    for source in ["shim.cpp", "shim.h", "c10d.cpp", "c10d.h", "guarded.h", "cuda_shim.cpp", "gloo"]
    {
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
    compiler(&root)
        .include("src/libtorch") // declarations in place of gloo's headers
        .define("USE_C10D_GLOO", None)
        .files(["src/libtorch/shim.cpp", "src/libtorch/c10d.cpp"])
        .compile("lenet5_shim");
    link(&lib);
    let built = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("cuda_shim.so");
    match cuda_headers(&root) {
        Some(headers) if lib.join("libtorch_cuda.so").exists() => {
            build_cuda_shim(&root, &headers, &lib, &built);
        }
        // An empty file means that the program has no CUDA part.
        _ => fs::write(&built, []).expect("OUT_DIR is writable"),
    }
}

/// A C++ compiler with the paths of libtorch's headers.
fn compiler(root: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .warnings(false) // libtorch's headers give many warnings
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"));
    build
}

/// The folder of CUDA's headers: next to a PyTorch installed by pip, or in a CUDA toolkit. The
/// headers of PyTorch's own wheels alone are not complete; scripts/requirements-cuda-build.txt
/// lists the rest.
fn cuda_headers(root: &Path) -> Option<PathBuf> {
    let toolkit = env::var_os("CUDA_HOME").unwrap_or_else(|| "/usr/local/cuda".into());
    let mut folders = Vec::new();
    if let Some(packages) = fs::canonicalize(root).ok().as_deref().and_then(Path::parent) {
        folders.push(packages.join("nvidia/cu13/include"));
    }
    folders.push(PathBuf::from(toolkit).join("include"));
    let complete = |folder: &PathBuf| {
        let version = fs::read_to_string(folder.join("cuda.h")).unwrap_or_default();
        let nv = ["nv/target", "cccl/nv/target"].iter().any(|name| folder.join(name).exists());
        version.contains("#define CUDA_VERSION 13") && folder.join("crt").exists() && nv
    };
    folders.into_iter().find(complete)
}

/// The folder of NCCL's header: in PyTorch's wheels, or beside CUDA's headers.
fn nccl_header(root: &Path, cuda: &Path) -> Option<PathBuf> {
    let wheel = fs::canonicalize(root).ok()?.parent()?.join("nvidia/nccl/include");
    [wheel, cuda.to_owned()].into_iter().find(|folder| folder.join("nccl.h").exists())
}

fn build_cuda_shim(root: &Path, headers: &Path, lib: &Path, built: &Path) {
    let mut build = compiler(root);
    build
        .pic(true)
        .cargo_metadata(false)
        .include(headers)
        .include(headers.join("cccl"))
        .file("src/libtorch/cuda_shim.cpp");
    if let Some(folder) = nccl_header(root, headers) {
        build.include(folder).define("USE_C10D_NCCL", None);
    }
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

/// Links libtorch again, as the shim's archive comes after it on the linker's command line.
fn link(lib: &Path) {
    println!("cargo::rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
