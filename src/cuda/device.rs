//! Devices: which there are, and one that has been opened.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::sys::{CUcontext, CUdevice, CUdevice_attribute};
use schemars::JsonSchema;
use serde::Serialize;

use super::chunks::{Chunks, Trimmer};
use super::copy::Copiers;
use super::driver::Driver;
use super::error::{Failure, Unavailable};
use super::gpu::Gpu;
use super::memory::{Chunk, OWN};
use super::module::Modules;
use super::pinned::PageLock;
use super::watch::Watch;
use super::{CudaConfig, CudaUsage, PinnedMemory};
use crate::backends::worker_pool::{MemoryBudget, Reservation};

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

/// What a device could do in a second at most, by its clocks: the roof of a roofline.
///
/// The memory's clock times two transfers times the width of its bus, and the multiprocessors' clock times their number
/// times their single-precision lanes times two, since a fused multiplication and addition is two operations. It is how
/// NVIDIA's data sheets have it (an H200: 4.9 TB/s and 67 TFLOP/s). Kernels in double precision, or of more than
/// additions and multiplications, have a lower roof than this one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Peak {
    /// Bytes moved between the device and its memory.
    pub bytes_per_second: f64,
    /// OperationTable in single precision.
    pub operations_per_second: f64,
}

impl Peak {
    /// Of clocks in kHz and a bus width in bits. `None` where the driver says 0, as it does where memory is the host's.
    fn of(info: &DeviceInfo, clock: u32, memory_clock: u32, bus_width: u32) -> Option<Self> {
        // The CUDA programming guide's table of arithmetic throughput, 32-bit additions and multiplications.
        let lanes: u32 = match info.compute_capability {
            (7, _) | (8, 0) => 64,
            _ => 128,
        };
        let [clock, memory_clock] = [clock, memory_clock].map(|clock| f64::from(clock) * 1e3);
        let peak = Self {
            bytes_per_second: 2.0 * memory_clock * f64::from(bus_width) / 8.0,
            operations_per_second: 2.0 * clock * f64::from(lanes * info.multiprocessors),
        };
        (peak.bytes_per_second > 0.0 && peak.operations_per_second > 0.0).then_some(peak)
    }
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
    let attribute = |which| attribute(driver, device, which);
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

fn attribute(driver: &Driver, device: CUdevice, which: CUdevice_attribute) -> Result<u32, Failure> {
    let mut value = 0;
    // SAFETY: `value` lives across the call.
    let code = unsafe { (driver.cuDeviceGetAttribute)(&raw mut value, which as u32, device) };
    Failure::check("cuDeviceGetAttribute", code).map(|()| value.unsigned_abs())
}

fn peak(driver: &Driver, device: CUdevice, info: &DeviceInfo) -> Result<Option<Peak>, Failure> {
    let attribute = |which| attribute(driver, device, which);
    let clock = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?;
    let memory_clock = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
    let bus_width = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
    Ok(Peak::of(info, clock, memory_clock, bus_width))
}

/// Where the device sits, by which other libraries know it too: `0000:1B:00.0`. Their numbers for it may differ.
fn pci_bus_id(driver: &Driver, device: CUdevice) -> Result<String, Failure> {
    let mut id: [c_char; 32] = [0; 32];
    // SAFETY: the length is the array's. The driver ends the text with a zero, and the last byte is one in any case.
    unsafe {
        Failure::check("cuDeviceGetPCIBusId", (driver.cuDeviceGetPCIBusId)(id.as_mut_ptr(), 31, device))?;
        Ok(CStr::from_ptr(id.as_ptr()).to_string_lossy().into_owned())
    }
}

/// A context that is alive: who holds this sees to that.
#[derive(Clone, Copy)]
struct Current {
    driver: &'static Driver,
    context: CUcontext,
}

// SAFETY: a context handle may be used from any thread.
unsafe impl Send for Current {}
// SAFETY: as above.
unsafe impl Sync for Current {}

impl Current {
    /// Makes the context current on this thread, which most calls expect.
    fn bind(&self) -> Result<(), Failure> {
        // SAFETY: the context is alive.
        Failure::check("cuCtxSetCurrent", unsafe { (self.driver.cuCtxSetCurrent)(self.context) })
    }

    /// Runs `call` with the context current, on a thread that may be using another one.
    fn with(&self, name: &'static str, call: impl FnOnce(&Driver) -> u32) -> Result<(), Failure> {
        // SAFETY: the context is alive; what is pushed here is popped below, whatever the call answers.
        unsafe {
            Failure::check("cuCtxPushCurrent", (self.driver.cuCtxPushCurrent_v2)(self.context))?;
            let code = call(self.driver);
            let mut popped = ptr::null_mut();
            (self.driver.cuCtxPopCurrent_v2)(&raw mut popped);
            Failure::check(name, code)
        }
    }
}

/// Has pages stay where they are for the pool of pinned memory, which does not use it past the device's end.
impl PageLock for Current {
    fn lock(&self, pages: NonNull<u8>, len: usize) -> Result<(), String> {
        // 1 is CU_MEMHOSTREGISTER_PORTABLE: pinned for all devices.
        // SAFETY: the pages are a map of the pool's, which unlocks them before it unmaps them.
        let locked = self.with("cuMemHostRegister", |driver| unsafe {
            (driver.cuMemHostRegister_v2)(pages.as_ptr().cast(), len, 1)
        });
        locked.map_err(|failure| failure.text(self.driver))
    }

