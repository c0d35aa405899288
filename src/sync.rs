//! Locks and atomics of state that threads share: the standard library's, or under `cfg(tower_kernels_loom)` those of the
//! model checker [loom](https://docs.rs/loom).
//!
//! Only state that has a loom model uses this module.

#[cfg(tower_kernels_loom)]
use loom::sync as primitives;
#[cfg(not(tower_kernels_loom))]
use std::sync as primitives;
use std::sync::PoisonError;

#[cfg(all(feature = "service", not(tower_kernels_loom)))]
pub(crate) use arc_swap::ArcSwap;
#[cfg(feature = "cuda")]
pub(crate) use primitives::Condvar;
#[cfg(feature = "circuit-breaker")]
pub(crate) use primitives::atomic::AtomicU64;
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

/// Stands in for `arc_swap`'s type, which loom does not know, in models of what uses it.
#[cfg(all(feature = "service", tower_kernels_loom))]
#[derive(Debug, Default)]
pub(crate) struct ArcSwap<T>(Mutex<std::sync::Arc<T>>);

#[cfg(all(feature = "service", tower_kernels_loom))]
impl<T> ArcSwap<T> {
    pub(crate) fn load(&self) -> std::sync::Arc<T> {
        std::sync::Arc::clone(&self.0.lock())
    }

    pub(crate) fn store(&self, value: std::sync::Arc<T>) {
        // Dropped after the lock is released, as what it drops may use other locks.
        let _replaced = std::mem::replace(&mut *self.0.lock(), value);
    }
}
