//! [`StreamExecutor`]: everything that one thread needs to run work on a device, reused from run to run.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{
    CUdeviceptr, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig,
};

use super::cancel::{IsCancelled, WatchGuard};
use super::device::Device;
use super::download::Downloads;
use super::launch::{Arg, Launch};
use super::memory::{Arena, INITIAL_ARENA};
use super::module::{Function, Module};
use super::pinned::Pinned;
use super::resident::RunInputs;
use super::stream::{Stream, StreamPriority, Timeouts};
use super::timer::{Phase, PhaseTimes, Timer};
use super::upload::{SLAB, Uploads};
use super::{CudaConfig, CudaError, NeverCancelled, ReservedMemory};

/// The stream, memory and functions of one thread, for one run at a time.
///
/// A run is between [`begin`](Self::begin) and [`end`](Self::end), which is called however the run went.
pub(crate) struct StreamExecutor {
    pub(super) stream: Stream,
    pub(super) arena: Arena,
    pub(super) uploads: Uploads,
    pub(super) downloads: Downloads,
    pub(super) timer: Timer,
    /// Pinned memory that queued copies read or write, which must not be reused before they are done.
    pub(super) in_flight: Vec<Pinned>,
    /// The arrays of other owners that the run uses.
    pub(super) inputs: RunInputs,
    functions: Vec<Function>,
    /// Whether there is a run. The device frees idle memory while there is none.
    busy: Arc<AtomicBool>,
    /// Set while kernels of the run may poll the cancel flag.
    watched: Option<WatchGuard>,
    poison_uninitialized: bool,
    /// Last, because dropping it closes the context of all others.
    pub(super) device: Arc<Device>,
}

/// Fills uninitialized memory: a tiny negative number as `f32`, an index out of range as an integer.
const POISON: u8 = 0xA5;
/// The most arguments that a launch takes.
const MAX_ARGUMENTS: usize = 32;

impl StreamExecutor {
    /// Allocates the memory and creates the stream of the executor with this index.
    ///
    /// # Errors
    /// Errors of the driver.
    pub(crate) fn new(device: Arc<Device>, config: &CudaConfig, index: usize) -> Result<Self, CudaError> {
        let driver = device.driver;
        let timeouts = Timeouts { hang: config.hang_timeout, stall: config.stall_timeout };
        Ok(Self {
            stream: Stream::new(driver, Arc::clone(&device.health), timeouts)?,
            arena: Arena::new(driver)?,
            uploads: Uploads::new(driver)?,
            downloads: Downloads::new(driver)?,
            timer: Timer::new(driver, config.timing_sample_interval, index as u64 + 1)?,
            in_flight: Vec::new(),
            inputs: RunInputs::default(),
            functions: Vec::new(),
            busy: device.register_executor(),
            watched: None,
            poison_uninitialized: config.poison_uninitialized,
            device,
        })
    }

    /// The device.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Device memory that a run takes whose kernel needs `bytes`: also the slab of small uploads, and the padding of some
    /// hundred buffers.
    fn arena_size(bytes: u64) -> u64 {
        bytes.saturating_add(SLAB as u64 + (64 << 10))
    }

    /// Bytes that must be reserved before a run whose kernel needs `bytes` of device memory; 0 where the executor's own
    /// memory is enough.
    pub(crate) fn reservation_for(&self, bytes: u64) -> u64 {
        let bytes = Self::arena_size(bytes);
        if bytes <= INITIAL_ARENA as u64 { 0 } else { self.device.reservation_for(bytes) }
    }

    /// Begins a run that needs `bytes` of device memory, for which `reservation` has been made.
    ///
    /// # Errors
    /// Errors of the driver; memory that is reserved and yet not free.
    pub(crate) fn begin(
        &mut self,
        priority: StreamPriority,
        bytes: u64,
        reservation: Option<Box<dyn ReservedMemory>>,
    ) -> Result<(), CudaError> {
        self.busy.store(true, Ordering::Relaxed);
        self.device.bind()?;
        self.stream.set_priority(priority)?;
        self.stream.clear_cancel_flag();
        self.timer.begin();
        self.inputs.begin();
        let bytes = usize::try_from(Self::arena_size(bytes)).unwrap_or(usize::MAX);
        self.arena.reserve(&self.device, bytes, reservation)
    }

