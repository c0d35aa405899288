//! The contract over the batch layer, whose inner service takes batches; and over a backend behind it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower::load::Load;
use tower::{Layer, Service};
use tower_kernels::layers::BatchLayer;
use tower_kernels::middleware::batch::Batch;

use super::contract;
use crate::contract::layers::{
    Around, adds_at_most, errors_keep_their_meaning, gauged, load_is_passed_on, of_each_layer,
};
use crate::support::probe::{Probe, ProbeError, ProbeFuture, Request, Response};

contract!(batch_layer, one_place());

of_each_layer! {
    // It keeps an `Arc` and a place while it waits, and a batch of one is one allocation more.
    batch_as_a_layer: one_place(), 40;
}

/// A layer with one place to wait around a probe with one place.
fn one_place() -> Around<impl Layer<Probe, Service = Batch<InBatches, Request>>> {
    let layer = BatchLayer::new(4).capacity(1);
    let gauge = layer.clone();
    let around = tower::layer::layer_fn(move |probe| layer.layer(InBatches(probe)));
    gauged(around, move || gauge.snapshot().waiting)
}

/// A probe that takes batches, and does what the first request says.
#[derive(Clone, Debug)]
pub(crate) struct InBatches(pub(crate) Probe);

impl Service<Vec<Request>> for InBatches {
    type Response = Vec<Result<Response, ProbeError>>;
    type Error = ProbeError;
    type Future = OfFirst;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut requests: Vec<Request>) -> OfFirst {
        assert_eq!(requests.len(), 1, "with one place to wait nobody shares a batch");
        OfFirst(self.0.call(requests.remove(0)))
    }
}

impl Load for InBatches {
    type Metric = usize;

    fn load(&self) -> usize {
        self.0.load()
    }
}

#[derive(Debug)]
pub(crate) struct OfFirst(ProbeFuture);

impl Future for OfFirst {
    type Output = Result<Vec<Result<Response, ProbeError>>, ProbeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).map(|response| vec![Ok(response)]))
    }
}
