use std::task::{Context, Poll};
use std::time::Instant;

use tower::load::Load;
use tower_service::Service;

use super::BatchFuture;
use crate::service::{Job, KernelError, KernelResponse};

/// A backend as a service of batches: one job does the work of all that are given to it together.
///
/// They are what the layer's [`SameRun`](super::SameRun) has let share a run. One alone is passed on as it is.
#[derive(Clone, Debug)]
pub struct Batches<B> {
    backend: B,
}

impl<B> Batches<B> {
    /// Runs batches on `backend`.
    pub const fn new(backend: B) -> Self {
        Self { backend }
    }

    /// The backend.
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
            let waited = jobs.iter().map(|job| job.waited(now)).collect();
            return BatchFuture::several(self.backend.call(Job::merge(jobs)), waited);
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
