use crate::error::{ErrorKind, layer_error};

/// The error of a [`Timeout`](super::Timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutError<E> {
    /// The deadline passed.
    Elapsed {
        /// Whether the inner service had been called. If not, no work was started.
        called: bool,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(TimeoutError(Inner) {
    Self::Elapsed { called } => ErrorKind::DeadlineExceeded, None,
        "the deadline passed {}", if *called { "before the response" } else { "before the call" };
});
