//! Functions of libtorch that `tch` lacks, each of which wraps a function of the C++ shim; the
//! choice of a device; conversions between tensors and the core's arrays.
#![allow(unsafe_code)]

mod c10d;
pub mod cuda;
mod device;
mod generator;
mod tensors;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tch::{Device, Tensor};
use torch_sys::C_tensor;

pub(crate) use c10d::{Group, Store};
pub use device::DeviceChoice;
pub use generator::Generator;
pub use tensors::{sizes, to_array, to_arrays, to_tensor, to_tensors};

use crate::{Error, Result};

/// The version of libtorch for which this crate is built.
pub(crate) const VERSION: &str = "2.11.0";

unsafe extern "C" {
    fn lenet5_free(pointer: *mut c_void);
    fn lenet5_add_(this: *mut C_tensor, other: *const C_tensor, alpha: f64) -> *mut c_char;
    fn lenet5_addcmul_(
        this: *mut C_tensor,
        a: *const C_tensor,
        b: *const C_tensor,
        value: f64,
    ) -> *mut c_char;
    fn lenet5_addcdiv_(
        this: *mut C_tensor,
        a: *const C_tensor,
        b: *const C_tensor,
        value: f64,
    ) -> *mut c_char;
    fn lenet5_generator_state(state: *mut *mut C_tensor) -> *mut c_char;
    fn lenet5_set_generator_state(state: *const C_tensor) -> *mut c_char;
    fn lenet5_allow_tf32(allow: c_int) -> *mut c_char;
    fn lenet5_deterministic() -> *mut c_char;
    fn lenet5_autocast(cuda: c_int, on: c_int, before: *mut c_int) -> *mut c_char;
    fn lenet5_fused_sgd_(
        parameters: *const *const C_tensor,
        gradients: *const *const C_tensor,
        buffers: *const *const C_tensor,
        count: usize,
        rate: *const C_tensor,
        weight_decay: f64,
        momentum: f64,
        dampening: f64,
        nesterov: c_int,
        first: c_int,
    ) -> *mut c_char;
    fn lenet5_fused_adam_(
        parameters: *const *const C_tensor,
        gradients: *const *const C_tensor,
        first: *const *const C_tensor,
        second: *const *const C_tensor,
        count: usize,
        rate: *const C_tensor,
        step: *const C_tensor,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        decoupled: c_int,
    ) -> *mut c_char;
    fn lenet5_torchscript(
        names: *const *const c_char,
        tensors: *const *const C_tensor,
        fixed: *const bool,
        count: usize,
        source: *const c_char,
        attribute: *const c_char,
        text: *const c_char,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> *mut c_char;
}

/// Converts a message of the shim to an error, and frees it. Null means success.
fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a NUL-terminated string that the caller must free.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        lenet5_free(message.cast());
        text
    };
    Err(Error::libtorch(&text))
}

/// Converts a string for C.
///
/// # Errors
/// If it contains NUL.
fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Torch("NUL in a string".to_owned()))
}

/// Returns the system's reason why a library cannot be loaded.
pub(crate) fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Calls `this.add_(other, alpha=alpha)`: `this += alpha * other`, with a single rounding if the
/// CPU has FMA.
///
/// # Errors
/// If libtorch reports an error.
pub(crate) fn add_(this: &mut Tensor, other: &Tensor, alpha: f64) -> Result<()> {
    // SAFETY: both pointers are live tensors for the length of the call.
    check(unsafe { lenet5_add_(this.as_mut_ptr(), other.as_ptr(), alpha) })
}

/// Calls `this.addcmul_(a, b, value=value)`: `this += value * a * b`.
///
/// # Errors
/// If libtorch reports an error.
pub(crate) fn addcmul_(this: &mut Tensor, a: &Tensor, b: &Tensor, value: f64) -> Result<()> {
    // SAFETY: all pointers are live tensors for the length of the call.
    check(unsafe { lenet5_addcmul_(this.as_mut_ptr(), a.as_ptr(), b.as_ptr(), value) })
}

