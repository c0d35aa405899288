//! A call from its admission to its outcome.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project::pin_project;

use super::CircuitBreakerError;
use super::circuit::Circuit;
use super::state_machine::{FIRST_GENERATION, Outcome};
use crate::error::{AnyError, Classify, ErrorKind};
use crate::middleware::call_or_reject::CallOrReject;
use crate::middleware::clock;
use crate::request::ResponseContext;

/// Response future of [`CircuitBreaker`](super::CircuitBreaker).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F, E> {
    #[pin]
    inner: CallOrReject<F, CircuitBreakerError<E>>,
    /// `None` if the call was rejected, or there is no circuit.
    call: Option<CallGuard>,
}

impl<F, E> ResponseFuture<F, E> {
    pub(super) fn call(inner: F, call: Option<CallGuard>) -> Self {
        Self { inner: CallOrReject::call(inner), call }
    }

    pub(super) fn reject(retry_after: Duration) -> Self {
        Self { inner: CallOrReject::reject(CircuitBreakerError::Open { retry_after }), call: None }
    }
}

impl<F, T, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: AnyError,
{
    type Output = Result<T, CircuitBreakerError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(call) = this.call.take() {
            call.end(match &result {
                Ok(response) => response.failure(),
                Err(error) => Some(error.kind()),
            });
        }
        Poll::Ready(result)
    }
}

/// A call that was admitted. Its outcome is counted when it is dropped.
#[derive(Debug)]
pub(super) struct CallGuard {
    circuit: Arc<Circuit>,
    generation: u32,
    /// Whether the key had no circuit: the first outcome that is a success or a failure adds `circuit` to the others. A
    /// name that the service does not know gets neither, so made-up names take no memory.
    is_new: bool,
    /// The tenant for which a failure counts, if tenants have circuits of their own and this is not one.
    tenant: Option<Arc<str>>,
    /// `None` until the call begins: `poll_ready` may have reserved the permit of a probe for it.
    start: Option<Start>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    at: Instant,
    /// The deadline, if the caller chose it.
    caller_deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Succeeded,
    Failed(ErrorKind),
    /// The call was dropped.
    Cancelled,
}

/// An expired deadline of the caller's that allowed less than this is ignored, whoever reports it.
const SHORT_TIMEOUT: Duration = Duration::from_secs(1);

impl CallGuard {
    pub(super) fn new(circuit: Arc<Circuit>, generation: u32, tenant: Option<Arc<str>>) -> Self {
        Self { circuit, generation, is_new: false, tenant, start: None, end: End::Cancelled }
    }

    /// A call whose circuit is new, and is added to the others when the call ends as a success or a failure.
    pub(super) fn new_key(circuit: Arc<Circuit>, tenant: Option<Arc<str>>) -> Self {
        let mut call = Self::new(circuit, FIRST_GENERATION, tenant);
        call.is_new = true;
        call
    }

    /// Whether the circuit is still in the generation that admitted the call.
    pub(super) fn is_current(&self) -> bool {
        self.circuit.state.lock().generation == self.generation
    }

    /// Begins the call of the inner service, with the deadline if its caller chose it.
    pub(super) fn start(&mut self, caller_deadline: Option<Instant>) {
        self.start = Some(Start { at: clock::now(), caller_deadline });
    }

    /// Ends a call that succeeded, or failed with the given kind of error.
    pub(super) fn end(mut self, failure: Option<ErrorKind>) {
        self.end = failure.map_or(End::Succeeded, End::Failed);
    }

    fn outcome(&self, now: Instant) -> Option<Outcome> {
        let (start, settings) = (self.start?, &self.circuit.settings);
        let slow = settings.slow_over.is_some_and(|over| now.saturating_duration_since(start.at) > over);
        let kind = match self.end {
            End::Succeeded => return Some(Outcome { failed: false, slow }),
            End::Failed(kind) => kind,
            End::Cancelled if std::thread::panicking() => ErrorKind::Internal,
            // A call that was slow when it was cancelled is slow however it would have ended.
            End::Cancelled => return slow.then_some(Outcome { failed: false, slow }),
        };
        let is_ignored =
            kind == ErrorKind::DeadlineExceeded && start.has_ignored_deadline(settings.min_caller_timeout, now);
        (settings.failures.contains(kind) && !is_ignored).then_some(Outcome { failed: true, slow })
    }
}

impl Start {
    /// Whether the deadline was chosen by the caller and has passed, or was too short to say anything about the service.
    fn has_ignored_deadline(self, min_timeout: Option<Duration>, now: Instant) -> bool {
        let Some(deadline) = self.caller_deadline else { return false };
        let shortest = min_timeout.unwrap_or(SHORT_TIMEOUT);
        deadline.checked_duration_since(self.at).is_none_or(|allowed| allowed < shortest)
            // Before the deadline it is a timeout of the server's that has expired.
            || min_timeout.is_none() && now >= deadline
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let now = clock::read();
        let (outcome, tenant) = (self.outcome(now), self.tenant.as_ref());
        if !self.is_new {
            self.circuit.end(self.generation, tenant, outcome, now);
        } else if outcome.is_some()
            && let Some(circuits) = self.circuit.circuits.upgrade()
            && let Some(circuit) = circuits.get_or_add(&self.circuit, now)
        {
            circuit.end_first(tenant, outcome, now);
        }
    }
}
