//! Requests that share calls, at depth: one call is under way, and what comes meanwhile goes together.
//!
//! Here the tasks count too, so a runtime takes part; its own work is in the figures.

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::buffer::Buffer;
use tower::{Layer, Service};
use tower_kernels::layers::BatchLayer;

use crate::inner::{Done, Job, PLAIN, Plain, job};
use crate::{Calls, Case};

pub(crate) const CASES: &[Case] = &[
    Case { name: "BatchLayer, 256 at a time, plain request", over: Some(PLAIN), build: batch },
    Case { name: "tower::buffer, 256 at a time, plain request", over: Some(PLAIN), build: buffer },
];

/// Requests made before any is answered.
const DEPTH: usize = 256;

/// Answers a batch of jobs when it is asked for the second time, as what has other work to wait for does.
#[derive(Clone, Debug)]
struct Together;

impl Service<Vec<Job>> for Together {
    type Response = Vec<Result<Done, Infallible>>;
    type Error = Infallible;
    type Future = Later;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, jobs: Vec<Job>) -> Later {
        Later { jobs, asked: false }
    }
}

#[derive(Debug)]
struct Later {
    jobs: Vec<Job>,
    asked: bool,
}

impl Future for Later {
    type Output = Result<Vec<Result<Done, Infallible>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.jobs.iter().map(|job| Ok(Done::to(job))).collect()))
    }
}

fn batch() -> Calls {
    let layer = BatchLayer::new(DEPTH).max_in_flight(1);
    at_depth(move || layer.layer(Together))
}

fn buffer() -> Calls {
    at_depth(|| Buffer::new(Plain, DEPTH))
}

fn at_depth<S, M>(make: M) -> Calls
where
    M: FnOnce() -> S,
    S: Service<Job, Response = Done, Error: std::fmt::Debug, Future: Unpin> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    let mut service = runtime.block_on(async { make() });
    let mut futures = Vec::with_capacity(DEPTH);
    Box::new(move |calls| {
        let mut left = usize::try_from(calls).expect("as many as there is time for");
        runtime.block_on(async {
            while left > 0 {
                let now = left.min(DEPTH);
                for _ in 0..now {
                    std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("it does not fail");
                    futures.push(service.call(black_box(job())));
                }
                for future in &mut futures {
                    drop(black_box(Pin::new(future).await));
                }
                futures.clear();
                left -= now;
            }
        });
    })
}