/// Calls `this.addcdiv_(a, b, value=value)`: `this += value * a / b`.
///
/// # Errors
/// If libtorch reports an error.
pub(crate) fn addcdiv_(this: &mut Tensor, a: &Tensor, b: &Tensor, value: f64) -> Result<()> {
    // SAFETY: all pointers are live tensors for the length of the call.
    check(unsafe { lenet5_addcdiv_(this.as_mut_ptr(), a.as_ptr(), b.as_ptr(), value) })
}

/// Returns the state of the global CPU generator, as `torch.get_rng_state()` does: 5,056 bytes,
/// uint8.
fn generator_state() -> Result<Tensor> {
    let mut state = std::ptr::null_mut();
    // SAFETY: on success the shim returns a new tensor, which `from_ptr` then owns.
    unsafe {
        check(lenet5_generator_state(&mut state))?;
        Ok(Tensor::from_ptr(state))
    }
}

/// Sets the state of the global CPU generator, as `torch.set_rng_state(state)` does.
///
/// # Errors
/// If `state` is not a generator's state.
fn set_generator_state(state: &Tensor) -> Result<()> {
    // SAFETY: the pointer is a live tensor for the length of the call.
    check(unsafe { lenet5_set_generator_state(state.as_ptr()) })
}

/// Allows or forbids TensorFloat-32 (10 bits of mantissa) in convolutions and matrix products on
/// NVIDIA GPUs. By default libtorch allows it in convolutions.
///
/// # Errors
/// If libtorch reports an error.
pub(crate) fn allow_tf32(allow: bool) -> Result<()> {
    // SAFETY: the call sets two flags of libtorch's global context.
    check(unsafe { lenet5_allow_tf32(allow.into()) })
}

/// Allows only deterministic kernels from now on, as `torch.use_deterministic_algorithms(True)`
/// does; an operation without such a kernel is then an error. It must be called before the first
/// work on a GPU: it sets the environment variable `CUBLAS_WORKSPACE_CONFIG` if it is unset, and
/// cuBLAS reads this variable when it starts.
///
/// # Errors
/// If libtorch reports an error.
///
/// # Safety
/// No other thread may read or write the environment during the call.
pub unsafe fn deterministic() -> Result<()> {
    let (cublas, buffers) = (c"CUBLAS_WORKSPACE_CONFIG", c":4096:8");
    // SAFETY: the strings are C strings; the caller guarantees that no other thread uses the
    // environment. The second call sets flags of libtorch's global context.
    unsafe {
        libc::setenv(cublas.as_ptr(), buffers.as_ptr(), 0);
        check(lenet5_deterministic())
    }
}

/// Sets the number of CPU threads that libtorch's kernels use. `None` keeps libtorch's default, all
/// cores.
///
/// # Errors
/// If the number is below 1 or above 1,024.
pub fn set_threads(threads: Option<i32>) -> Result<()> {
    match threads {
        None => Ok(()),
        Some(threads @ 1..=1024) => {
            tch::set_num_threads(threads);
            Ok(())
        }
        Some(found) => Err(Error::config(format!("threads: expected 1 to 1024, found {found}"))),
    }
}

/// Runs `work` with convolutions and linear layers in bfloat16, as within `torch.autocast(device,
/// torch.bfloat16)`.
///
/// # Errors
/// If libtorch reports an error.
pub fn in_bfloat16<R>(device: Device, work: impl FnOnce() -> R) -> Result<R> {
    let cuda = device.is_cuda().into();
    let mut before = 0;
    // SAFETY: the call sets flags of libtorch for this thread.
    check(unsafe { lenet5_autocast(cuda, 1, &mut before) })?;
    // SAFETY: the call restores these flags.
    let restore = || check(unsafe { lenet5_autocast(cuda, before, std::ptr::null_mut()) });
    let (result, restored) = run_then_restore(work, restore);
    restored.map(|()| result)
}

/// Runs `work` and then `restore`, even if `work` panics, so that changed settings do not stay.
fn run_then_restore<R, S>(work: impl FnOnce() -> R, restore: impl FnOnce() -> S) -> (R, S) {
    let result = catch_unwind(AssertUnwindSafe(work));
    let restored = restore();
    (result.unwrap_or_else(|panic| resume_unwind(panic)), restored)
}

