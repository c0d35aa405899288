use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::handle::State;
use super::series::{InFlight, Outcome, nanos};
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
    operation: CalledOperation,
}

#[derive(Debug)]
enum CalledOperation {
    Known(InFlight),
    /// An operation without time series of its own.
    Unknown(Box<Unknown>),
    Ended,
}

#[derive(Debug)]
struct Unknown {
    /// Counts the call as in flight, and in the end, unless it shows that the service has the operation.
    unknown: InFlight,
    name: Box<str>,
    payload: Option<u64>,
    state: Arc<State>,
}

impl Call {
    pub(super) fn begin(state: &Arc<State>, now: Instant, name: &str, payload: Option<u64>) -> Self {
        let operation = match state.operations.find(name) {
            Some((_, operation)) => {
                payload.into_iter().for_each(|bytes| operation.record_payload(bytes));
                CalledOperation::Known(InFlight::begin(operation))
            }
            None => CalledOperation::Unknown(Box::new(Unknown {
                unknown: InFlight::begin(&state.unknown),
                name: insertable_name(name).into(),
                payload,
                state: Arc::clone(state),
            })),
        };
        Self { started: now, operation }
    }

    fn end(&mut self, outcome: Outcome, execution: Option<&Execution>) {
        let elapsed = nanos(clock::read().saturating_duration_since(self.started));
        match std::mem::replace(&mut self.operation, CalledOperation::Ended) {
            CalledOperation::Known(call) => call.0.record(outcome, elapsed, execution),
            CalledOperation::Unknown(unknown) => unknown.end(outcome, elapsed, execution),
            CalledOperation::Ended => {}
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !matches!(self.operation, CalledOperation::Ended) {
            let panicked = std::thread::panicking();
            self.end(Some(if panicked { ErrorKind::Internal } else { ErrorKind::Cancelled }), None);
        }
    }
}

impl Unknown {
    fn end(&self, outcome: Outcome, elapsed: u64, execution: Option<&Execution>) {
        let operation = if shows_known(outcome) { self.state.find_or_insert(&self.name) } else { &self.unknown.0 };
        if let Some(bytes) = self.payload {
            operation.record_payload(bytes);
        }
        operation.record(outcome, elapsed, execution);
    }
}

/// Returns whether the outcome of a call shows that the service has the operation. The other kinds can come from a
/// layer in front of the service, whatever the name; gRPC servers respond `UNIMPLEMENTED`, which is `Unsupported`, to
/// unknown methods.
fn shows_known(outcome: Outcome) -> bool {
    matches!(outcome, None | Some(ErrorKind::Internal))
}
