//! Classifies type-erased errors.

use std::cell::Cell;
use std::error::Error;
use std::iter::successors;
use std::sync::Arc;

use super::{Classification, Classify, ErrorKind};

/// Classifies an error whose type is not known, such as one in a [`BoxError`](tower::BoxError).
///
/// The error and then its [sources](Error::source) are checked, and the first of a known type decides:
///
/// * the errors of this crate, with their [`retry_after`](Classify::retry_after), however they are boxed;
/// * tower's `Overloaded` ([`Overloaded`](ErrorKind::Overloaded)), `Elapsed`
///   ([`DeadlineExceeded`](ErrorKind::DeadlineExceeded)) and the `Closed` of its buffer
///   ([`Unavailable`](ErrorKind::Unavailable));
/// * Tokio's `Elapsed`, and `tonic::Status` with the feature `grpc`.
///
/// If no type is known, the error is [`Internal`](ErrorKind::Internal). An error type of your own is not recognized
/// inside a box, even if it implements [`Classify`]: put a [`ClassifyLayer`](crate::layers::ClassifyLayer) between the
/// service and the layer that boxes.
///
/// ```
/// use std::time::Duration;
/// use tower::BoxError;
/// use tower_kernels::error::{ErrorKind, classify};
/// use tower_kernels::middleware::rate_limit::RateLimitError;
///
/// let retry_after = Duration::from_secs(3);
/// let error: BoxError = RateLimitError::<BoxError>::Limited { retry_after }.into();
/// let classification = classify(&*error);
/// assert_eq!(classification.kind, ErrorKind::RateLimited);
/// assert_eq!(classification.retry_after, Some(retry_after));
/// ```
pub fn classify(error: &(dyn Error + 'static)) -> Classification {
    classify_with(error, |_| None, ErrorKind::Internal)
}

/// As [`classify`](fn@classify), but tries `first` on each error before the known types, and returns `otherwise` if no
/// type is known.
pub(crate) fn classify_with(
    error: &(dyn Error + 'static),
    first: impl Fn(&(dyn Error + 'static)) -> Option<Classification>,
    otherwise: ErrorKind,
) -> Classification {
    let mut causes = successors(Some(error), |&error| error.source());
    causes.find_map(|error| first(error).or_else(|| known(error))).unwrap_or(otherwise.into())
}

/// Classifies the error itself, without its sources.
fn known(error: &(dyn Error + 'static)) -> Option<Classification> {
    request_classification(error).or_else(|| foreign(error))
}

thread_local! {
    /// Whether the next call of [`provide`] stores a classification in [`PROVIDED`].
    static REQUESTED: Cell<bool> = const { Cell::new(false) };
    static PROVIDED: Cell<Option<Classification>> = const { Cell::new(None) };
}

/// Requests the classification of an error of this crate through a call of [`Error::source`].
///
/// Layer errors are generic over their inner errors, so there is no finite list of types to downcast to. The standard
/// library's mechanism for this, `Error::provide`, is not stable. `source` is the only trait-object method that runs
/// code of the concrete error type and is forwarded by transparent wrappers, `Box` and `Arc`.
fn request_classification(error: &(dyn Error + 'static)) -> Option<Classification> {
    PROVIDED.take();
    REQUESTED.set(true);
    // Called for its side effect: `provide` stores the classification.
    let _ = error.source();
    REQUESTED.set(false);
    PROVIDED.take()
}

/// Stores the classification of an error if [`classify`](fn@classify) has requested it. Must be called first in
/// [`Error::source`] of each error of this crate.
pub(crate) fn provide(error: &impl Classify) {
    if REQUESTED.replace(false) {
        PROVIDED.set(Some(error.classification()));
    }
}

/// Classifies errors of other crates.
fn foreign(error: &(dyn Error + 'static)) -> Option<Classification> {
    if is::<tower::load_shed::error::Overloaded>(error) {
        return Some(ErrorKind::Overloaded.into());
    }
    if is::<tower::timeout::error::Elapsed>(error) || is::<tokio::time::error::Elapsed>(error) {
        return Some(ErrorKind::DeadlineExceeded.into());
    }
    #[cfg(feature = "tower-buffer")]
    if is::<tower::buffer::error::Closed>(error) {
        return Some(ErrorKind::Unavailable.into());
    }
    of_servers(error)
}

/// Classifies errors of the server frameworks.
fn of_servers(error: &(dyn Error + 'static)) -> Option<Classification> {
    #[cfg(feature = "grpc")]
    if let Some(classification) = classified::<tonic::Status>(error) {
        return Some(classification);
    }
    #[cfg(feature = "actix")]
    if let Some(classification) = classified::<actix::MailboxError>(error) {
        return Some(classification);
    }
    let _ = error;
    None
}

fn classified<T: Classify + Error + 'static>(error: &(dyn Error + 'static)) -> Option<Classification> {
    downcast::<T>(error).map(T::classification)
}

fn is<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    downcast::<T>(error).is_some()
}

/// Downcasts an error that may be in a `Box` or `Arc`. These are error types of their own, whose source is the source
/// of the inner error.
fn downcast<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let boxed = || error.downcast_ref::<Box<T>>().map(|error| &**error);
    let shared = || error.downcast_ref::<Arc<T>>().map(|error| &**error);
    error.downcast_ref().or_else(boxed).or_else(shared)
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use super::*;
    use crate::middleware::circuit_breaker::CircuitBreakerError;
    use crate::middleware::rate_limit::RateLimitError;
    use crate::middleware::timeout::TimeoutError;
    use crate::service::{HostMemoryError, InvalidInput, KernelError};
    use std::time::Duration;
    use tower::BoxError;

    const RETRY_AFTER: Duration = Duration::from_secs(9);

    /// A wrapper as users write them, whose source is not the error in it but the source of that.
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Transparent<E: Error + 'static>(E);

    #[derive(Debug, thiserror::Error)]
    #[error("in a handler")]
    struct Handler(#[source] BoxError);

    #[derive(Debug, thiserror::Error)]
    #[error("unknown")]
    struct Unknown;

    fn limited() -> TimeoutError<RateLimitError<BoxError>> {
        TimeoutError::Inner(RateLimitError::Limited { retry_after: RETRY_AFTER })
    }

    fn kind(error: impl Into<BoxError>) -> ErrorKind {
        classify(&*error.into()).kind
    }

    #[test]
    fn errors_of_this_crate_are_known_in_every_wrapper() {
        let wrapped: [BoxError; 8] = [
            limited().into(),
            Box::new(Box::new(limited())),
            Arc::new(limited()).into(),
            Transparent(limited()).into(),
            Transparent(Arc::new(Transparent(limited()))).into(),
            Handler(limited().into()).into(),
            CircuitBreakerError::<BoxError>::Inner(Handler(limited().into()).into()).into(),
            Handler(TimeoutError::<BoxError>::Inner(limited().into()).into()).into(),
        ];
        for error in wrapped {
            let classification = classify(&*error);
            let expected = (ErrorKind::RateLimited, Some(RETRY_AFTER));
            assert_eq!((classification.kind, classification.retry_after), expected, "{error:?}");
        }
        assert_eq!(kind(KernelError::Cancelled), ErrorKind::Cancelled);
        assert_eq!(kind(Transparent(KernelError::Cancelled)), ErrorKind::Cancelled);
        assert_eq!(kind(Transparent(KernelError::from(InvalidInput::new("x", "y")))), ErrorKind::InvalidArgument);
        assert_eq!(kind(InvalidInput::new("x", "y")), ErrorKind::InvalidArgument);
        assert_eq!(kind(HostMemoryError::TooLarge { needed: 2, max: 1 }), ErrorKind::TooLarge);
    }

    #[test]
    fn errors_of_each_layer_are_known_in_a_box() {
        use crate::middleware::batch::BatchError;
        use crate::middleware::classify::ClassifiedError;
        use crate::middleware::coalesce::CoalesceError;
        use crate::middleware::concurrency::fair::FairError;
        use crate::middleware::fallback::FallbackError;
        use crate::middleware::load_shed::LoadShedError;
        use crate::middleware::priority_queue::PriorityQueueError;
        type Inner = BoxError;

        let retry_after = RETRY_AFTER;
        let late = LoadShedError::<Inner>::Late { predicted_wait: retry_after, retry_after };
        let full = PriorityQueueError::<Inner>::Full { retry_after: Some(retry_after) };
        let (primary, fallback) = (Inner::from(limited()), Inner::from(KernelError::Cancelled));
        let classification = Classification::new(ErrorKind::TooLarge).with_retry_after(retry_after);
        let known: [(Inner, ErrorKind, Option<Duration>); 10] = [
            (TimeoutError::<Inner>::Elapsed { called: true }.into(), ErrorKind::DeadlineExceeded, None),
            (CircuitBreakerError::<Inner>::Open { retry_after }.into(), ErrorKind::Unavailable, Some(retry_after)),
            (CoalesceError::<Inner>::Panicked.into(), ErrorKind::Internal, None),
            (BatchError::<Inner>::Stopped.into(), ErrorKind::Unavailable, None),
            (BatchError::<Inner>::Shared(Arc::new(limited().into())).into(), ErrorKind::RateLimited, Some(retry_after)),
            (FairError::<Inner>::Full { waiting: 1 }.into(), ErrorKind::Overloaded, None),
            (late.into(), ErrorKind::Overloaded, Some(retry_after)),
            (full.into(), ErrorKind::Overloaded, Some(retry_after)),
            (FallbackError::Both { primary, fallback }.into(), ErrorKind::Cancelled, Some(retry_after)),
            (ClassifiedError::new(classification, Unknown).into(), ErrorKind::TooLarge, Some(retry_after)),
        ];
        for (error, kind, retry_after) in known {
            let classification = classify(&*error);
            assert_eq!((classification.kind, classification.retry_after), (kind, retry_after), "{error:?}");
        }
    }

    #[test]
    #[cfg(feature = "auth")]
    fn the_challenge_is_known_in_a_box() {
        use crate::middleware::authenticate::AuthenticateError;

        let challenge = http::HeaderValue::from_static("Bearer");
        let error: BoxError = AuthenticateError::<BoxError>::Missing { challenge: challenge.clone() }.into();
        let error = BoxError::from(TimeoutError::<BoxError>::Inner(Handler(error).into()));
        let expected = Classification::new(ErrorKind::Unauthenticated).with_challenge(challenge);
        assert_eq!(classify(&*error), expected);
    }

    #[test]
    #[cfg(feature = "grpc")]
    fn a_status_is_known_by_its_code_and_its_details() {
        use std::collections::HashMap;
        use tonic::{Code, Status};
        use tonic_types::{ErrorDetails, StatusExt};

        assert_eq!(kind(Handler(Status::resource_exhausted("slow down").into())), ErrorKind::RateLimited);
        assert_eq!(kind(Status::unknown("what?")), ErrorKind::Internal);
        let mut details = ErrorDetails::new();
        details.set_error_info("overloaded", "tower-kernels", HashMap::new()).set_retry_info(Some(RETRY_AFTER));
        let status = Status::with_error_details(Code::Unavailable, "full", details);
        let classification = classify(&status);
        assert_eq!((classification.kind, classification.retry_after), (ErrorKind::Overloaded, Some(RETRY_AFTER)));
    }

    #[test]
    fn the_outermost_error_that_is_known_decides() {
        let open = CircuitBreakerError::<BoxError>::Open { retry_after: RETRY_AFTER };
        assert_eq!(kind(Handler(Handler(open.into()).into())), ErrorKind::Unavailable);
        // A kernel's error is internal, whatever its source is.
        assert_eq!(kind(KernelError::kernel(limited())), ErrorKind::Internal);
    }

    #[test]
    fn unknown_errors_are_internal_and_do_not_affect_the_next() {
        assert_eq!(kind(limited()), ErrorKind::RateLimited);
        assert_eq!(kind(Unknown), ErrorKind::Internal);
        assert_eq!(kind(Handler(Unknown.into())), ErrorKind::Internal);
        assert_eq!(kind("a text"), ErrorKind::Internal);
        // Not requested, so nothing is stored.
        assert!(limited().source().is_none());
        assert_eq!(kind(Unknown), ErrorKind::Internal);
    }
}
