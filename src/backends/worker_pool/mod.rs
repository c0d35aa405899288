//! [`WorkerPool`]: a bounded queue and the OS threads that run its jobs. The CPU and each CUDA device have one.
//!
//! ```text
//! poll_ready: reserve a permit -> call -> first poll: decode and validate -> queue -> worker: run the kernel
//!                   ^                                                                     |
//!                   +------------------- release the permit when the work has ended <-----+
//! ```
//! The queue is fair among the [shares](crate::request::Share) of its jobs by run time, and ordered by priority within a
//! share, so a share with many queued jobs delays no other.
//!
//! There are as many permits as workers and queue positions together, so handing a job over never blocks. The job's
//! response channel also carries its cancellation: the receiver is dropped with the response future.
//!
//! On a device whose memory is limited, a job that needs more than is free waits without its worker, which runs the next one.
//! The waiting job keeps its permit and goes to the front of the queue once the [`memory_budget`] has granted its memory.

mod future;
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only the memory of devices is limited"))]
pub(crate) mod memory_budget;
mod permit;
mod profile;
mod reaper;
mod status;
mod task;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use self::future::RunFuture;
use self::memory_budget::Admission;
pub use self::permit::PoolLoad;
pub(crate) use self::permit::{Permit, PoolHandle};
pub(crate) use self::profile::Profile;
pub use self::status::PoolStatus;
pub(crate) use self::task::{JobError, JobResult, Requeued, Task};
pub(crate) use self::worker::Worker;
use crate::fair_queue::{self, QueueKey, Receiver, Sender};
use crate::panics::{LogLimit, Panicked};
use crate::request::RequestContext;
use crate::service::{BackendKind, Cost, KernelError, OperandVersion};

/// The memory of a device that the jobs of a pool share, and a part of it.
pub(crate) type MemoryBudget = memory_budget::MemoryBudget<Task>;
pub(crate) type Reservation = memory_budget::Reservation<Task>;

/// A bounded queue and the worker threads that run its jobs. Once it is dropped, the workers finish the queued jobs and end.
pub(crate) struct WorkerPool {
    profile: Profile,
    /// `None` only during the drop.
    sender: Option<Sender<Task>>,
    /// To count the queued jobs, and to fail them once the pool has closed.
    receiver: Receiver<Task>,
    memory_budget: Option<Arc<MemoryBudget>>,
    state: Arc<PoolState>,
    workers: usize,
    capacity: usize,
    missing_bytes: OnceLock<MissingBytes>,
    on_first_job: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Returns the bytes of an operand that the pool's device has no copy of.
type MissingBytes = Box<dyn Fn(&OperandVersion) -> u64 + Send + Sync>;

/// The state that the workers, services and futures of a pool share.
#[derive(Debug)]
pub(crate) struct PoolState {
    permits: Arc<Semaphore>,
    closed: OnceLock<KernelError>,
    /// Workers whose thread has not ended.
    alive: AtomicUsize,
    /// Workers that are being restarted after a panic and take no jobs.
    restarting: AtomicUsize,
    restarts: AtomicU64,
    /// The sum of the predicted run times of all jobs that hold a permit, in nanoseconds.
    predicted: AtomicU64,
    backend: BackendKind,
}

impl PoolState {
    fn new(backend: BackendKind) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(0)),
            closed: OnceLock::new(),
            alive: AtomicUsize::new(0),
            restarting: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            predicted: AtomicU64::new(0),
            backend,
        }
    }

    /// Closes the pool: from now on readiness and every job that has not started fail with `reason`.
    pub(crate) fn close(&self, reason: KernelError) {
        // The first reason is the cause; later ones are its consequences.
        let _ = self.closed.set(reason);
        self.permits.close();
    }

    /// Fails all jobs in the queue of a closed pool.
    fn fail_queued(&self, queue: &Receiver<Task>) {
        while let Some(task) = queue.try_recv() {
            task.complete(Err(self.closed_error()));
        }
    }

    /// Returns why the pool has closed; `None` while it is open.
    pub(crate) fn closed(&self) -> Option<&KernelError> {
        self.closed.get()
    }

    /// Returns the error for a job of a closed pool.
    pub(crate) fn closed_error(&self) -> KernelError {
        self.closed().cloned().unwrap_or(KernelError::Stopped { backend: self.backend.as_str() })
    }

    /// Returns the error for a job that was dropped without a result: by the closed pool, or by a worker that panicked outside
    /// of the kernel.
    fn dropped_job_error(&self) -> KernelError {
        let panicked = || KernelError::Panicked { message: "the worker that had the request panicked".to_owned() };
        self.closed().cloned().unwrap_or_else(panicked)
    }

    /// Counts and logs a worker's panic.
    fn worker_panicked(&self, worker: &str, panicked: &Panicked) {
        static LIMIT: LogLimit = LogLimit::new();
        self.restarts.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = LIMIT.next() {
            tracing::error!(worker, panic = %panicked, left_out, "a worker panicked and is restarted");
        }
    }
}

