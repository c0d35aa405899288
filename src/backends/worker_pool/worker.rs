//! The thread of a lane, and how a job is run, there or on the caller's own thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::fair::Charge;
use super::queue::Exit;
use super::{Admission, MemoryBudget, Profile, Reservation, State, Task, Worker};
use crate::panics::catch_panic;
use crate::request::{Execution, RequestContext};
use crate::service::{Answers, Failed, Job, KernelError, KernelResponse, Payload, Progress, Returned, RunContext};

type Answer = Result<KernelResponse, KernelError>;

pub(super) fn spawn<W: Worker>(
    index: usize,
    worker: W,
    profile: Profile,
    queue: Exit<Task>,
    memory_budget: Option<Arc<MemoryBudget>>,
    state: Arc<State>,
) -> io::Result<()> {
    let name = profile.thread_name(&format!("lane-{index}"));
    let alive = Alive::new(state, queue);
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        // In this order, so that the worker has gone before the lane counts as ended.
        let alive = alive;
        let mut worker = worker;
        let Alive { state, queue } = &alive;
        let mut pause = FIRST_PAUSE;
        // Kernels' panics are caught further in. What gets here is of something that a request brings along, or a defect
        // of ours: it costs the request at hand, and the worker begins anew with the next.
        while let Err(panicked) = catch_panic(|| {
            while let Some((task, charge)) = queue.next() {
                let charged = Charged::new(queue, charge);
                let worked = work_on(task, &mut worker, &profile, memory_budget.as_ref(), state);
                // Before the answer, so that whoever asks again is charged for what it has had.
                drop(charged);
                if let Some((task, result)) = worked {
                    task.answer(result);
                }
                pause = FIRST_PAUSE;
            }
        }) {
            state.worker_panicked(&name, &panicked);
            restart(&mut worker, &name, state, &mut pause);
        }
    })?;
    Ok(())
}

/// A job that a share is charged for, until it ends, by a panic too.
struct Charged<'a> {
    queue: &'a Exit<Task>,
    charge: Option<Charge>,
    begun: Instant,
}

impl<'a> Charged<'a> {
    fn new(queue: &'a Exit<Task>, charge: Charge) -> Self {
        Self { queue, charge: Some(charge), begun: Instant::now() }
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            self.queue.done(charge, self.begun.elapsed());
        }
    }
}

/// How long a worker waits before it is restarted, where it has done a job well since the last time, and at most. The pause
/// doubles each time, so that a worker that panics at every job restarts ten times a second and not as fast as it can.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Makes a worker that has panicked usable again, however often that takes. It takes no jobs meanwhile.
#[cold]
fn restart<W: Worker>(worker: &mut W, name: &str, state: &State, pause: &mut Duration) {
    state.restarting.fetch_add(1, Ordering::Relaxed);
    loop {
        std::thread::sleep(*pause);
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        match catch_panic(|| worker.recover()) {
            Err(panicked) if state.closed().is_none() => state.worker_panicked(name, &panicked),
            // A pool that has ended has no jobs to run.
            Ok(()) | Err(_) => break,
        }
    }
    state.restarting.fetch_sub(1, Ordering::Relaxed);
}

/// Runs a task, or sets it aside, and then it is not there any more.
fn work_on<W: Worker>(
    mut task: Task,
    worker: &mut W,
    profile: &Profile,
    memory_budget: Option<&Arc<MemoryBudget>>,
    state: &State,
) -> Option<(Task, Answer)> {
    let started = Instant::now();
    if let Some(reason) = state.closed() {
        return Some((task, Err(reason.clone())));
    }
    let reservation = task.reservation.take();
    let prepared = task.run(|job, context| prepare(worker, job, context));
    if let Err(error) = prepared {
        return Some((task, Err(error)));
    }
    let expected = task.job.cost().map_or(Duration::ZERO, |cost| profile.time(cost));
    task.slot.expect(expected);
    let needed = worker.needs(&task.job);
    let reservation = match (memory_budget, reservation) {
        (Some(memory_budget), None) if needed > 0 => match memory_budget.request(needed, task) {
            Admission::Admitted(granted, reservation) => {
                task = granted;
                Some(reservation)
            }
            Admission::Queued => return None,
            Admission::TooLarge(task) => {
                let free = memory_budget.capacity();
                return Some((task, Err(KernelError::OutOfMemory { need: needed, free, total: free })));
            }
        },
        (_, reservation) => reservation,
    };
    let accepted = task.accepted;
    task.started = true;
    let result = task.run(|job, context| execute(worker, profile, job, [accepted, started], context, reservation));
    Some((task, result))
}

