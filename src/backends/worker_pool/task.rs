//! A job in a pool, and how it ends.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::Span;

use super::{Permit, Reservation};
use crate::service::{Job, KernelError, KernelResponse, RunContext};

/// A job in a pool's queue or on a worker.
pub(crate) struct Task {
    pub(super) job: Job,
    /// Closed once the caller has dropped its future.
    pub(super) response: oneshot::Sender<JobResult>,
    /// When the first pool accepted it.
    pub(super) accepted: Instant,
    /// The span of the request.
    pub(super) span: Span,
    pub(super) permit: Permit,
    /// Whether the kernel's code has started.
    pub(super) started: bool,
    /// The device memory that it had to wait for.
    pub(super) reservation: Option<Reservation>,
}

pub(crate) type JobResult = Result<KernelResponse, JobError>;

/// The error of a job.
#[derive(Debug)]
pub(crate) struct JobError {
    pub(crate) error: KernelError,
    /// The job itself, if another pool can still run it: its pool has closed, its kernel has no code for the input there, or
    /// its run took longer than it was meant to take there.
    pub(crate) requeued: Option<Box<Requeued>>,
}

/// A job that a pool hands back, to be run by another one.
#[derive(Debug)]
pub(crate) struct Requeued {
    pub(crate) job: Job,
    /// When the first pool accepted it.
    pub(crate) accepted: Instant,
    /// Whether the kernel's code has started.
    pub(crate) started: bool,
}

impl From<KernelError> for JobError {
    fn from(error: KernelError) -> Self {
        Self { error, requeued: None }
    }
}

impl Task {
    /// Calls `run` in the span of the request, with a context that is cancelled with the caller's future.
    pub(super) fn run<R>(&mut self, run: impl FnOnce(&mut Job, &RunContext<'_>) -> R) -> R {
        let Self { job, response, span, .. } = self;
        let is_cancelled = || response.is_closed();
        span.in_scope(|| job.with_context(Some(&is_cancelled), run))
    }

    /// Hands the job back with the error of its pool.
    pub(super) fn into_error(self, error: KernelError) -> JobError {
        let Self { job, accepted, started, .. } = self;
        JobError { error, requeued: Some(Box::new(Requeued { job, accepted, started })) }
    }

    /// Sends the result to the caller.
    pub(super) fn complete(self, result: Result<KernelResponse, KernelError>) {
        let Self { job, response, accepted, span, permit, started, reservation } = self;
        // What the job holds is released before the caller sees the result, as the input may be large and the caller may
        // read gauges. But a job that another pool can run goes with its error.
        let result = match result {
            Ok(output) => {
                drop(job);
                Ok(output)
            }
            Err(
                error @ (KernelError::DeviceLost { .. }
                | KernelError::Stopped { .. }
                | KernelError::UnsupportedBackend { .. }),
            ) => Err(JobError { error, requeued: Some(Box::new(Requeued { job, accepted, started })) }),
            Err(error @ KernelError::DeadlineExceeded { .. }) if job.reached_run_limit() => {
                Err(JobError { error, requeued: Some(Box::new(Requeued { job, accepted, started })) })
            }
            Err(error) => {
                drop(job);
                Err(error.into())
            }
        };
        drop(span);
        drop(reservation);
        drop(permit);
        // It fails only if the request was cancelled meanwhile.
        let _ = response.send(result);
    }
}
