//! Modules: device code, and where it has been loaded.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{CUfunction, CUmodule};

use super::device::Device;
use super::device_code::{DeviceCode, Image};
use super::driver::Driver;
use super::error::Failure;
use super::launch::Arg;
use super::nvrtc;

/// Device code, to be kept in a `static` or `const`. It is compiled and loaded at its first launch on a device.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    name: &'static str,
    code: Code,
}

#[derive(Clone, Copy, Debug)]
enum Code {
    /// PTX, and machine code for some architectures, which spares the driver's compiler.
    Embedded(DeviceCode),
    Ptx(&'static str),
    Source(&'static str),
}

impl Module {
    /// Code that is embedded in the crate.
    pub(crate) const fn embedded(code: DeviceCode) -> Self {
        Self { name: code.name(), code: Code::Embedded(code) }
    }

    /// PTX, which the driver compiles for its device. `name` is for error messages.
    ///
    /// # Safety
    /// Whatever is launched from this module, with whatever values:
    /// - every launch passes the arguments that the entry declares, by number and type;
    /// - the code touches no memory but what it is passed, within the lengths it is passed, and its own;
    /// - it only reads the [cancel flag](super::LaunchContext::cancel_flag).
    pub const unsafe fn from_ptx(name: &'static str, ptx: &'static str) -> Self {
        Self { name, code: Code::Ptx(ptx) }
    }

    /// CUDA C++ source, which NVRTC compiles for the device at hand; entries are `extern "C" __global__`. It needs
    /// libnvrtc, which the CUDA toolkit and the PyPI wheels `nvidia-cuda-nvrtc` bring. `name` is for error messages.
    ///
    /// What was compiled is kept on disk for the next process, below `$TOWER_KERNELS_CACHE`, or else
    /// `$XDG_CACHE_HOME/tower-kernels` or `~/.cache/tower-kernels`, up to 256 MiB; `TOWER_KERNELS_CACHE=off` keeps
    /// nothing.
    /// Source that includes files is compiled each time, as its text does not say what is in them.
    ///
    /// # Safety
    /// As for [`from_ptx`](Self::from_ptx).
    pub const unsafe fn from_source(name: &'static str, source: &'static str) -> Self {
        Self { name, code: Code::Source(source) }
    }

    fn load(&self, device: &Device) -> Result<CUmodule, Failure> {
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

    fn load_embedded(&self, code: &DeviceCode, device: &Device) -> Result<CUmodule, Failure> {
        if let Some(image) = code.machine_code(device.info.compute_capability) {
            match self.load_packed(image, device.driver) {
                // A driver of the same major version loads it; what another one makes of it, it says itself.
                Err(Failure::Code(reason)) => {
                    tracing::warn!(target = ?image.target(), "{reason}; the driver compiles its PTX instead");
                }
                loaded => return loaded,
            }
        }
        let ptx = code.ptx().ok_or_else(|| self.failure("there is no PTX of it"))?;
        self.load_packed(ptx, device.driver)
    }

    fn load_packed(&self, image: Image, driver: &Driver) -> Result<CUmodule, Failure> {
        let image = image.unpack().map_err(|error| self.failure(&error.to_string()))?;
        self.load_image(driver, &image)
    }

    fn load_ptx(&self, ptx: &str, driver: &Driver) -> Result<CUmodule, Failure> {
        let ptx = CString::new(ptx).map_err(|_| self.failure("its PTX holds a zero byte"))?;
        self.load_image(driver, ptx.as_bytes_with_nul())
    }

    /// Loads PTX that ends with a zero, or a cubin.
    fn load_image(&self, driver: &Driver, image: &[u8]) -> Result<CUmodule, Failure> {
        let mut log = [0_u8; 4096];
        // CU_JIT_ERROR_LOG_BUFFER and its size, which takes the place of a pointer.
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
        Failure::check("cuModuleLoadData", code).map(|()| module).map_err(|failure| {
            if failure.is_fatal() || failure.is(super::driver::OUT_OF_MEMORY) {
                return failure;
            }
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            let version = driver.version().unwrap_or_default();
            let (major, minor) = (version / 1000, version % 1000 / 10);
            let text = failure.text(driver);
            self.failure(&format!("{text} (the driver is for CUDA {major}.{minor}) {}", log.trim()))
        })
    }

    fn failure(&self, reason: &str) -> Failure {
        Failure::Code(format!("the CUDA code of `{}` does not load: {}", self.name, reason.trim()))
    }
}

/// The modules that a device has loaded, by their address: what is at a `'static` address stays what it is.
#[derive(Default)]
pub(crate) struct Modules(Mutex<HashMap<usize, Result<Loaded, Failure>>>);

#[derive(Clone, Copy)]
struct Loaded(CUmodule);

// SAFETY: a module handle may be used from any thread.
unsafe impl Send for Loaded {}

impl Modules {
    /// The module, loaded. One that does not compile is not compiled again.
    fn get(&self, module: &'static Module, device: &Device) -> Result<CUmodule, Failure> {
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = ptr::from_ref(module).addr();
        if let Some(known) = loaded.get(&key) {
            return known.clone().map(|Loaded(module)| module);
        }
        let result =
            module.load(device).and_then(|module| load_functions(module, device.driver).map(|()| Loaded(module)));
        if matches!(result, Ok(_) | Err(Failure::Code(_))) {
            loaded.insert(key, result.clone());
        }
        result.map(|Loaded(module)| module)
    }

    pub(crate) fn unload(&mut self, driver: &Driver) {
        for (_, loaded) in self.0.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            if let Ok(Loaded(module)) = loaded {
                // SAFETY: loaded once, unloaded once; every lane that launched from it has ended.
                unsafe { (driver.cuModuleUnload)(module) };
            }
        }
    }
}

/// Puts all functions of a module onto the device. The driver would do so at the first launch of each, and that can wait
/// for all that runs: a launch in one lane would wait for a long kernel of another.
fn load_functions(module: CUmodule, driver: &Driver) -> Result<(), Failure> {
    let Some(recent) = driver.recent() else { return Ok(()) };
    let mut count = 0;
    // SAFETY: the module is loaded; `count` lives across the call.
    let code = unsafe { (recent.cuModuleGetFunctionCount)(&raw mut count, module) };
    Failure::check("cuModuleGetFunctionCount", code)?;
    let mut functions = vec![ptr::null_mut(); count as usize];
    // SAFETY: there is room for `count` handles.
    let code = unsafe { (recent.cuModuleEnumerateFunctions)(functions.as_mut_ptr(), count, module) };
    Failure::check("cuModuleEnumerateFunctions", code)?;
    for function in functions {
        // SAFETY: a function of a loaded module.
        Failure::check("cuFuncLoad", unsafe { (recent.cuFuncLoad)(function) })?;
    }
    Ok(())
}

/// An entry of a module as a lane has it.
#[derive(Debug)]
pub(crate) struct Function {
    module: *const Module,
    entry: &'static str,
    pub(crate) handle: CUfunction,
    /// The parameters' sizes, where the driver tells them.
    parameters: Option<Vec<usize>>,
    /// Dynamic shared memory allowed so far; the default is what every device has.
    shared: u32,
}

// SAFETY: a function handle may be used from any thread, and `module` is only compared.
unsafe impl Send for Function {}

impl Function {
    pub(crate) fn find(module: &'static Module, entry: &'static str, device: &Device) -> Result<Self, Failure> {
        let driver = device.driver;
        let loaded = device.modules.get(module, device)?;
        let symbol = CString::new(entry).map_err(|_| module.failure("an entry's name holds a zero byte"))?;
        let mut handle = ptr::null_mut();
        // SAFETY: the module is loaded; the name ends with a zero; `handle` lives across the call.
        let code = unsafe { (driver.cuModuleGetFunction)(&raw mut handle, loaded, symbol.as_ptr()) };
        Failure::check("cuModuleGetFunction", code)
            .map_err(|failure| module.failure(&format!("`{entry}`: {}", failure.text(driver))))?;
        let parameters = driver.recent().map(|recent| {
            let size = |index| {
                let (mut offset, mut size) = (0, 0);
                // SAFETY: the function is loaded; both live across the call. Past the last it answers an error.
                (unsafe { (recent.cuFuncGetParamInfo)(handle, index, &raw mut offset, &raw mut size) } == 0)
                    .then_some(size)
            };
            (0..).map_while(size).collect()
        });
        Ok(Self { module, entry, handle, parameters, shared: 48 << 10 })
    }

    pub(crate) fn is(&self, module: &'static Module, entry: &'static str) -> bool {
        ptr::eq(self.module, module) && self.entry == entry
    }

    /// Holds the arguments against what the entry declares.
    pub(crate) fn accept(&self, args: &[&dyn Arg]) -> Result<(), String> {
        let Some(parameters) = &self.parameters else { return Ok(()) };
        let sizes = || args.iter().map(|arg| arg.pack().size);
        if sizes().eq(parameters.iter().copied()) {
            return Ok(());
        }
        let sizes: Vec<usize> = sizes().collect();
        Err(format!("`{}` takes arguments of {parameters:?} bytes and was passed {sizes:?}", self.entry))
    }

    /// Allows this much dynamic shared memory; more than the default has to be asked for once.
    pub(crate) fn allow_shared(&mut self, driver: &Driver, bytes: u32) -> Result<(), Failure> {
        if bytes > self.shared {
            // SAFETY: the function is loaded. 8 is CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
            let code = unsafe { (driver.cuFuncSetAttribute)(self.handle, 8, bytes.cast_signed()) };
            Failure::check("cuFuncSetAttribute", code)?;
            self.shared = bytes;
        }
        Ok(())
    }
}
