//! [`Step`], a layer that may be off, and [`Apart`], a layer whose calls are made in a function of their own.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower::load::Load;
use tower_service::Service;

use crate::middleware::priority_queue::PriorityQueueError;

/// A service whose `call` is a function of its own.
///
/// A layer that answers some calls by itself makes its future in several places. In a function of its own it makes it where
/// that function's caller wants to have it; inlined it would make it somewhere, and move it once it is made, all that is
/// inside it included. The futures of a pipeline are long, and the call of a function is ten instructions.
#[derive(Clone, Debug)]
pub(super) struct Apart<S>(pub(super) S);

impl<S: Service<R>, R> Service<R> for Apart<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline(never)]
    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

impl<S: Load> Load for Apart<S> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.0.load()
    }
}

/// What the error of an inner service becomes in that of a layer.
pub(super) trait Wrap<E> {
    type Error;

    fn wrap(inner: E) -> Self::Error;
}

/// [`Wrap`] of a layer without an error of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsItIs;

impl<E> Wrap<E> for AsItIs {
    type Error = E;

    #[inline]
    fn wrap(inner: E) -> E {
        inner
    }
}

/// [`Wrap`] of the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue;

impl<E> Wrap<E> for Queue {
    type Error = PriorityQueueError<E>;

    #[inline]
    fn wrap(inner: E) -> PriorityQueueError<E> {
        PriorityQueueError::Inner(inner)
    }
}

/// The service of a layer, or what would be inside it.
///
/// It differs from `tower`'s `Either` in that the two need not have one error: a layer's is around that of the inner
/// service, and `W` puts it there where there is no layer.
#[derive(Clone, Debug)]
pub(super) enum Step<A, B, W> {
    On(Apart<A>),
    Off { inner: B, wrap: PhantomData<W> },
}

impl<A, B, R, W> Service<R> for Step<A, B, W>
where
    A: Service<R>,
    B: Service<R, Response = A::Response>,
    W: Wrap<B::Error, Error = A::Error>,
{
    type Response = A::Response;
    type Error = A::Error;
    type Future = StepFuture<A::Future, B::Future, W>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), A::Error>> {
        match self {
            Self::On(layered) => layered.poll_ready(cx),
            Self::Off { inner, .. } => inner.poll_ready(cx).map_err(W::wrap),
        }
    }

    #[inline(never)]
    fn call(&mut self, request: R) -> Self::Future {
        match self {
            Self::On(layered) => StepFuture::On { future: layered.call(request) },
            Self::Off { inner, .. } => StepFuture::Off { future: inner.call(request), wrap: PhantomData },
        }
    }
}

impl<A: Load, B: Load<Metric = A::Metric>, W> Load for Step<A, B, W> {
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
pub(super) enum StepFuture<A, B, W> {
    On {
        #[pin]
        future: A,
    },
    Off {
        #[pin]
        future: B,
        wrap: PhantomData<W>,
    },
}

impl<A, B, T, E, W> Future for StepFuture<A, B, W>
where
    A: Future<Output = Result<T, W::Error>>,
    B: Future<Output = Result<T, E>>,
    W: Wrap<E>,
{
    type Output = Result<T, W::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            StepFutureProj::On { future } => future.poll(cx),
            StepFutureProj::Off { future, .. } => future.poll(cx).map_err(W::wrap),
        }
    }
}
