use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::circuits::{Circuits, SingleCircuit, caller_deadline};
use super::readiness::Readiness;
use super::{CircuitBreakerError, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::{RequestContext, ResponseContext};

/// Rejects calls while too many fail. See the [module](super).
#[derive(Debug)]
pub struct CircuitBreaker<S, C = SingleCircuit> {
    inner: S,
    /// `None` if it is disabled.
    circuits: Option<Arc<C>>,
    readiness: Readiness,
}

impl<S, C> CircuitBreaker<S, C> {
    pub(super) fn new(inner: S, circuits: Arc<C>) -> Self {
        Self { inner, circuits: Some(circuits), readiness: Readiness::default() }
    }

    /// Forwards all calls.
    pub(crate) fn disabled(inner: S) -> Self {
        Self { inner, circuits: None, readiness: Readiness::default() }
    }
}

inner_service!(CircuitBreaker::<S, C> { inner });
clone_service!(CircuitBreaker<S, C> { inner, circuits, readiness: Readiness::default() });

impl<S, C, R> Service<R> for CircuitBreaker<S, C>
where
    S: Service<R>,
    C: Circuits<R>,
    R: RequestContext,
    S::Response: ResponseContext,
    S::Error: AnyError,
{
    type Response = S::Response;
    type Error = CircuitBreakerError<S::Error>;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let inner = &mut self.inner;
        let ready = match self.circuits.as_ref().and_then(|circuits| circuits.single()) {
            Some(circuit) => self.readiness.poll(circuit, |cx| inner.poll_ready(cx), cx),
            None => inner.poll_ready(cx),
        };
        ready.map_err(CircuitBreakerError::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Some(circuits) = &self.circuits else { return ResponseFuture::call(self.inner.call(request), None) };
        let admitted = match circuits.single() {
            Some(circuit) => self.readiness.admit(circuit),
            None => circuits.admit(&request),
        };
        let mut call = match admitted {
            Ok(call) => call,
            Err(retry_after) => return ResponseFuture::reject(retry_after),
        };
        // Before the inner call, so that a panic in it counts as a failure.
        call.start(caller_deadline(&request));
        ResponseFuture::call(self.inner.call(request), Some(call))
    }
}
