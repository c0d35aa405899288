use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::store::Miss;
use crate::middleware::cache_key::{CacheKey, Cacheable};
use crate::middleware::derive::derive_debug;

/// Response future of [`Cache`](super::Cache).
#[pin_project]
pub struct ResponseFuture<S: Service<R>, P: CacheKey<R>, R> {
    #[pin]
    state: State<S, P, R>,
}

type MissOf<S, P, R> = Miss<P, <P as CacheKey<R>>::OwnedKey, <S as Service<R>>::Response>;

#[pin_project(project = StateProj)]
enum State<S: Service<R>, P: CacheKey<R>, R> {
    Call {
        #[pin]
        inner: S::Future,
        /// `None` if the request has no key, and once the call has ended.
        // Boxed, because most calls of a pipeline have none, and each would have the room for one.
        miss: Option<Box<MissOf<S, P, R>>>,
    },
    Hit {
        response: Option<S::Response>,
    },
}

impl<S: Service<R>, P: CacheKey<R>, R> ResponseFuture<S, P, R> {
    #[inline]
    pub(super) fn call(inner: S::Future, miss: Option<Box<MissOf<S, P, R>>>) -> Self {
        Self { state: State::Call { inner, miss } }
    }

    pub(super) fn hit(response: S::Response) -> Self {
        Self { state: State::Hit { response: Some(response) } }
    }
}

impl<S, P, R> Future for ResponseFuture<S, P, R>
where
    S: Service<R>,
    S::Response: Cacheable,
    P: CacheKey<R>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Call { inner, miss } => {
                let result = ready!(inner.poll(cx));
                if let (Some(miss), Ok(response)) = (miss.take(), &result) {
                    miss.insert(response);
                }
                Poll::Ready(result)
            }
            StateProj::Hit { response } => Poll::Ready(Ok(response.take().expect("polled after completion"))),
        }
    }
}

derive_debug!(ResponseFuture::<S, P, R> {} where S: Service<R>, P: CacheKey<R>);
