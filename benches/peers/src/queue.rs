//! Calls that wait for their turn: `PriorityQueueLayer` beside tower's buffer.
//!
//! Waiting takes a runtime, so but for the first these calls are awaited on one; what that costs is in their baselines.

use std::convert::Infallible;
use std::future::Ready;
use std::task::{Context, Poll};

use tokio::runtime::Builder;
use tower::buffer::BufferLayer;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::layers::PriorityQueueLayer;

use crate::inner::{Done, Job, PLAIN, Plain, job};
use crate::{Calls, Case, drive};

const ONE: &str = "inner service, awaited";
const SHY: &str = "inner service, not ready at once, awaited";
const MANY: &str = "inner service, 64 calls at a time, awaited";

pub(crate) const CASES: &[Case] = &[
    Case { name: "PriorityQueueLayer, nothing waits", over: Some(PLAIN), build: || drive(queue().layer(Plain), job) },
    Case { name: ONE, over: None, build: || awaited(1, || Plain) },
    Case { name: "tower Buffer, awaited", over: Some(ONE), build: || awaited(1, || buffer().layer(Plain)) },
    Case {
        name: "PriorityQueueLayer, nothing waits, awaited",
        over: Some(ONE),
        build: || awaited(1, || queue().layer(Plain)),
    },
    Case { name: SHY, over: None, build: || awaited(1, Shy::default) },
    Case {
        name: "PriorityQueueLayer, each call waits, awaited",
        over: Some(SHY),
        build: || awaited(1, || queue().layer(Shy::default())),
    },
    Case { name: MANY, over: None, build: || awaited(64, || Plain) },
    Case {
        name: "tower Buffer, 64 calls at a time, awaited",
        over: Some(MANY),
        build: || awaited(64, || buffer().layer(Plain)),
    },
    Case {
        name: "PriorityQueueLayer, 64 calls at a time, all wait, awaited",
        over: Some(MANY),
        build: || awaited(64, || queue().layer(Shy::default())),
    },
];

fn queue() -> PriorityQueueLayer {
    PriorityQueueLayer::new(128)
}

fn buffer() -> BufferLayer<Job> {
    BufferLayer::new(128)
}

/// Makes calls on a runtime of one thread, so many before the first of them is awaited.
fn awaited<S>(at_a_time: u64, build: impl FnOnce() -> S) -> Calls
where
    S: Service<Job, Response = Done, Error: std::fmt::Debug> + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    let mut service = runtime.block_on(async { build() });
    let mut answers = Vec::new();
    Box::new(move |calls| {
        runtime.block_on(async {
            let mut left = calls;
            while left > 0 {
                for _ in 0..at_a_time.min(left) {
                    answers.push(Box::pin(service.ready().await.expect("ready").call(job())));
                    left -= 1;
                }
                for answer in answers.drain(..) {
                    std::hint::black_box(answer.await.expect("an answer"));
                }
            }
        });
    })
}

/// Ready when it is asked for the second time.
#[derive(Debug, Default)]
struct Shy {
    asked: bool,
}

impl Clone for Shy {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Job> for Shy {
    type Response = Done;
    type Error = Infallible;
    type Future = Ready<Result<Done, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if std::mem::replace(&mut self.asked, true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, job: Job) -> Self::Future {
        self.asked = false;
        Plain.call(job)
    }
}
