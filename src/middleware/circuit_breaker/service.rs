use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::circuits::Circuits;
use super::key::{CircuitKey, PerOperation, SingleCircuit};
use super::readiness::Readiness;
use super::{CircuitBreakerError, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::call_or_reject::CallOrReject;
use crate::middleware::derive::derive_debug;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::limits::tenant_key;
use crate::request::{RequestContext, ResponseContext, Share};

/// Rejects calls while too many fail. See the [module](super).
pub struct CircuitBreaker<S, K = SingleCircuit> {
    inner: S,
    key: Arc<K>,
    /// `None` if it is disabled.
    circuits: Option<Arc<Circuits>>,
    readiness: Readiness,
}

impl<S, K> CircuitBreaker<S, K> {
    pub(super) fn new(inner: S, key: Arc<K>, circuits: Option<Arc<Circuits>>) -> Self {
        Self { inner, key, circuits, readiness: Readiness::default() }
    }
}

impl<S> CircuitBreaker<S, PerOperation> {
    /// Forwards all calls.
    pub(crate) fn disabled(inner: S) -> Self {
        Self::new(inner, Arc::new(PerOperation), None)
    }
}

inner_service!(CircuitBreaker::<S, K> { inner });
clone_service!(CircuitBreaker<S, K> { inner, key, circuits, readiness: Readiness::default() });
derive_debug!(CircuitBreaker::<S, K> { inner, circuits } where S: fmt::Debug);

impl<S, K, R> Service<R> for CircuitBreaker<S, K>
where
    S: Service<R>,
    K: CircuitKey<R>,
    R: RequestContext,
    S::Response: ResponseContext,
    S::Error: AnyError,
{
    type Response = S::Response;
    type Error = CircuitBreakerError<S::Error>;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let inner = &mut self.inner;
        let ready = match self.circuits.as_ref().and_then(|circuits| circuits.as_single()) {
            Some(circuit) => self.readiness.poll(circuit, |cx| inner.poll_ready(cx), cx),
            None => inner.poll_ready(cx),
        };
        ready.map_err(CircuitBreakerError::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let admitted = self.circuits.as_ref().map(|circuits| match circuits.as_single() {
            Some(circuit) => self.readiness.admit(circuit),
            None => {
                let key = self.key.key(&request);
                circuits.admit(key.as_ref().map(AsRef::as_ref), tenant(&request))
            }
        });
        let mut call = match admitted.transpose() {
            Ok(call) => call,
            Err(retry_after) => {
                let inner = CallOrReject::reject(CircuitBreakerError::Open { retry_after });
                return ResponseFuture { inner, call: None };
            }
        };
        if let Some(call) = &mut call {
            // Before the inner call, so that a panic in it counts as a failure.
            call.start(request.deadline().filter(|_| !request.deadline_is_server_timeout()));
        }
        ResponseFuture { inner: CallOrReject::call(self.inner.call(request)), call }
    }
}

/// The tenant of a request that can have a circuit of its own. Those in the common share have none.
fn tenant(request: &impl RequestContext) -> Option<&Arc<str>> {
    tenant_key(request).filter(|_| !request.share().is_some_and(Share::is_common))
}
