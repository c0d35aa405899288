use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use super::{Protocol, Rejection};
use crate::error::AnyError;

pin_project! {
    /// The response future of an [`ErrorResponse`](super::ErrorResponse).
    #[derive(Debug)]
    pub struct ResponseFuture<F, P, C> {
        #[pin]
        state: State<F>,
        protocol: P,
        context: C,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Called {
            #[pin]
            inner: F,
        },
        // The inner service failed to become ready.
        Rejected {
            rejection: Box<Rejection>,
        },
    }
}

impl<F, P, C> ResponseFuture<F, P, C> {
    #[inline]
    pub(super) fn called(inner: F, protocol: P, context: C) -> Self {
        Self { state: State::Called { inner }, protocol, context }
    }

    pub(super) fn rejected(rejection: Box<Rejection>, protocol: P, context: C) -> Self {
        Self { state: State::Rejected { rejection }, protocol, context }
    }
}

impl<F, P, C, B, E> Future for ResponseFuture<F, P, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: AnyError,
    P: Protocol<B, Context = C>,
{
    type Output = Result<Response<B>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(Ok(match this.state.project() {
            StateProj::Called { inner } => match ready!(inner.poll(cx)) {
                Ok(response) => response,
                Err(error) => this.protocol.respond(this.context, &Rejection::new(&error)),
            },
            StateProj::Rejected { rejection } => this.protocol.respond(this.context, rejection),
        }))
    }
}
