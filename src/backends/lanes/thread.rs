//! The thread of a lane, and how a job is run, there or on the caller's own thread.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::queue::Exit;
use super::{Profile, State, Task, Worker};
use crate::service::{Context, Execution, Job, KernelError, KernelResponse, Progress, RequestContext};

pub(super) fn spawn<W: Worker>(
    index: usize,
    worker: W,
    profile: Profile,
    queue: Exit<Task>,
    state: Arc<State>,
) -> io::Result<()> {
    // Linux keeps 15 bytes of a thread's name.
    let name = match profile.device {
        Some(device) => format!("{}{device}-lane-{index}", profile.backend.as_str().to_lowercase()),
        None => format!("{}-lane-{index}", profile.backend.as_str().to_lowercase()),
    };
    let alive = Alive::new(state, queue);
    std::thread::Builder::new().name(name).spawn(move || {
        // In this order, so that the worker has gone before the lane counts as ended.
        let alive = alive;
        let mut worker = worker;
        let Alive { state, queue } = &alive;
        while let Some(task) = queue.next() {
            let Task { mut job, reply, accepted, span, slot } = task;
            let result = match state.closed() {
                Some(reason) => Err(reason.clone()),
                None => {
                    let progress = job.extensions().get::<Progress>().cloned();
                    let context = Context::new(Some(&reply), job.deadline()).watched_by(progress.as_ref());
                    span.in_scope(|| run(&mut worker, &profile, &mut job, accepted, &context))
                }
            };
            // The input may be large and the caller may measure: what the job held is free before its answer is out.
            drop(job);
            drop(span);
            drop(slot);
            // The caller may have left meanwhile; nobody is there to be told then.
            let _ = reply.send(result);
        }
    })?;
    Ok(())
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
pub(super) fn run<W: Worker>(
    worker: &mut W,
    profile: &Profile,
    job: &mut Job,
    accepted: Instant,
    context: &Context<'_>,
) -> Result<KernelResponse, KernelError> {
    let started = Instant::now();
    let mut execution = Execution::new(profile.backend.as_str());
    execution.device = profile.device;
    execution.queued = started - accepted;
    match context.check() {
        Err(KernelError::DeadlineExceeded { .. }) => return Err(KernelError::DeadlineExceeded { started: false }),
        other => other?,
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        job.prepare(None)?;
        context.set_estimate(|| job.cost().map_or(Duration::ZERO, |cost| profile.time(cost)));
        worker.run(job, job.encoding(), context)
    }));
    let payload = match outcome {
        Ok(result) => result?,
        Err(panic) => {
            worker.recover();
            return Err(KernelError::Panicked { message: message(&*panic) });
        }
    };
    execution.executed = started.elapsed();
    execution.estimated = job.cost().map_or(Duration::ZERO, |cost| profile.time(cost));
    Ok(KernelResponse::new(payload, execution))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("not with a text").to_owned()
}
