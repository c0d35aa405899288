use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tower_service::Service;

use super::caller::Caller;
use super::flights::Flights;
use crate::middleware::cache_key::CacheKey;
use crate::middleware::clock;
use crate::request::RequestContext;

/// What the calls of one layer have in common.
#[derive(Debug)]
pub(super) struct Shared<P, L> {
    pub(super) repeats: P,
    pub(super) run_for: Option<Duration>,
    pub(super) flights: Arc<L>,
}

/// The flights of a service `S` of requests `R`.
pub(super) type FlightsOf<S, P, R> =
    Flights<<P as CacheKey<R>>::OwnedKey, <S as Service<R>>::Future, <S as Service<R>>::Response, <S as Service<R>>::Error>;
pub(super) type CallerOf<S, P, R> =
    Caller<<P as CacheKey<R>>::OwnedKey, <S as Service<R>>::Future, <S as Service<R>>::Response, <S as Service<R>>::Error>;

/// A place in the run that `request` asks for, or in a new one; `None` where it is to be run on its own.
#[inline]
pub(super) fn board<S, P, R>(shared: &Shared<P, FlightsOf<S, P, R>>, request: &R) -> Option<CallerOf<S, P, R>>
where
    S: Service<R>,
    P: CacheKey<R>,
    R: RequestContext,
{
    let question = shared.repeats.key(request)?;
    let digest = shared.repeats.digest(&question);
    // Looked at for the comparison, and taken to be held where nobody asks the same.
    let question = Cell::new(Some(question));
    let is_same = |kept: &P::OwnedKey| {
        let asked = question.take();
        let same = asked.as_ref().is_some_and(|asked| shared.repeats.is_equal(kept, asked));
        question.set(asked);
        same
    };
    let hold = || shared.repeats.to_owned_key(question.take().expect("it is put back after the comparison"));
    let boarded = shared.flights.board(digest, request.priority(), is_same, hold);
    Caller::new(&shared.flights, digest, boarded)
}

impl<P, L> Shared<P, L> {
    /// Calls `service`, which is ready, for all who will share the run.
    #[inline]
    pub(super) fn call<S: Service<R>, R: RequestContext>(&self, service: &mut S, mut request: R) -> S::Future {
        if let Some(run_for) = self.run_for
            && let Some(theirs) = request.deadline()
            && let Some(ours) = clock::now().checked_add(run_for)
            && ours > theirs
        {
            request.set_deadline(ours);
        }
        service.call(request)
    }
}

/// What a call that has joined a run needs to go again, if that ends for a reason that is not its own. Most never do, so it
/// is boxed: only who joins has one.
pub(super) struct Again<S, P, L, R> {
    pub(super) service: S,
    /// Until it is called.
    pub(super) request: Option<R>,
    pub(super) shared: Arc<Shared<P, L>>,
}

impl<S, P, R> Again<S, P, FlightsOf<S, P, R>, R>
where
    S: Service<R>,
    P: CacheKey<R>,
    R: RequestContext,
{
    /// Asks again. Who is to begin a run does so once the service is ready; the others need no readiness.
    pub(super) fn board(&self) -> Option<CallerOf<S, P, R>> {
        board::<S, P, R>(&self.shared, self.request.as_ref()?)
    }
}
