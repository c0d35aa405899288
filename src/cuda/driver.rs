//! [`Driver`]: the functions of the CUDA driver, loaded from its library at run time.
//!
//! cudarc loads the library and has the types. Its own wrappers panic where a function is missing and transmute the result
//! code to a Rust enum, which is unsound for unknown codes of newer drivers. So the functions used here are looked up once,
//! all together, and return a plain number. All of them are in CUDA 11.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUlaunchConfig, CUmemAccessDesc, CUmemAllocationProp,
    CUmemGenericAllocationHandle, CUmodule, CUstream,
};

use super::{CudaError, Unavailable};

/// The result of a driver function; 0 is success.
pub(super) type Code = c_uint;

pub(super) const SUCCESS: Code = 0;
pub(super) const OUT_OF_MEMORY: Code = 2;
const STUB: Code = 34;
pub(super) const NO_DEVICE: Code = 100;
pub(super) const NOT_READY: Code = 600;

macro_rules! functions {
    ($library:path => $table:ident { $($name:ident($($argument:ty),* $(,)?);)* }) => {
        #[expect(non_snake_case, reason = "the library's own names")]
        pub(super) struct $table { $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> u32,)* }

        impl $table {
            /// Looks up every function. Fails with the name of the first that is missing.
            ///
            /// # Safety
            /// `is_culib_present` has returned true.
            unsafe fn load() -> Result<Self, &'static str> {
                // SAFETY: the library is present; each type is that of the function's C declaration.
                unsafe {
                    let library = $library();
                    Ok(Self { $($name: *library.get(stringify!($name).as_bytes()).map_err(|_| stringify!($name))?,)* })
                }
            }
        }
    };
}
pub(super) use functions;

functions! { sys::culib => Driver {
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
    cuGetErrorName(Code, *mut *const c_char);
    cuGetErrorString(Code, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, CUdevice);
    cuDeviceTotalMem_v2(*mut usize, CUdevice);
    cuDeviceGetAttribute(*mut c_int, c_uint, CUdevice);
    cuDeviceGetPCIBusId(*mut c_char, c_int, CUdevice);
    cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    cuDevicePrimaryCtxRelease_v2(CUdevice);
    cuCtxSetCurrent(CUcontext);
    cuCtxPushCurrent_v2(CUcontext);
    cuCtxPopCurrent_v2(*mut CUcontext);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut CUdeviceptr, usize);
    cuMemFree_v2(CUdeviceptr);
    cuMemGetAllocationGranularity(*mut usize, *const CUmemAllocationProp, c_uint);
    cuMemCreate(*mut CUmemGenericAllocationHandle, usize, *const CUmemAllocationProp, u64);
    cuMemRelease(CUmemGenericAllocationHandle);
    cuMemAddressReserve(*mut CUdeviceptr, usize, usize, CUdeviceptr, u64);
    cuMemAddressFree(CUdeviceptr, usize);
    cuMemMap(CUdeviceptr, usize, usize, CUmemGenericAllocationHandle, u64);
    cuMemUnmap(CUdeviceptr, usize);
    cuMemSetAccess(CUdeviceptr, usize, *const CUmemAccessDesc, usize);
    cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    cuMemFreeHost(*mut c_void);
    cuMemHostRegister_v2(*mut c_void, usize, c_uint);
    cuMemHostUnregister(*mut c_void);
    cuMemHostGetDevicePointer_v2(*mut CUdeviceptr, *mut c_void, c_uint);
    cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
    cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
    cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
    cuCtxGetStreamPriorityRange(*mut c_int, *mut c_int);
    cuStreamCreateWithPriority(*mut CUstream, c_uint, c_int);
    cuStreamDestroy_v2(CUstream);
    cuStreamQuery(CUstream);
    cuEventCreate(*mut CUevent, c_uint);
    cuEventDestroy_v2(CUevent);
    cuEventRecord(CUevent, CUstream);
    cuEventQuery(CUevent);
    cuEventElapsedTime(*mut f32, CUevent, CUevent);
    cuModuleLoadDataEx(*mut CUmodule, *const c_void, c_uint, *mut c_uint, *mut *mut c_void);
    cuModuleUnload(CUmodule);
    cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    cuFuncGetAttribute(*mut c_int, c_uint, CUfunction);
    cuFuncSetAttribute(CUfunction, c_uint, c_int);
    cuLaunchKernel(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void,
        *mut *mut c_void,
    );
    cuLaunchCooperativeKernel(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void,
    );
}}