    /// Ends a run: waits until its work on the device is done, and reclaims its memory.
    ///
    /// # Errors
    /// Errors of the work; [`CudaError::Cancelled`] and [`CudaError::DeviceLost`] as [`CudaError::is_interruption`] has it.
    pub(crate) fn end(&mut self, check: &dyn IsCancelled) -> Result<(), CudaError> {
        // Taken first, so that it is dropped before `check` is even if the wait should panic.
        let watched = self.watched.take();
        self.pause_timer();
        let waited = self.stream.wait(None, check);
        drop(watched);
        let is_done = waited.as_ref().err().is_none_or(CudaError::is_interruption);
        // Memory that a hung device may still access is not reused.
        if is_done && !self.device.health.is_hung() {
            self.uploads.reset();
            self.downloads.reset();
            self.in_flight.clear();
            self.inputs.end();
            self.arena.reset(&self.device);
            self.busy.store(false, Ordering::Relaxed);
        }
        waited
    }

    /// The device address of the cancel flag, which is set when the run is cancelled, until its end.
    pub(super) fn cancel_flag(&mut self, check: &dyn IsCancelled) -> CUdeviceptr {
        if self.watched.is_none() {
            // SAFETY: `end` drops the guard, on success, failure and panic alike, and the caller of `end` holds the check
            // until then. The flag is dropped with the stream, after `drop` has dropped the guard.
            self.watched = Some(unsafe { self.device.cancel_watcher.watch(check, self.stream.cancel_flag()) });
        }
        self.stream.cancel_address()
    }

    /// Whether the kernels of the run may poll the cancel flag.
    pub(crate) fn uses_cancel_flag(&self) -> bool {
        self.watched.is_some()
    }

    /// Tells the kernels of the run to stop.
    pub(crate) fn cancel(&mut self) {
        self.stream.set_cancel_flag();
    }

    /// Records an error: one that the device does not survive marks it as lost, and a lack of memory is counted. Returns the
    /// error to report.
    pub(crate) fn record_error(&self, error: CudaError) -> CudaError {
        match error {
            error if error.is_fatal() => self.device.health.set_lost(&error),
            CudaError::OutOfMemory { .. } => {
                self.device.memory_budget.count_rejection();
                error
            }
            error => error,
        }
    }

    /// The times of a run that has ended without an error, by the device's clock; `None` if it was not sampled.
    pub(crate) fn take_phase_times(&mut self) -> Option<PhaseTimes> {
        self.timer.take()
    }

    pub(super) fn alloc(&mut self, bytes: usize) -> Result<CUdeviceptr, CudaError> {
        let address = self.arena.alloc(&self.device, bytes)?;
        if self.poison_uninitialized {
            self.fill(address, POISON, bytes)?;
        }
        Ok(address)
    }

    /// Fills `address..address + bytes`, which lies in a buffer of this run.
    pub(super) fn fill(&mut self, address: CUdeviceptr, value: u8, bytes: usize) -> Result<(), CudaError> {
        if bytes == 0 {
            return Ok(());
        }
        self.timer.enter(Some(Phase::Kernel), &mut self.stream);
        // SAFETY: the caller's range lies in the arena, whose memory outlives the work that is queued on the stream.
        self.stream.queue("cuMemsetD8Async", |driver, stream| unsafe {
            (driver.cuMemsetD8Async)(address, value, bytes, stream)
        })
    }

    /// Copies between two ranges that lie in buffers of this run.
    pub(super) fn copy(&mut self, from: CUdeviceptr, to: CUdeviceptr, bytes: usize) -> Result<(), CudaError> {
        self.flush()?;
        if bytes == 0 {
            return Ok(());
        }
        self.timer.enter(Some(Phase::Kernel), &mut self.stream);
        // SAFETY: as in `fill`.
        self.stream.queue("cuMemcpyDtoDAsync", |driver, stream| unsafe {
            (driver.cuMemcpyDtoDAsync_v2)(to, from, bytes, stream)
        })
    }

    /// Stops timing while the host does work of its own.
    pub(super) fn pause_timer(&mut self) {
        self.timer.enter(None, &mut self.stream);
    }

    /// Checks that a buffer of this generation was made in this run.
    pub(super) fn check_generation(&self, generation: u64) -> Result<(), CudaError> {
        if generation == self.arena.generation() { Ok(()) } else { Err(CudaError::StaleBuffer) }
    }

