use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower::BoxError;

use super::{ClassifiedError, ClassifyLayer};

/// The response future of a [`Classified`](super::Classified).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    rules: Arc<ClassifyLayer>,
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, rules: Arc<ClassifyLayer>) -> Self {
        Self { inner, rules }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, ClassifiedError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map_err(|error| this.rules.classify(error))
    }
}
