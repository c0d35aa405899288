//! What a lane owns on its device: stream, arena, staging, functions. Kept from request to request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::CUdeviceptr;

use super::CudaConfig;
use super::device::Device;
use super::download::Downloads;
use super::error::{Failure, Misuse};
use super::launch::{Arg, Launch};
use super::memory::{Arena, OWN};
use super::module::{Function, Module};
use super::pinned::Pinned;
use super::stream::{Patience, Stream};
use super::timer::{Phase, Timer};
use super::upload::{SLAB, Uploads};
use super::watch::Watched;
use crate::backends::worker_pool::{PoolState, Reservation};
use crate::request::{DeviceTimes, Priority, RequestContext};
use crate::service::{Cost, Job, KernelError, RunContext};

pub(crate) struct Engine {
    pool: Arc<PoolState>,
    pub(crate) stream: Stream,
    pub(crate) arena: Arena,
    pub(crate) uploads: Uploads,
    pub(crate) downloads: Downloads,
    pub(crate) timer: Timer,
    /// Pinned memory that copies under way read or write: it must not go to anybody else.
    pub(crate) held: Vec<Pinned>,
    functions: Vec<Function>,
    /// Whether there is a request, for who would rather not disturb one.
    busy: Arc<AtomicBool>,
    /// Set while a request's kernels may poll the flag.
    watched: Option<Watched>,
    poison: bool,
    /// Last, because it closes what the others live in.
    pub(crate) device: Arc<Device>,
}

/// What an unwritten byte holds where buffers are poisoned: as `f32` a tiny negative number, as an index far too large.
const POISON: u8 = 0xA5;
/// The most arguments that a launch takes.
const ARGUMENTS: usize = 32;

impl Engine {
    pub(crate) fn new(
        device: Arc<Device>,
        pool: Arc<PoolState>,
        config: &CudaConfig,
        lane: usize,
    ) -> Result<Self, Failure> {
        let driver = device.driver;
        Ok(Self {
            stream: Stream::new(
                driver,
                Arc::clone(&pool),
                Patience { told: config.hang_timeout, at_all: config.stall_timeout },
            )?,
            pool,
            arena: Arena::new(driver)?,
            uploads: Uploads::new(driver)?,
            downloads: Downloads::new(driver)?,
            timer: Timer::new(driver, config.timing_sample_interval, lane as u64 + 1)?,
            held: Vec::new(),
            functions: Vec::new(),
            busy: device.lane(),
            watched: None,
            poison: config.poison_uninitialized,
            device,
        })
    }

    /// What a request takes of the device where its kernel needs `bytes`: beside the buffers there are the slab of small
    /// uploads, and what aligning some hundred buffers takes.
    fn taken_for(bytes: u64) -> u64 {
        bytes.saturating_add(SLAB as u64 + (64 << 10))
    }

    /// What a request must be granted before it begins; nothing where the lane's own memory does.
    pub(crate) fn needs(&self, bytes: u64) -> u64 {
        let bytes = Self::taken_for(bytes);
        if bytes <= OWN as u64 { 0 } else { self.device.claimed_for(bytes) }
    }

    /// Readies the lane for a request of this priority that needs `bytes` of device memory, and has been granted them.
    pub(crate) fn begin(
        &mut self,
        priority: Priority,
        bytes: u64,
        reservation: Option<Reservation>,
    ) -> Result<(), Failure> {
        self.busy.store(true, Ordering::Relaxed);
        self.device.bind()?;
        self.stream.prioritise(priority)?;
        self.stream.lower_cancel();
        self.timer.begin();
        let bytes = usize::try_from(Self::taken_for(bytes)).unwrap_or(usize::MAX);
        self.arena.reserve(&self.device, bytes, reservation)
    }

    /// Waits until nothing of a request is left on the device, however the request ended, and takes its memory back.
    pub(crate) fn end(&mut self, context: &RunContext<'_>) -> Result<(), Failure> {
        // Taken first, so that it goes before the context does even if the wait should panic.
        let watched = self.watched.take();
        self.pause_timer();
        let waited = self.stream.wait(None, context);
        drop(watched);
        // What a device that hangs may still touch goes to nobody.
        if matches!(waited, Ok(()) | Err(Failure::Stopped(_))) && !self.device.hangs() {
            self.uploads.reset();
            self.downloads.reset();
            self.held.clear();
            self.arena.reset(&self.device);
            self.busy.store(false, Ordering::Relaxed);
        }
        waited
    }

