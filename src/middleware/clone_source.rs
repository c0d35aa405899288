//! Where services for further attempts are cloned from.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// One shared service that attempts clone, so that a call which needs no second attempt clones no deep stack.
///
/// The lock makes it `Sync` where the service is not. It is held only to clone.
pub(super) struct CloneSource<S>(Arc<Mutex<S>>);

impl<S> CloneSource<S> {
    pub(super) fn new(service: S) -> Self {
        Self(Arc::new(Mutex::new(service)))
    }
}

impl<S: Clone> CloneSource<S> {
    /// A clone that nothing has polled ready.
    pub(super) fn get(&self) -> S {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S> Clone for CloneSource<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for CloneSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloneSource").finish_non_exhaustive()
    }
}