    fn unlock(&self, pages: NonNull<u8>) {
        // SAFETY: locked before, and not used by a copy any more: whoever has one under way holds the slab, and lanes end
        // before the device does. It fails only where the device is lost or the process is ending.
        let _ =
            self.with("cuMemHostUnregister", |driver| unsafe { (driver.cuMemHostUnregister)(pages.as_ptr().cast()) });
    }
}

/// A device with its primary context, which all lanes share, and what they share in it.
pub(crate) struct Device {
    pub(crate) driver: &'static Driver,
    pub(crate) info: DeviceInfo,
    device: CUdevice,
    context: Current,
    pub(crate) peak: Option<Peak>,
    pub(crate) gpu: Option<Gpu>,
    pub(crate) modules: Modules,
    /// Who may have how much of its memory.
    pub(crate) memory_budget: Arc<MemoryBudget>,
    /// Memory between requests.
    pub(crate) chunks: Arc<Chunks>,
    pub(crate) pinned: PinnedMemory,
    /// A flag for each lane, set while it has a request.
    busy: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
    /// Whether it does not end what it was given.
    hangs: AtomicBool,
    /// `None` only while the device is being opened or dropped.
    trimmer: Option<Trimmer>,
    /// Threads that copy large arrays to and from staging memory.
    pub(crate) copiers: Copiers,
    /// The thread that raises the flags of kernels whose callers have left.
    pub(crate) watch: Watch,
}

/// Device memory that is left to the driver, for code, stacks and what the context needs as it goes.
const LEFT: u64 = 256 << 20;

impl Device {
    pub(crate) fn open(ordinal: u32, config: &CudaConfig) -> Result<Self, Unavailable> {
        let driver = Driver::get()?;
        let failed = |failure: Failure| Unavailable::Failed(failure.text(driver));
        let count = count(driver).map_err(failed)?;
        if ordinal >= count {
            return Err(Unavailable::NoSuchDevice { ordinal, count });
        }
        let (device, info) = find(driver, ordinal).map_err(failed)?;
        let peak = peak(driver, device, &info).map_err(failed)?;
        let gpu = Gpu::find(ordinal, &pci_bus_id(driver, device).map_err(failed)?);
        let thread = |error: &dyn std::fmt::Display| Unavailable::Failed(format!("a thread did not start: {error}"));
        let copiers = Copiers::new(ordinal, config.copy_threads).map_err(|error| thread(&error))?;
        let watch = Watch::start(ordinal).map_err(|error| thread(&error))?;
        let mut context = ptr::null_mut();
        // SAFETY: `context` lives across the call. What is retained here is released on drop.
        let code = unsafe { (driver.cuDevicePrimaryCtxRetain)(&raw mut context, device) };
        Failure::check("cuDevicePrimaryCtxRetain", code).map_err(failed)?;
        let context = Current { driver, context };
        let mut this = Self {
            driver,
            info,
            device,
            context,
            peak,
            gpu,
            modules: Modules::default(),
            memory_budget: MemoryBudget::new(0),
            chunks: Arc::default(),
            pinned: PinnedMemory::new(config.pinned_bytes, Box::new(context), copiers.clone()),
            busy: Arc::default(),
            hangs: AtomicBool::new(false),
            trimmer: None,
            copiers,
            watch,
        };
        this.bind().map_err(failed)?;
        let own = config.workers.max(1) as u64 * OWN as u64;
        let (free, _) = this.memory().map_err(failed)?;
        let most = config.device_bytes.unwrap_or(free.saturating_sub(LEFT));
        this.memory_budget = MemoryBudget::new(most.min(free).saturating_sub(own));
        this.trimmer = Some(this.trim_after(config.idle_memory_ttl).map_err(|error| thread(&error))?);
        Ok(this)
    }

    /// Gives back what has been idle for `unused`, while no lane has a request: the driver's calls for that wait for all
    /// that runs on the device, and hold up the calls of all other threads meanwhile.
    fn trim_after(&self, unused: Duration) -> io::Result<Trimmer> {
        let (context, chunks, pinned) = (self.context, Arc::clone(&self.chunks), self.pinned.clone());
        let busy = Arc::clone(&self.busy);
        let is_idle = move || {
            let lanes = busy.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.iter().all(|busy| !busy.load(Ordering::Relaxed))
        };
        Trimmer::start(self.info.ordinal, unused, move || {
            // `drop` ends this thread before it ends the context.
            if context.bind().is_ok() {
                chunks.trim(unused, &is_idle);
                pinned.trim(unused, &is_idle);
            }
        })
    }

