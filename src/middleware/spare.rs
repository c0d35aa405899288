//! A service to take clones of, for attempts that most calls never make.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// One service that all calls share and none uses: a call keeps this and not a clone of the service, which can be deep. The
/// lock is taken to clone only, and spares the service from having to be `Sync`.
pub(super) struct Spare<S>(Arc<Mutex<S>>);

impl<S> Spare<S> {
    pub(super) fn new(service: S) -> Self {
        Self(Arc::new(Mutex::new(service)))
    }
}

impl<S: Clone> Spare<S> {
    /// A service that nobody has polled ready.
    pub(super) fn get(&self) -> S {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S> Clone for Spare<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Spare<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare").finish_non_exhaustive()
    }
}