impl WorkerPool {
    /// Starts a thread for each worker, with a queue of `queue` positions. `workers` gets the pool's state, for workers that
    /// can close the pool. A `memory_budget` must belong to this pool alone.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start<W: Worker>(
        profile: Profile,
        queue: usize,
        memory_budget: Option<Arc<MemoryBudget>>,
        workers: impl FnOnce(&Arc<PoolState>) -> Result<Vec<W>, KernelError>,
    ) -> Result<Self, KernelError> {
        let state = Arc::new(PoolState::new(profile.backend));
        let workers = workers(&state)?;
        let count = workers.len();
        let capacity = count + queue;
        state.permits.add_permits(capacity);
        let (sender, receiver) = fair_queue::channel(capacity, profile.idle_spin);
        let failed = |error| KernelError::Device(format!("a worker thread could not be started: {error}"));
        for (index, worker) in workers.into_iter().enumerate() {
            worker::spawn(index, worker, profile.clone(), receiver.clone(), memory_budget.clone(), Arc::clone(&state))
                .map_err(failed)?;
        }
        // From here on, dropping the pool ends the threads.
        let pool = Self {
            profile,
            sender: Some(sender),
            receiver,
            memory_budget,
            state,
            workers: count,
            capacity,
            missing_bytes: OnceLock::new(),
            on_first_job: OnceLock::new(),
        };
        if let (Some(memory_budget), Some(sender)) = (&pool.memory_budget, &pool.sender) {
            let requeue = sender.requeue();
            memory_budget.on_admitted(move |task, reservation| {
                let share = task.job.share().unwrap_or_default();
                requeue.send(Task { reservation: Some(reservation), ..task }, share);
            });
            reaper::spawn(&pool.profile, Arc::clone(memory_budget), Arc::clone(&pool.state)).map_err(failed)?;
        }
        Ok(pool)
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn state(&self) -> &Arc<PoolState> {
        &self.state
    }

    /// Returns whether the pool has not closed.
    pub(crate) fn is_open(&self) -> bool {
        self.state.closed().is_none()
    }

    /// Returns the number of jobs that hold a permit, running ones included.
    pub(crate) fn in_flight(&self) -> usize {
        self.capacity - self.state.permits.available_permits()
    }

    pub(crate) fn load(&self) -> PoolLoad {
        let predicted = Duration::from_nanos(self.state.predicted.load(Ordering::Relaxed));
        PoolLoad { predicted, jobs: self.in_flight() }
    }

    /// Sets how to find out which bytes of an operand the pool's device has no copy of. Called once.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn on_missing_bytes(&self, missing_bytes: impl Fn(&OperandVersion) -> u64 + Send + Sync + 'static) {
        assert!(self.missing_bytes.set(Box::new(missing_bytes)).is_ok(), "the callback of a pool is set once");
    }

    /// Sets what to do just before a job is queued while there is no other. Called once.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub(crate) fn on_first_job(&self, on_first_job: impl Fn() + Send + Sync + 'static) {
        assert!(self.on_first_job.set(Box::new(on_first_job)).is_ok(), "the callback of a pool is set once");
    }

    /// Returns the bytes of these operands that the pool's device has no copy of.
    pub(crate) fn missing_bytes(&self, operands: &[&Arc<OperandVersion>]) -> u64 {
        let Some(missing) = self.missing_bytes.get() else { return 0 };
        operands.iter().map(|version| missing(version)).sum()
    }

    /// Estimates how long the pool takes to start a job on these operands: the time until a worker is free, and that of
    /// uploading what the device does not have.
    pub(crate) fn expected_start(&self, operands: &[&Arc<OperandVersion>]) -> Duration {
        let upload = self.profile.time(Cost { bytes: self.missing_bytes(operands), ..Cost::default() });
        self.wait(self.load()).saturating_add(upload)
    }

    /// Predicts how long a job waits for a worker behind the jobs of this load.
    pub(crate) fn wait(&self, others: PoolLoad) -> Duration {
        let workers = u32::try_from(self.workers).unwrap_or(u32::MAX).max(1);
        if others.jobs < self.workers { Duration::ZERO } else { others.predicted / workers }
    }

    /// Returns the number of worker threads.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// Returns a snapshot of the pool, which is approximate while jobs start and end.
    pub(crate) fn status(&self) -> PoolStatus {
        // Queued jobs are counted first: one that leaves the queue between the two readings then counts as running, and none
        // counts twice.
        let queued =
            self.receiver.len() + self.memory_budget.as_ref().map_or(0, |memory_budget| memory_budget.usage().waiting);
        let restarting = self.state.restarting.load(Ordering::Relaxed);
        PoolStatus {
            up: self.is_open(),
            workers: self.workers,
            alive: self.state.alive.load(Ordering::Relaxed).saturating_sub(restarting),
            restarts: self.state.restarts.load(Ordering::Relaxed),
            capacity: self.capacity,
            queued,
            running: self.in_flight().saturating_sub(queued),
        }
    }

    /// Queues a task; returns it if the pool has closed.
    fn submit(&self, task: Task) -> Option<Task> {
        let Some(sender) = self.sender.as_ref().filter(|_| self.is_open()) else { return Some(task) };
        let key = QueueKey { expected: task.permit.predicted(), ..task.job.queue_key() };
        if let Some(on_first_job) = self.on_first_job.get()
            && self.in_flight() == 1
        {
            on_first_job();
        }
        // Every permit has a queue position, so the queue is never full.
        if let Err(task) = sender.send(task, key) {
            return Some(task);
        }
        // The last worker may have ended since the check. It closes the pool before it empties the queue, so either it has
        // found this task or the pool is seen to be closed here.
        if !self.is_open() {
            self.state.fail_queued(&self.receiver);
        }
        None
    }
}

/// Every future of the pool holds it, so no caller waits for a result any more, and jobs that still run are being cancelled.
impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(memory_budget) = &self.memory_budget {
            memory_budget.close();
        }
        let start = Instant::now();
        while self.state.alive.load(Ordering::Acquire) > 0 && start.elapsed() < self.profile.shutdown_grace {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("profile", &self.profile)
            .field("capacity", &self.capacity)
            .field("in_flight", &self.in_flight())
            .field("closed", &self.state.closed)
            .finish_non_exhaustive()
    }
}
