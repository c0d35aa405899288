use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tower_service::Service;

use super::layer::Policy;
use super::{AuthenticateError, ResponseFuture, Verify};
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::middleware::tracing::RequestScope;

/// Authenticates requests by their credential. See the [module](super).
#[derive(Debug)]
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
// A derived `Clone` would require `V: Clone`, but the verifier is shared.
clone_service!(Authenticate::<S, V> { inner, policy });

impl<S, V, B> Service<Request<B>> for Authenticate<S, V>
where
    S: Service<Request<B>>,
    V: Verify,
{
    type Response = S::Response;
    type Error = AuthenticateError<S::Error>;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(AuthenticateError::Inner)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.policy.identify(&request) {
            Ok(Some(identity)) => {
                if let Some(scope) = request.extensions().get::<RequestScope>() {
                    scope.set_tenant(&identity.tenant);
                }
                identity.insert_into(request.extensions_mut());
            }
            Ok(None) => {}
            Err(error) => return ResponseFuture::reject(error),
        }
        ResponseFuture::call(self.inner.call(request))
    }
}
