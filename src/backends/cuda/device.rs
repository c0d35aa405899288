//! Devices: which there are, and one that has been opened.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{CUcontext, CUdevice, CUdevice_attribute};
use schemars::JsonSchema;
use serde::Serialize;

use super::copy::Copiers;
use super::driver::Driver;
use super::error::{Failure, Unavailable};
use super::memory::Chunk;
use super::module::Modules;
use super::watch::Watch;

/// A CUDA device, as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The driver's number for it.
    pub ordinal: u32,
    /// Its product name, such as `NVIDIA H200`.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Its streaming multiprocessors.
    pub multiprocessors: u32,
}

/// The devices of this machine.
///
/// It loads the driver's library, which can take a few hundred milliseconds the first time; it opens no device.
///
/// # Errors
/// Why CUDA is off.
pub fn devices() -> Result<Vec<DeviceInfo>, Unavailable> {
    let driver = Driver::get()?;
    let failed = |failure: Failure| Unavailable::Failed(failure.text(driver));
    let count = count(driver).map_err(failed)?;
    (0..count).map(|ordinal| find(driver, ordinal).map(|(_, info)| info).map_err(failed)).collect()
}

fn count(driver: &Driver) -> Result<u32, Failure> {
    let mut count = 0;
    // SAFETY: `count` lives across the call.
    Failure::check("cuDeviceGetCount", unsafe { (driver.cuDeviceGetCount)(&raw mut count) })?;
    Ok(count.unsigned_abs())
}

fn find(driver: &Driver, ordinal: u32) -> Result<(CUdevice, DeviceInfo), Failure> {
    let mut device = 0;
    let mut memory = 0_usize;
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: every pointer is to a local that lives across the call, and the name's length is the array's. The driver
    // ends the name with a zero.
    let name = unsafe {
        Failure::check("cuDeviceGet", (driver.cuDeviceGet)(&raw mut device, ordinal.cast_signed()))?;
        Failure::check("cuDeviceTotalMem", (driver.cuDeviceTotalMem_v2)(&raw mut memory, device))?;
        Failure::check("cuDeviceGetName", (driver.cuDeviceGetName)(name.as_mut_ptr(), 255, device))?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    let attribute = |attribute: CUdevice_attribute| {
        let mut value = 0;
        // SAFETY: `value` lives across the call.
        let code = unsafe { (driver.cuDeviceGetAttribute)(&raw mut value, attribute as u32, device) };
        Failure::check("cuDeviceGetAttribute", code).map(|()| value.unsigned_abs())
    };
    let info = DeviceInfo {
        ordinal,
        name,
        memory: memory as u64,
        compute_capability: (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    };
    Ok((device, info))
}

/// A device with its primary context, which all lanes share, and what they share in it.
pub(super) struct Device {
    pub(super) driver: &'static Driver,
    pub(super) info: DeviceInfo,
    device: CUdevice,
    context: CUcontext,
    pub(super) modules: Modules,
    /// Large chunks between requests, for whichever lane needs one next.
    idle: Mutex<Vec<Chunk>>,
    /// Threads that copy large arrays to and from staging memory.
    pub(super) copiers: Copiers,
    /// The thread that raises the flags of kernels whose callers have left.
    pub(super) watch: Watch,
}

// SAFETY: a context handle may be used from any thread, and the driver's functions are thread-safe.
unsafe impl Send for Device {}
// SAFETY: as above; what is mutable is behind a `Mutex`.
unsafe impl Sync for Device {}

impl Device {
    pub(super) fn open(ordinal: u32, copiers: usize) -> Result<Self, Unavailable> {
        let driver = Driver::get()?;
        let failed = |failure: Failure| Unavailable::Failed(failure.text(driver));
        let count = count(driver).map_err(failed)?;
        if ordinal >= count {
            return Err(Unavailable::NoSuchDevice { ordinal, count });
        }
        let (device, info) = find(driver, ordinal).map_err(failed)?;
        let thread = |error: &dyn std::fmt::Display| Unavailable::Failed(format!("a thread did not start: {error}"));
        let copiers = Copiers::new(ordinal, copiers).map_err(|error| thread(&error))?;
        let watch = Watch::start(ordinal).map_err(|error| thread(&error))?;
        let mut context = ptr::null_mut();
        // SAFETY: `context` lives across the call. What is retained here is released on drop.
        let code = unsafe { (driver.cuDevicePrimaryCtxRetain)(&raw mut context, device) };
        Failure::check("cuDevicePrimaryCtxRetain", code).map_err(failed)?;
        let this =
            Self { driver, info, device, context, modules: Modules::default(), idle: Mutex::default(), copiers, watch };
        this.bind().map_err(failed)?;
        Ok(this)
    }

    /// Makes the context current on this thread, which most calls expect.
    pub(super) fn bind(&self) -> Result<(), Failure> {
        // SAFETY: the context is retained for as long as `self` lives.
        Failure::check("cuCtxSetCurrent", unsafe { (self.driver.cuCtxSetCurrent)(self.context) })
    }

    /// Free and total memory. The context must be current.
    pub(super) fn memory(&self) -> Result<(u64, u64), Failure> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both live across the call.
        let code = unsafe { (self.driver.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        Failure::check("cuMemGetInfo", code)?;
        Ok((free as u64, total as u64))
    }

    /// A chunk of at least `bytes`: an idle one that fits, or else new memory if there is enough, which is asked before
    /// it is tried.
    pub(super) fn chunk(&self, bytes: usize) -> Result<Chunk, Failure> {
        let need = bytes as u64;
        if need > self.info.memory {
            let (free, total) = self.memory()?;
            return Err(Failure::OutOfMemory { need, free, total });
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |chunk: &Chunk| chunk.len() >= bytes && chunk.len() / 4 <= bytes;
        let best = (0..idle.len()).filter(|&at| fits(&idle[at])).min_by_key(|&at| idle[at].len());
        if let Some(at) = best {
            return Ok(idle.swap_remove(at));
        }
        let (free, total) = self.memory()?;
        let held: u64 = idle.iter().map(|chunk| chunk.len() as u64).sum();
        if need > free.saturating_add(held) {
            return Err(Failure::OutOfMemory { need, free: free.saturating_add(held), total });
        }
        let wanted = Chunk::rounded(bytes);
        if wanted as u64 <= free
            && let Ok(chunk) = Chunk::new(self.driver, wanted)
        {
            return Ok(chunk);
        }
        // What is idle goes back to the driver, and no more is asked for than is needed.
        idle.clear();
        Chunk::new(self.driver, bytes).map_err(|failure| match self.memory() {
            Ok((free, total)) if failure.is(super::driver::OUT_OF_MEMORY) => Failure::OutOfMemory { need, free, total },
            _ => failure,
        })
    }

    /// Takes a chunk that no work uses any more.
    pub(super) fn give(&self, chunk: Chunk) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // At the end of a process or of a lost device these fail, and nothing is left to be freed then.
        if self.bind().is_ok() {
            self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
            self.modules.unload(self.driver);
        }
        // SAFETY: retained once, in `open`. All lanes have ended: each holds this device.
        unsafe { (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("info", &self.info).finish_non_exhaustive()
    }
}
