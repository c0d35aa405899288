use crate::error::{ErrorKind, classify_layer};

/// The deadline passed, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeoutError<E> {
    /// The deadline passed.
    #[error("the deadline passed {}", if *.called { "before the answer was there" } else { "before the call" })]
    Elapsed {
        /// Whether the inner service had been called. If not, nothing was begun.
        called: bool,
    },
    /// The inner service failed.
    #[error(transparent)]
    Inner(E),
}

classify_layer!(TimeoutError {
    Self::Elapsed { .. } => ErrorKind::DeadlineExceeded, None;
});
