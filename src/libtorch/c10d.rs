//! PyTorch's c10d: a key-value store that several processes share, and a group of processes that
//! add up tensors over gloo or NCCL.

use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::{c_string, check, cuda, lenet5_free};
use crate::Result;

unsafe extern "C" {
    fn lenet5_store_open(
        host: *const c_char,
        port: u16,
        serve: c_int,
        prefix: *const c_char,
        timeout_ms: i64,
        store: *mut *mut c_void,
    ) -> *mut c_char;
    fn lenet5_store_set(
        store: *mut c_void,
        key: *const c_char,
        value: *const u8,
        size: usize,
    ) -> *mut c_char;
    fn lenet5_store_get(
        store: *mut c_void,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut u8,
        size: *mut usize,
    ) -> *mut c_char;
    fn lenet5_store_has(store: *mut c_void, key: *const c_char, has: *mut c_int) -> *mut c_char;
    fn lenet5_store_close(store: *mut c_void);
    fn lenet5_gloo_open(
        store: *mut c_void,
        prefix: *const c_char,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        interface: *const c_char,
        group: *mut *mut c_void,
    ) -> *mut c_char;
    fn lenet5_group_sum_(group: *mut c_void, tensor: *mut C_tensor) -> *mut c_char;
    fn lenet5_group_close(group: *mut c_void);
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A key-value store that several processes share: a `TCPStore` with a prefix.
pub struct Store(*mut c_void);

// SAFETY: c10d's stores and their reference counts are protected for use by several threads.
unsafe impl Send for Store {}
// SAFETY: as above; TCPStore locks a mutex in each of its functions.
unsafe impl Sync for Store {}

impl Store {
    /// Connects to the store at an address. With `serve`, this process holds the store.
    ///
    /// # Errors
    /// If there is no connection within `timeout`, or the port is in use.
    pub fn open(
        (host, port): (&str, u16),
        serve: bool,
        prefix: &str,
        timeout: Duration,
    ) -> Result<Self> {
        let (host, prefix) = (c_string(host)?, c_string(prefix)?);
        let mut store = std::ptr::null_mut();
        // SAFETY: the strings live for the length of the call; on success `store` is a new store.
        check(unsafe {
            lenet5_store_open(
                host.as_ptr(),
                port,
                serve.into(),
                prefix.as_ptr(),
                milliseconds(timeout),
                &mut store,
            )
        })?;
        Ok(Self(store))
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: all pointers live for the length of the call.
        check(unsafe { lenet5_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Waits until a key is set, and returns its value.
    ///
    /// # Errors
    /// If it is not set within `timeout`, or the connection is lost.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let key = c_string(key)?;
        let (mut value, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: on success `value` points to `size` bytes, which the caller must free.
        unsafe {
            let timeout = milliseconds(timeout);
            check(lenet5_store_get(self.0, key.as_ptr(), timeout, &mut value, &mut size))?;
            let bytes = std::slice::from_raw_parts(value, size).to_vec();
            lenet5_free(value.cast());
            Ok(bytes)
        }
    }

    /// Returns whether a key is set.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = c_string(key)?;
        let mut has = 0;
        // SAFETY: both pointers live for the length of the call.
        check(unsafe { lenet5_store_has(self.0, key.as_ptr(), &mut has) })?;
        Ok(has != 0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the store is not used again. A group holds a reference of its own.
        unsafe { lenet5_store_close(self.0) }
    }
}

/// Processes that are connected. All of them must call the same functions in the same order.
pub struct Group {
    pointer: *mut c_void,
    device: Device,
}

// SAFETY: a group may be used by one thread after another.
unsafe impl Send for Group {}

impl Group {
    /// Connects this process, number `rank` of `size`, with the others over gloo, by keys of the
    /// store that start with `prefix`. `interface` is the network interface to use; by default it
    /// is that of the machine's host name.
    ///
    /// # Errors
    /// If a process does not connect within `timeout`.
    pub fn over_gloo(
        store: &Store,
        prefix: &str,
        (rank, size): (usize, usize),
        interface: Option<&str>,
        timeout: Duration,
    ) -> Result<Self> {
        let prefix = c_string(prefix)?;
        let interface = interface.map(c_string).transpose()?;
        let interface = interface.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        let mut group = std::ptr::null_mut();
        let (rank, size) = (rank as c_int, size as c_int);
        // SAFETY: the pointers live for the length of the call; on success `group` is a new group.
        check(unsafe {
            let timeout = milliseconds(timeout);
            lenet5_gloo_open(store.0, prefix.as_ptr(), rank, size, timeout, interface, &mut group)
        })?;
        Ok(Self { pointer: group, device: Device::Cpu })
    }

    /// Connects this process, number `rank` of `size`, with the others over NCCL, by keys of the
    /// store that start with `prefix`. Each process needs a GPU of its own; this one's is number
    /// `gpu`. The processes meet in their first sum.
    ///
    /// # Errors
    /// If there is no GPU, or the program was built without NCCL's header.
    pub fn over_nccl(
        store: &Store,
        prefix: &str,
        ranks: (usize, usize),
        gpu: usize,
        timeout: Duration,
    ) -> Result<Self> {
        let prefix = c_string(prefix)?;
        // SAFETY: the store is open.
        let pointer =
            unsafe { cuda::open_nccl(store.0, &prefix, ranks, gpu, milliseconds(timeout))? };
        Ok(Self { pointer, device: Device::Cuda(gpu) })
    }

    /// Returns what connects the processes.
    pub fn backend(&self) -> &'static str {
        if self.device.is_cuda() { "NCCL" } else { "gloo" }
    }

    /// Returns the sum of a tensor over all processes. All get the same bits.
    ///
    /// # Errors
    /// If the connection to a process is lost, or one does not answer within the timeout.
    pub fn sum(&self, tensor: &Tensor) -> Result<Tensor> {
        let mut sum = tensor.f_to_device_(self.device, tensor.kind(), false, true)?;
        // SAFETY: the tensor lives for the length of the call, which waits for the result.
        check(unsafe { lenet5_group_sum_(self.pointer, sum.as_mut_ptr()) })?;
        Ok(sum.f_to_device(tensor.device())?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the group is not used again.
        unsafe { lenet5_group_close(self.pointer) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::DeviceChoice;

    /// Finding NCCL's functions in libtorch needs no GPU; with one, a group of one process works.
    #[test]
    fn nccl_opens_or_says_that_there_is_no_gpu() {
        let opened = DeviceChoice::Cuda(0).open();
        if opened.is_err() && !cuda::has_graphs() {
            return;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let timeout = Duration::from_secs(20);
        let store = Store::open(("127.0.0.1", port), true, "test", timeout).unwrap();
        match Group::over_nccl(&store, "group", (0, 1), 0, timeout) {
            Ok(group) => {
                let tensor = Tensor::from_slice(&[1.0_f32, 2.0]);
                assert_eq!(group.sum(&tensor).unwrap(), tensor);
            }
            Err(error) => {
                assert!(opened.is_err());
                assert!(error.to_string().contains("driver"), "{error}");
            }
        }
    }
}
