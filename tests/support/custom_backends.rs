//! Two backends as a program that uses this crate would write them: one with a thread of its own, and one that forwards.

use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, ready};

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::PollSemaphore;
use tower::Service;
use tower::load::Load;
use tower_kernels::backends::PoolLoad;
use tower_kernels::service::{Job, KernelError, KernelRequest, KernelResponse};

type JobResult = Result<KernelResponse, KernelError>;

/// Runs one job at a time on a thread of its own.
#[derive(Debug)]
pub(crate) struct ThreadBackend {
    jobs: mpsc::Sender<(Job, oneshot::Sender<JobResult>, OwnedSemaphorePermit)>,
    permits: Arc<Semaphore>,
    poll_permits: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
}

impl ThreadBackend {
    pub(crate) fn start() -> Self {
        let (jobs, queue) = mpsc::channel::<(Job, oneshot::Sender<JobResult>, OwnedSemaphorePermit)>();
        std::thread::spawn(move || {
            while let Ok((mut job, response, permit)) = queue.recv() {
                let result = job.run_cpu(|| response.is_closed());
                drop((job, permit));
                // It fails if the request was cancelled meanwhile.
                let _ = response.send(result);
            }
        });
        Self::with_permits(jobs, Arc::new(Semaphore::new(1)))
    }

    fn with_permits(
        jobs: mpsc::Sender<(Job, oneshot::Sender<JobResult>, OwnedSemaphorePermit)>,
        permits: Arc<Semaphore>,
    ) -> Self {
        Self { jobs, poll_permits: PollSemaphore::new(Arc::clone(&permits)), permits, permit: None }
    }
}

impl Clone for ThreadBackend {
    fn clone(&self) -> Self {
        Self::with_permits(self.jobs.clone(), Arc::clone(&self.permits))
    }
}

impl Service<Job> for ThreadBackend {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = BoxFuture<'static, JobResult>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        if self.permit.is_none() {
            self.permit = ready!(self.poll_permits.poll_acquire(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, job: Job) -> Self::Future {
        let permit = self.permit.take().expect("called without having been ready");
        let jobs = self.jobs.clone();
        async move {
            let (response, result) = oneshot::channel();
            let stopped = || KernelError::Stopped { backend: "thread" };
            jobs.send((job, response, permit)).map_err(|_| stopped())?;
            result.await.unwrap_or_else(|_| Err(stopped()))
        }
        .boxed()
    }
}

impl Load for ThreadBackend {
    type Metric = PoolLoad;

    fn load(&self) -> PoolLoad {
        PoolLoad { jobs: 1 - self.permits.available_permits(), ..PoolLoad::default() }
    }
}

/// Forwards jobs to another service of kernels.
#[derive(Clone, Debug)]
pub(crate) struct Forward<S>(pub(crate) S);

impl<S> Service<Job> for Forward<S>
where
    S: Service<KernelRequest, Response = KernelResponse, Error = KernelError>,
    S::Future: Send + 'static,
{
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = BoxFuture<'static, JobResult>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        self.0.poll_ready(cx).map_err(KernelError::backend)
    }

    fn call(&mut self, job: Job) -> Self::Future {
        match job.into_request() {
            Ok(request) => self.0.call(request).map(|result| result.map_err(KernelError::backend)).boxed(),
            Err(error) => async { Err(error) }.boxed(),
        }
    }
}

impl<S: Load> Load for Forward<S> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.0.load()
    }
}
