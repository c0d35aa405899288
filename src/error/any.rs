use std::error::Error;
use std::fmt;

use super::{Classification, Classify, classify};

/// An error that layers and servers accept: one that implements [`Classify`] and [`Error`], or tower's
/// [`BoxError`](tower::BoxError).
///
/// It is implemented for all of these. Implement [`Classify`] for error types of your own; this trait is for bounds in
/// generic code:
///
/// ```
/// use tower_kernels::error::{AnyError, ErrorKind};
///
/// fn is_overload(error: &impl AnyError) -> bool {
///     error.classify().kind == ErrorKind::Overloaded
/// }
///
/// let boxed = tower::BoxError::from(tower::load_shed::error::Overloaded::new());
/// assert!(is_overload(&boxed));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error that the layers of tower-kernels can classify",
    label = "`{Self}` needs an `ErrorKind`",
    note = "implement `std::error::Error` and `tower_kernels::error::Classify` for `{Self}`",
    note = "for an error type of another crate, put `tower_kernels::layers::ClassifyLayer` directly around the service \
            that returns it",
    note = "see the page `tower_kernels::compile_errors`"
)]
pub trait AnyError: fmt::Debug + fmt::Display + 'static {
    /// Returns the error as a trait object, for its text and its sources.
    fn as_error(&self) -> &(dyn Error + 'static);

    /// Classifies the error. A boxed error is classified by the error inside the box; see
    /// [`classify`](fn@super::classify).
    fn classify(&self) -> Classification;
}

impl<E: Classify + Error + 'static> AnyError for E {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }

    #[inline]
    fn classify(&self) -> Classification {
        self.classification()
    }
}

// `Classify` cannot be implemented for boxes: it would conflict with the implementation above.
impl AnyError for Box<dyn Error + Send + Sync> {
    fn as_error(&self) -> &(dyn Error + 'static) {
        &**self
    }

    fn classify(&self) -> Classification {
        classify(&**self)
    }
}
