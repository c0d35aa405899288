//! [`Stream`]: work in order, of a priority, and waiting for it.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUdeviceptr, CUstream};

use super::CudaError;
use super::cancel::IsCancelled;
use super::device::DeviceHealth;
use super::driver::{Driver, NOT_READY, SUCCESS};
use super::event::Event;
use super::memory::{HostAccess, Staging};

/// How long a wait spins, which sees the end of short work at once.
const SPIN: Duration = Duration::from_micros(100);
/// The rate of the bus in bytes a second.
const BUS_RATE: f64 = 40e9;
/// The longest copy for which a wait spins, and the longest wait that the next one is expected to take as well.
const LONGEST_SPIN: Duration = Duration::from_millis(2);
/// The pause between queries after that.
const PAUSE: Duration = Duration::from_micros(20);

/// The priority of the work in a stream.
///
/// Where blocks of several streams wait for a multiprocessor, those of the highest priority are scheduled first. Running
/// blocks are not preempted for them, and copies run in the order they were queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamPriority {
    Low,
    Normal,
    High,
}

/// One thread's stream, with the cancel flag of its kernels.
#[derive(Debug)]
pub(super) struct Stream {
    driver: &'static Driver,
    /// One stream for each priority. Only one of them has work at a time.
    streams: PriorityStreams,
    /// The one in use.
    handle: CUstream,
    /// Whether there may be work that has not been waited for.
    busy: bool,
    /// A lower bound on the time that the copies take which were queued since the stream was last idle.
    expected: Duration,
    /// How long the last wait took that did not end at once, or zero if that was too long to spin for. A run is often like the
    /// one before it, and one of the iterations of a run more so.
    last_wait: Duration,
    cancel: CancelWord,
    /// When the kernels of the current run were told to stop.
    cancelled_at: Option<Instant>,
    timeouts: Timeouts,
    health: Arc<DeviceHealth>,
}

/// How long the device is waited for before it counts as hung.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// After the work was cancelled.
    pub(super) hang: Duration,
    /// In any case; `None` is no limit.
    pub(super) stall: Option<Duration>,
}

// SAFETY: a stream may be used from any thread, and this handle has one owner.
unsafe impl Send for Stream {}

/// The 32-bit word in mapped memory that running kernels may poll. It is not 0 once the work is cancelled.
#[derive(Debug)]
struct CancelWord {
    memory: Staging,
    address: CUdeviceptr,
}

impl CancelWord {
    fn new(driver: &'static Driver) -> Result<Self, CudaError> {
        let memory = Staging::new(driver, 4, HostAccess::Mapped)?;
        Ok(Self { address: memory.device_address()?, memory })
    }

    fn flag(&self) -> &AtomicU32 {
        // SAFETY: four bytes, initialised, aligned to a page, and valid as long as `self`. The host accesses them through
        // this alone, and the device only reads them, in one access.
        unsafe { AtomicU32::from_ptr(self.memory.at(0).cast()) }
    }
}

impl Stream {
    /// The context must be current.
    pub(super) fn new(
        driver: &'static Driver,
        health: Arc<DeviceHealth>,
        timeouts: Timeouts,
    ) -> Result<Self, CudaError> {
        let mut streams = PriorityStreams::new(driver)?;
        let handle = streams.get(StreamPriority::Normal)?;
        Ok(Self {
            driver,
            streams,
            handle,
            busy: false,
            expected: Duration::ZERO,
            last_wait: Duration::ZERO,
            cancel: CancelWord::new(driver)?,
            cancelled_at: None,
            timeouts,
            health,
        })
    }

    /// Sets the priority of the work that is queued from here on. Called between runs, when the stream is idle.
    pub(super) fn set_priority(&mut self, priority: StreamPriority) -> Result<(), CudaError> {
        // After a wait that failed there may be work left, which the work of the next run must not overtake.
        if !self.busy {
            self.handle = self.streams.get(priority)?;
        }
        Ok(())
    }

    /// The device address of the cancel flag.
    pub(super) fn cancel_address(&self) -> CUdeviceptr {
        self.cancel.address
    }

    /// The cancel flag as the host accesses it.
    pub(super) fn cancel_flag(&self) -> &AtomicU32 {
        self.cancel.flag()
    }

    /// Tells running kernels to stop.
    pub(super) fn set_cancel_flag(&mut self) {
        self.cancelled_at.get_or_insert_with(Instant::now);
        self.cancel.flag().store(1, Ordering::Release);
    }

    pub(super) fn clear_cancel_flag(&mut self) {
        self.cancelled_at = None;
        self.cancel.flag().store(0, Ordering::Release);
    }

    /// Queues what `enqueue` queues on the stream that it is passed.
    pub(super) fn queue(
        &mut self,
        call: &'static str,
        enqueue: impl FnOnce(&Driver, CUstream) -> u32,
    ) -> Result<(), CudaError> {
        self.busy = true;
        CudaError::check(call, enqueue(self.driver, self.handle))
    }

    /// Records that a copy of this size at the rate of the bus was queued, so that the next wait spins for it.
    pub(super) fn expect_copy(&mut self, bytes: usize) {
        self.expected += Duration::from_secs_f64(bytes as f64 / BUS_RATE);
    }

