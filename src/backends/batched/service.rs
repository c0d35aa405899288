use std::task::{Context, Poll};
use std::time::Instant;

use tower::load::Load;
use tower_service::Service;

use super::BatchFuture;
use crate::service::{Job, KernelError, KernelResponse};

/// Runs batches of jobs on a backend: merges the jobs of a batch into one.
///
/// The batches are made by the [`BatchedLayer`](super::BatchedLayer). A single job is passed on as it is.
#[derive(Clone, Debug)]
pub struct Batches<B> {
    backend: B,
}

impl<B> Batches<B> {
    /// Creates a service that runs batches on `backend`.
    pub const fn new(backend: B) -> Self {
        Self { backend }
    }

    /// Returns the backend.
    pub const fn backend(&self) -> &B {
        &self.backend
    }
}

impl<B> Service<Vec<Job>> for Batches<B>
where
    B: Service<Job, Response = KernelResponse>,
    B::Error: From<KernelError>,
{
    type Response = Vec<Result<KernelResponse, B::Error>>;
    type Error = B::Error;
    type Future = BatchFuture<B::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), B::Error>> {
        self.backend.poll_ready(cx)
    }

    fn call(&mut self, mut jobs: Vec<Job>) -> Self::Future {
        if jobs.len() > 1 {
            let now = Instant::now();
            let members = jobs.iter().map(|job| (job.waited(now), job.request_operands())).collect();
            return BatchFuture::several(self.backend.call(Job::merge(jobs)), members);
        }
        match jobs.pop() {
            Some(job) => {
                let waited = job.waited(Instant::now());
                BatchFuture::one(self.backend.call(job), waited)
            }
            None => BatchFuture::none(),
        }
    }
}

impl<B: Load> Load for Batches<B> {
    type Metric = B::Metric;

    fn load(&self) -> B::Metric {
        self.backend.load()
    }
}
