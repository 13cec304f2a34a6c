//! The kernels on a GPU: compiled by NVRTC, which is a part of every CUDA build of libtorch, and launched by the
//! driver on the stream that libtorch uses.
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

use super::{KernelArguments, CudaKernel, KernelForm, Launch, Launcher, SOURCE};
use crate::libtorch::reason;
use crate::model::ModelConfig;
use crate::{Error, Result};

// SAFETY: as in the source.
unsafe impl DeviceRepr for KernelArguments {}

/// A GPU with the kernels.
pub struct Gpu {
    form: KernelForm,
    stream: Arc<CudaStream>,
    /// By [`CudaKernel`].
    functions: [CudaFunction; 3],
    /// What each launch lies between, if they are measured.
    events: Option<RefCell<Vec<Timed>>>,
}

/// A launch, and the events before and after it.
type Timed = (CudaKernel, [CudaEvent; 2]);

impl Gpu {
    /// Compiles the kernels for a GPU, a modern network whose activation is tanh or relu, and batches of so many
    /// images.
    ///
    /// # Errors
    /// Where the driver or NVRTC is missing or refuses.
    pub fn new(index: usize, config: &ModelConfig, batch: usize) -> Result<Gpu> {
        // SAFETY: only looks for the library.
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
        let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        functions[0].set_attribute(most, form.shared() as i32).map_err(driver_error)?;
        Ok(Gpu { form, stream: context.default_stream(), functions, events: None })
    }
}

/// A GPU whose kernels another thread compiles. That ends with it: a program must not end in the midst of NVRTC.
pub struct Compiling(Option<JoinHandle<Result<Gpu>>>);

impl Compiling {
    /// Begins with what [`Gpu::new`] does.
    pub fn start(index: usize, config: &ModelConfig, batch: usize) -> Compiling {
        let config = config.clone();
        Compiling(Some(std::thread::spawn(move || Gpu::new(index, &config, batch))))
    }

    /// Waits for it.
    ///
    /// # Errors
    /// As of [`Gpu::new`].
    pub fn finish(mut self) -> Result<Gpu> {
        let thread = self.0.take().expect("only this takes it");
        // cudarc panics where the driver or NVRTC lacks a function, and says which.
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
    fn choose_form(&self) -> KernelForm {
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
        // SAFETY: the kernel takes these arguments; that they are right is the caller's word.
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
        let seconds =
            |(kernel, [start, end]): &Timed| Ok((*kernel, f64::from(start.elapsed_ms(end)?) / 1e3));
        let launches: Result<Vec<_>, _> = events.borrow().iter().map(seconds).collect();
        launches.map_err(driver_error)
    }
}

/// The most images a block takes whose shared memory there is, while there are blocks for all processors.
fn choose_form(config: &ModelConfig, batch: usize, processors: usize, shared: u32) -> Result<KernelForm> {
    let each = batch.div_ceil(processors);
    let of = |teams| {
        KernelForm::of(config, teams)
            .map_err(|reason| Error::config(format!("--engine fused {reason}")))
    };
    for form in [of(4)?, of(2)?] {
        if form.teams <= each.next_power_of_two() && form.shared() <= shared {
            return Ok(form);
        }
    }
    of(1)
}

/// The kernels for a GPU of this architecture, such as `sm_90`.
///
/// # Errors
/// Where NVRTC is missing or refuses.
pub fn compile(form: &KernelForm, architecture: &str) -> Result<Vec<u8>> {
    load_nvrtc()?;
    let source = CString::new(SOURCE).expect("no NUL in the source");
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
    options.extend(form.defines());
    let program = nvrtc::result::create_program(&source, Some(c"kernels.cu"))
        .map_err(|error| gpu_error("NVRTC", error))?;
    // SAFETY: the program lives until it is destroyed, its source until then.
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
/// The program lives.
unsafe fn compile_program(
    program: nvrtc::sys::nvrtcProgram,
    options: &[String],
) -> Result<Vec<u8>, nvrtc::result::NvrtcError> {
    // SAFETY: the caller's word; the code is as long as NVRTC says.
    unsafe {
        nvrtc::result::compile_program(program, options)?;
        let mut size = 0;
        nvrtc::sys::nvrtcGetCUBINSize(program, &mut size).result()?;
        let mut code = vec![0_u8; size];
        nvrtc::sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

/// Loads NVRTC by libtorch's own library that needs it, and so knows where it is; cudarc then finds it by its name.
/// Its built-in headers, a library beside it, NVRTC itself looks for by name alone.
fn load_nvrtc() -> Result<()> {
    // SAFETY: libraries of libtorch and NVIDIA, never unloaded; `info` is filled in where the call succeeds.
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

fn gpu_error(who: &str, error: impl Display) -> Error {
    Error::Device(format!("--engine fused on a GPU: {who}: {error}; see \"GPU\" in the README"))
}

fn driver_error(error: DriverError) -> Error {
    gpu_error("the driver", error)
}
