//! CUDA streams and graphs, by the part of the shim that needs CUDA: a library inside this binary, loaded where a
//! GPU is used.

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::{check, reason, run_then_restore};
use crate::{Error, Result};

/// The library; empty where this was built without CUDA's headers.
static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cuda_shim.so"));

type Status = *mut c_char;
type Pointer = *mut c_void;

/// Its functions.
struct Functions {
    stream_new: unsafe extern "C" fn(c_int, *mut Pointer) -> Status,
    stream_free: unsafe extern "C" fn(Pointer),
    stream_enter: unsafe extern "C" fn(Pointer) -> Status,
    stream_leave: unsafe extern "C" fn(Pointer) -> Status,
    graph_begin: unsafe extern "C" fn(*mut Pointer) -> Status,
    graph_end: unsafe extern "C" fn(Pointer) -> Status,
    graph_replay: unsafe extern "C" fn(Pointer) -> Status,
    graph_free: unsafe extern "C" fn(Pointer),
    /// Never unloaded.
    _library: Library,
}

/// Whether this binary can record CUDA graphs: it was built where CUDA's headers are.
pub fn has_graphs() -> bool {
    !SHIM.is_empty()
}

/// The functions, once `libtorch_cuda.so` is loaded.
fn functions() -> Result<&'static Functions> {
    static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
    FUNCTIONS.get_or_init(load).as_ref().map_err(|error| {
        Error::Device(format!("the CUDA part of this program cannot be loaded: {error}"))
    })
}

fn load() -> Result<Functions, String> {
    if !has_graphs() {
        return Err("it was built without CUDA's headers; see \"GPU\" in the README".to_owned());
    }
    let mut file = file_in_memory().map_err(|error| error.to_string())?;
    file.write_all(SHIM).map_err(|error| error.to_string())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the library is the one that build.rs made; its functions have the types above.
    unsafe {
        let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map_err(|e| reason(&e))?;
        macro_rules! function {
            ($name:literal) => {
                *library.get(concat!("lenet5_", $name).as_bytes()).map_err(|e| reason(&e))?
            };
        }
        Ok(Functions {
            stream_new: function!("stream_new"),
            stream_free: function!("stream_free"),
            stream_enter: function!("stream_enter"),
            stream_leave: function!("stream_leave"),
            graph_begin: function!("graph_begin"),
            graph_end: function!("graph_end"),
            graph_replay: function!("graph_replay"),
            graph_free: function!("graph_free"),
            _library: library,
        })
    }
}

/// Where no disk is full and no folder is `noexec`.
#[cfg(target_os = "linux")]
fn file_in_memory() -> io::Result<File> {
    // SAFETY: the name is a C string.
    match unsafe { libc::memfd_create(c"cuda_shim.so".as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new, and nobody else's.
        descriptor => Ok(unsafe { File::from_raw_fd(descriptor) }),
    }
}

#[cfg(not(target_os = "linux"))]
fn file_in_memory() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A stream on which work can be recorded.
pub struct Stream(Pointer);

// SAFETY: a stream's handle belongs to no thread.
unsafe impl Send for Stream {}

impl Stream {
    /// One of a GPU.
    ///
    /// # Errors
    /// Where the CUDA part of the shim is missing, or CUDA refuses.
    pub fn new(device: usize) -> Result<Stream> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: on success the shim hands over a stream, which `drop` frees.
        check(unsafe { (functions()?.stream_new)(device as c_int, &mut stream) })?;
        Ok(Stream(stream))
    }

    /// Does all of this thread's work on the stream until `work` ends.
    ///
    /// # Errors
    /// Those of `work`, and CUDA's.
    pub fn within<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let functions = functions()?;
        // SAFETY: the stream lives.
        check(unsafe { (functions.stream_enter)(self.0) })?;
        // SAFETY: as above.
        let (result, left) =
            run_then_restore(work, || check(unsafe { (functions.stream_leave)(self.0) }));
        // What went wrong first is said.
        result.and_then(|result| left.map(|()| result))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(functions) = functions() {
            // SAFETY: it came from `stream_new`, and nobody has it any more.
            unsafe { (functions.stream_free)(self.0) }
        }
    }
}

/// Recorded work.
pub struct CudaGraph(Pointer);

// SAFETY: a graph belongs to no thread.
unsafe impl Send for CudaGraph {}

impl CudaGraph {
    /// Records what `work` launches, without doing it; to be called within a [`Stream`]. Tensors of before keep
    /// their places, those that `work` makes live in the graph's own memory.
    ///
    /// # Errors
    /// Those of `work`; CUDA's, where something cannot be recorded.
    pub fn record(work: impl FnOnce() -> Result<()>) -> Result<CudaGraph> {
        let functions = functions()?;
        let mut graph = std::ptr::null_mut();
        // SAFETY: on success the shim hands over a graph, which `drop` frees.
        check(unsafe { (functions.graph_begin)(&mut graph) })?;
        let graph = CudaGraph(graph);
        // SAFETY: the graph lives.
        let end = || check(unsafe { (functions.graph_end)(graph.0) });
        let (result, ended) = run_then_restore(work, end);
        result.and(ended).map(|()| graph)
    }

    /// Repeats the recorded work.
    ///
    /// # Errors
    /// CUDA's.
    ///
    /// # Safety
    /// All tensors of before that the recorded work uses are still alive: the graph holds their addresses, not the tensors.
    pub unsafe fn replay(&self) -> Result<()> {
        // SAFETY: the graph lives, and so do its tensors, which the caller guarantees.
        check(unsafe { (functions()?.graph_replay)(self.0) })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        if let Ok(functions) = functions() {
            // SAFETY: it came from `graph_begin`, and nobody has it any more.
            unsafe { (functions.graph_free)(self.0) }
        }
    }
}
