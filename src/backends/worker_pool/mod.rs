//! WorkerPool: a bounded queue and the OS threads that work it off, one job at a time. The CPU and CUDA share them.
//!
//! ```text
//! poll_ready: take a slot --> call --> first poll: decode, if small --> queue --> lane: check, run, encode
//!                 ^                                                                        |
//!                 +------------- the slot is free once the lane is done with the job <-----+
//! ```
//! The queue is fair among the [shares](crate::request::Share) of its jobs, by the time that they run, and goes by priority
//! within a share: a share with many jobs in the queue holds up no other.
//!
//! There are as many slots as lanes and places in the queue together, so handing a job over never blocks. The reply
//! channel is also how the caller's leaving reaches the lane: its receiving half is dropped with the future.
//!
//! On a device whose memory is counted a lane sets a job aside that needs more than is free, and goes on to the next. It
//! keeps its slot and comes back to the front of the queue once the [`memory_budget`] has granted what it needs.

mod aside;
mod fair;
mod future;
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only a device's memory is counted"))]
mod memory_budget;
mod permit;
mod queue;
mod status;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing::Span;

use fair::Turn;
pub use future::RunFuture;
use memory_budget::Asked;
pub use permit::PoolLoad;
pub(crate) use permit::{Place, Slot};
use queue::{Entrance, Exit};
pub use status::PoolStatus;

use crate::panics::{LogLimit, Panicked};
use crate::request::{DeviceTimes, RequestContext};
use crate::service::{BackendKind, Cost, Encoding, Job, KernelError, Payload, PinnedMemory, Reply, RunContext};

/// What a lane does with a job: the part that differs between backends. Each lane has a worker of its own.
pub(crate) trait Worker: Send + 'static {
    /// Runs the job's kernel; its input has been decoded and validated. `claim` is what has been granted of what it
    /// [`needs`](Self::needs).
    fn run(
        &mut self,
        job: &Job,
        encoding: Encoding,
        context: &RunContext<'_>,
        claim: Option<Claim>,
    ) -> Result<Payload, KernelError>;

    /// What the job needs to be granted of the memory that the pool's ledger counts; 0 where it need not be asked.
    fn needs(&self, job: &Job) -> u64 {
        let _ = job;
        0
    }

    /// Host memory that the device reads on its own, to decode into.
    fn pinned_memory(&self) -> Option<&PinnedMemory> {
        None
    }

    /// What the device measured of the job that `run` has just ended well, where it was asked to.
    fn take_times(&mut self, job: &Job) -> Option<Box<DeviceTimes>> {
        let _ = job;
        None
    }

    /// Makes the worker usable again after it has panicked. It is asked again, later, where it panics itself.
    fn recover(&mut self);
}

/// What is the same for all lanes of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) backend: BackendKind,
    pub(crate) device: Option<u32>,
    /// How long a lane with nothing to do looks for work before it sleeps.
    pub(crate) spin: Duration,
    /// What costs no more than this is done on the calling thread.
    pub(crate) inline: Duration,
    /// How long the caller's thread looks for the answer of a job that costs no more than this and is alone in the
    /// pool, before it does something else.
    pub(crate) linger: Duration,
    /// How long dropping the pool waits for its lanes to end. A driver must not be in use when the process exits, which
    /// is often what comes next.
    pub(crate) farewell: Duration,
    /// What one lane moves and computes, to turn a cost into a time.
    pub(crate) bytes_per_second: f64,
    pub(crate) operations_per_second: f64,
}

impl Profile {
    pub(crate) fn time(&self, cost: Cost) -> Duration {
        cost.time(self.bytes_per_second, self.operations_per_second)
    }

    /// Linux keeps 15 bytes of a thread's name.
    fn thread_name(&self, role: &str) -> String {
        let device = self.device.map_or(String::new(), |device| device.to_string());
        format!("{}{device}-{role}", self.backend.as_str().to_lowercase())
    }
}

/// The memory of a device that is shared by the jobs of a pool, and a part of it.
pub(crate) type Ledger = memory_budget::Ledger<Task>;
pub(crate) type Claim = memory_budget::Claim<Task>;

/// A job on its way to a lane.
pub(crate) struct Task {
    job: Job,
    reply: Reply,
    accepted: Instant,
    span: Span,
    slot: Place,
    /// Whether its kernel's code has been begun.
    started: bool,
    /// What it was granted, where it had to wait for that.
    claim: Option<Claim>,
}

/// A pool of lanes. Once it is dropped the lanes finish what is queued, and end.
pub(crate) struct WorkerPool {
    profile: Profile,
    /// `None` only while it is being dropped.
    queue: Option<Entrance<Task>>,
    /// To count what waits, and to answer what is left in the queue when the pool has ended.
    rest: Exit<Task>,
    ledger: Option<Arc<Ledger>>,
    state: Arc<State>,
    lanes: usize,
    slots: usize,
}

/// What lanes, services and futures of one pool share.
#[derive(Debug)]
pub(crate) struct State {
    slots: Arc<Semaphore>,
    closed: OnceLock<KernelError>,
    /// WorkerPool whose thread has not ended.
    alive: AtomicUsize,
    /// WorkerPool that do not take jobs because they are being restarted.
    restarting: AtomicUsize,
    restarts: AtomicU64,
    /// Nanoseconds that the jobs which hold a slot are expected to take, together.
    predicted: AtomicU64,
    backend: BackendKind,
}

impl State {
    /// Ends the pool: readiness fails from now on with `reason`, and so does every job that has not started.
    pub(crate) fn close(&self, reason: KernelError) {
        // The first reason is the cause, the rest are its consequences.
        let _ = self.closed.set(reason);
        self.slots.close();
    }

