use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project::pin_project;

use super::{Protocol, Refusal};
use crate::error::AnyError;

/// The answer of an [`Answer`](super::Answer).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F, P, C> {
    #[pin]
    state: State<F>,
    protocol: P,
    caller: C,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Called {
        #[pin]
        inner: F,
    },
    Refused {
        refusal: Box<Refusal>,
    },
}

impl<F, P, C> ResponseFuture<F, P, C> {
    #[inline]
    pub(super) fn called(inner: F, protocol: P, caller: C) -> Self {
        Self { state: State::Called { inner }, protocol, caller }
    }

    #[cold]
    pub(super) fn refused(refusal: Box<Refusal>, protocol: P, caller: C) -> Self {
        Self { state: State::Refused { refusal }, protocol, caller }
    }
}

impl<F, P, C, B, E> Future for ResponseFuture<F, P, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: AnyError,
    P: Protocol<B, Caller = C>,
{
    type Output = Result<Response<B>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(Ok(match this.state.project() {
            StateProj::Called { inner } => match ready!(inner.poll(cx)) {
                Ok(response) => response,
                Err(error) => refuse(this.protocol, this.caller, &Refusal::new(&error)),
            },
            StateProj::Refused { refusal } => refuse(this.protocol, this.caller, refusal),
        }))
    }
}

// Apart, so that the answer that is passed on is not made to keep room for it.
#[cold]
#[inline(never)]
fn refuse<P: Protocol<B>, B>(protocol: &P, caller: &P::Caller, refusal: &Refusal) -> Response<B> {
    protocol.answer(caller, refusal)
}
