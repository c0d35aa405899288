//! Locks of state that threads share: the standard library's, or under `cfg(tower_kernels_loom)` those of the
//! model checker [loom](https://docs.rs/loom).
//!
//! Only state that has a loom model uses this module.

#[cfg(tower_kernels_loom)]
use loom::sync as primitives;
#[cfg(not(tower_kernels_loom))]
use std::sync as primitives;
use std::sync::PoisonError;

pub(crate) use primitives::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// A mutex that a panic does not poison: what is done under these locks does not panic half-way.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(primitives::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(primitives::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader-writer lock that a panic does not poison, like [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(primitives::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
