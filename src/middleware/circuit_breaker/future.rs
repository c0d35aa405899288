//! A call from its admission to its outcome.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project::pin_project;

use super::circuits::{Circuit, Circuits};
use super::state_machine::{FIRST_GENERATION, Outcome};
use super::{CircuitBreakerConfig, CircuitBreakerError};
use crate::error::{AnyError, Classify, ErrorKind};
use crate::middleware::call_or_reject::CallOrReject;
use crate::middleware::clock;
use crate::request::ResponseContext;

/// Response future of [`CircuitBreaker`](super::CircuitBreaker).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F, E> {
    #[pin]
    pub(super) inner: CallOrReject<F, CircuitBreakerError<E>>,
    /// `None` if the call was rejected, or there is no circuit.
    pub(super) call: Option<CallGuard>,
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

/// A call that was admitted. Its outcome is counted when it ends or is dropped.
#[derive(Debug)]
pub(super) struct CallGuard {
    /// `None` once the outcome is counted.
    admission: Option<Admission>,
    /// `None` until the call begins: `poll_ready` may have reserved the permit of a probe for it.
    started_at: Option<Instant>,
    /// The deadline, if the caller chose it.
    caller_deadline: Option<Instant>,
}

/// What has admitted a call.
#[derive(Debug)]
pub(super) enum Admission {
    Circuit {
        circuit: Arc<Circuit>,
        generation: u32,
        /// The tenant for which a failure counts, if tenants have circuits of their own and this is not one.
        tenant: Option<Arc<str>>,
    },
    NewKey(Box<NewKey>),
}

/// A key that had no circuit when a call of it was admitted. It gets one if the call ends as a success or a failure. A name
/// that the service does not know ends as neither, so made-up names take no memory.
#[derive(Debug)]
pub(super) struct NewKey {
    pub(super) circuits: Arc<Circuits>,
    pub(super) key: Box<str>,
    pub(super) tenant: Option<Arc<str>>,
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
    pub(super) fn new(admission: Admission) -> Self {
        Self { admission: Some(admission), started_at: None, caller_deadline: None }
    }

    /// Whether the circuit is still in the generation that admitted the call.
    pub(super) fn is_current(&self) -> bool {
        matches!(&self.admission, Some(Admission::Circuit { circuit, generation, .. })
            if circuit.state.lock().generation == *generation)
    }

    /// Begins the call of the inner service, with the deadline if its caller chose it.
    pub(super) fn start(&mut self, caller_deadline: Option<Instant>) {
        (self.started_at, self.caller_deadline) = (Some(clock::now()), caller_deadline);
    }

    /// Ends a call that succeeded, or failed with the given kind of error.
    pub(super) fn end(mut self, failure: Option<ErrorKind>) {
        self.count(failure.map_or(End::Succeeded, End::Failed));
    }

    /// Counts the outcome, unless it is counted.
    fn count(&mut self, end: End) {
        let Some(admission) = self.admission.take() else { return };
        let now = clock::read();
        match admission {
            Admission::Circuit { circuit, generation, tenant } => {
                circuit.end(generation, tenant.as_ref(), self.outcome(end, &circuit.config, now), now);
            }
            Admission::NewKey(new) => {
                if let Some(outcome) = self.outcome(end, &new.circuits.shared.config, now)
                    && let Some(circuit) = new.circuits.get_or_create(&new.key, now)
                {
                    circuit.end(FIRST_GENERATION, new.tenant.as_ref(), Some(outcome), now);
                }
            }
        }
    }

    /// Returns what the end of the call says about the service.
    fn outcome(&self, end: End, config: &CircuitBreakerConfig, now: Instant) -> Option<Outcome> {
        let started_at = self.started_at?;
        let slow = config.slow_call_duration.is_some_and(|max| now.saturating_duration_since(started_at) > max);
        match end {
            End::Succeeded => Some(Outcome { failed: false, slow }),
            End::Failed(ErrorKind::DeadlineExceeded) if self.ignores_deadline(config.min_caller_timeout, now) => None,
            End::Failed(kind) => config.failures.contains(kind).then_some(Outcome { failed: true, slow }),
            // A call that was slow when it was cancelled is slow however it would have ended.
            End::Cancelled => slow.then_some(Outcome { failed: false, slow }),
        }
    }

    /// Whether the deadline was chosen by the caller and has passed, or was too short to say anything about the service.
    fn ignores_deadline(&self, min_timeout: Option<Duration>, now: Instant) -> bool {
        let (Some(deadline), Some(started_at)) = (self.caller_deadline, self.started_at) else { return false };
        let shortest = min_timeout.unwrap_or(SHORT_TIMEOUT);
        deadline.checked_duration_since(started_at).is_none_or(|allowed| allowed < shortest)
            // Before the deadline it is a timeout of the server's that has expired.
            || min_timeout.is_none() && now >= deadline
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.count(if std::thread::panicking() { End::Failed(ErrorKind::Internal) } else { End::Cancelled });
    }
}
