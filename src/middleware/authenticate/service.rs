use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tower_service::Service;

use super::layer::Policy;
use super::{AuthenticateError, ResponseFuture, Verify};
use crate::middleware::inner_service::inner_service;
use crate::middleware::tracing::RequestScope;

/// Lets through what says who makes it. See the [module](super).
pub struct Authenticate<S, V> {
    inner: S,
    policy: Arc<Policy<V>>,
}

impl<S, V> Authenticate<S, V> {
    pub(super) fn new(inner: S, policy: Arc<Policy<V>>) -> Self {
        Self { inner, policy }
    }
}

inner_service!(Authenticate::<S, V> { inner });

impl<S, V, B> Service<Request<B>> for Authenticate<S, V>
where
    S: Service<Request<B>>,
    V: Verify,
{
    type Response = S::Response;
    type Error = AuthenticateError<S::Error>;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(AuthenticateError::Inner)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.policy.identify(&request) {
            Ok(Some(identity)) => {
                if let Some(scope) = request.extensions().get::<RequestScope>() {
                    scope.set_tenant(&identity.tenant);
                }
                identity.insert_into(request.extensions_mut());
            }
            Ok(None) => {}
            Err(error) => return ResponseFuture::refused(error),
        }
        ResponseFuture::called(self.inner.call(request))
    }
}

// By hand: a clone needs no `V: Clone`, the verifier is shared.
impl<S: Clone, V> Clone for Authenticate<S, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: Arc::clone(&self.policy) }
    }
}

impl<S: fmt::Debug, V: fmt::Debug> fmt::Debug for Authenticate<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticate").field("inner", &self.inner).field("policy", &self.policy).finish()
    }
}
