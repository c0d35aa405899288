use std::sync::Arc;
use std::task::{Context, Poll};

use tower::BoxError;
use tower_service::Service;

use super::{ClassifiedError, ClassifyLayer, ResponseFuture};
use crate::middleware::inner_service::inner_service;

/// Gives the errors of the inner service a kind. See the [module](super).
#[derive(Clone, Debug)]
pub struct Classified<S> {
    inner: S,
    rules: Arc<ClassifyLayer>,
}

impl<S> Classified<S> {
    /// Creates a service that classifies the errors of `inner` by the rules of a layer.
    pub fn new(inner: S, rules: Arc<ClassifyLayer>) -> Self {
        Self { inner, rules }
    }
}

inner_service!(Classified::<S> { inner });

impl<S, R> Service<R> for Classified<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = ClassifiedError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(|error| self.rules.classify(error))
    }

    fn call(&mut self, request: R) -> Self::Future {
        ResponseFuture::new(self.inner.call(request), Arc::clone(&self.rules))
    }
}
