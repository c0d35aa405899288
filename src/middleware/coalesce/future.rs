use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::caller::Caller;
use super::{CoalesceError, Flights};
use crate::error::{AnyError, ErrorKind};
use crate::middleware::cache_key::CacheKey;
use crate::middleware::derive::derive_debug;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

/// Response future of [`Coalesce`](super::Coalesce).
///
/// # Panics
/// Polling needs a Tokio runtime with time enabled if the request has a deadline and the run is pending.
#[pin_project]
pub struct ResponseFuture<F, K, T, E> {
    #[pin]
    state: State<F, K, T, E>,
}

#[pin_project(project = StateProj)]
enum State<F, K, T, E> {
    /// The run is not shared.
    Alone {
        #[pin]
        inner: F,
    },
    Leading {
        caller: Caller<K, T, E>,
        #[pin]
        timer: LazyTimer,
    },
    /// Has joined the run of another call. Boxed, as it has the request and a service to call again with.
    Joined {
        join: BoxedResult<T, E>,
    },
    Completed,
}

type BoxedResult<T, E> = Pin<Box<dyn Future<Output = Result<T, CoalesceError<E>>> + Send>>;

impl<F, K, T, E> ResponseFuture<F, K, T, E> {
    #[inline]
    pub(super) fn alone(inner: F) -> Self {
        Self { state: State::Alone { inner } }
    }

    pub(super) fn leading(caller: Caller<K, T, E>, deadline: Option<Instant>) -> Self {
        Self { state: State::Leading { caller, timer: LazyTimer::new(deadline) } }
    }

    pub(super) fn joined(join: impl Future<Output = Result<T, CoalesceError<E>>> + Send + 'static) -> Self {
        Self { state: State::Joined { join: Box::pin(join) } }
    }
}

impl<F, K, T, E> Future for ResponseFuture<F, K, T, E>
where
    F: Future<Output = Result<T, E>>,
    K: Send + Sync + 'static,
    T: Clone + Send + 'static,
    E: AnyError + Send + Sync,
{
    type Output = Result<T, CoalesceError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let result = match state.as_mut().project() {
            StateProj::Alone { inner } => ready!(inner.poll(cx)).map_err(CoalesceError::from),
            StateProj::Leading { caller, timer } => ready!(caller.poll(cx, timer)).expect(STARTED),
            StateProj::Joined { join } => ready!(join.as_mut().poll(cx)),
            StateProj::Completed => panic!("polled after completion"),
        };
        // Leaves the flight now rather than when the future is dropped.
        state.set(State::Completed);
        Poll::Ready(result)
    }
}

const STARTED: &str = "a leader that waits has started its run";

/// Waits for the outcome of a run that another call leads. If the run ends for a reason of its leader's alone, calls again:
/// joins the next run, or leads it once `service` is ready.
pub(super) async fn join<S, P, R>(
    mut caller: Caller<P::OwnedKey, S::Response, S::Error>,
    mut service: S,
    mut request: R,
    cache_key: Arc<P>,
    flights: Arc<Flights<P::OwnedKey, S::Response, S::Error>>,
) -> Result<S::Response, CoalesceError<S::Error>>
where
    S: Service<R>,
    S::Response: Clone + Send + 'static,
    S::Error: AnyError + Send + Sync,
    S::Future: Send + 'static,
    P: CacheKey<R>,
    R: RequestContext,
{
    let mut timer = pin!(LazyTimer::new(request.deadline()));
    let leads = loop {
        match poll_fn(|cx| caller.poll(cx, timer.as_mut())).await {
            Some(result) if !is_of_leader_alone(&result) => return result,
            _ => {}
        }
        match flights.join_or_lead(&*cache_key, &request) {
            Some(joined) if !joined.is_leader() => caller = joined,
            leads => break leads,
        }
    };
    drop(caller);
    poll_fn(|cx| match timer.as_mut().poll_elapsed(cx) {
        // First, as a request past its deadline is not sent even if the service is ready.
        Poll::Ready(()) => Poll::Ready(Err(CoalesceError::Elapsed)),
        Poll::Pending => service.poll_ready(cx).map_err(CoalesceError::from),
    })
    .await?;
    flights.extend_deadline(&mut request);
    let Some(mut leader) = leads else {
        return service.call(request).await.map_err(CoalesceError::from);
    };
    leader.start(|| service.call(request));
    drop(service);
    poll_fn(|cx| leader.poll(cx, timer.as_mut())).await.expect(STARTED)
}

/// Whether a run has ended for a reason of its leader's that does not apply to the callers that joined.
fn is_of_leader_alone<T, E: AnyError>(result: &Result<T, CoalesceError<E>>) -> bool {
    match result {
        Err(CoalesceError::Inner(error)) => {
            matches!(error.classify().kind, ErrorKind::DeadlineExceeded | ErrorKind::Cancelled)
        }
        _ => false,
    }
}

derive_debug!(ResponseFuture::<F, K, T, E> {});
