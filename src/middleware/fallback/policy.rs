use std::sync::Arc;

use crate::error::{AnyError, ErrorKinds};
use crate::middleware::clone_source::CloneSource;
use crate::middleware::derive::{derive_clone, derive_debug};
use crate::sync::Mutex;

/// After which errors the fallback is called: those of some [kinds](ErrorKinds), or those that a closure accepts.
pub trait FallbackPolicy<E> {
    /// Whether the fallback is called after `error`.
    fn accepts_error(&self, error: &E) -> bool;
}

impl<E: AnyError> FallbackPolicy<E> for ErrorKinds {
    fn accepts_error(&self, error: &E) -> bool {
        self.contains(error.classify().kind)
    }
}

impl<E, Q: Fn(&E) -> bool> FallbackPolicy<E> for Q {
    fn accepts_error(&self, error: &E) -> bool {
        self(error)
    }
}

/// The state of a [`FallbackLayer`](super::FallbackLayer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "service", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FallbackSnapshot {
    /// Calls of the fallback.
    pub fell_back: u64,
    /// Calls of the fallback that failed, too.
    pub failed: u64,
    /// Calls whose deadline passed before the fallback was ready.
    pub deadline_exceeded: u64,
    /// Calls that wait for the fallback to be ready, or that it runs.
    pub in_flight: u64,
}

/// Returns whether the fallback may run a request.
type AcceptsRequest<R> = Arc<dyn Fn(&R) -> bool + Send + Sync>;

/// Which calls fall back, and on what. Clones share the fallback and the counts.
pub(super) struct Shared<F, R, C> {
    pub(super) fallback: CloneSource<F>,
    pub(super) errors: Arc<C>,
    /// `None` if the fallback may run every request.
    pub(super) accepts_request: Option<AcceptsRequest<R>>,
    pub(super) counts: Arc<Mutex<FallbackSnapshot>>,
}

derive_clone!(Shared::<F, R, C> { fallback, errors, accepts_request, counts });
derive_debug!(Shared::<F, R, C> { counts });

impl<F, R, C> Shared<F, R, C> {
    pub(super) fn accepts_request(&self, request: &R) -> bool {
        self.accepts_request.as_ref().is_none_or(|accepts| accepts(request))
    }
}

/// Counts a call as in flight until it is dropped.
pub(super) struct InFlight(Arc<Mutex<FallbackSnapshot>>);

impl InFlight {
    pub(super) fn new(counts: &Arc<Mutex<FallbackSnapshot>>) -> Self {
        counts.lock().in_flight += 1;
        Self(Arc::clone(counts))
    }

    pub(super) fn count_failure(&self) {
        self.0.lock().failed += 1;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}
