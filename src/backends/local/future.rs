//! The future of a job on one of the machine's pools.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::device_set::{Berth, Fleet, Way};
use crate::backends::worker_pool::{RunFuture, Slot};
use crate::request::RequestContext;
use crate::service::{KernelError, KernelResponse, Returned};

/// A job that runs on a backend of [`Local`](super::Local), and on another where that one is lost.
///
/// It is as [`RunFuture`] otherwise: nothing happens before the first poll, and dropping it cancels the job wherever it is.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct LocalFuture {
    run: RunFuture,
    fleet: Arc<Fleet>,
    /// Set while the job is between two backends.
    moving: Option<Box<Moving>>,
}

/// A job without a backend. It waits for a slot like any other.
#[derive(Debug)]
struct Moving {
    returned: Box<Returned>,
    /// Why it lost the backend before.
    lost: KernelError,
    way: Way,
    berth: Berth,
    cpu: Slot,
}

impl LocalFuture {
    pub(super) fn new(run: RunFuture, fleet: &Arc<Fleet>) -> Self {
        Self { run, fleet: Arc::clone(fleet), moving: None }
    }

    /// Follows a job that has been given back, to its next slot. `Err` where there is no way on.
    fn poll_moving(&mut self, moving: &mut Moving, cx: &mut Context<'_>) -> Poll<Result<Slot, KernelError>> {
        loop {
            let job = &moving.returned.job;
            if job.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                return Poll::Ready(Err(KernelError::DeadlineExceeded { started: moving.returned.started }));
            }
            match moving.way {
                Way::Cpu => {
                    ready!(moving.cpu.poll_reserve(cx))?;
                    return Poll::Ready(Ok(std::mem::replace(
                        &mut moving.cpu,
                        Slot::new(Arc::clone(self.fleet.cpu())),
                    )));
                }
                Way::Device => {
                    ready!(moving.berth.poll_reserve(&self.fleet, cx));
                    match moving.berth.take() {
                        Some(slot) => return Poll::Ready(Ok(slot)),
                        // The last of them is gone, too.
                        None => match self.fleet.way(self.run.lanes(), &moving.returned) {
                            Some(way) => moving.way = way,
                            None => return Poll::Ready(Err(moving.lost.clone())),
                        },
                    }
                }
            }
        }
    }
}

impl Future for LocalFuture {
    type Output = Result<KernelResponse, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(mut moving) = self.moving.take() {
                match self.poll_moving(&mut moving, cx) {
                    Poll::Ready(Ok(mut slot)) => self.run = RunFuture::again(&mut slot, moving.returned),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.moving = Some(moving);
                        return Poll::Pending;
                    }
                }
            }
            let failed = match ready!(self.run.poll_answer(cx)) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(failed) => failed,
            };
            let way = failed.job.as_ref().and_then(|job| self.fleet.way(self.run.lanes(), job));
            let (Some(returned), Some(way)) = (failed.job, way) else { return Poll::Ready(Err(failed.error)) };
            tracing::debug!(kernel = returned.job.operation(), ?way, "moved off a device that is lost");
            let cpu = Slot::new(Arc::clone(self.fleet.cpu()));
            self.moving = Some(Box::new(Moving { returned, lost: failed.error, way, berth: Berth::default(), cpu }));
        }
    }
}