impl Task {
    /// In the span of its request.
    fn run<R>(&mut self, work: impl FnOnce(&mut Job, &RunContext<'_>) -> R) -> R {
        let progress = self.job.extensions().get::<Progress>().cloned();
        let memory = self.job.memory().cloned();
        let context = RunContext::new(Some(&self.reply), self.job.deadline());
        let context = context.watched_by(progress.as_ref()).with_memory(memory.as_ref());
        self.span.in_scope(|| work(&mut self.job, &context))
    }

    /// What becomes of a task that no pool takes.
    pub(super) fn into_failed(self, error: KernelError) -> Failed {
        let Self { job, accepted, started, .. } = self;
        Failed { error, job: Some(Box::new(Returned { job, accepted, started })) }
    }

    pub(super) fn answer(self, result: Answer) {
        let Self { job, reply, accepted, span, slot, started, reservation } = self;
        // The input may be large and the caller may measure: what the job held is free before its answer is out. But for
        // a job that lost its pool: it may be of use in another.
        let result = match result {
            Ok(response) => {
                drop(job);
                Ok(response)
            }
            Err(error @ (KernelError::DeviceLost { .. } | KernelError::Stopped { .. })) => {
                Err(Failed { error, job: Some(Box::new(Returned { job, accepted, started })) })
            }
            Err(error) => {
                drop(job);
                Err(error.into())
            }
        };
        drop(span);
        drop(reservation);
        drop(slot);
        // The caller may have left meanwhile; nobody is there to be told then.
        let _ = reply.send(result);
    }
}

/// A lane's thread. The last one to end takes the pool with it, however it ends, so that nobody waits for a slot that
/// no lane will ever free.
struct Alive {
    state: Arc<State>,
    queue: Exit<Task>,
}

impl Alive {
    fn new(state: Arc<State>, queue: Exit<Task>) -> Self {
        state.alive.fetch_add(1, Ordering::Relaxed);
        Self { state, queue }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.state.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.state.close(KernelError::Stopped { backend: self.state.backend.as_str() });
            fence(Ordering::SeqCst);
            self.state.refuse(&self.queue);
        }
    }
}

/// Runs a job to its end on this thread.
pub(super) fn run_inline<W: Worker>(
    worker: &mut W,
    profile: &Profile,
    job: &mut Job,
    accepted: Instant,
    context: &RunContext<'_>,
) -> Answer {
    let started = Instant::now();
    prepare(worker, job, context)?;
    execute(worker, profile, job, [accepted, started], context, None)
}

/// Decodes and checks what has not been yet.
fn prepare<W: Worker>(worker: &mut W, job: &mut Job, context: &RunContext<'_>) -> Result<(), KernelError> {
    not_started(context)?;
    guarded(worker, |worker| job.prepare(None, worker.pinned_memory()))
}

fn execute<W: Worker>(
    worker: &mut W,
    profile: &Profile,
    job: &Job,
    [accepted, started]: [Instant; 2],
    context: &RunContext<'_>,
    reservation: Option<Reservation>,
) -> Answer {
    let mut execution = Execution::new(profile.backend.as_str());
    // No machine has as many as do not fit.
    execution.device = profile.device.and_then(|device| u16::try_from(device).ok());
    execution.queued = started - accepted;
    context.set_estimate(|| job.cost().map_or(Duration::ZERO, |cost| profile.time(cost)));
    execution.batch_size = job.members().map_or(1, |members| u32::try_from(members.len()).unwrap_or(u32::MAX));
    let payload = guarded(worker, |worker| {
        job.reserve_run()?;
        worker.run(job, job.encoding(), context, reservation)
    });
    let payload = match (payload, job.members()) {
        (Err(error), Some(members)) if is_of_one(&error) => {
            execution.batch_size = 1;
            run_each(worker, members, context)?
        }
        (payload, _) => payload?,
    };
    execution.executed = started.elapsed();
    execution.device_times = worker.take_times(job);
    execution.estimated = job.cost().map_or(Duration::ZERO, |cost| profile.time(cost));
    let memory = job.split_response(&payload);
    Ok(KernelResponse::new(payload, execution).with_memory(memory))
}

/// Whether one of those who share a run may be why it has failed.
fn is_of_one(error: &KernelError) -> bool {
    use KernelError::{Device, Encode, InvalidInput, Kernel, OutOfMemory, Panicked};
    matches!(error, InvalidInput(_) | OutOfMemory { .. } | Panicked { .. } | Encode(_) | Device(_) | Kernel(_))
}

/// Runs those alone that have failed together, so that nobody fails but who has to.
fn run_each<W: Worker>(worker: &mut W, members: &[Job], context: &RunContext<'_>) -> Result<Payload, KernelError> {
    let mut answers = Vec::with_capacity(members.len());
    for job in members {
        let own = context.until(job.deadline()).with_memory(job.memory());
        let answer = not_started(&own).and_then(|()| {
            guarded(worker, |worker| {
                job.reserve_run()?;
                let payload = worker.run(job, job.encoding(), &own, None)?;
                let memory = job.split_response(&payload);
                Ok((payload, memory))
            })
        });
        match answer {
            // It is the others' as well.
            Err(error @ (KernelError::Cancelled | KernelError::DeviceLost { .. } | KernelError::Stopped { .. })) => {
                return Err(error);
            }
            answer => answers.push(answer),
        }
    }
    Ok(Answers::into_payload(answers))
}

/// Whether to begin.
pub(super) fn not_started(context: &RunContext<'_>) -> Result<(), KernelError> {
    match context.check() {
        Err(KernelError::DeadlineExceeded { .. }) => Err(KernelError::DeadlineExceeded { started: false }),
        other => other,
    }
}

fn guarded<W: Worker, R>(
    worker: &mut W,
    work: impl FnOnce(&mut W) -> Result<R, KernelError>,
) -> Result<R, KernelError> {
    catch_panic(|| work(worker)).unwrap_or_else(|panicked| {
        worker.recover();
        Err(KernelError::Panicked { message: panicked.into_message() })
    })
}
