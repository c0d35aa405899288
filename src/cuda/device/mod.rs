//! [`Device`]: a device that has been opened, and what all threads that use it share.

mod context;
mod health;
mod info;
mod pending;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::context::Context;
pub(crate) use self::health::DeviceHealth;
pub(super) use self::info::attribute;
pub use self::info::{DeviceInfo, Peak, devices};
use self::pending::PendingModules;
use super::cancel::CancelWatcher;
use super::chunks::{Chunks, Trimmer};
use super::driver::{Driver, OUT_OF_MEMORY};
use super::memory::{Chunk, INITIAL_ARENA};
use super::module::{LoadedModules, Module};
use super::resident::{Allocator, ResidentMemory};
use super::{CudaConfig, CudaError, Gpu, PinnedMemory, ReserveMemory, ReservedMemory, Unavailable};
use crate::copy::CopyThreads;

/// A device with its primary context, and what its executors share.
pub(crate) struct Device {
    pub(super) driver: &'static Driver,
    pub(crate) info: DeviceInfo,
    context: Context,
    pub(crate) peak: Option<Peak>,
    pub(crate) gpu: Option<Gpu>,
    pub(crate) health: Arc<DeviceHealth>,
    pub(super) modules: LoadedModules,
    /// Limits the device memory of runs.
    pub(super) memory_budget: Box<dyn ReserveMemory>,
    /// Device memory that no run uses.
    pub(super) chunks: Arc<Chunks>,
    /// Copies of arrays that stay from run to run.
    pub(super) resident: ResidentMemory,
    pub(crate) pinned: PinnedMemory,
    /// A flag for each executor, set while it has a run.
    busy: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
    /// `None` only while the device is being opened or dropped.
    trimmer: Option<Trimmer>,
    pub(super) copy_threads: CopyThreads,
    pub(super) cancel_watcher: CancelWatcher,
    /// Modules that [`load_in_background`](Self::load_in_background) has not loaded yet.
    pending_modules: PendingModules,
}

/// Device memory that is left to the driver for code, stacks and the context.
const DRIVER_MEMORY: u64 = 256 << 20;

