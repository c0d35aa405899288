use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::choice::{Chosen, Permits, choose};
use super::device_permit::DevicePermit;
use super::device_set::DeviceSet;
use crate::backends::worker_pool::{JobError, PoolHandle, Requeued, RunFuture, WorkerPool};
use crate::request::{BackendChoice, RequestContext};
use crate::service::{DECODE_INLINE, Job, KernelError, KernelResponse};

/// The response future of [`Local`](super::Local): a job that runs on the backend that is predicted to give the response first,
/// and on another if that one is lost or its kernel has no code for the input there.
///
/// Otherwise it is like [`RunFuture`]: nothing happens before the first poll, and dropping it cancels the job wherever it is.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct LocalFuture {
    state: State,
    devices: Arc<DeviceSet>,
    /// Why it ran where it ran, unless it was moved.
    choice: Option<Box<BackendChoice>>,
}

#[derive(Debug)]
enum State {
    /// Not polled yet, with the permits that readiness has reserved.
    New(Job, Permits),
    Running(RunFuture),
    /// Waits for a permit of another pool.
    Moving(Box<Failover>),
    /// Every further poll returns the error again.
    Failed(KernelError),
    Done,
}

/// A job that its pool has handed back and that waits for a permit of another one.
#[derive(Debug)]
struct Failover {
    requeued: Box<Requeued>,
    /// The error with which it was handed back, and the pool.
    error: KernelError,
    from: Arc<WorkerPool>,
    permit: DevicePermit,
}

impl LocalFuture {
    pub(super) fn new(job: Job, permits: Permits, devices: &Arc<DeviceSet>) -> Self {
        Self { state: State::New(job, permits), devices: Arc::clone(devices), choice: None }
    }

    /// Decodes a small input and starts the job on a backend.
    fn place(&mut self, mut job: Job, permits: Permits) -> State {
        if let Err(error) = job.prepare(Some(DECODE_INLINE), None) {
            return State::Failed(error);
        }
        match choose(&self.devices, &job, permits) {
            Ok(Chosen { mut permit, choice, limit }) => {
                self.choice = choice.map(Box::new);
                if let Some(limit) = limit {
                    job.set_run_limit(limit);
                }
                State::Running(RunFuture::new(&mut permit, job))
            }
            Err(error) => State::Failed(error),
        }
    }

    /// Moves a job that failed on a pool to another one that can still run it.
    fn move_on(&mut self, from: &Arc<WorkerPool>, failed: JobError) -> State {
        let JobError { error, requeued } = failed;
        let Some(mut requeued) = requeued else { return State::Failed(error) };
        let kind = match &self.choice {
            Some(choice) if requeued.job.remove_run_limit() && from.is_open() => Some(choice.predicted[1].0),
            _ => self.devices.failover(from, &requeued, &error),
        };
        let Some(kind) = kind else { return State::Failed(error) };
        tracing::debug!(
            kernel = requeued.job.operation(),
            backend = kind.as_str(),
            %error,
            "moving a job to another backend"
        );
        self.choice = None;
        let (from, permit) = (Arc::clone(from), DevicePermit::new(kind));
        State::Moving(Box::new(Failover { requeued, error, from, permit }))
    }
}

impl Failover {
    /// Waits for a permit of another pool. Fails if no pool is left that can run the job.
    fn poll_permit(&mut self, devices: &DeviceSet, cx: &mut Context<'_>) -> Poll<Result<PoolHandle, KernelError>> {
        let Self { requeued, error, from, permit } = self;
        loop {
            if requeued.job.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                return Poll::Ready(Err(KernelError::DeadlineExceeded { started: requeued.started }));
            }
            ready!(permit.poll_reserve(devices, cx));
            if let Some(handle) = permit.take() {
                return Poll::Ready(Ok(handle));
            }
            // The last pool of that kind has closed as well.
            match devices.failover(from, requeued, error).filter(|&kind| kind != permit.kind()) {
                Some(kind) => *permit = DevicePermit::new(kind),
                None => return Poll::Ready(Err(error.clone())),
            }
        }
    }
}

impl Future for LocalFuture {
    type Output = Result<KernelResponse, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::New(job, permits) => self.state = self.place(job, permits),
                State::Running(mut run) => match run.poll_result(cx) {
                    Poll::Pending => {
                        self.state = State::Running(run);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(mut response)) => {
                        if let Some(choice) = self.choice.take() {
                            response.execution.set_choice(*choice);
                        }
                        return Poll::Ready(Ok(response));
                    }
                    Poll::Ready(Err(failed)) => self.state = self.move_on(run.pool(), failed),
                },
                State::Moving(mut failover) => match failover.poll_permit(&self.devices, cx) {
                    Poll::Pending => {
                        self.state = State::Moving(failover);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(mut handle)) => {
                        self.state = State::Running(RunFuture::resume(&mut handle, failover.requeued));
                    }
                    Poll::Ready(Err(error)) => self.state = State::Failed(error),
                },
                State::Failed(error) => {
                    self.state = State::Failed(error.clone());
                    return Poll::Ready(Err(error));
                }
                State::Done => panic!("`LocalFuture` polled after completion"),
            }
        }
    }
}
