//! A lane's stream: work in order and of a priority, events in it, and waiting for it.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUdeviceptr, CUevent, CUstream};

use super::driver::{Driver, NOT_READY, SUCCESS};
use super::error::Failure;
use super::memory::{Pin, Staging};
use crate::backends::worker_pool::PoolState;
use crate::request::Priority;
use crate::service::RunContext;

/// How long a wait looks without a pause. A thread that sleeps is late by some 50 µs, so short work is waited for awake.
const SPIN: Duration = Duration::from_micros(100);
/// Bytes a second of the bus, and the longest copy that is waited for awake.
const BUS: f64 = 40e9;
const MOST_EXPECTED: Duration = Duration::from_millis(1);
/// The pause between looks after that.
const NAP: Duration = Duration::from_micros(20);

#[derive(Debug)]
pub(crate) struct Stream {
    driver: &'static Driver,
    /// One for each priority. Work is on one of them at a time, or on none.
    levels: Levels,
    /// The one in use.
    handle: CUstream,
    /// Whether there may be work that has not been waited for.
    busy: bool,
    /// How long the copies queued since it was last idle take at least.
    expected: Duration,
    cancel: Cancel,
    /// Since when the request's kernels have been told to stop.
    told: Option<Instant>,
    patience: Patience,
    pool: Arc<PoolState>,
}

/// How long the device is waited for before it counts as hung: once it was told to stop, and in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) told: Duration,
    pub(crate) at_all: Option<Duration>,
}

// SAFETY: a stream may be used from any thread, and this handle has one owner.
unsafe impl Send for Stream {}

/// The 32-bit word that running kernels may poll: not zero once the caller has left.
#[derive(Debug)]
struct Cancel {
    word: Staging,
    address: CUdeviceptr,
}

impl Cancel {
    fn flag(&self) -> &AtomicU32 {
        // SAFETY: four bytes, initialised, aligned as pages are, and there as long as `self`. The host touches them
        // through this alone, and the device only reads them, in one access.
        unsafe { AtomicU32::from_ptr(self.word.at(0).cast()) }
    }
}

impl Stream {
    pub(crate) fn new(driver: &'static Driver, pool: Arc<PoolState>, patience: Patience) -> Result<Self, Failure> {
        let word = Staging::new(driver, 4, Pin::Mapped)?;
        let cancel = Cancel { address: word.device_address()?, word };
        let mut levels = Levels::new(driver)?;
        let handle = levels.of(Priority::Normal)?;
        Ok(Self { driver, levels, handle, busy: false, expected: Duration::ZERO, cancel, told: None, patience, pool })
    }

    /// What is queued from here on is of this priority. Between requests: work of the one before would be overtaken.
    pub(crate) fn prioritise(&mut self, priority: Priority) -> Result<(), Failure> {
        // After a wait that has failed there may be work left, and what comes must stay behind it.
        if !self.busy {
            self.handle = self.levels.of(priority)?;
        }
        Ok(())
    }

    pub(crate) fn cancel_address(&self) -> CUdeviceptr {
        self.cancel.address
    }

    /// The host's side of it.
    pub(crate) fn cancel_flag(&self) -> &AtomicU32 {
        self.cancel.flag()
    }

    pub(crate) fn raise_cancel(&mut self) {
        self.told.get_or_insert_with(Instant::now);
        self.cancel.flag().store(1, Ordering::Release);
    }

    pub(crate) fn lower_cancel(&mut self) {
        self.told = None;
        self.cancel.flag().store(0, Ordering::Release);
    }

    /// Queues what `enqueue` queues on the stream it is given.
    pub(crate) fn queue(
        &mut self,
        call: &'static str,
        enqueue: impl FnOnce(&Driver, CUstream) -> u32,
    ) -> Result<(), Failure> {
        self.busy = true;
        Failure::check(call, enqueue(self.driver, self.handle))
    }

    /// So many bytes cross the bus at its own speed, which can be waited for awake.
    pub(crate) fn expect(&mut self, bytes: usize) {
        self.expected += Duration::from_secs_f64(bytes as f64 / BUS);
    }

    /// Whether the device is done with all that was queued. Work that has failed is an error.
    fn is_idle(&mut self) -> Result<bool, Failure> {
        if self.busy {
            // SAFETY: the stream lives as long as `self`.
            match unsafe { (self.driver.cuStreamQuery)(self.handle) } {
                SUCCESS => (self.busy, self.expected) = (false, Duration::ZERO),
                NOT_READY => {}
                code => return Err(Failure::Call { call: "cuStreamQuery", code }),
            }
        }
        Ok(!self.busy)
    }

    /// Fails where the device has had time enough since `start`, or since it was told to stop.
    fn be_patient(&self, start: Instant) -> Result<(), Failure> {
        let Patience { told, at_all } = self.patience;
        let too_long = |since: Option<Instant>, limit: Option<Duration>| {
            limit.filter(|&limit| since.is_some_and(|since| since.elapsed() > limit))
        };
        if let Some(after) = too_long(self.told, Some(told)) {
            return Err(Failure::Hangs { after, told: true });
        }
        match too_long(Some(start), at_all) {
            Some(after) => Err(Failure::Hangs { after, told: false }),
            None => Ok(()),
        }
    }

