use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::circuit::Pass;
use super::circuits::{Circuits, One, callers_deadline};
use super::first::First;
use super::future::Call;
use super::gate::{Gate, admit};
use super::{CircuitBreakerError, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::inner_service::inner_service;
use crate::request::{RequestContext, ResponseContext};

/// Refuses calls while too many fail. See the [module](super).
#[derive(Debug)]
pub struct CircuitBreaker<S, C = One> {
    inner: S,
    /// `None` where it is off.
    circuits: Option<Arc<C>>,
    /// What the last `poll_ready` found out for the next call, where it was not that all is well.
    gate: Option<Gate>,
}

impl<S, C> CircuitBreaker<S, C> {
    pub(super) fn new(inner: S, circuits: Arc<C>) -> Self {
        Self { inner, circuits: Some(circuits), gate: None }
    }

    /// Refuses nothing.
    pub(crate) fn off(inner: S) -> Self {
        Self { inner, circuits: None, gate: None }
    }
}

inner_service!(CircuitBreaker::<S, C> { inner });

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
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Self { inner, circuits, gate } = self;
        let ready = match circuits.as_ref().and_then(|circuits| circuits.only()) {
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
        let Some(circuits) = &self.circuits else { return ResponseFuture::called(self.inner.call(request), None) };
        let circuit = match circuits.of(&request) {
            Ok(circuit) => circuit,
            Err(first) => return call_first(&mut self.inner, request, first),
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
        let tenant = circuits.tenant_of(&request);
        let call = Call::Let(Pass::begun(circuit, ticket, callers_deadline(&request), tenant));
        ResponseFuture::called(self.inner.call(request), Some(call))
    }
}

/// A call of an operation that has no circuit.
// Apart, so that those of one that has are not made to keep room for it.
#[cold]
#[inline(never)]
fn call_first<S: Service<R>, R>(inner: &mut S, request: R, first: Box<First>) -> ResponseFuture<S::Future> {
    ResponseFuture::called(inner.call(request), Some(Call::First(first)))
}

// By hand: what one service has decided for its next call, the place of a probe among it, is its alone.
impl<S: Clone, C> Clone for CircuitBreaker<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), circuits: self.circuits.clone(), gate: None }
    }
}
