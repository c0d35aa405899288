//! NVRTC, the run-time compiler: from CUDA C++ to code for a device.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;
use std::time::Instant;

use cudarc::nvrtc::sys::{self, nvrtcProgram};

use super::compile_cache::{CacheKey, CompileCache};
use super::driver::functions;

functions! { sys::culib => Nvrtc {
    nvrtcVersion(*mut c_int, *mut c_int);
    nvrtcGetNumSupportedArchs(*mut c_int);
    nvrtcGetSupportedArchs(*mut c_int);
    nvrtcCreateProgram(
        *mut nvrtcProgram, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char,
    );
    nvrtcDestroyProgram(*mut nvrtcProgram);
    nvrtcCompileProgram(nvrtcProgram, c_int, *const *const c_char);
    nvrtcGetProgramLogSize(nvrtcProgram, *mut usize);
    nvrtcGetProgramLog(nvrtcProgram, *mut c_char);
    nvrtcGetCUBINSize(nvrtcProgram, *mut usize);
    nvrtcGetCUBIN(nvrtcProgram, *mut c_char);
    nvrtcGetPTXSize(nvrtcProgram, *mut usize);
    nvrtcGetPTX(nvrtcProgram, *mut c_char);
}}

/// Compiles `source` for a device of this compute capability: to machine code, or to PTX for the newest architecture that
/// NVRTC knows, where the device is newer. Code that was compiled before is read from the cache on disk.
///
/// # Errors
/// NVRTC is missing or too old, or the messages of the compiler.
pub(super) fn compile(name: &str, source: &str, capability: (u32, u32)) -> Result<Vec<u8>, String> {
    let nvrtc = Nvrtc::get()?;
    let device = capability.0 * 10 + capability.1;
    let known = nvrtc.architectures()?;
    let options = if known.contains(&device) {
        format!("--gpu-architecture=sm_{device}")
    } else {
        let older = known.iter().filter(|&&known| known < device).max();
        let older =
            older.ok_or_else(|| format!("NVRTC is too new for a device of compute capability {capability:?}"))?;
        format!("--gpu-architecture=compute_{older}")
    };
    let options = [options.as_str(), "--std=c++17"];
    let compile = || {
        let start = Instant::now();
        let program = Program::new(nvrtc, name, source)?;
        program.compile(&options)?;
        let code = if known.contains(&device) {
            program.bytes("nvrtcGetCUBIN", nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        } else {
            program.bytes("nvrtcGetPTX", nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        };
        tracing::debug!(module = name, took = ?start.elapsed(), "compiled by NVRTC");
        code
    };
    // The contents of included headers are not part of the key.
    match CompileCache::of_process() {
        Some(cache) if !source.contains("#include") && !source.contains("# include") => {
            let version = nvrtc.version()?;
            let key = CacheKey::new(&[
                version.as_bytes(),
                options[0].as_bytes(),
                options[1].as_bytes(),
                name.as_bytes(),
                source.as_bytes(),
            ]);
            cache.get_or_compile(&key, compile)
        }
        _ => compile(),
    }
}

impl Nvrtc {
    fn get() -> Result<&'static Self, String> {
        static NVRTC: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
        let open = || {
            // SAFETY: the initialisers of the library have no preconditions.
            if !unsafe { sys::is_culib_present() } {
                return Err("it is CUDA C++ source, and NVRTC (libnvrtc), which compiles it, was not found".to_owned());
            }
            // SAFETY: the library is present.
            unsafe { Self::load() }.map_err(|symbol| format!("NVRTC is too old: it has no {symbol}"))
        };
        NVRTC.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    fn version(&self) -> Result<String, String> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both live across the call.
        check("nvrtcVersion", unsafe { (self.nvrtcVersion)(&raw mut major, &raw mut minor) })?;
        Ok(format!("{major}.{minor}"))
    }

    /// The architectures that it can compile for, as `10 * major + minor`.
    fn architectures(&self) -> Result<Vec<u32>, String> {
        let mut count = 0;
        // SAFETY: `count` lives across the call.
        check("nvrtcGetNumSupportedArchs", unsafe { (self.nvrtcGetNumSupportedArchs)(&raw mut count) })?;
        let mut known = vec![0; count.unsigned_abs() as usize];
        // SAFETY: there is room for as many as was returned.
        check("nvrtcGetSupportedArchs", unsafe { (self.nvrtcGetSupportedArchs)(known.as_mut_ptr()) })?;
        Ok(known.into_iter().map(i32::unsigned_abs).collect())
    }
}

fn check(call: &str, code: u32) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{call} failed with error {code}")) }
}

struct Program {
    nvrtc: &'static Nvrtc,
    handle: nvrtcProgram,
}

impl Program {
    fn new(nvrtc: &'static Nvrtc, name: &str, source: &str) -> Result<Self, String> {
        let [name, source] =
            [name, source].map(|text| CString::new(text).map_err(|_| "it contains a zero byte".to_owned()));
        let (name, source) = (name?, source?);
        let mut handle = ptr::null_mut();
        // SAFETY: both strings are terminated with a zero and copied; there are no headers; `handle` lives across the call.
        let code = unsafe {
            let (name, source) = (name.as_ptr(), source.as_ptr());
            (nvrtc.nvrtcCreateProgram)(&raw mut handle, source, name, 0, ptr::null(), ptr::null())
        };
        check("nvrtcCreateProgram", code).map(|()| Self { nvrtc, handle })
    }

    fn compile(&self, options: &[&str]) -> Result<(), String> {
        let options: Result<Vec<CString>, _> = options.iter().map(|&option| CString::new(option)).collect();
        let options = options.map_err(|_| "an option contains a zero byte".to_owned())?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|_| "too many options".to_owned())?;
        // SAFETY: the program lives as long as `self`; there are `count` strings terminated with a zero.
        let code = unsafe { (self.nvrtc.nvrtcCompileProgram)(self.handle, count, pointers.as_ptr()) };
        check("nvrtcCompileProgram", code).map_err(|error| {
            let log =
                self.bytes("nvrtcGetProgramLog", self.nvrtc.nvrtcGetProgramLogSize, self.nvrtc.nvrtcGetProgramLog);
            let log = log.and_then(|log| {
                CStr::from_bytes_until_nul(&log)
                    .map(|log| log.to_string_lossy().into_owned())
                    .map_err(|e| e.to_string())
            });
            format!("{error}:\n{}", log.unwrap_or_else(|error| error))
        })
    }

    /// Reads a result of the compiler.
    fn bytes(
        &self,
        call: &str,
        size: unsafe extern "C" fn(nvrtcProgram, *mut usize) -> u32,
        get: unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> u32,
    ) -> Result<Vec<u8>, String> {
        let mut len = 0;
        // SAFETY: the program lives as long as `self`, and `len` across the call.
        check(call, unsafe { size(self.handle, &raw mut len) })?;
        let mut bytes = vec![0_u8; len];
        // SAFETY: there is room for as many bytes as was returned.
        check(call, unsafe { get(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { (self.nvrtc.nvrtcDestroyProgram)(&raw mut self.handle) };
    }
}
