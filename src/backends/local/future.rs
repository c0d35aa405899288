use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::device_permit::DevicePermit;
use super::device_set::DeviceSet;
use crate::backends::worker_pool::{PoolHandle, Requeued, RunFuture};
use crate::request::RequestContext;
use crate::service::{KernelError, KernelResponse};

/// The response future of [`Local`](super::Local): a job that runs on one of its devices, and on another if that one is lost
/// or its kernel has no code for the input there.
///
/// Otherwise it is like [`RunFuture`]: nothing happens before the first poll, and dropping it cancels the job wherever it is.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct LocalFuture {
    run: RunFuture,
    devices: Arc<DeviceSet>,
    /// Set while the job waits for a permit of another pool.
    failover: Option<Box<Failover>>,
}

/// A job that its pool has handed back and that waits for a permit of another one.
#[derive(Debug)]
struct Failover {
    requeued: Box<Requeued>,
    /// The error with which it was handed back.
    error: KernelError,
    permit: DevicePermit,
}

impl LocalFuture {
    pub(super) fn new(run: RunFuture, devices: &Arc<DeviceSet>) -> Self {
        Self { run, devices: Arc::clone(devices), failover: None }
    }

    /// Waits for a permit for a job that was handed back. Fails if no pool is left that can run it.
    fn poll_failover(&self, failover: &mut Failover, cx: &mut Context<'_>) -> Poll<Result<PoolHandle, KernelError>> {
        let Failover { requeued, error, permit } = failover;
        loop {
            if requeued.job.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                return Poll::Ready(Err(KernelError::DeadlineExceeded { started: requeued.started }));
            }
            ready!(permit.poll_reserve(&self.devices, cx));
            if let Some(handle) = permit.take() {
                return Poll::Ready(Ok(handle));
            }
            // The last pool of that kind has closed as well.
            match self.devices.failover(self.run.pool(), requeued, error).filter(|&kind| kind != permit.kind()) {
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
            if let Some(mut failover) = self.failover.take() {
                match self.poll_failover(&mut failover, cx) {
                    Poll::Ready(Ok(mut handle)) => self.run = RunFuture::resume(&mut handle, failover.requeued),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.failover = Some(failover);
                        return Poll::Pending;
                    }
                }
            }
            let failed = match ready!(self.run.poll_result(cx)) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(failed) => failed,
            };
            let Some(requeued) = failed.requeued else { return Poll::Ready(Err(failed.error)) };
            let Some(kind) = self.devices.failover(self.run.pool(), &requeued, &failed.error) else {
                return Poll::Ready(Err(failed.error));
            };
            tracing::debug!(
                kernel = requeued.job.operation(),
                backend = kind.as_str(),
                error = %failed.error,
                "moving a job to another backend"
            );
            self.failover = Some(Box::new(Failover { requeued, error: failed.error, permit: DevicePermit::new(kind) }));
        }
    }
}
