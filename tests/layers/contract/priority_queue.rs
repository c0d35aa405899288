//! The contract over the queue: around an inner service that is ready at once, and around one that never is, so that every
//! call waits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tower::load::Load;
use tower::{Layer, Service};
use tower_kernels::layers::PriorityQueueLayer;
use tower_kernels::middleware::priority_queue::PriorityQueue;

use super::contract;
use crate::contract::layers::{adds_at_most, around, errors_keep_their_meaning, gauged, load_is_passed_on};
use crate::support::probe::{Probe, ProbeError, ProbeFuture, Request, Response};

contract!(straight_through, around(PriorityQueueLayer::new(0)));
contract!(in_line, later(PriorityQueueLayer::new(1)));
contract!(in_line_while_it_waits_when_full, later(PriorityQueueLayer::new(1).wait_when_full()));

#[tokio::test(start_paused = true)]
async fn it_keeps_the_meaning_of_errors_passes_the_load_on_and_keeps_its_future_small() {
    errors_keep_their_meaning(around(PriorityQueueLayer::new(8))).await;
    load_is_passed_on(around(PriorityQueueLayer::new(8))).await;
    // It keeps the request, and the service that it is given when it is its turn.
    adds_at_most(around(PriorityQueueLayer::new(8)), 160);
}

/// The one place is in the queue, and one is counted there from the reservation on until the turn.
fn later(
    layer: PriorityQueueLayer,
) -> crate::contract::layers::Around<impl Layer<Probe, Service = PriorityQueue<Later>>> {
    let queue = layer.clone();
    let slow = tower::layer::layer_fn(move |probe| queue.layer(Later { probe, begun: None }));
    gauged(slow, move || {
        let snapshot = layer.snapshot();
        snapshot.waiting + snapshot.reserved
    })
}

/// A probe that is never ready when it is asked first, and a millisecond later.
#[derive(Debug)]
struct Later {
    probe: Probe,
    begun: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Clone for Later {
    fn clone(&self) -> Self {
        Self { probe: self.probe.clone(), begun: None }
    }
}

impl Service<Request> for Later {
    type Response = Response;
    type Error = ProbeError;
    type Future = ProbeFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        let begun = self.begun.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(1))));
        if !begun.is_elapsed() {
            ready!(begun.as_mut().poll(cx));
        }
        self.probe.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> ProbeFuture {
        self.begun = None;
        self.probe.call(request)
    }
}

impl Load for Later {
    type Metric = usize;

    fn load(&self) -> usize {
        self.probe.load()
    }
}
