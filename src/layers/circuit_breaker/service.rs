use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::circuit::Pass;
use super::circuits::{Circuits, One};
use super::future::Call;
use super::gate::{Gate, admit};
use super::{CircuitBreakerError, ResponseFuture};
use crate::error::Classify;
use crate::service::{RequestContext, ResponseContext};

/// Refuses calls while too many fail. See the [module](super).
#[derive(Debug)]
pub struct CircuitBreaker<S, C = One> {
    inner: S,
    circuits: Arc<C>,
    /// What the last `poll_ready` found out for the next call, where it was not that all is well.
    gate: Option<Gate>,
}

impl<S, C> CircuitBreaker<S, C> {
    pub(super) fn new(inner: S, circuits: Arc<C>) -> Self {
        Self { inner, circuits, gate: None }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, R> Service<R> for CircuitBreaker<S, C>
where
    S: Service<R>,
    C: Circuits<R>,
    R: RequestContext,
    S::Response: ResponseContext,
    S::Error: Classify,
{
    type Response = S::Response;
    type Error = CircuitBreakerError<S::Error>;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Self { inner, circuits, gate } = self;
        let ready = match circuits.only() {
            None => inner.poll_ready(cx),
            // An answer that is there at once is all that most calls need.
            Some(circuit) if gate.is_none() && circuit.word().closed().is_some() => match inner.poll_ready(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                other => gate.get_or_insert_default().poll(circuit, Some(other), |cx| inner.poll_ready(cx), cx),
            },
            Some(circuit) => gate.get_or_insert_default().poll(circuit, None, |cx| inner.poll_ready(cx), cx),
        };
        ready.map_err(CircuitBreakerError::Inner)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        let circuit = match self.circuits.of(&request) {
            Ok(circuit) => circuit,
            Err(first) => return ResponseFuture::called(self.inner.call(request), Call::First(first)),
        };
        let ticket = if self.gate.is_none()
            && let Some(ticket) = circuit.word().closed()
        {
            ticket
        } else {
            match admit(&circuit, self.gate.take()) {
                Ok(ticket) => ticket,
                Err(retry_after) => return ResponseFuture::refused(retry_after),
            }
        };
        // Before the inner call, so that one that panics there counts as well.
        let call = Call::Let(Pass::begun(circuit, ticket, request.deadline()));
        ResponseFuture::called(self.inner.call(request), call)
    }
}

// By hand: what one service has decided for its next call, the place of a probe among it, is its alone.
impl<S: Clone, C> Clone for CircuitBreaker<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.circuits))
    }
}

impl<S: Load, C> Load for CircuitBreaker<S, C> {
    type Metric = S::Metric;

    fn load(&self) -> Self::Metric {
        self.inner.load()
    }
}
