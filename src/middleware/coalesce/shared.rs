use std::sync::Arc;
use std::time::Duration;

use tower_service::Service;

use super::caller::Caller;
use super::flights::Flights;
use crate::middleware::cache_key::CacheKey;
use crate::middleware::clock;
use crate::request::RequestContext;

/// What the calls of one layer share.
#[derive(Debug)]
pub(super) struct Shared<P, L> {
    pub(super) cache_key: P,
    pub(super) min_run_time: Option<Duration>,
    pub(super) flights: Arc<L>,
}

/// The flights of a service `S` of requests `R`.
pub(super) type FlightsOf<S, P, R> = Flights<
    <P as CacheKey<R>>::OwnedKey,
    <S as Service<R>>::Future,
    <S as Service<R>>::Response,
    <S as Service<R>>::Error,
>;
pub(super) type CallerOf<S, P, R> = Caller<
    <P as CacheKey<R>>::OwnedKey,
    <S as Service<R>>::Future,
    <S as Service<R>>::Response,
    <S as Service<R>>::Error,
>;

/// Joins the run of an equal request, or leads a new one. `None` if `request` must run alone.
pub(super) fn join_or_lead<S, P, R>(shared: &Shared<P, FlightsOf<S, P, R>>, request: &R) -> Option<CallerOf<S, P, R>>
where
    S: Service<R>,
    P: CacheKey<R>,
    R: RequestContext,
{
    let Shared { cache_key, flights, .. } = shared;
    let key = cache_key.key(request)?;
    let digest = cache_key.digest(&key);
    let is_equal = |owned: &P::OwnedKey, key: &P::Key<'_>| cache_key.is_equal(owned, key);
    let to_owned_key = |key: P::Key<'_>| cache_key.to_owned_key(key);
    let membership = flights.join_or_lead(digest, request.priority(), key, is_equal, to_owned_key)?;
    Some(Caller::new(flights, digest, membership))
}

impl<P, L> Shared<P, L> {
    /// Calls `service`, which is ready, for all callers of the run.
    pub(super) fn call<S: Service<R>, R: RequestContext>(&self, service: &mut S, mut request: R) -> S::Future {
        if let Some(min_run_time) = self.min_run_time
            && let Some(deadline) = request.deadline()
            && let Some(min_deadline) = clock::now().checked_add(min_run_time)
            && min_deadline > deadline
        {
            request.set_deadline(min_deadline);
        }
        service.call(request)
    }
}

/// What a call that has joined a run needs to call again, if the run ends for a reason of its leader's alone. It is boxed,
/// as most calls do not join.
pub(super) struct Rerun<S, P, L, R> {
    pub(super) service: S,
    /// `None` once it is called.
    pub(super) request: Option<R>,
    pub(super) shared: Arc<Shared<P, L>>,
}

impl<S, P, R> Rerun<S, P, FlightsOf<S, P, R>, R>
where
    S: Service<R>,
    P: CacheKey<R>,
    R: RequestContext,
{
    pub(super) fn join_or_lead(&self) -> Option<CallerOf<S, P, R>> {
        join_or_lead::<S, P, R>(&self.shared, self.request.as_ref()?)
    }
}
