use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::coop;

use super::worker::run_inline;
use super::{JobError, JobResult, Permit, PoolHandle, Requeued, Task, WorkerPool};
use crate::backends::cpu::CpuWorker;
use crate::service::{Job, KernelError, KernelResponse, Offloaded};

/// The response future of a backend of this process.
///
/// Nothing happens before the first poll. Dropping the future cancels the job: before the first poll it is never decoded,
/// while it is queued it is never started, and while it runs the kernel is told to stop. The permit is released once the
/// kernel has stopped.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct RunFuture {
    // Dropped before the pool: dropping the pool waits for kernels, which must have been cancelled by then.
    state: State,
    pool: Arc<WorkerPool>,
}

#[derive(Debug)]
enum State {
    New(Job, Permit),
    /// A codec thread decodes the input.
    Decoding(Offloaded<Job>, Permit),
    /// Handed back by another pool.
    Requeued(Box<Requeued>, Permit),
    Queued(oneshot::Receiver<JobResult>),
    /// The job was lost. Every further poll returns the error again.
    Failed(KernelError),
    Done,
}

impl RunFuture {
    /// Runs a job with the permit that the handle has reserved.
    pub(crate) fn new(handle: &mut PoolHandle, job: Job) -> Self {
        Self { pool: Arc::clone(handle.pool()), state: State::New(job, handle.take_permit()) }
    }

    /// Runs a job that another pool has handed back, with the permit that the handle has reserved.
    pub(crate) fn resume(handle: &mut PoolHandle, requeued: Box<Requeued>) -> Self {
        Self { pool: Arc::clone(handle.pool()), state: State::Requeued(requeued, handle.take_permit()) }
    }

    pub(crate) fn pool(&self) -> &Arc<WorkerPool> {
        &self.pool
    }

    /// Runs a small job on this thread and queues any other.
    fn start(
        &self,
        mut job: Job,
        mut permit: Permit,
        accepted: Instant,
    ) -> ControlFlow<JobResult, oneshot::Receiver<JobResult>> {
        let profile = self.pool.profile();
        if let Err(error) = job.prepare(None) {
            return ControlFlow::Break(Err(error.into()));
        }
        let time = profile.predict(&job).unwrap_or_default();
        // A run with a limit may be moved when it ends there.
        if job.run_limit().is_none() && profile.runs_inline(&job, time) {
            let result = job
                .with_context(None, |job, context| run_inline(&mut CpuWorker, profile, job, accepted, time, context));
            return ControlFlow::Break(result.map_err(JobError::from));
        }
        permit.set_predicted(time);
        let polls = !profile.busy_poll.is_zero() && self.pool.in_flight() == 1 && time <= profile.busy_poll;
        let (response, mut result) = oneshot::channel();
        let span = tracing::Span::current();
        let task = Task { job, response, accepted, span, permit, started: false, reservation: None };
        if let Some(task) = self.pool.submit(task) {
            return ControlFlow::Break(Err(task.into_error(self.pool.state().closed_error())));
        }
        match polls.then(|| busy_poll(&mut result, profile.busy_poll)).flatten() {
            Some(result) => ControlFlow::Break(result),
            None => ControlFlow::Continue(result),
        }
    }

    /// Polls for the result. If the pool has closed, the error holds the job for another pool to run.
    pub(crate) fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<JobResult> {
        loop {
            let started = match std::mem::replace(&mut self.state, State::Done) {
                State::New(mut job, permit) => {
                    // A task that runs one inline kernel after another has to yield from time to time.
                    let Poll::Ready(budget) = coop::poll_proceed(cx) else {
                        self.state = State::New(job, permit);
                        return Poll::Pending;
                    };
                    budget.made_progress();
                    let profile = self.pool.profile();
                    if let Err(error) = job.prepare(Some(profile.inline)) {
                        return Poll::Ready(Err(error.into()));
                    }
                    if !job.is_prepared() {
                        match job.offload_prepare(profile.pinned_memory.clone()) {
                            Ok(decoding) => self.state = State::Decoding(decoding, permit),
                            Err(error) => return Poll::Ready(Err(error.into())),
                        }
                        continue;
                    }
                    self.start(job, permit, Instant::now())
                }
                State::Decoding(mut decoding, permit) => match Pin::new(&mut decoding).poll(cx) {
                    Poll::Pending => {
                        self.state = State::Decoding(decoding, permit);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(job)) => self.start(job, permit, Instant::now()),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                },
                State::Requeued(requeued, permit) => {
                    let Requeued { job, accepted, .. } = *requeued;
                    self.start(job, permit, accepted)
                }
                State::Queued(mut result) => {
                    let Poll::Ready(received) = Pin::new(&mut result).poll(cx) else {
                        self.state = State::Queued(result);
                        return Poll::Pending;
                    };
                    match received {
                        Ok(result) => return Poll::Ready(result),
                        Err(_) => self.state = State::Failed(self.pool.state().dropped_job_error()),
                    }
                    continue;
                }
                State::Failed(error) => {
                    self.state = State::Failed(error.clone());
                    return Poll::Ready(Err(error.into()));
                }
                State::Done => panic!("`RunFuture` polled after completion"),
            };
            match started {
                ControlFlow::Continue(result) => self.state = State::Queued(result),
                ControlFlow::Break(result) => return Poll::Ready(result),
            }
        }
    }
}

impl Future for RunFuture {
    type Output = Result<KernelResponse, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_result(cx).map_err(|failed| failed.error)
    }
}

/// Polls for a result that is about to come, for at most `timeout`: that is faster than being woken for it.
fn busy_poll(result: &mut oneshot::Receiver<JobResult>, timeout: Duration) -> Option<JobResult> {
    let start = Instant::now();
    while start.elapsed() < timeout {
        if let Ok(result) = result.try_recv() {
            return Some(result);
        }
        std::hint::spin_loop();
    }
    None
}
