use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower::Layer;
use tower::load::Load;
use tower_service::Service;

use crate::backends::batched::Batched;
use crate::backends::{BatchedLayer, Local, LocalFuture, PoolLoad};
use crate::middleware::batch::BatchError;
use crate::service::{Job, KernelError, KernelResponse};

/// The backend of a [`LocalPipeline`](super::LocalPipeline): the devices of this machine, behind a [`BatchedLayer`] if
/// batching is on.
#[derive(Clone, Debug)]
pub struct PipelineBackend {
    inner: Inner,
}

#[derive(Clone, Debug)]
enum Inner {
    Unbatched(Local),
    Batched(Batched<Local>),
}

impl PipelineBackend {
    pub(super) fn new(local: Local, batch: Option<&BatchedLayer>) -> Self {
        let inner = match batch {
            None => Inner::Unbatched(local),
            Some(batch) => Inner::Batched(batch.fitted(&local).layer(local)),
        };
        Self { inner }
    }

    /// Returns the devices of this machine.
    pub fn local(&self) -> &Local {
        match &self.inner {
            Inner::Unbatched(local) => local,
            Inner::Batched(batched) => batched.get_ref().backend(),
        }
    }
}

impl Service<Job> for PipelineBackend {
    type Response = KernelResponse;
    type Error = BatchError<KernelError>;
    type Future = BackendFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match &mut self.inner {
            Inner::Unbatched(local) => local.poll_ready(cx).map_err(BatchError::Inner),
            Inner::Batched(batched) => batched.poll_ready(cx),
        }
    }

    fn call(&mut self, job: Job) -> BackendFuture {
        let inner = match &mut self.inner {
            Inner::Unbatched(local) => Running::Unbatched(local.call(job)),
            Inner::Batched(batched) => Running::Batched(batched.call(job)),
        };
        BackendFuture { inner }
    }
}

impl Load for PipelineBackend {
    type Metric = PoolLoad;

    fn load(&self) -> PoolLoad {
        self.local().load()
    }
}

/// The response future of a [`PipelineBackend`].
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct BackendFuture {
    #[pin]
    inner: Running,
}

#[pin_project(project = RunningProj)]
#[derive(Debug)]
enum Running {
    Unbatched(#[pin] LocalFuture),
    Batched(#[pin] <Batched<Local> as Service<Job>>::Future),
}

impl Future for BackendFuture {
    type Output = Result<KernelResponse, BatchError<KernelError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().inner.project() {
            RunningProj::Unbatched(future) => future.poll(cx).map_err(BatchError::Inner),
            RunningProj::Batched(future) => future.poll(cx),
        }
    }
}
