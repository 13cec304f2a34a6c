//! CUDA streams and graphs, and groups over NCCL, through the part of the shim that needs CUDA. It is a library embedded
//! in this binary, loaded only if a GPU is used.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::{check, reason, run_then_restore};
use crate::{Error, Result};

/// The library; empty if the program was built without CUDA's headers.
static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cuda_shim.so"));

type Status = *mut c_char;
type Pointer = *mut c_void;

/// The functions of the library.
struct Functions {
    stream_new: unsafe extern "C" fn(c_int, *mut Pointer) -> Status,
    stream_free: unsafe extern "C" fn(Pointer),
    stream_enter: unsafe extern "C" fn(Pointer) -> Status,
    stream_leave: unsafe extern "C" fn(Pointer) -> Status,
    graph_begin: unsafe extern "C" fn(*mut Pointer) -> Status,
    graph_end: unsafe extern "C" fn(Pointer) -> Status,
    graph_replay: unsafe extern "C" fn(Pointer) -> Status,
    graph_free: unsafe extern "C" fn(Pointer),
    gpu_uuid: unsafe extern "C" fn(c_int, *mut u8) -> Status,
    nccl_open: unsafe extern "C" fn(
        Pointer,
        *const c_char,
        c_int,
        c_int,
        i64,
        c_int,
        *mut Pointer,
    ) -> Status,
    /// Keeps the library loaded.
    _library: Library,
}

/// Returns whether this program can record CUDA graphs: it was built with CUDA's headers.
pub fn has_graphs() -> bool {
    !SHIM.is_empty()
}

/// Returns the functions of the library. `libtorch_cuda.so` must already be loaded.
fn functions() -> Result<&'static Functions> {
    static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
    FUNCTIONS.get_or_init(load).as_ref().map_err(|error| {
        Error::Device(format!("the CUDA part of this program cannot be loaded: {error}"))
    })
}

fn load() -> Result<Functions, String> {
    if !has_graphs() {
        return Err("it was built without CUDA's headers; see docs/src/gpu.md".to_owned());
    }
    let mut file = file_in_memory().map_err(|error| error.to_string())?;
    file.write_all(SHIM).map_err(|error| error.to_string())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: build.rs built the library; its functions have the types above.
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
            gpu_uuid: function!("gpu_uuid"),
            nccl_open: function!("nccl_open"),
            _library: library,
        })
    }
}

/// Creates a file in memory, so that neither a full disk nor a folder mounted `noexec` matters.
#[cfg(target_os = "linux")]
fn file_in_memory() -> io::Result<File> {
    // SAFETY: the name is a C string.
    match unsafe { libc::memfd_create(c"cuda_shim.so".as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and has no other owner.
        descriptor => Ok(unsafe { File::from_raw_fd(descriptor) }),
    }
}

#[cfg(not(target_os = "linux"))]
fn file_in_memory() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns 16 bytes that no other GPU has.
///
/// # Errors
/// If there is no such GPU, or the CUDA part of the shim is missing.
pub fn uuid(device: usize) -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    // SAFETY: the shim writes 16 bytes.
    check(unsafe { (functions()?.gpu_uuid)(device as c_int, uuid.as_mut_ptr()) })?;
    Ok(uuid)
}

/// Opens a group of processes over NCCL; see [`Group::over_nccl`](super::Group::over_nccl).
///
/// # Safety
/// `store` must be an open store of c10d.
pub(super) unsafe fn open_nccl(
    store: Pointer,
    prefix: &CStr,
    (rank, size): (usize, usize),
    device: usize,
    timeout_ms: i64,
) -> Result<Pointer> {
    let functions = functions()?;
    let mut group = std::ptr::null_mut();
    let (rank, size, device) = (rank as c_int, size as c_int, device as c_int);
    // SAFETY: the pointers live for the length of the call; on success `group` is a new group.
    check(unsafe {
        (functions.nccl_open)(store, prefix.as_ptr(), rank, size, timeout_ms, device, &mut group)
    })?;
    Ok(group)
}

/// A CUDA stream on which work can be recorded.
pub struct Stream(Pointer);

// SAFETY: a stream's handle is not bound to a thread.
unsafe impl Send for Stream {}

impl Stream {
    /// Creates a stream of a GPU.
    ///
    /// # Errors
    /// If the CUDA part of the shim is missing, or CUDA reports an error.
    pub fn new(device: usize) -> Result<Stream> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: on success the shim returns a stream, which `drop` frees.
        check(unsafe { (functions()?.stream_new)(device as c_int, &mut stream) })?;
        Ok(Stream(stream))
    }

    /// Runs `work` with this stream as the thread's current stream.
    ///
    /// # Errors
    /// The errors of `work`, and those of CUDA.
    pub fn within<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let functions = functions()?;
        // SAFETY: the stream exists until `drop`.
        check(unsafe { (functions.stream_enter)(self.0) })?;
        // SAFETY: as above.
        let (result, left) =
            run_then_restore(work, || check(unsafe { (functions.stream_leave)(self.0) }));
        // The first error is returned.
        result.and_then(|result| left.map(|()| result))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(functions) = functions() {
            // SAFETY: the pointer came from `stream_new`, and is not used any more.
            unsafe { (functions.stream_free)(self.0) }
        }
    }
}

/// A CUDA graph: recorded work.
pub struct CudaGraph(Pointer);

// SAFETY: a graph is not bound to a thread.
unsafe impl Send for CudaGraph {}

impl CudaGraph {
    /// Records the kernels that `work` launches, without running them. It must be called within a
    /// [`Stream`]. Tensors that exist already keep their addresses; those that `work` creates are
    /// in the graph's own memory.
    ///
    /// # Errors
    /// The errors of `work`; also if CUDA cannot record an operation.
    pub fn record(work: impl FnOnce() -> Result<()>) -> Result<CudaGraph> {
        let functions = functions()?;
        let mut graph = std::ptr::null_mut();
        // SAFETY: on success the shim returns a graph, which `drop` frees.
        check(unsafe { (functions.graph_begin)(&mut graph) })?;
        let graph = CudaGraph(graph);
        // SAFETY: the graph exists until `drop`.
        let end = || check(unsafe { (functions.graph_end)(graph.0) });
        let (result, ended) = run_then_restore(work, end);
        result.and(ended).map(|()| graph)
    }

    /// Repeats the recorded work.
    ///
    /// # Errors
    /// If CUDA reports an error.
    ///
    /// # Safety
    /// All tensors that the recorded work uses and that existed before must still exist: the graph
    /// holds their addresses, not the tensors.
    pub unsafe fn replay(&self) -> Result<()> {
        // SAFETY: the graph exists until `drop`; the caller guarantees that its tensors exist.
        check(unsafe { (functions()?.graph_replay)(self.0) })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        if let Ok(functions) = functions() {
            // SAFETY: the pointer came from `graph_begin`, and is not used any more.
            unsafe { (functions.graph_free)(self.0) }
        }
    }
}
