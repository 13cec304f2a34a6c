//! Launches the kernels on a GPU. They are compiled by NVRTC, which is part of every CUDA build of
//! libtorch, and launched by the driver on the stream that libtorch uses.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::sys::CUevent_flags_enum as EventFlags;
use cudarc::driver::sys::CUfunction_attribute_enum as FunctionAttribute;
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchConfig,
    PushKernelArg, sys,
};
use cudarc::nvrtc::{self, Ptx};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::{CudaKernel, KernelArguments, KernelForm, Launch, Launcher, SOURCE};
use crate::libtorch::reason;
use crate::model::ModelConfig;
use crate::{Error, Result};

// SAFETY: the layout is that of the kernels' source, and the type holds no references.
unsafe impl DeviceRepr for KernelArguments {}

/// A GPU with the kernels.
pub(crate) struct Gpu {
    form: KernelForm,
    stream: Arc<CudaStream>,
    /// The compiled kernels, indexed by [`CudaKernel`].
    functions: [CudaFunction; 3],
    /// The measured launches; `None` if launches are not measured.
    events: Option<RefCell<Vec<TimedLaunch>>>,
}

/// A launch, and the events before and after it.
type TimedLaunch = (CudaKernel, [CudaEvent; 2]);

impl Gpu {
    /// Compiles the kernels for a GPU, a modern network whose activation is tanh or relu, and a
    /// batch size.
    ///
    /// # Errors
    /// If the driver or NVRTC is missing or reports an error.
    pub fn new(index: usize, config: &ModelConfig, batch: usize) -> Result<Gpu> {
        // SAFETY: the call only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(gpu_error("the driver", "libcuda.so.1 not found"));
        }
        let context = CudaContext::new(index).map_err(driver_error)?;
        let attribute = |which| context.attribute(which).map_err(driver_error);
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let form = choose_form(config, batch, processors as usize, shared as u32)?;
        let (major, minor) = context.compute_capability().map_err(driver_error)?;
        let code = compile(&form, &format!("sm_{major}{minor}"))?;
        let module = context.load_module(Ptx::from_binary(code)).map_err(driver_error)?;
        let function = |name| module.load_function(name).map_err(driver_error);
        let functions = [function("gradient")?, function("update")?, function("draw")?];
        let max_shared = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        functions[0]
            .set_attribute(max_shared, form.shared_memory() as i32)
            .map_err(driver_error)?;
        Ok(Gpu { form, stream: context.default_stream(), functions, events: None })
    }
}

/// A GPU whose kernels are being compiled on another thread. Dropping this waits for the thread, as
/// a program must not end while NVRTC works.
pub(crate) struct Compiling(Option<JoinHandle<Result<Gpu>>>);

impl Compiling {
    /// Starts [`Gpu::new`] on another thread.
    pub fn start(index: usize, config: &ModelConfig, batch: usize) -> Compiling {
        let config = config.clone();
        Compiling(Some(std::thread::spawn(move || Gpu::new(index, &config, batch))))
    }

    /// Waits until the kernels are compiled.
    ///
    /// # Errors
    /// The errors of [`Gpu::new`].
    pub fn finish(mut self) -> Result<Gpu> {
        let thread = self.0.take().expect("only `finish` and `drop` take the thread");
        // cudarc panics if the driver or NVRTC lacks a function, and names the function.
        thread.join().unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map_or("", String::as_str);
            let message = format!("--engine fused: driver or NVRTC too old? {message}");
            Err(Error::Device(message))
        })
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

impl Launcher for Gpu {
    fn form(&self) -> KernelForm {
        self.form
    }

    unsafe fn launch(
        &self,
        kernel: CudaKernel,
        launch: Launch,
        arguments: &KernelArguments,
    ) -> Result<()> {
        let function = &self.functions[kernel as usize];
        let size = LaunchConfig {
            grid_dim: (launch.blocks, 1, 1),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared,
        };
        let event = || self.stream.record_event(Some(EventFlags::CU_EVENT_DEFAULT));
        // Evaluation is not measured.
        let events = self.events.as_ref().filter(|_| arguments.logits == 0);
        let start = events.map(|_| event()).transpose().map_err(driver_error)?;
        // SAFETY: the kernel takes these arguments; the caller guarantees that they are valid.
        unsafe { self.stream.launch_builder(function).arg(arguments).launch(size) }
            .map_err(driver_error)?;
        if let (Some(events), Some(start)) = (events, start) {
            events.borrow_mut().push((kernel, [start, event().map_err(driver_error)?]));
        }
        Ok(())
    }

