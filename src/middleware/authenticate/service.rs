use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tower_service::Service;

use super::layer::Policy;
use super::{AuthenticateError, ResponseFuture};
use crate::middleware::inner_service::inner_service;
use crate::middleware::tracing::RequestScope;

/// Authenticates requests by their credential. See the [module](super).
#[derive(Clone, Debug)]
pub struct Authenticate<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl<S> Authenticate<S> {
    pub(super) fn new(inner: S, policy: Arc<Policy>) -> Self {
        Self { inner, policy }
    }
}

inner_service!(Authenticate::<S> { inner });

impl<S, B> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>>,
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
