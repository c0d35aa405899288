use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::handle::State;
use super::series::{InFlight, Outcome};
use crate::error::{AnyError, ErrorKind};
use crate::middleware::clock;
use crate::request::operation_table::insertable_name;
use crate::request::{Execution, ResponseContext};

pin_project! {
    /// The response future of a [`Metrics`](super::Metrics).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        call: Call,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, call: Call) -> Self {
        Self { inner, call }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: AnyError,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        if let Poll::Ready(result) = &polled {
            let (outcome, execution) = match result {
                Ok(response) => (response.failure(), response.execution()),
                Err(error) => (Some(error.classify().kind), None),
            };
            this.call.end(outcome, execution);
        }
        polled
    }
}

/// A call in flight. If dropped before it has ended, it counts as cancelled.
#[derive(Debug)]
pub(super) struct Call {
    started: Instant,
    /// The operation, or `unknown`. `None` once the call has ended.
    in_flight: Option<InFlight>,
    unknown: Option<Box<Unknown>>,
}

/// An operation without time series of its own. It gets them if the call shows that the service has the operation.
#[derive(Debug)]
struct Unknown {
    name: Box<str>,
    payload: Option<u64>,
    state: Arc<State>,
}

impl Call {
    pub(super) fn begin(state: &Arc<State>, now: Instant, name: &str, payload: Option<u64>) -> Self {
        let (operation, unknown) = match state.operations.find(name) {
            Some((_, operation)) => {
                operation.record_payload(payload);
                (operation, None)
            }
            None => {
                let unknown = Unknown { name: insertable_name(name).into(), payload, state: Arc::clone(state) };
                (&state.unknown, Some(Box::new(unknown)))
            }
        };
        Self { started: now, in_flight: Some(InFlight::begin(operation)), unknown }
    }

    fn end(&mut self, outcome: Outcome, execution: Option<&Execution>) {
        let Some(called) = self.in_flight.take() else { return };
        let elapsed = clock::read().saturating_duration_since(self.started);
        let mut operation = &called.0;
        if let Some(Unknown { name, payload, state }) = self.unknown.as_deref() {
            if shows_known(outcome) {
                operation = state.find_or_insert(name);
            }
            operation.record_payload(*payload);
        }
        operation.record(outcome, elapsed, execution);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.end(Some(if panicked { ErrorKind::Internal } else { ErrorKind::Cancelled }), None);
    }
}

/// Returns whether the outcome of a call shows that the service has the operation. The other kinds can come from a
/// layer in front of the service, whatever the name; gRPC servers respond `UNIMPLEMENTED`, which is `Unsupported`, to
/// unknown methods.
fn shows_known(outcome: Outcome) -> bool {
    matches!(outcome, None | Some(ErrorKind::Internal))
}
