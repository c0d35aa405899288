//! [`Module`]: device code, and the modules that a device has loaded.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{CUfunction, CUmodule};

use super::device_code::{DeviceCode, Image};
use super::driver::{Driver, OUT_OF_MEMORY};
use super::launch::Arg;
use super::{CudaError, Device, nvrtc};

/// Device code, for a `static` or `const`. It is compiled and loaded at its first launch on a device.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    name: &'static str,
    code: Code,
}

#[derive(Clone, Copy, Debug)]
enum Code {
    /// PTX, and machine code for some architectures, which needs no compiler.
    Embedded(DeviceCode),
    Ptx(&'static str),
    Source(&'static str),
}

impl Module {
    /// A module of code that is embedded in the crate.
    pub(crate) const fn embedded(code: DeviceCode) -> Self {
        Self { name: code.name(), code: Code::Embedded(code) }
    }

    /// A module of PTX, which the driver compiles for its device. `name` is used in error messages.
    ///
    /// # Safety
    /// For all launches from this module, whatever values they pass:
    /// - every launch passes arguments of the number and types that the kernel declares;
    /// - the code accesses no memory but its own and the buffers that it is passed, within their lengths;
    /// - it only reads the [cancel flag](super::LaunchContext::cancel_flag).
    pub const unsafe fn from_ptx(name: &'static str, ptx: &'static str) -> Self {
        Self { name, code: Code::Ptx(ptx) }
    }

    /// A module of CUDA C++ source, which NVRTC compiles for the device; kernels are `extern "C" __global__`. It requires
    /// libnvrtc, which comes with the CUDA toolkit and with the PyPI package `nvidia-cuda-nvrtc`. `name` is used in error
    /// messages.
    ///
    /// Compiled code is cached on disk for the next process, in `$TOWER_KERNELS_CACHE`, or else in
    /// `$XDG_CACHE_HOME/tower-kernels` or `~/.cache/tower-kernels`, up to 256 MiB; `TOWER_KERNELS_CACHE=off` turns the
    /// cache off. Source with `#include` is compiled each time, because the contents of its headers are not known.
    ///
    /// # Safety
    /// As for [`from_ptx`](Self::from_ptx).
    pub const unsafe fn from_source(name: &'static str, source: &'static str) -> Self {
        Self { name, code: Code::Source(source) }
    }

    fn load(&self, device: &Device) -> Result<CUmodule, CudaError> {
        let capability = device.info.compute_capability;
        match self.code {
            Code::Embedded(code) => self.load_embedded(&code, device),
            Code::Ptx(ptx) => self.load_ptx(ptx, device.driver),
            Code::Source(source) => {
                let image = nvrtc::compile(self.name, source, capability).map_err(|reason| self.failure(&reason))?;
                self.load_image(device.driver, &image)
            }
        }
    }

    fn load_embedded(&self, code: &DeviceCode, device: &Device) -> Result<CUmodule, CudaError> {
        if let Some(image) = code.machine_code(device.info.compute_capability) {
            match self.load_packed(image, device.driver) {
                // Drivers of another major version may not load it.
                Err(CudaError::Module(reason)) => {
                    tracing::warn!(target = ?image.target(), "{reason}; the driver compiles its PTX instead");
                }
                loaded => return loaded,
            }
        }
        let ptx = code.ptx().ok_or_else(|| self.failure("its file of device code has no PTX"))?;
        self.load_packed(ptx, device.driver)
    }

    fn load_packed(&self, image: Image, driver: &Driver) -> Result<CUmodule, CudaError> {
        let image = image.unpack().map_err(|error| self.failure(&error.to_string()))?;
        self.load_image(driver, &image)
    }

    fn load_ptx(&self, ptx: &str, driver: &Driver) -> Result<CUmodule, CudaError> {
        let ptx = CString::new(ptx).map_err(|_| self.failure("its PTX contains a zero byte"))?;
        self.load_image(driver, ptx.as_bytes_with_nul())
    }

    /// Loads PTX that is terminated with a zero, or a cubin.
    fn load_image(&self, driver: &Driver, image: &[u8]) -> Result<CUmodule, CudaError> {
        let mut log = [0_u8; 4096];
        // CU_JIT_ERROR_LOG_BUFFER, and its size, which is passed as a pointer.
        let mut options = [5, 6];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(log.len())];
        let mut module = ptr::null_mut();
        // SAFETY: the image ends as its format says; there are two options and two values; all live across the call.
        let code = unsafe {
            (driver.cuModuleLoadDataEx)(
                &raw mut module,
                image.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        CudaError::check("cuModuleLoadData", code).map(|()| module).map_err(|failure| {
            if failure.is_fatal() || failure.is(OUT_OF_MEMORY) {
                return failure;
            }
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            let version = driver.version().unwrap_or_default();
            let (major, minor) = (version / 1000, version % 1000 / 10);
            self.failure(&format!("{failure} (the driver is for CUDA {major}.{minor}) {}", log.trim()))
        })
    }

    fn failure(&self, reason: &str) -> CudaError {
        CudaError::Module(format!("the CUDA code of `{}` does not load: {}", self.name, reason.trim()))
    }
}

/// The modules that a device has loaded, or failed to load, by their `'static` address.
#[derive(Default)]
pub(super) struct LoadedModules(Mutex<HashMap<usize, Result<Loaded, CudaError>>>);

#[derive(Clone, Copy)]
pub(super) struct Loaded(CUmodule);

// SAFETY: a module handle may be used from any thread.
unsafe impl Send for Loaded {}

impl LoadedModules {
    /// Returns the handle of a module, which is loaded at the first call. One that does not compile is not compiled again.
    pub(super) fn get(&self, module: &'static Module, device: &Device) -> Result<CUmodule, CudaError> {
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = ptr::from_ref(module).addr();
        if let Some(known) = loaded.get(&key) {
            return known.clone().map(|Loaded(module)| module);
        }
        let result =
            module.load(device).and_then(|module| load_functions(module, device.driver).map(|()| Loaded(module)));
        if matches!(result, Ok(_) | Err(CudaError::Module(_))) {
            loaded.insert(key, result.clone());
        }
        result.map(|Loaded(module)| module)
    }

    /// Returns the number of modules that are loaded.
    pub(super) fn len(&self) -> usize {
        let loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.values().filter(|module| module.is_ok()).count()
    }

    /// Unloads all modules. The context must be current.
    pub(super) fn unload(&mut self, driver: &Driver) {
        for (_, loaded) in self.0.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            if let Ok(Loaded(module)) = loaded {
                // SAFETY: loaded once, unloaded once; all executors that launched from it have been dropped.
                unsafe { (driver.cuModuleUnload)(module) };
            }
        }
    }
}

/// Loads all functions of a module onto the device. The driver would do so at the first launch of each, which can wait for
/// everything that runs on the device.
fn load_functions(module: CUmodule, driver: &Driver) -> Result<(), CudaError> {
    let Some(recent) = driver.recent() else { return Ok(()) };
    let mut count = 0;
    // SAFETY: the module is loaded; `count` lives across the call.
    let code = unsafe { (recent.cuModuleGetFunctionCount)(&raw mut count, module) };
    CudaError::check("cuModuleGetFunctionCount", code)?;
    let mut functions = vec![ptr::null_mut(); count as usize];
    // SAFETY: there is room for `count` handles.
    let code = unsafe { (recent.cuModuleEnumerateFunctions)(functions.as_mut_ptr(), count, module) };
    CudaError::check("cuModuleEnumerateFunctions", code)?;
    for function in functions {
        // SAFETY: a function of a loaded module.
        CudaError::check("cuFuncLoad", unsafe { (recent.cuFuncLoad)(function) })?;
    }
    Ok(())
}

/// The least architecture that has `griddepcontrol`.
const OVERLAPPING: i32 = 90;

/// A kernel of a loaded module.
#[derive(Debug)]
pub(super) struct Function {
    module: *const Module,
    entry: &'static str,
    pub(super) handle: CUfunction,
    /// Whether it was compiled for an architecture that has `griddepcontrol`.
    pub(super) can_overlap: bool,
    /// The sizes of the parameters, if the driver is recent enough to tell.
    parameters: Option<Vec<usize>>,
    /// Bytes of dynamic shared memory that have been requested. What a kernel has without a request is less by its
    /// variables.
    shared: u32,
}

// SAFETY: a function handle may be used from any thread, and `module` is only compared.
unsafe impl Send for Function {}

impl Function {
    pub(super) fn find(module: &'static Module, entry: &'static str, device: &Device) -> Result<Self, CudaError> {
        let driver = device.driver;
        let loaded = device.modules.get(module, device)?;
        let symbol = CString::new(entry).map_err(|_| module.failure("the name of an entry contains a zero byte"))?;
        let mut handle = ptr::null_mut();
        // SAFETY: the module is loaded; the name ends with a zero; `handle` lives across the call.
        let code = unsafe { (driver.cuModuleGetFunction)(&raw mut handle, loaded, symbol.as_ptr()) };
        CudaError::check("cuModuleGetFunction", code)
            .map_err(|failure| module.failure(&format!("`{entry}`: {failure}")))?;
        let mut architecture = 0;
        // SAFETY: the function is loaded; `architecture` lives across the call. 5 is CU_FUNC_ATTRIBUTE_PTX_VERSION.
        let code = unsafe { (driver.cuFuncGetAttribute)(&raw mut architecture, 5, handle) };
        CudaError::check("cuFuncGetAttribute", code)?;
        let can_overlap = architecture >= OVERLAPPING;
        let parameters = driver.recent().map(|recent| {
            let size = |index| {
                let (mut offset, mut size) = (0, 0);
                // SAFETY: the function is loaded; both live across the call. Past the last parameter it returns an error.
                (unsafe { (recent.cuFuncGetParamInfo)(handle, index, &raw mut offset, &raw mut size) } == 0)
                    .then_some(size)
            };
            (0..).map_while(size).collect()
        });
        Ok(Self { module, entry, handle, can_overlap, parameters, shared: 0 })
    }

    pub(super) fn is(&self, module: &'static Module, entry: &'static str) -> bool {
        ptr::eq(self.module, module) && self.entry == entry
    }

    /// Checks the sizes of the arguments against the parameters that the kernel declares.
    pub(super) fn check_arguments(&self, args: &[&dyn Arg]) -> Result<(), CudaError> {
        let Some(parameters) = &self.parameters else { return Ok(()) };
        let sizes = || args.iter().map(|arg| arg.pack().size);
        if sizes().eq(parameters.iter().copied()) {
            return Ok(());
        }
        let sizes: Vec<usize> = sizes().collect();
        let text = format!("`{}` takes arguments of {parameters:?} bytes and was passed {sizes:?}", self.entry);
        Err(CudaError::InvalidArguments(text))
    }

    /// Allows `bytes` of dynamic shared memory, which has to be requested once where it may be more than the default.
    pub(super) fn allow_shared(&mut self, driver: &Driver, bytes: u32) -> Result<(), CudaError> {
        if bytes > self.shared {
            // SAFETY: the function is loaded. 8 is CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
            let code = unsafe { (driver.cuFuncSetAttribute)(self.handle, 8, bytes.cast_signed()) };
            CudaError::check("cuFuncSetAttribute", code)?;
            self.shared = bytes;
        }
        Ok(())
    }
}
