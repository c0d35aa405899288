//! [`Worker`]: runs jobs on a thread of its own, and that thread's loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Admission, MemoryBudget, PoolState, Profile, Reservation, Task};
use crate::fair_queue::{Charge, Receiver};
use crate::panics::catch_panic;
use crate::request::{DeviceTimes, Execution};
use crate::service::{Job, KernelError, KernelResponse, OperandVersion, RunContext, Typed};

/// Runs jobs: the part of a pool that differs between backends. Each thread has a worker of its own.
pub(crate) trait Worker: Send + 'static {
    /// Runs the kernel on the job's input, which is decoded and valid. `reservation` is the device memory that was granted for
    /// what the job [`needs`](Self::needs).
    fn run(
        &mut self,
        job: &Job,
        context: &RunContext<'_>,
        reservation: Option<Reservation>,
    ) -> Result<Typed, KernelError>;

    /// Returns the bytes of the pool's limited memory that the job must be granted before it runs.
    fn needs(&self, job: &Job) -> u64 {
        let _ = job;
        0
    }

    /// Takes the device's own timing of the last successful run, if it was sampled.
    fn take_times(&mut self, job: &Job) -> Option<DeviceTimes> {
        let _ = job;
        None
    }

    /// Returns whether the device had all arrays of an operand that the last run used before that run. The CPU reads the
    /// operand itself.
    fn was_resident(&self, operand: &OperandVersion) -> bool {
        let _ = operand;
        true
    }

    /// Makes the worker usable again after a panic. It is retried later if it panics itself.
    fn recover(&mut self);
}

/// The pause before a worker restarts. It doubles with each restart in a row, so that a worker that panics at every job
/// restarts ten times a second.
const MIN_RESTART_PAUSE: Duration = Duration::from_millis(1);
const MAX_RESTART_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn spawn<W: Worker>(
    index: usize,
    worker: W,
    profile: Profile,
    queue: Receiver<Task>,
    memory_budget: Option<Arc<MemoryBudget>>,
    state: Arc<PoolState>,
) -> io::Result<()> {
    let name = profile.thread_name(&format!("worker-{index}"));
    let guard = ThreadGuard::new(state, queue);
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        // Declared first, so that the worker is dropped before the thread counts as ended.
        let guard = guard;
        let mut worker = worker;
        let ThreadGuard { state, queue } = &guard;
        let mut pause = MIN_RESTART_PAUSE;
        // Panics of kernels are caught further in. What is caught here comes from other values of a request, or from a bug in
        // this crate: it fails the current job, and the worker restarts.
        while let Err(panicked) = catch_panic(|| {
            while let Some((task, charge)) = queue.recv() {
                let charge = ChargeGuard::new(queue, charge);
                let result = run_task(task, &mut worker, &profile, memory_budget.as_ref(), state);
                // Before the result is sent, so that the caller's next job is queued behind this charge.
                drop(charge);
                if let Some((task, result)) = result {
                    task.complete(result);
                }
                pause = MIN_RESTART_PAUSE;
            }
        }) {
            state.worker_panicked(&name, &panicked);
            restart(&mut worker, &name, state, &mut pause);
        }
    })?;
    Ok(())
}

/// Makes a worker that has panicked usable again. It takes no jobs meanwhile.
fn restart<W: Worker>(worker: &mut W, name: &str, state: &PoolState, pause: &mut Duration) {
    state.restarting.fetch_add(1, Ordering::Relaxed);
    loop {
        std::thread::sleep(*pause);
        *pause = (*pause * 2).min(MAX_RESTART_PAUSE);
        match catch_panic(|| worker.recover()) {
            Err(panicked) if state.closed().is_none() => state.worker_panicked(name, &panicked),
            // A closed pool has no jobs to run.
            Ok(()) | Err(_) => break,
        }
    }
    state.restarting.fetch_sub(1, Ordering::Relaxed);
}

/// Corrects the charge to a share when its job ends, by a panic as well.
struct ChargeGuard<'a> {
    queue: &'a Receiver<Task>,
    charge: Option<Charge>,
    started: Instant,
}

impl<'a> ChargeGuard<'a> {
    fn new(queue: &'a Receiver<Task>, charge: Charge) -> Self {
        Self { queue, charge: Some(charge), started: Instant::now() }
    }
}

impl Drop for ChargeGuard<'_> {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            self.queue.complete(charge, self.started.elapsed());
        }
    }
}

