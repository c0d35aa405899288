//! What threads share state through: the standard library's, or the model checker's own under `cfg(tower_kernels_loom)`.
//!
//! Only the state that `tests` of [loom](https://docs.rs/loom) look at uses this; everything else takes it from `std`.

#[cfg(not(tower_kernels_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(tower_kernels_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
