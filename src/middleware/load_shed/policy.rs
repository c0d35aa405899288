//! Which calls are rejected.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::LoadShedError;

/// A call that did not reach the inner service.
pub(super) type Rejection = LoadShedError<Infallible>;

impl Rejection {
    pub(super) fn into_error<E>(self) -> LoadShedError<E> {
        match self {
            Self::NotReady => LoadShedError::NotReady,
            Self::Late { predicted_wait, retry_after } => LoadShedError::Late { predicted_wait, retry_after },
            Self::Inner(never) => match never {},
        }
    }
}

/// Decides which calls to admit, and keeps something of each admitted call.
pub trait Policy {
    /// Kept until the call has ended, and dropped then.
    type Admission;
}

/// [`Policy`] for calls with a request `R`.
pub trait Admit<R>: Policy {
    /// Admits a call or rejects it. An admitted call waits until the inner service is ready.
    fn admit(self: &Arc<Self>, request: &R, is_ready: bool) -> Result<Self::Admission, Rejection>;

    /// Adds what is known of an admitted call to its request, for the inner service.
    fn annotate(request: &mut R, admission: &Self::Admission) {
        let _ = (request, admission);
    }

    /// Returns until when an admitted call may wait for the inner service to become ready.
    fn wait_until(&self, request: &R) -> Option<Instant>;

    /// The inner service is called, after a wait for its readiness.
    fn called(admission: &mut Self::Admission);

    /// Rejects an admitted call that has waited for as long as it may.
    fn timed_out(&self, request: &R) -> Rejection;
}

/// [`Policy`] for calls with a response `T`.
pub trait Complete<T>: Policy {
    /// The call has returned a response.
    fn complete(admission: &mut Self::Admission, response: &T);
}

/// Rejects calls while the inner service is not ready.
#[derive(Debug, Default)]
pub struct WhenNotReady {
    pub(super) rejected: AtomicU64,
}

impl Policy for WhenNotReady {
    type Admission = ();
}

impl<R> Admit<R> for WhenNotReady {
    fn admit(self: &Arc<Self>, request: &R, is_ready: bool) -> Result<(), Rejection> {
        if is_ready { Ok(()) } else { Err(self.timed_out(request)) }
    }

    fn wait_until(&self, _request: &R) -> Option<Instant> {
        None
    }

    fn called((): &mut ()) {}

    fn timed_out(&self, _request: &R) -> Rejection {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        Rejection::NotReady
    }
}

impl<T> Complete<T> for WhenNotReady {
    fn complete((): &mut (), _response: &T) {}
}