    /// Whether the device has done all that was queued. Work that failed is an error.
    fn is_idle(&mut self) -> Result<bool, CudaError> {
        if self.busy {
            // SAFETY: the stream is valid as long as `self`.
            match unsafe { (self.driver.cuStreamQuery)(self.handle) } {
                SUCCESS => (self.busy, self.expected) = (false, Duration::ZERO),
                NOT_READY => {}
                code => return Err(CudaError::Driver { call: "cuStreamQuery", code }),
            }
        }
        Ok(!self.busy)
    }

    /// Fails once the device counts as hung in a wait that began at `start`.
    fn check_timeouts(&self, start: Instant) -> Result<(), CudaError> {
        let Timeouts { hang, stall } = self.timeouts;
        if self.cancelled_at.is_some_and(|at| at.elapsed() > hang) {
            return Err(CudaError::Hung { after: hang, cancelled: true });
        }
        match stall.filter(|&stall| start.elapsed() > stall) {
            Some(after) => Err(CudaError::Hung { after, cancelled: false }),
            None => Ok(()),
        }
    }

    /// Waits until all queued work is done, or until `event` is reached.
    ///
    /// If `check` says that the work is cancelled, kernels are told to stop and the wait goes on until the stream is idle,
    /// because memory that the device works on must not be reused. It then fails with [`CudaError::Cancelled`]. It does
    /// not wait for a device that hangs, or that another thread has found lost.
    pub(super) fn wait(&mut self, event: Option<&Event>, check: &dyn IsCancelled) -> Result<(), CudaError> {
        let start = Instant::now();
        let spin_time = SPIN + self.expected.max(self.last_wait).min(LONGEST_SPIN);
        let mut cancelled = false;
        let mut queries = 0_u32;
        loop {
            queries = queries.wrapping_add(1);
            let done = match event {
                Some(event) if !cancelled => event.is_reached()?,
                _ => self.is_idle()?,
            };
            if done {
                if queries > 1 {
                    let took = start.elapsed();
                    self.last_wait = if took > LONGEST_SPIN { Duration::ZERO } else { took };
                }
                return if cancelled { Err(CudaError::Cancelled) } else { Ok(()) };
            }
            let spin = start.elapsed() < spin_time;
            if !spin || queries.is_multiple_of(16) {
                if let Some(lost) = self.health.lost() {
                    return Err(lost.clone());
                }
                if !cancelled && check.is_cancelled() {
                    self.set_cancel_flag();
                    cancelled = true;
                }
                self.check_timeouts(start)?;
            }
            if spin {
                std::hint::spin_loop();
            } else {
                wake_up_in_time();
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Makes the sleeps of this thread end when they are due. Otherwise Linux ends them up to 50 µs later, together with others.
fn wake_up_in_time() {
    #[cfg(target_os = "linux")]
    {
        thread_local!(static DONE: () = {
            // Where this is not allowed, waits are as late as before.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        });
        DONE.with(|()| ());
    }
}

/// A stream for each priority, created when it is first used.
///
/// The driver maps streams to the device's few hardware queues, and streams that share one wait for each other's work. So
/// there should be no more streams than are used.
#[derive(Debug)]
struct PriorityStreams {
    driver: &'static Driver,
    /// The driver's number of each priority.
    numbers: [i32; 3],
    streams: [Option<CUstream>; 3],
}

impl PriorityStreams {
    /// The context must be current.
    fn new(driver: &'static Driver) -> Result<Self, CudaError> {
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: both live across the call.
        let code = unsafe { (driver.cuCtxGetStreamPriorityRange)(&raw mut least, &raw mut greatest) };
        CudaError::check("cuCtxGetStreamPriorityRange", code)?;
        Ok(Self { driver, numbers: priority_numbers(least, greatest), streams: [None; 3] })
    }

    /// The context must be current.
    fn get(&mut self, priority: StreamPriority) -> Result<CUstream, CudaError> {
        let index = priority as usize;
        if let Some(stream) = self.streams[index] {
            return Ok(stream);
        }
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` lives across the call. 1 is CU_STREAM_NON_BLOCKING.
        let code = unsafe { (self.driver.cuStreamCreateWithPriority)(&raw mut handle, 1, self.numbers[index]) };
        CudaError::check("cuStreamCreateWithPriority", code)?;
        self.streams[index] = Some(handle);
        Ok(handle)
    }
}

/// The driver's numbers for low, normal and high priority. A lower number is a higher priority, and a device may have fewer
/// than three.
fn priority_numbers(least: i32, greatest: i32) -> [i32; 3] {
    [least, least + (greatest - least) / 2, greatest]
}

impl Drop for PriorityStreams {
    fn drop(&mut self) {
        for stream in self.streams.into_iter().flatten() {
            // SAFETY: created in `get`, destroyed once.
            unsafe { (self.driver.cuStreamDestroy_v2)(stream) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{StreamPriority, priority_numbers};

    #[test]
    fn a_higher_priority_is_never_a_higher_number() {
        assert_eq!(priority_numbers(0, -5), [0, -2, -5]);
        assert_eq!(priority_numbers(0, -1), [0, 0, -1]);
        assert_eq!(priority_numbers(0, 0), [0, 0, 0], "a device without priorities");
        let levels = [StreamPriority::Low, StreamPriority::Normal, StreamPriority::High];
        assert_eq!(levels.map(|level| level as usize), [0, 1, 2]);
    }
}
