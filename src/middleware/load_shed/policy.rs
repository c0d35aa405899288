//! Which calls are rejected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::LoadShedError;

/// Decides which calls to admit, of requests `R` and with responses `T`, and keeps something of each admitted call.
pub trait Policy<R, T> {
    /// Kept until the call has ended, and dropped then.
    type Admission;

    /// Admits a call or rejects it. An admitted call waits until the inner service is ready.
    fn admit<E>(self: &Arc<Self>, request: &R, is_ready: bool) -> Result<Self::Admission, LoadShedError<E>>;

    /// Adds what is known of an admitted call to its request, for the inner service.
    fn annotate(request: &mut R, admission: &Self::Admission) {
        let _ = (request, admission);
    }

    /// Returns until when an admitted call may wait for the inner service to become ready.
    fn wait_until(&self, request: &R) -> Option<Instant>;

    /// The inner service is called, after a wait for its readiness.
    fn called(admission: &mut Self::Admission);

    /// Rejects an admitted call that has waited for as long as it may.
    fn timed_out<E>(&self, request: &R) -> LoadShedError<E>;

    /// The call has returned a response.
    fn complete(admission: &mut Self::Admission, response: &T);
}

/// Rejects calls while the inner service is not ready.
#[derive(Debug, Default)]
pub struct WhenNotReady {
    pub(super) rejected: AtomicU64,
}

impl<R, T> Policy<R, T> for WhenNotReady {
    type Admission = ();

    fn admit<E>(self: &Arc<Self>, request: &R, is_ready: bool) -> Result<(), LoadShedError<E>> {
        if is_ready { Ok(()) } else { Err(Policy::<R, T>::timed_out(&**self, request)) }
    }

    fn wait_until(&self, _request: &R) -> Option<Instant> {
        None
    }

    fn called((): &mut ()) {}

    fn timed_out<E>(&self, _request: &R) -> LoadShedError<E> {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        LoadShedError::NotReady
    }

    fn complete((): &mut (), _response: &T) {}
}