    /// The address of the flag for kernels, which is watched until the request's end.
    pub(crate) fn cancel_flag(&mut self, context: &RunContext<'_>) -> CUdeviceptr {
        if self.watched.is_none() {
            // SAFETY: `end` drops this before the request's context goes, on success, failure and panic alike; the flag
            // goes with the stream, after `drop` has dropped this.
            self.watched = Some(unsafe { self.device.watch.over(context, self.stream.cancel_flag()) });
        }
        self.stream.cancel_address()
    }

    /// What a failure means. One that the device does not survive ends the pool.
    pub(crate) fn error(&self, failure: Failure) -> KernelError {
        if failure.is_fatal() {
            if matches!(failure, Failure::Hangs { .. }) {
                // Before anybody can see that the device is lost.
                self.device.set_hangs();
            }
            self.pool.close(KernelError::DeviceLost {
                device: format!("CUDA {}", self.device.info.ordinal).into(),
                reason: failure.text(self.device.driver).into(),
            });
            // Several lanes see the same fault; the first to report it has named the cause for all.
            if let Some(lost) = self.pool.closed() {
                return lost.clone();
            }
        }
        match failure {
            Failure::OutOfMemory { need, free, total } => {
                self.device.memory_budget.count_rejection();
                KernelError::OutOfMemory { need, free, total }
            }
            Failure::Stopped(reason) => reason,
            Failure::Misuse(misuse) => KernelError::kernel(misuse),
            failure => KernelError::Device(failure.text(self.device.driver)),
        }
    }

    /// What the device has measured of a request of this cost that has just ended well, if it was asked to.
    pub(crate) fn take_times(&mut self, cost: Option<Cost>) -> Option<Box<DeviceTimes>> {
        let [upload, kernel, download] = self.timer.take()?;
        let bound =
            self.device.peak.zip(cost).map(|(peak, cost)| cost.time(peak.bytes_per_second, peak.operations_per_second));
        Some(Box::new(DeviceTimes { upload, kernel, download, bound }))
    }

    pub(crate) fn alloc(&mut self, bytes: usize) -> Result<CUdeviceptr, Failure> {
        let address = self.arena.alloc(&self.device, bytes)?;
        if self.poison {
            self.fill(address, POISON, bytes)?;
        }
        Ok(address)
    }

    /// `address..address + bytes` is part of a buffer that is valid now.
    pub(crate) fn fill(&mut self, address: CUdeviceptr, value: u8, bytes: usize) -> Result<(), Failure> {
        if bytes == 0 {
            return Ok(());
        }
        self.timer.enter(Some(Phase::Kernel), &mut self.stream);
        // SAFETY: the caller's range lies in the arena, whose memory outlives the work that is queued on the stream.
        self.stream.queue("cuMemsetD8Async", |driver, stream| unsafe {
            (driver.cuMemsetD8Async)(address, value, bytes, stream)
        })
    }

