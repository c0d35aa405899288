//! Who is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why a call is refused.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// The inner service is not ready.
    NotReady,
    /// There is no time for it.
    Late {
        /// Until what is ahead is done.
        predicted_wait: Duration,
        /// Until a call like this one is let in.
        retry_after: Duration,
    },
}

/// What is decided, and kept, of each call.
pub trait Policy {
    /// What is kept of a call that was let in, until it is dropped.
    type Admitted;
}

/// [`Policy`] for calls with an `R`.
pub trait Admit<R>: Policy {
    /// Whether `request` may come in. Where the inner service is not `ready`, a call that may come in waits for it.
    fn admit(self: &Arc<Self>, request: &R, ready: bool) -> Result<Self::Admitted, Refusal>;

    /// Tells those further in what is known of a call that may come in.
    #[inline]
    fn tell(request: &mut R, admitted: &Self::Admitted) {
        let _ = (request, admitted);
    }

    /// Until when a call may wait for readiness.
    fn wait_until(&self, request: &R) -> Option<Instant>;

    /// The inner service is being called, after a wait for readiness.
    fn called(admitted: &mut Self::Admitted);

    /// The call has waited for readiness for as long as it may.
    fn waited(&self, request: &R) -> Refusal;
}

/// [`Policy`] for calls that end with a `T`.
pub trait Answered<T>: Policy {
    /// The call has been answered.
    fn answered(admitted: &mut Self::Admitted, response: &T);
}

/// Refuses a call when the inner service is not ready.
#[derive(Debug, Default)]
pub struct WhenNotReady {
    pub(super) shed: AtomicU64,
}

impl Policy for WhenNotReady {
    type Admitted = ();
}

impl<R> Admit<R> for WhenNotReady {
    #[inline]
    fn admit(self: &Arc<Self>, _request: &R, ready: bool) -> Result<(), Refusal> {
        if ready { Ok(()) } else { Err(self.refuse()) }
    }

    fn wait_until(&self, _request: &R) -> Option<Instant> {
        None
    }

    fn called((): &mut ()) {}

    fn waited(&self, _request: &R) -> Refusal {
        self.refuse()
    }
}

impl<T> Answered<T> for WhenNotReady {
    #[inline]
    fn answered((): &mut (), _response: &T) {}
}

impl WhenNotReady {
    #[cold]
    fn refuse(&self) -> Refusal {
        self.shed.fetch_add(1, Ordering::Relaxed);
        Refusal::NotReady
    }
}