    /// Waits until everything queued is done, or until `event` is. Where the caller leaves meanwhile, kernels are told
    /// and the wait goes on until the stream is idle: what the device works on must not be handed to anybody else. Then
    /// it answers [`Failure::Stopped`]. A device that another lane has found lost is not waited for, and nor is one that
    /// hangs.
    pub(crate) fn wait(&mut self, event: Option<&Event>, context: &RunContext<'_>) -> Result<(), Failure> {
        let start = Instant::now();
        let awake = SPIN + self.expected.min(MOST_EXPECTED);
        let mut stopped = None;
        let mut looks = 0_u32;
        loop {
            looks = looks.wrapping_add(1);
            let done = match event {
                Some(event) if stopped.is_none() => event.is_reached()?,
                _ => self.is_idle()?,
            };
            if done {
                return stopped.map_or(Ok(()), |reason| Err(Failure::Stopped(reason)));
            }
            let spin = start.elapsed() < awake;
            if !spin || looks.is_multiple_of(16) {
                if let Some(lost) = self.pool.closed() {
                    return Err(Failure::Stopped(lost.clone()));
                }
                if stopped.is_none()
                    && let Err(reason) = context.check()
                {
                    self.raise_cancel();
                    stopped = Some(reason);
                }
                self.be_patient(start)?;
            }
            if spin {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(NAP);
            }
        }
    }
}

/// A stream for each priority, in the order of [`Priority`].
///
/// Where blocks of several streams wait for room on the device, those of the highest priority are next; what runs is not
/// stopped for them. Copies are served in the order they come.
///
/// A stream is made when it is first needed. Streams share the device's few connections, and those that share one wait for
/// each other's work, so there should be no more of them than are used.
#[derive(Debug)]
struct Levels {
    driver: &'static Driver,
    numbers: [i32; 3],
    streams: [Option<CUstream>; 3],
}

impl Levels {
    /// The context must be current.
    fn new(driver: &'static Driver) -> Result<Self, Failure> {
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: both live across the call.
        let code = unsafe { (driver.cuCtxGetStreamPriorityRange)(&raw mut least, &raw mut greatest) };
        Failure::check("cuCtxGetStreamPriorityRange", code)?;
        Ok(Self { driver, numbers: between(least, greatest), streams: [None; 3] })
    }

    /// The context must be current.
    fn of(&mut self, priority: Priority) -> Result<CUstream, Failure> {
        let level = priority as usize;
        if let Some(stream) = self.streams[level] {
            return Ok(stream);
        }
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` lives across the call. 1 is CU_STREAM_NON_BLOCKING.
        let code = unsafe { (self.driver.cuStreamCreateWithPriority)(&raw mut handle, 1, self.numbers[level]) };
        Failure::check("cuStreamCreateWithPriority", code)?;
        self.streams[level] = Some(handle);
        Ok(handle)
    }
}

/// The driver's numbers for low, normal and high: lower ones are of higher priority, and there may be fewer than three.
fn between(least: i32, greatest: i32) -> [i32; 3] {
    [least, least + (greatest - least) / 2, greatest]
}

impl Drop for Levels {
    fn drop(&mut self) {
        for stream in self.streams.into_iter().flatten() {
            // SAFETY: created in `new`, destroyed once.
            unsafe { (self.driver.cuStreamDestroy_v2)(stream) };
        }
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub(crate) struct Event {
    driver: &'static Driver,
    handle: CUevent,
}

// SAFETY: an event may be used from any thread, and this handle has one owner.
unsafe impl Send for Event {}

impl Event {
    /// One to wait for.
    pub(crate) fn new(driver: &'static Driver) -> Result<Self, Failure> {
        // CU_EVENT_DISABLE_TIMING
        Self::with_flags(driver, 2)
    }

    /// One that the device writes its clock to.
    pub(crate) fn timed(driver: &'static Driver) -> Result<Self, Failure> {
        Self::with_flags(driver, 0)
    }

    fn with_flags(driver: &'static Driver, flags: u32) -> Result<Self, Failure> {
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` lives across the call.
        Failure::check("cuEventCreate", unsafe { (driver.cuEventCreate)(&raw mut handle, flags) })?;
        Ok(Self { driver, handle })
    }

    /// Marks the end of what has been queued so far.
    pub(crate) fn record(&self, stream: &mut Stream) -> Result<(), Failure> {
        // SAFETY: both handles live.
        stream.queue("cuEventRecord", |driver, stream| unsafe { (driver.cuEventRecord)(self.handle, stream) })
    }

    fn is_reached(&self) -> Result<bool, Failure> {
        // SAFETY: the event lives as long as `self`.
        match unsafe { (self.driver.cuEventQuery)(self.handle) } {
            SUCCESS => Ok(true),
            NOT_READY => Ok(false),
            code => Err(Failure::Call { call: "cuEventQuery", code }),
        }
    }

    /// The device's time from `earlier` to here; `None` where it has not come here yet. Both are timed, and recorded in
    /// this order in one stream.
    pub(crate) fn since(&self, earlier: &Self) -> Result<Option<Duration>, Failure> {
        let mut milliseconds = 0.0;
        // SAFETY: `milliseconds` lives across the call, and both events as long as what refers to them.
        match unsafe { (self.driver.cuEventElapsedTime)(&raw mut milliseconds, earlier.handle, self.handle) } {
            SUCCESS => Ok(Some(Duration::try_from_secs_f32(milliseconds / 1e3).unwrap_or_default())),
            NOT_READY => Ok(None),
            code => Err(Failure::Call { call: "cuEventElapsedTime", code }),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { (self.driver.cuEventDestroy_v2)(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::between;
    use crate::request::Priority;

    #[test]
    fn a_higher_priority_is_never_a_higher_number() {
        assert_eq!(between(0, -5), [0, -2, -5]);
        assert_eq!(between(0, -1), [0, 0, -1]);
        assert_eq!(between(0, 0), [0, 0, 0], "a device without priorities");
        assert_eq!([Priority::Low, Priority::Normal, Priority::High].map(|level| level as usize), [0, 1, 2]);
    }
}