    /// Both ranges are parts of buffers that are valid now.
    pub(crate) fn copy(&mut self, from: CUdeviceptr, to: CUdeviceptr, bytes: usize) -> Result<(), Failure> {
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

    /// The host turns to something else than the stream.
    pub(crate) fn pause_timer(&mut self) {
        self.timer.enter(None, &mut self.stream);
    }

    /// A buffer of this generation may be used.
    pub(crate) fn own(&self, generation: u64) -> Result<(), Failure> {
        if generation == self.arena.generation() { Ok(()) } else { Err(Failure::Misuse(Misuse::StaleBuffer)) }
    }

    pub(crate) fn launch(
        &mut self,
        module: &'static Module,
        entry: &'static str,
        launch: Launch,
        args: &[&dyn Arg],
    ) -> Result<(), Failure> {
        if launch.is_empty() {
            return Ok(());
        }
        if args.len() > ARGUMENTS {
            let text = format!("`{entry}` was passed {} arguments, and {ARGUMENTS} is the most", args.len());
            return Err(Failure::Misuse(Misuse::Arguments(text)));
        }
        let at = self.function(module, entry)?;
        let function = &mut self.functions[at];
        function.accept(args).map_err(|text| Failure::Misuse(Misuse::Arguments(text)))?;
        function.allow_shared(self.device.driver, launch.shared)?;
        let handle = function.handle;
        let mut values = [0_u64; ARGUMENTS];
        for (value, arg) in values.iter_mut().zip(args) {
            let packed = arg.pack();
            if let Some(generation) = packed.generation {
                self.own(generation)?;
            }
            *value = packed.bits;
        }
        self.flush()?;
        // The places past the last argument point at zeros, so that an entry with more parameters reads no stray pointer
        // even where the driver is too old to tell their number.
        let mut pointers = values.each_mut().map(|value| std::ptr::from_mut(value).cast());
        self.timer.enter(Some(Phase::Kernel), &mut self.stream);
        let ([grid_x, grid_y, grid_z], [x, y, z]) = (launch.grid, launch.block);
        let (shared, pointers) = (launch.shared, pointers.as_mut_ptr());
        // SAFETY: in both, the function is loaded in the current context; `pointers` and `values` live across the call,
        // which copies what they point at; every pointer among the values is into an arena that outlives the work. What
        // the code does with them is what `Module`'s constructors have been promised.
        if launch.cooperative {
            self.stream.queue("cuLaunchCooperativeKernel", |driver, stream| unsafe {
                (driver.cuLaunchCooperativeKernel)(handle, grid_x, grid_y, grid_z, x, y, z, shared, stream, pointers)
            })
        } else {
            // SAFETY: as above.
            self.stream.queue("cuLaunchKernel", |driver, stream| unsafe {
                let extra = std::ptr::null_mut();
                (driver.cuLaunchKernel)(handle, grid_x, grid_y, grid_z, x, y, z, shared, stream, pointers, extra)
            })
        }
    }

    /// The place of a function among those that this lane has launched before, most of the time.
    fn function(&mut self, module: &'static Module, entry: &'static str) -> Result<usize, Failure> {
        if let Some(known) = self.functions.iter().position(|function| function.is(module, entry)) {
            return Ok(known);
        }
        self.functions.push(Function::find(module, entry, &self.device)?);
        Ok(self.functions.len() - 1)
    }
}

impl Drop for Engine {
    /// A lane ends between requests, when its stream is idle, or with its device.
    fn drop(&mut self) {
        self.watched = None;
        // Where this fails the device is lost or the process is ending, and what follows has nothing to free.
        let _ = self.device.bind();
        let _ = self.stream.wait(None, &RunContext::detached());
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("device", &self.device).field("arena", &self.arena).finish_non_exhaustive()
    }
}

/// Runs a job whose input has been prepared, and leaves the engine ready for the next whatever happens but a panic.
pub(crate) fn run(
    engine: &mut Engine,
    job: &Job,
    encoding: crate::service::Encoding,
    context: &RunContext<'_>,
    reservation: Option<Reservation>,
) -> Result<crate::service::Payload, KernelError> {
    let input = job.input().ok_or_else(|| KernelError::Device("a job was run before it was prepared".to_owned()))?;
    if let Err(failure) = engine.begin(job.priority(), input.cost.device_memory, reservation) {
        let error = engine.error(failure);
        // Nothing was queued; the lane is without a request again.
        return engine.end(context).map_or_else(|failure| Err(engine.error(failure)), |()| Err(error));
    }
    let mut lane = super::LaunchContext::new(engine, *context);
    let result = job.kernel().run_cuda(input, encoding, &mut lane);
    if result.is_err() {
        engine.stream.raise_cancel();
    }
    let may_have_been_told = engine.watched.is_some();
    match engine.end(context) {
        // A kernel that polls the flag may have seen it and ended early, and the lane have found it ended before it looked
        // at the time itself: what it left is then no answer. The flag is raised only where `check` fails, for good.
        Ok(()) | Err(Failure::Stopped(_)) if may_have_been_told => context.check().and(result),
        // An answer that is complete is an answer, even if the caller has left or the device been lost meanwhile.
        Ok(()) | Err(Failure::Stopped(_)) => result,
        Err(failure) => Err(engine.error(failure)),
    }
}