    /// Answers all that is in the queue of a pool that has ended.
    fn refuse(&self, queue: &Exit<Task>) {
        while let Some(task) = queue.try_next() {
            task.answer(Err(self.error()));
        }
    }

    /// Why the pool has ended; `None` while it has not.
    pub(crate) fn closed(&self) -> Option<&KernelError> {
        self.closed.get()
    }

    /// The error of whoever finds the pool ended.
    fn error(&self) -> KernelError {
        self.closed().cloned().unwrap_or(KernelError::Stopped { backend: self.backend.as_str() })
    }

    /// The error of whose job is gone without an answer: with the pool, or with a worker that panicked outside of the
    /// kernel.
    fn lost_job(&self) -> KernelError {
        let panicked = || KernelError::Panicked { message: "the worker that had the request panicked".to_owned() };
        self.closed().cloned().unwrap_or_else(panicked)
    }

    /// Counts a worker's panic, and says so.
    #[cold]
    fn worker_panicked(&self, worker: &str, panicked: &Panicked) {
        static LIMIT: LogLimit = LogLimit::new();
        self.restarts.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = LIMIT.next() {
            tracing::error!(worker, panic = %panicked, left_out, "a worker panicked and is restarted");
        }
    }
}

impl WorkerPool {
    /// Starts a lane for each worker, before a queue of `queue` places. `workers` is given the pool's state, for those
    /// that must be able to end it. Where there is a `ledger`, it is this pool's alone.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub(crate) fn start<W: Worker>(
        profile: Profile,
        queue: usize,
        ledger: Option<Arc<Ledger>>,
        workers: impl FnOnce(&Arc<State>) -> Result<Vec<W>, KernelError>,
    ) -> Result<Self, KernelError> {
        let state = Arc::new(State {
            slots: Arc::new(Semaphore::new(0)),
            closed: OnceLock::new(),
            alive: AtomicUsize::new(0),
            restarting: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            predicted: AtomicU64::new(0),
            backend: profile.backend,
        });
        let workers = workers(&state)?;
        let lanes = workers.len();
        let slots = lanes + queue;
        state.slots.add_permits(slots);
        let (entrance, exit) = queue::queue(slots, profile.spin);
        let failed = |error| KernelError::Device(format!("a lane's thread did not start: {error}"));
        for (index, worker) in workers.into_iter().enumerate() {
            worker::spawn(index, worker, profile.clone(), exit.clone(), ledger.clone(), Arc::clone(&state))
                .map_err(failed)?;
        }
        // From here on its end is this one's.
        let this = Self { profile, queue: Some(entrance), rest: exit, ledger, state, lanes, slots };
        if let (Some(ledger), Some(queue)) = (&this.ledger, &this.queue) {
            let returns = queue.returns();
            ledger.hand_on_to(move |task, claim| {
                let share = task.job.share().unwrap_or_default();
                returns.push(Task { claim: Some(claim), ..task }, share);
            });
            aside::spawn(&this.profile, Arc::clone(ledger), Arc::clone(&this.state)).map_err(failed)?;
        }
        Ok(this)
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Jobs that hold a slot, running ones included.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots - self.state.slots.available_permits()
    }

    /// What there is to do, for who chooses between pools.
    pub(crate) fn load(&self) -> PoolLoad {
        let predicted = Duration::from_nanos(self.state.predicted.load(Ordering::Relaxed));
        PoolLoad { predicted, jobs: self.in_flight() }
    }

    /// Jobs that run at one time.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// How the pool is just now. What comes and goes meanwhile may be counted or not.
    pub(crate) fn status(&self) -> PoolStatus {
        // First what waits: who leaves the queue between the two readings then counts as running, and nobody twice.
        let queued = self.rest.len() + self.ledger.as_ref().map_or(0, |ledger| ledger.level().waiting);
        PoolStatus {
            up: self.state.closed().is_none(),
            workers: self.lanes,
            alive: self
                .state
                .alive
                .load(Ordering::Relaxed)
                .saturating_sub(self.state.restarting.load(Ordering::Relaxed)),
            restarts: self.state.restarts.load(Ordering::Relaxed),
            capacity: self.slots,
            queued,
            running: self.in_flight().saturating_sub(queued),
        }
    }

    /// Queues a task; gives it back where the pool has ended.
    fn submit(&self, task: Task) -> Option<Task> {
        match &self.queue {
            Some(queue) if self.state.closed().is_none() => {
                // A place is there for every slot, so this does not fail.
                let turn = Turn {
                    share: task.job.share().unwrap_or_default(),
                    priority: task.job.priority(),
                    expected: task.slot.expected(),
                };
                if let Err(task) = queue.push(task, turn) {
                    return Some(task);
                }
                // The last lane may have ended since; then either it sees the task, or this sees that it has ended.
                fence(Ordering::SeqCst);
                if self.state.closed().is_some() {
                    self.state.refuse(&self.rest);
                }
                None
            }
            _ => Some(task),
        }
    }
}

/// Every future of the pool holds it, so nobody waits for an answer any more, and what runs is being cancelled.
impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(ledger) = &self.ledger {
            ledger.end();
        }
        let start = Instant::now();
        while self.state.alive.load(Ordering::Acquire) > 0 && start.elapsed() < self.profile.farewell {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("profile", &self.profile)
            .field("slots", &self.slots)
            .field("in_flight", &self.in_flight())
            .field("closed", &self.state.closed)
            .finish_non_exhaustive()
    }
}