impl Device {
    /// Opens the device with this ordinal. `budget` makes the budget of its memory from the capacity in bytes, which is
    /// returned with the device.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) fn open<B: ReserveMemory + Clone + 'static>(
        ordinal: u32,
        config: &CudaConfig,
        budget: impl FnOnce(u64) -> B,
    ) -> Result<(Self, B), Unavailable> {
        let driver = Driver::get()?;
        let count = info::count(driver)?;
        if ordinal >= count {
            return Err(Unavailable::NoSuchDevice { ordinal, count });
        }
        let (handle, info) = info::find(driver, ordinal)?;
        let peak = info::peak(driver, handle, &info)?;
        let gpu = Gpu::find(ordinal, &info::pci_bus_id(driver, handle)?);
        let no_thread = |error: &dyn fmt::Display| Unavailable::Failed(format!("a thread did not start: {error}"));
        let copy_threads =
            CopyThreads::start(&format!("cuda{ordinal}"), config.copy_threads).map_err(|error| no_thread(&error))?;
        let cancel_watcher = CancelWatcher::start(ordinal).map_err(|error| no_thread(&error))?;
        let context = Context::retain(driver, handle)?;
        let free = context.bind().and_then(|()| memory(driver));
        let (free, _) = free.inspect_err(|_| context.release())?;
        let initial = config.workers.max(1) as u64 * INITIAL_ARENA as u64;
        let limit = config.device_bytes.unwrap_or(free.saturating_sub(DRIVER_MEMORY));
        let memory_budget = budget(limit.min(free).saturating_sub(initial));
        let health = Arc::new(DeviceHealth::new(ordinal));
        let allocator = Allocator::new(driver, handle, Arc::clone(&health)).inspect_err(|_| context.release())?;
        if allocator.is_none() {
            tracing::warn!(device = ordinal, "the device cannot map memory: runs upload their operands each time");
        }
        let operand_memory = config.operand_memory.unwrap_or(info.memory / 4).min(memory_budget.capacity());
        let resident = ResidentMemory::new(ordinal, operand_memory, allocator);
        let mut this = Self {
            driver,
            info,
            context,
            peak,
            gpu,
            health,
            modules: LoadedModules::default(),
            memory_budget: Box::new(memory_budget.clone()),
            chunks: Arc::default(),
            resident,
            pinned: PinnedMemory::new(config.pinned_bytes, Box::new(context), copy_threads.clone()),
            busy: Arc::default(),
            trimmer: None,
            copy_threads,
            cancel_watcher,
            pending_modules: PendingModules::default(),
        };
        let trimmer = this.start_trimmer(config.idle_memory_ttl, memory_budget.clone());
        this.trimmer = Some(trimmer.map_err(|error| no_thread(&error))?);
        Ok((this, memory_budget))
    }

    /// Starts the thread that frees memory that has been idle for `ttl`, while no executor has a run: the driver's calls for
    /// that wait for everything that runs on the device, and block the calls of all other threads meanwhile.
    ///
    /// It also frees copies that are not wanted any more, at once, as `budget` counts them until then.
    fn start_trimmer(&self, ttl: Duration, budget: impl ReserveMemory + 'static) -> io::Result<Trimmer> {
        let (context, chunks, pinned) = (self.context, Arc::clone(&self.chunks), self.pinned.clone());
        let (busy, copies) = (Arc::clone(&self.busy), Arc::clone(&self.resident.copies));
        let is_idle = move || {
            let executors = busy.lock().unwrap_or_else(PoisonError::into_inner);
            executors.iter().all(|busy| !busy.load(Ordering::Relaxed))
        };
        let trimmer = Trimmer::start(self.info.ordinal, ttl, move || {
            // `drop` ends this thread before it releases the context.
            if context.bind().is_ok() {
                drop(copies.take_unwanted(budget.shortage()));
                chunks.trim(ttl, &is_idle);
                pinned.trim(ttl, &is_idle);
            }
        })?;
        self.resident.copies.on_unwanted(trimmer.waker());
        Ok(trimmer)
    }

    /// Returns the address of the device on the PCI bus, by which other libraries know it.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub(crate) fn pci_bus_id(&self) -> Result<String, CudaError> {
        let (handle, _) = info::find(self.driver, self.info.ordinal)?;
        info::pci_bus_id(self.driver, handle)
    }

    /// Makes the context current on this thread, as most calls of the driver require.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        self.context.bind()
    }

    /// Loads these modules on a thread of its own. One that does not load is logged; launches from it fail.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn load_in_background(self: &Arc<Self>, modules: Vec<&'static Module>) -> io::Result<()> {
        let pending = self.pending_modules.add(modules.len());
        let device = Arc::downgrade(self);
        let load = move |module| {
            // A device that is being dropped is not kept open for this.
            let Some(device) = device.upgrade() else { return };
            let loaded = device.bind().and_then(|()| device.modules.get(module, &device).map(drop));
            if let Err(error) = loaded {
                tracing::warn!(device = device.info.ordinal, %error, "device code did not load");
            }
        };
        let thread = std::thread::Builder::new().name(format!("cuda{}-load", self.info.ordinal));
        // If it does not start, the guard is dropped with the closure.
        thread.spawn(move || pending.load_each(modules, load)).map(drop)
    }

    /// Returns the number of modules that are loaded, and of those that are still to be loaded in the background.
    pub(crate) fn module_counts(&self) -> (usize, usize) {
        // In this order, so that a module which has been loaded is in the first count.
        let to_load = self.pending_modules.count();
        (self.modules.len(), to_load)
    }

    /// The flag of a new executor, which it sets while it has a run.
    pub(super) fn register_executor(&self) -> Arc<AtomicBool> {
        let busy = Arc::new(AtomicBool::new(false));
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&busy));
        busy
    }

    /// Free and total memory in bytes. The context must be current.
    pub(super) fn memory(&self) -> Result<(u64, u64), CudaError> {
        memory(self.driver)
    }

    /// Bytes of device memory that no run uses, kept for the next.
    pub(crate) fn idle_memory(&self) -> u64 {
        self.chunks.bytes()
    }

    /// The bytes to reserve for a run that needs `bytes`.
    pub(super) fn reservation_for(&self, bytes: u64) -> u64 {
        let rounded = usize::try_from(bytes).map_or(u64::MAX, |bytes| Chunk::rounded(bytes) as u64);
        let capacity = self.memory_budget.capacity();
        // A run that needs nearly all memory gets no more than that.
        if bytes <= capacity { rounded.min(capacity) } else { bytes }
    }

    /// A chunk of at least `bytes`: an idle one that fits, or else new memory, if the driver has enough. Makes a reservation
    /// where it is passed none.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] where it is not available now; errors of the driver.
    pub(super) fn chunk(
        &self,
        bytes: usize,
        reservation: Option<Box<dyn ReservedMemory>>,
    ) -> Result<(Chunk, Box<dyn ReservedMemory>), CudaError> {
        let need = bytes as u64;
        let reserve = |bytes| self.memory_budget.try_reserve(bytes);
        let evict = || drop(self.resident.copies.evict(need));
        let reservation = reservation.or_else(|| reserve(self.reservation_for(need))).or_else(|| reserve(need));
        let reservation = reservation.or_else(|| {
            evict();
            reserve(need)
        });
        let Some(mut reservation) = reservation else {
            let (_, total) = self.memory()?;
            let free = self.memory_budget.capacity().saturating_sub(self.memory_budget.reserved());
            return Err(CudaError::OutOfMemory { need, free, total });
        };
        if let Some(chunk) = self.chunks.take(bytes, |len| reservation.try_grow_to(len as u64)) {
            return Ok((chunk, reservation));
        }
        // Other processes may use the device too, so reserved memory need not be free.
        let (free, total) = self.memory()?;
        let idle = self.chunks.bytes();
        if need > free.saturating_add(idle) {
            return Err(CudaError::OutOfMemory { need, free: free.saturating_add(idle), total });
        }
        let wanted = reservation.bytes().max(need);
        if wanted <= free
            && let Ok(chunk) = Chunk::new(self.driver, usize::try_from(wanted).unwrap_or(bytes))
        {
            return Ok((chunk, reservation));
        }
        // Frees idle memory, and then asks for no more than is needed.
        self.chunks.clear();
        let chunk = Chunk::new(self.driver, bytes).map_err(|error| match self.memory() {
            Ok((free, total)) if error.is(OUT_OF_MEMORY) => CudaError::OutOfMemory { need, free, total },
            _ => error,
        })?;
        Ok((chunk, reservation))
    }
}

/// Free and total memory of the current context's device, in bytes.
fn memory(driver: &Driver) -> Result<(u64, u64), CudaError> {
    let (mut free, mut total) = (0, 0);
    // SAFETY: both live across the call.
    let code = unsafe { (driver.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
    CudaError::check("cuMemGetInfo", code)?;
    Ok((free as u64, total as u64))
}

impl Drop for Device {
    fn drop(&mut self) {
        self.trimmer = None;
        // Where this fails the process is ending or the device is lost, and nothing is left to free.
        if self.bind().is_ok() {
            self.chunks.clear();
            drop(self.resident.copies.evict(u64::MAX));
            self.modules.unload(self.driver);
        }
        // Pinned memory that is still in use becomes ordinary memory.
        self.pinned.close();
        // All executors have been dropped: each holds this device.
        self.context.release();
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("info", &self.info).finish_non_exhaustive()
    }
}
