use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project::pin_project;

use super::handle::State;
use super::series::{Operation, Outcome};
use crate::error::{Classify, ErrorKind};
use crate::layers::clock;
use crate::service::{Execution, ResponseContext};

/// The answer of a [`Metrics`](super::Metrics).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    call: Call,
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(inner: F, call: Call) -> Self {
        Self { inner, call }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: Classify,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        match &result {
            Ok(response) => this.call.end(response.failure(), response.execution()),
            Err(error) => this.call.end(Some(error.kind()), None),
        }
        Poll::Ready(result)
    }
}

/// A call in flight. Dropped before its end, it counts as cancelled.
#[derive(Debug)]
pub(super) struct Call {
    /// Its share is what the gauge of calls in flight counts. Given back at the end.
    operation: Option<Arc<Operation>>,
    begun: Instant,
    /// Where the operation has no series of its own yet.
    unknown: Option<Box<Unknown>>,
}

#[derive(Debug)]
struct Unknown {
    name: Box<str>,
    payload: Option<u64>,
    state: Arc<State>,
}

impl Call {
    #[inline]
    pub(super) fn begin(state: &Arc<State>, now: Instant, operation: &str, payload: Option<u64>) -> Self {
        let Some(operation) = state.operations.find(operation) else {
            return Self::begin_unknown(state, now, operation, payload);
        };
        if let Some(bytes) = payload {
            operation.payload.observe(bytes);
        }
        Self { operation: Some(Arc::clone(operation)), begun: now, unknown: None }
    }

    #[cold]
    fn begin_unknown(state: &Arc<State>, now: Instant, operation: &str, payload: Option<u64>) -> Self {
        let unknown = Unknown { name: operation.into(), payload, state: Arc::clone(state) };
        let operation = Some(Arc::clone(state.operations.unknown()));
        Self { operation, begun: now, unknown: Some(Box::new(unknown)) }
    }

    #[inline]
    fn end(&mut self, outcome: Outcome, execution: Option<&Execution>) {
        let Some(operation) = self.operation.take() else { return };
        let elapsed = clock::now().saturating_duration_since(self.begun);
        match self.unknown.take() {
            None => operation.record(outcome, elapsed, execution),
            Some(unknown) => unknown.end(&operation, outcome, elapsed, execution),
        }
    }
}

impl Unknown {
    #[cold]
    fn end(&self, unknown: &Operation, outcome: Outcome, elapsed: Duration, execution: Option<&Execution>) {
        let known = shows_known(outcome).then(|| self.state.operations.find_or_insert(&self.name));
        let operation = known.map_or(unknown, |operation| operation);
        if let Some(bytes) = self.payload {
            operation.payload.observe(bytes);
        }
        operation.record(outcome, elapsed, execution);
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if self.operation.is_some() {
            let panicked = std::thread::panicking();
            self.end(Some(if panicked { ErrorKind::Internal } else { ErrorKind::Cancelled }), None);
        }
    }
}

/// Whether a call that ended so shows that the service knows the operation. The other kinds can be the answer of
/// something that stands before it and has not looked at the name.
fn shows_known(outcome: Outcome) -> bool {
    matches!(outcome, None | Some(ErrorKind::Internal | ErrorKind::Unsupported))
}