    /// Makes the context current on this thread, which most calls expect.
    pub(crate) fn bind(&self) -> Result<(), Failure> {
        self.context.bind()
    }

    /// Whether it may still do something to what it was given, though nobody waits for it any more.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Acquire)
    }

    pub(crate) fn set_hangs(&self) {
        self.hangs.store(true, Ordering::Release);
    }

    /// The flag of a new lane, to be set while it has a request.
    pub(crate) fn lane(&self) -> Arc<AtomicBool> {
        let busy = Arc::new(AtomicBool::new(false));
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&busy));
        busy
    }

    /// Free and total memory. The context must be current.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Failure> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both live across the call.
        let code = unsafe { (self.driver.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        Failure::check("cuMemGetInfo", code)?;
        Ok((free as u64, total as u64))
    }

    /// What to reservation where `bytes` are needed.
    pub(crate) fn claimed_for(&self, bytes: u64) -> u64 {
        let rounded = usize::try_from(bytes).map_or(u64::MAX, |bytes| Chunk::rounded(bytes) as u64);
        // A request that needs nearly everything is given no more than that.
        if bytes <= self.memory_budget.capacity() { rounded.min(self.memory_budget.capacity()) } else { bytes }
    }

    /// A chunk of at least `bytes`: an idle one that fits, or else new memory if there is enough, which is asked before
    /// it is tried. Without a reservation to it, one is made, if there is room now.
    pub(crate) fn chunk(
        &self,
        bytes: usize,
        reservation: Option<Reservation>,
    ) -> Result<(Chunk, Reservation), Failure> {
        let need = bytes as u64;
        let ask = |bytes| self.memory_budget.try_reserve(bytes);
        let reservation = reservation.or_else(|| ask(self.claimed_for(need))).or_else(|| ask(need));
        let Some(mut reservation) = reservation else {
            let (_, total) = self.memory()?;
            let free = self.memory_budget.capacity().saturating_sub(self.memory_budget.usage().reserved);
            return Err(Failure::OutOfMemory { need, free, total });
        };
        if let Some(chunk) = self.chunks.take(bytes, |len| reservation.try_grow_to(len as u64)) {
            return Ok((chunk, reservation));
        }
        // Others may use the device too, so what is granted need not be there.
        let (free, total) = self.memory()?;
        let held = self.chunks.bytes();
        if need > free.saturating_add(held) {
            return Err(Failure::OutOfMemory { need, free: free.saturating_add(held), total });
        }
        let wanted = reservation.bytes().max(need);
        if wanted <= free
            && let Ok(chunk) = Chunk::new(self.driver, usize::try_from(wanted).unwrap_or(bytes))
        {
            return Ok((chunk, reservation));
        }
        // What is idle goes back to the driver, and no more is asked for than is needed.
        self.chunks.clear();
        let chunk = Chunk::new(self.driver, bytes).map_err(|failure| match self.memory() {
            Ok((free, total)) if failure.is(super::driver::OUT_OF_MEMORY) => Failure::OutOfMemory { need, free, total },
            _ => failure,
        })?;
        Ok((chunk, reservation))
    }

    pub(crate) fn usage(&self) -> CudaUsage {
        let (budget, pinned) = (self.memory_budget.usage(), self.pinned.level());
        CudaUsage {
            device_capacity: self.memory_budget.capacity(),
            device_reserved: budget.reserved,
            device_idle: self.chunks.bytes(),
            waiting: budget.waiting,
            waits: budget.waits,
            rejections: budget.rejections,
            pinned: pinned.bytes as u64,
            pinned_in_use: pinned.lent as u64,
            pinned_fallbacks: pinned.fallbacks,
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.trimmer = None;
        // At the end of a process or of a lost device these fail, and nothing is left to be freed then.
        if self.bind().is_ok() {
            self.chunks.clear();
            self.modules.unload(self.driver);
        }
        // Whoever holds pinned memory keeps it, as memory like any other.
        self.pinned.end();
        // SAFETY: retained once, in `open`. All lanes have ended: each holds this device.
        unsafe { (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("info", &self.info).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceInfo, Peak};

    #[test]
    fn the_peak_is_that_of_the_data_sheet_and_unknown_where_a_clock_is() {
        let h200 = DeviceInfo {
            ordinal: 0,
            name: "NVIDIA H200".into(),
            memory: 1,
            compute_capability: (9, 0),
            multiprocessors: 132,
        };
        let peak = Peak::of(&h200, 1_980_000, 3_201_000, 6144).unwrap();
        assert!((peak.bytes_per_second / 4.917e12 - 1.0).abs() < 1e-3, "{peak:?}");
        assert!((peak.operations_per_second / 66.9e12 - 1.0).abs() < 1e-3, "{peak:?}");
        assert_eq!(Peak::of(&h200, 1_980_000, 0, 6144), None);
        assert_eq!(Peak::of(&h200, 0, 3_201_000, 6144), None);
    }
}
