use crate::error::{ErrorKind, layer_error};

/// The deadline passed, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutError<E> {
    /// The deadline passed.
    Elapsed {
        /// Whether the inner service had been called. If not, nothing was begun.
        called: bool,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(TimeoutError(Inner) {
    Self::Elapsed { called } => ErrorKind::DeadlineExceeded, None,
        "the deadline passed {}", if *called { "before the answer was there" } else { "before the call" };
});
