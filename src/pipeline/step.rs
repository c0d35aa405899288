//! [`Step`]: a layer that may be off.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower::load::Load;
use tower_service::Service;

/// The service of a layer, or what would be inside it.
///
/// It differs from `tower`'s `Either` in that the two need not have one error: a layer's is around that of the inner
/// service, and `wrap` puts it there where there is no layer.
#[derive(Clone, Debug)]
pub(super) enum Step<A, B, F> {
    On(A),
    Off { inner: B, wrap: F },
}

impl<A, B, R, E> Service<R> for Step<A, B, fn(B::Error) -> E>
where
    A: Service<R, Error = E>,
    B: Service<R, Response = A::Response>,
{
    type Response = A::Response;
    type Error = E;
    type Future = StepFuture<A::Future, B::Future, fn(B::Error) -> E>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        match self {
            Self::On(layered) => layered.poll_ready(cx),
            Self::Off { inner, wrap } => inner.poll_ready(cx).map_err(*wrap),
        }
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        match self {
            Self::On(layered) => StepFuture::On { future: layered.call(request) },
            Self::Off { inner, wrap } => StepFuture::Off { future: inner.call(request), wrap: *wrap },
        }
    }
}

impl<A: Load, B: Load<Metric = A::Metric>, F> Load for Step<A, B, F> {
    type Metric = A::Metric;

    fn load(&self) -> A::Metric {
        match self {
            Self::On(layered) => layered.load(),
            Self::Off { inner, .. } => inner.load(),
        }
    }
}

#[pin_project(project = StepFutureProj)]
#[derive(Debug)]
pub(super) enum StepFuture<A, B, F> {
    On {
        #[pin]
        future: A,
    },
    Off {
        #[pin]
        future: B,
        wrap: F,
    },
}

impl<A, B, T, E, Inner> Future for StepFuture<A, B, fn(Inner) -> E>
where
    A: Future<Output = Result<T, E>>,
    B: Future<Output = Result<T, Inner>>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            StepFutureProj::On { future } => future.poll(cx),
            StepFutureProj::Off { future, wrap } => future.poll(cx).map_err(*wrap),
        }
    }
}
