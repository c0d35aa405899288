use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower_service::Service;

use super::Store;
use crate::middleware::cache_key::{Repeatable, Repeats};

/// The answer of a [`Cache`](super::Cache).
#[pin_project]
pub struct ResponseFuture<S: Service<R>, P: Repeats<R>, R> {
    #[pin]
    state: State<S, P, R>,
}

#[pin_project(project = StateProj)]
enum State<S: Service<R>, P: Repeats<R>, R> {
    Called {
        #[pin]
        inner: S::Future,
        /// What its answer is to be kept for; `None` where it is not, and once it is.
        asked: Option<Asked<P, P::Kept, S::Response>>,
    },
    Known {
        answer: Option<S::Response>,
    },
}

/// A question whose answer is not known yet.
pub(super) struct Asked<P, K, T> {
    pub(super) question: K,
    pub(super) digest: u128,
    pub(super) generation: u64,
    pub(super) repeats: Arc<P>,
    pub(super) store: Arc<Store<K, T>>,
}

impl<P, K, T: Repeatable> Asked<P, K, T> {
    #[inline(never)]
    fn keep<R>(self, answer: &T)
    where
        P: Repeats<R, Kept = K>,
    {
        self.store.insert(&*self.repeats, self.digest, self.question, answer, self.generation);
    }
}

impl<S: Service<R>, P: Repeats<R>, R> ResponseFuture<S, P, R> {
    #[inline]
    pub(super) fn called(inner: S::Future, asked: Option<Asked<P, P::Kept, S::Response>>) -> Self {
        Self { state: State::Called { inner, asked } }
    }

    #[inline]
    pub(super) fn known(answer: S::Response) -> Self {
        Self { state: State::Known { answer: Some(answer) } }
    }
}

impl<S, P, R> Future for ResponseFuture<S, P, R>
where
    S: Service<R>,
    S::Response: Repeatable,
    P: Repeats<R>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner, asked } => {
                // Looked at where it is: to take it out would be to move it.
                let polled = inner.poll(cx);
                if let Poll::Ready(result) = &polled
                    && let (Some(asked), Ok(answer)) = (asked.take(), result)
                {
                    asked.keep(answer);
                }
                polled
            }
            StateProj::Known { answer } => Poll::Ready(Ok(answer.take().expect("polled after it had completed"))),
        }
    }
}

impl<S: Service<R>, P: Repeats<R>, R> fmt::Debug for ResponseFuture<S, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Called { .. } => "called",
            State::Known { .. } => "known",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