/// Functions of drivers from 550 (CUDA 12.4) on.
#[expect(non_snake_case, reason = "the library's own names")]
#[derive(Clone, Copy)]
pub(super) struct Recent {
    /// Offset and size of a function's parameter.
    pub(super) cuFuncGetParamInfo: unsafe extern "C" fn(CUfunction, usize, *mut usize, *mut usize) -> Code,
    pub(super) cuFuncLoad: unsafe extern "C" fn(CUfunction) -> Code,
    pub(super) cuLaunchKernelEx:
        unsafe extern "C" fn(*const CUlaunchConfig, CUfunction, *mut *mut c_void, *mut *mut c_void) -> Code,
    pub(super) cuModuleGetFunctionCount: unsafe extern "C" fn(*mut c_uint, CUmodule) -> Code,
    pub(super) cuModuleEnumerateFunctions: unsafe extern "C" fn(*mut CUfunction, c_uint, CUmodule) -> Code,
}

impl Driver {
    /// The initialised driver, or why there is none. It is loaded once in a process.
    pub(super) fn get() -> Result<&'static Self, Unavailable> {
        static DRIVER: OnceLock<Result<Driver, Unavailable>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, Unavailable> {
        // SAFETY: the initialisers of the driver's library have no preconditions.
        if !unsafe { sys::is_culib_present() } {
            return Err(Unavailable::NoDriver);
        }
        // SAFETY: the library is present.
        let driver = unsafe { Self::load() }.map_err(|symbol| Unavailable::DriverTooOld { symbol })?;
        // SAFETY: no pointers; the flags must be zero.
        match unsafe { (driver.cuInit)(0) } {
            SUCCESS => Ok(driver),
            NO_DEVICE => Err(Unavailable::NoDevice),
            STUB => Err(Unavailable::Failed(
                "the libcuda on the library path is the stub of the CUDA toolkit, not a driver".to_owned(),
            )),
            code => Err(Unavailable::Failed(driver.describe("cuInit", code))),
        }
    }

    /// The functions of recent drivers, if this is one.
    pub(super) fn recent(&self) -> Option<Recent> {
        static FOUND: OnceLock<Option<Recent>> = OnceLock::new();
        // SAFETY: `self` exists, so the library is loaded; each type is that of the function's C declaration.
        *FOUND.get_or_init(|| unsafe {
            let library = sys::culib();
            Some(Recent {
                cuFuncGetParamInfo: *library.get(b"cuFuncGetParamInfo").ok()?,
                cuFuncLoad: *library.get(b"cuFuncLoad").ok()?,
                cuLaunchKernelEx: *library.get(b"cuLaunchKernelEx").ok()?,
                cuModuleGetFunctionCount: *library.get(b"cuModuleGetFunctionCount").ok()?,
                cuModuleEnumerateFunctions: *library.get(b"cuModuleEnumerateFunctions").ok()?,
            })
        })
    }

    /// The CUDA version that the driver supports, as `1000 * major + 10 * minor`.
    pub(super) fn version(&self) -> Result<i32, CudaError> {
        let mut version = 0;
        // SAFETY: `version` lives across the call.
        CudaError::check("cuDriverGetVersion", unsafe { (self.cuDriverGetVersion)(&raw mut version) })?;
        Ok(version)
    }

    /// Describes an error as in
    /// `cuStreamQuery: CUDA_ERROR_ILLEGAL_ADDRESS (700), an illegal memory access was encountered`.
    pub(super) fn describe(&self, call: &str, code: Code) -> String {
        let text = |function: unsafe extern "C" fn(Code, *mut *const c_char) -> Code| {
            let mut text = ptr::null();
            // SAFETY: `text` lives across the call, which sets it to a constant or leaves it null.
            unsafe {
                function(code, &raw mut text);
                if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy() }
            }
        };
        format!("{call}: {} ({code}), {}", text(self.cuGetErrorName), text(self.cuGetErrorString))
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("version", &self.version()).finish_non_exhaustive()
    }
}
