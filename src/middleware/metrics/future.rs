use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::handle::State;
use super::series::{Operation, Outcome, nanos};
use crate::error::{AnyError, ErrorKind};
use crate::middleware::clock;
use crate::request::operation_table::to_keep;
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
    #[inline]
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Looked at where it is: to take it out would be to move it.
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

/// A call in flight. Dropped before its end, it counts as cancelled.
#[derive(Debug)]
pub(super) struct Call {
    begun: Instant,
    of: Of,
}

/// What the call is counted under. Its share of the operation is what the gauge of calls in flight counts, and is given
/// back at the end.
#[derive(Debug)]
enum Of {
    Operation(Arc<Operation>),
    /// Which has no series of its own yet.
    Unknown(Box<Unknown>),
    /// It has ended.
    Nothing,
}

#[derive(Debug)]
struct Unknown {
    /// Under which the call is in flight, and is counted unless it shows that the service knows the name.
    unknown: Arc<Operation>,
    name: Box<str>,
    payload: Option<u64>,
    state: Arc<State>,
}

impl Call {
    // Always, and `end` too: a frame of its own costs a third of what it does.
    #[inline(always)]
    pub(super) fn begin(state: &Arc<State>, now: Instant, operation: &str, payload: Option<u64>) -> Self {
        let Some((_, operation)) = state.operations.find(operation) else {
            return Self { begun: now, of: Of::Unknown(Unknown::begin(state, operation, payload)) };
        };
        if let Some(bytes) = payload {
            operation.record_payload(bytes);
        }
        Self { begun: now, of: Of::Operation(Arc::clone(operation)) }
    }

    #[inline(always)]
    fn end(&mut self, outcome: Outcome, execution: Option<&Execution>) {
        let elapsed = nanos(clock::read().saturating_duration_since(self.begun));
        match std::mem::replace(&mut self.of, Of::Nothing) {
            Of::Operation(operation) => operation.record(outcome, elapsed, execution),
            Of::Unknown(unknown) => unknown.end(outcome, elapsed, execution),
            Of::Nothing => {}
        }
    }

    #[cold]
    fn dropped_early(&mut self) {
        let panicked = std::thread::panicking();
        self.end(Some(if panicked { ErrorKind::Internal } else { ErrorKind::Cancelled }), None);
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.of, Of::Nothing) {
            self.dropped_early();
        }
    }
}

impl Unknown {
    #[cold]
    #[inline(never)]
    fn begin(state: &Arc<State>, name: &str, payload: Option<u64>) -> Box<Self> {
        let unknown = Arc::clone(&state.unknown);
        Box::new(Self { unknown, name: to_keep(name).into(), payload, state: Arc::clone(state) })
    }

    #[cold]
    #[inline(never)]
    fn end(&self, outcome: Outcome, elapsed: u64, execution: Option<&Execution>) {
        let known = shows_known(outcome).then(|| self.state.find_or_insert(&self.name));
        let operation = known.unwrap_or(&self.unknown);
        if let Some(bytes) = self.payload {
            operation.record_payload(bytes);
        }
        operation.record(outcome, elapsed, execution);
    }
}

/// Whether a call that ended so shows that the service knows the operation. The other kinds can be the response of
/// something that stands before it and has not looked at the name. `Unsupported` is one of them: gRPC's servers say
/// `UNIMPLEMENTED` to methods that they do not have.
fn shows_known(outcome: Outcome) -> bool {
    matches!(outcome, None | Some(ErrorKind::Internal))
}