/// Runs `work` with another number of CPU threads for libtorch's kernels, and then restores the
/// number.
pub fn with_threads<R>(threads: i32, work: impl FnOnce() -> R) -> R {
    let before = tch::get_num_threads();
    tch::set_num_threads(threads);
    run_then_restore(work, || tch::set_num_threads(before)).0
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// Performs a step of SGD with `torch._fused_sgd_`. The learning `rate` is a tensor of one float32.
/// `buffers` is empty without momentum; `first` means that this is the first step.
///
/// # Errors
/// If libtorch reports an error.
pub(crate) fn fused_sgd_(
    parameters: &[Tensor],
    gradients: &[Tensor],
    buffers: &[Tensor],
    rate: &Tensor,
    (momentum, dampening, weight_decay, nesterov): (f64, f64, f64, bool),
    first: bool,
) -> Result<()> {
    assert!(parameters.len() == gradients.len());
    assert!(buffers.is_empty() || buffers.len() == parameters.len());
    let buffers = pointers(buffers);
    let buffers = if buffers.is_empty() { std::ptr::null() } else { buffers.as_ptr() };
    // SAFETY: all pointers are live tensors for the length of the call, as many as `count`.
    check(unsafe {
        lenet5_fused_sgd_(
            pointers(parameters).as_ptr(),
            pointers(gradients).as_ptr(),
            buffers,
            parameters.len(),
            rate.as_ptr(),
            weight_decay,
            momentum,
            dampening,
            nesterov.into(),
            first.into(),
        )
    })
}

/// Performs a step of Adam with `torch._fused_adam_`, or with decoupled weight decay
/// `torch._fused_adamw_`. The learning `rate` and the number of the `step`, from 1, are tensors of
/// one float32.
///
/// # Errors
/// If libtorch reports an error.
pub(crate) fn fused_adam_(
    parameters: &[Tensor],
    gradients: &[Tensor],
    [first, second]: [&[Tensor]; 2],
    rate: &Tensor,
    step: &Tensor,
    (beta1, beta2, eps, weight_decay): (f64, f64, f64, f64),
    decoupled: bool,
) -> Result<()> {
    assert!([gradients, first, second].iter().all(|all| all.len() == parameters.len()));
    // SAFETY: all pointers are live tensors for the length of the call, as many as `count`.
    check(unsafe {
        lenet5_fused_adam_(
            pointers(parameters).as_ptr(),
            pointers(gradients).as_ptr(),
            pointers(first).as_ptr(),
            pointers(second).as_ptr(),
            parameters.len(),
            rate.as_ptr(),
            step.as_ptr(),
            beta1,
            beta2,
            eps,
            weight_decay,
            decoupled.into(),
        )
    })
}

/// Creates a TorchScript archive: a module with the named parameters (`layer.parameter`), those
/// that are `fixed` as buffers, the method that `source` defines, and an attribute, given as its
/// name and its text.
///
/// # Errors
/// If `source` does not compile, or a name has no dot.
pub fn torchscript(
    tensors: &[(String, Tensor)],
    fixed: &dyn Fn(&str) -> bool,
    source: &str,
    (attribute, text): (&str, &str),
) -> Result<Vec<u8>> {
    let names = tensors.iter().map(|(name, _)| c_string(name)).collect::<Result<Vec<_>>>()?;
    let name_pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let pointers: Vec<_> = tensors.iter().map(|(_, tensor)| tensor.as_ptr()).collect();
    let fixed: Vec<_> = tensors.iter().map(|(name, _)| fixed(name)).collect();
    let (source, attribute, text) = (c_string(source)?, c_string(attribute)?, c_string(text)?);
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: all pointers outlive the call; on success `data` points to `size` bytes, which the
    // caller must free.
    unsafe {
        check(lenet5_torchscript(
            name_pointers.as_ptr(),
            pointers.as_ptr(),
            fixed.as_ptr(),
            tensors.len(),
            source.as_ptr(),
            attribute.as_ptr(),
            text.as_ptr(),
            &mut data,
            &mut size,
        ))?;
        let bytes = std::slice::from_raw_parts(data, size).to_vec();
        lenet5_free(data.cast());
        Ok(bytes)
    }
}