/// Runs a task and returns it with its result; `None` if it waits for device memory instead.
fn run_task<W: Worker>(
    mut task: Task,
    worker: &mut W,
    profile: &Profile,
    memory_budget: Option<&Arc<MemoryBudget>>,
    state: &PoolState,
) -> Option<(Task, Result<KernelResponse, KernelError>)> {
    let started = Instant::now();
    if let Some(reason) = state.closed() {
        return Some((task, Err(reason.clone())));
    }
    let reservation = task.reservation.take();
    if let Err(error) = task.run(|_, context| context.check_before_start()) {
        return Some((task, Err(error)));
    }
    let predicted = profile.predict(&task.job).unwrap_or_default();
    task.permit.set_predicted(predicted);
    let needed = worker.needs(&task.job);
    let reservation = match (memory_budget, reservation) {
        (Some(memory_budget), None) if needed > 0 => match memory_budget.request(needed, task) {
            Admission::Admitted(granted, reservation) => {
                task = granted;
                Some(reservation)
            }
            Admission::Queued => return None,
            Admission::TooLarge(task) => {
                let total = memory_budget.capacity();
                return Some((task, Err(KernelError::OutOfMemory { need: needed, free: total, total })));
            }
        },
        (_, reservation) => reservation,
    };
    let accepted = task.accepted;
    task.started = true;
    let times = Times { accepted, started, predicted };
    let result = task.run(|job, context| run_prepared(worker, profile, job, times, context, reservation));
    Some((task, result))
}

/// Runs a job of this predicted run time from start to end on this thread.
pub(super) fn run_inline<W: Worker>(
    worker: &mut W,
    profile: &Profile,
    job: &mut Job,
    accepted: Instant,
    predicted: Duration,
    context: &RunContext<'_>,
) -> Result<KernelResponse, KernelError> {
    let started = Instant::now();
    context.check_before_start()?;
    run_prepared(worker, profile, job, Times { accepted, started, predicted }, context, None)
}

/// When a run was accepted and started, and how long it is predicted to take.
struct Times {
    accepted: Instant,
    started: Instant,
    predicted: Duration,
}

fn run_prepared<W: Worker>(
    worker: &mut W,
    profile: &Profile,
    job: &Job,
    Times { accepted, started, predicted }: Times,
    context: &RunContext<'_>,
    mut reservation: Option<Reservation>,
) -> Result<KernelResponse, KernelError> {
    context.set_estimate(|| predicted);
    let run_started = Instant::now();
    let result =
        job.run_with(context, |job, context| recovering(worker, |worker| worker.run(job, context, reservation.take())));
    let ran = run_started.elapsed();
    profile.record_length(job, predicted, ran);
    match &result {
        Ok(_) => profile.record(job, ran),
        // It would have taken longer, so the prediction stands.
        Err(KernelError::DeadlineExceeded { .. }) if job.reached_run_limit() => profile.record(job, ran.max(predicted)),
        Err(_) => {}
    }
    let (output, batch_size) = result?;
    let mut execution = Execution::new(profile.backend.as_str());
    // No machine has more devices than fit.
    execution.device = profile.device.and_then(|device| u16::try_from(device).ok());
    execution.queued = started - accepted;
    execution.executed = run_started - started + ran;
    execution.estimated = predicted;
    execution.batch_size = batch_size;
    if let Some(times) = worker.take_times(job) {
        execution.set_device_times(times);
    }
    execution.set_operands(job.operand_uses(|operand| worker.was_resident(operand)));
    Ok(job.response(output, execution))
}

/// Catches a panic of `work`, after which the worker is made usable again.
fn recovering<W: Worker, R>(
    worker: &mut W,
    work: impl FnOnce(&mut W) -> Result<R, KernelError>,
) -> Result<R, KernelError> {
    catch_panic(|| work(worker)).unwrap_or_else(|panicked| {
        worker.recover();
        Err(KernelError::Panicked { message: panicked.into_message() })
    })
}

/// Counts a worker's thread. The last one to end closes the pool, however it ends, so that no caller waits for a permit that no
/// worker will ever release.
struct ThreadGuard {
    state: Arc<PoolState>,
    queue: Receiver<Task>,
}

impl ThreadGuard {
    fn new(state: Arc<PoolState>, queue: Receiver<Task>) -> Self {
        state.alive.fetch_add(1, Ordering::Relaxed);
        Self { state, queue }
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if self.state.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.state.close(KernelError::Stopped { backend: self.state.backend.as_str() });
            self.state.fail_queued(&self.queue);
        }
    }
}