    fn measure(&mut self) {
        self.events.get_or_insert_default();
    }

    fn measured(&self) -> Result<Vec<(CudaKernel, f64)>> {
        let Some(events) = &self.events else { return Ok(Vec::new()) };
        let seconds = |(kernel, [start, end]): &TimedLaunch| {
            Ok((*kernel, f64::from(start.elapsed_ms(end)?) / 1e3))
        };
        let launches: Result<Vec<_>, _> = events.borrow().iter().map(seconds).collect();
        launches.map_err(driver_error)
    }
}

/// Chooses the largest number of images per block for which the shared memory suffices and every
/// processor has a block.
fn choose_form(
    config: &ModelConfig,
    batch: usize,
    processors: usize,
    shared: u32,
) -> Result<KernelForm> {
    let each = batch.div_ceil(processors);
    let of = |teams| {
        KernelForm::of(config, teams)
            .map_err(|reason| Error::config(format!("--engine fused {reason}")))
    };
    for form in [of(4)?, of(2)?] {
        if form.teams <= each.next_power_of_two() && form.shared_memory() <= shared {
            return Ok(form);
        }
    }
    of(1)
}

/// Compiles the kernels for a GPU architecture such as `sm_90`, and returns the machine code.
///
/// # Errors
/// If NVRTC is missing or reports an error.
pub fn compile(form: &KernelForm, architecture: &str) -> Result<Vec<u8>> {
    load_nvrtc()?;
    let source = CString::new(SOURCE).expect("no NUL in the source");
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
    options.extend(form.defines());
    let program = nvrtc::result::create_program(&source, Some(c"kernels.cu"))
        .map_err(|error| gpu_error("NVRTC", error))?;
    // SAFETY: the program and its source live until the program is destroyed.
    unsafe {
        let code = compile_program(program, &options).map_err(|error| {
            let log = nvrtc::result::get_program_log(program).unwrap_or_default();
            let log: Vec<_> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
            gpu_error("NVRTC", format!("{error}: {}", String::from_utf8_lossy(&log).trim()))
        });
        nvrtc::result::destroy_program(program).map_err(|error| gpu_error("NVRTC", error))?;
        code
    }
}

/// # Safety
/// The program must not have been destroyed.
unsafe fn compile_program(
    program: nvrtc::sys::nvrtcProgram,
    options: &[String],
) -> Result<Vec<u8>, nvrtc::result::NvrtcError> {
    // SAFETY: the caller guarantees that the program exists; the buffer is as long as NVRTC says.
    unsafe {
        nvrtc::result::compile_program(program, options)?;
        let mut size = 0;
        nvrtc::sys::nvrtcGetCUBINSize(program, &mut size).result()?;
        let mut code = vec![0_u8; size];
        nvrtc::sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

/// Loads NVRTC. It is found through libtorch's library that depends on it and knows its path;
/// cudarc then finds it by name. NVRTC looks for its built-in headers, a library in the same
/// folder, by name alone, so that library is loaded too.
fn load_nvrtc() -> Result<()> {
    // SAFETY: the libraries are those of libtorch and NVIDIA, and are never unloaded; `info` is
    // filled in if the call succeeds.
    unsafe {
        let keep = |library: Library| std::mem::forget(library);
        let loaded = Library::open(Some("libcaffe2_nvrtc.so"), RTLD_NOW | RTLD_GLOBAL).map(keep);
        if !nvrtc::sys::is_culib_present() {
            let reason = loaded.err().map_or("not found".to_owned(), |error| reason(&error));
            return Err(gpu_error("NVRTC", reason));
        }
        let mut info: libc::Dl_info = std::mem::zeroed();
        let version = nvrtc::sys::culib().get::<*const ()>(b"nvrtcVersion");
        let version = version.map_err(|error| gpu_error("NVRTC", reason(&error)))?;
        if libc::dladdr((*version).cast(), &mut info) == 0 {
            return Ok(());
        }
        let path = Path::new(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes()));
        for entry in path.parent().into_iter().flat_map(Path::read_dir).flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so") {
                let _ = Library::open(Some(entry.path()), RTLD_NOW | RTLD_GLOBAL).map(keep);
            }
        }
    }
    Ok(())
}

fn gpu_error(source: &str, error: impl Display) -> Error {
    Error::Device(format!("--engine fused on a GPU: {source}: {error}; see docs/src/gpu.md"))
}

fn driver_error(error: DriverError) -> Error {
    gpu_error("the driver", error)
}
