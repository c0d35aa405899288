//! What threads share state through: `parking_lot` and the standard library's atomics, or the model checker's own under
//! `cfg(tower_kernels_loom)`.
//!
//! Only the state that `tests` of [loom](https://docs.rs/loom) look at uses this; everything else takes it from `std`. What
//! is done under these locks is counting and moving, which does not panic half-way, so they are not poisoned by a panic, and
//! do not ask at each turn whether there is one: 10 instructions for locking and unlocking in place of 30.

#[cfg(not(tower_kernels_loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(tower_kernels_loom))]
pub(crate) use std::sync::atomic;

#[cfg(tower_kernels_loom)]
pub(crate) use self::checked::{Mutex, MutexGuard};
#[cfg(tower_kernels_loom)]
pub(crate) use loom::sync::atomic;

#[cfg(tower_kernels_loom)]
mod checked {
    use std::sync::PoisonError;

    pub(crate) use loom::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