    pub(super) fn launch(
        &mut self,
        module: &'static Module,
        entry: &'static str,
        launch: Launch,
        args: &[&dyn Arg],
    ) -> Result<(), CudaError> {
        if launch.is_empty() {
            return Ok(());
        }
        if args.len() > MAX_ARGUMENTS {
            let text = format!("`{entry}` was passed {} arguments, more than {MAX_ARGUMENTS}", args.len());
            return Err(CudaError::InvalidArguments(text));
        }
        let index = self.function(module, entry)?;
        let function = &mut self.functions[index];
        function.check_arguments(args)?;
        function.allow_shared(self.device.driver, launch.shared)?;
        let (handle, overlaps) = (function.handle, launch.overlapping && function.can_overlap);
        let mut values = [0_u64; MAX_ARGUMENTS];
        for (value, arg) in values.iter_mut().zip(args) {
            let packed = arg.pack();
            if let Some(generation) = packed.generation {
                self.check_generation(generation)?;
            }
            *value = packed.bits;
        }
        self.flush()?;
        // Pointers past the last argument are to zeros, so that an entry with more parameters reads no stray pointer even
        // where the driver is too old to tell their number.
        let mut pointers = values.each_mut().map(|value| std::ptr::from_mut(value).cast());
        self.timer.enter(Some(Phase::Kernel), &mut self.stream);
        let ([grid_x, grid_y, grid_z], [x, y, z]) = (launch.grid, launch.block);
        let (shared, pointers) = (launch.shared, pointers.as_mut_ptr());
        let extra = std::ptr::null_mut();
        // SAFETY: in all, the function is loaded in the current context; `pointers` and `values` live across the call,
        // which copies what they point at; every pointer among the values is into an arena that outlives the work. What
        // the code does with them is what the caller of `Module`'s constructors has promised.
        if launch.cooperative {
            self.stream.queue("cuLaunchCooperativeKernel", |driver, stream| unsafe {
                (driver.cuLaunchCooperativeKernel)(handle, grid_x, grid_y, grid_z, x, y, z, shared, stream, pointers)
            })
        } else if let Some(recent) = self.device.driver.recent().filter(|_| overlaps) {
            self.stream.queue("cuLaunchKernelEx", |_, stream| {
                let mut overlapping = overlapping_attribute();
                let config = CUlaunchConfig {
                    gridDimX: grid_x,
                    gridDimY: grid_y,
                    gridDimZ: grid_z,
                    blockDimX: x,
                    blockDimY: y,
                    blockDimZ: z,
                    sharedMemBytes: shared,
                    hStream: stream,
                    attrs: &raw mut overlapping,
                    numAttrs: 1,
                };
                // SAFETY: as above; the configuration lives across the call.
                unsafe { (recent.cuLaunchKernelEx)(&raw const config, handle, pointers, extra) }
            })
        } else {
            // SAFETY: as above.
            self.stream.queue("cuLaunchKernel", |driver, stream| unsafe {
                (driver.cuLaunchKernel)(handle, grid_x, grid_y, grid_z, x, y, z, shared, stream, pointers, extra)
            })
        }
    }

    /// The index of a function, which is looked up at its first launch.
    fn function(&mut self, module: &'static Module, entry: &'static str) -> Result<usize, CudaError> {
        if let Some(known) = self.functions.iter().position(|function| function.is(module, entry)) {
            return Ok(known);
        }
        self.functions.push(Function::find(module, entry, &self.device)?);
        Ok(self.functions.len() - 1)
    }
}

/// Lets a launch begin before the one before it on the stream has ended.
fn overlapping_attribute() -> CUlaunchAttribute {
    CUlaunchAttribute {
        id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    }
}

impl Drop for StreamExecutor {
    /// Waits for the stream, unless the device is lost.
    fn drop(&mut self) {
        self.watched = None;
        // Both fail only where the device is lost or the process is ending, and nothing is left to free then.
        let _ = self.device.bind();
        let _ = self.stream.wait(None, &NeverCancelled);
    }
}

impl fmt::Debug for StreamExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamExecutor")
            .field("device", &self.device)
            .field("arena", &self.arena)
            .finish_non_exhaustive()
    }
}
