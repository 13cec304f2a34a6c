//! Calls of the operating system for which there is no safe function.
#![allow(unsafe_code)]

/// Returns whether this process ignores a signal, as it does with SIGHUP under `nohup`.
pub(crate) fn is_ignored(signal: i32) -> bool {
    // SAFETY: the call only reads the current handler, and fills in `action` if it succeeds.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Makes glibc return large blocks of memory to the system at once. By default each thread's arena
/// keeps them, which takes twice the memory that large pictures need.
pub fn return_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the calls only change parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 << 20);
    }
}
