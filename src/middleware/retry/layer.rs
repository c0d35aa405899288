use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::policy::Policy;
use super::{Budget, Retry, RetrySnapshot};
use crate::error::{ErrorKind, ErrorKinds};
use crate::middleware::derive::{derive_clone, derive_debug};

/// Retries calls that failed transiently. See the [module](super).
///
/// Clones share the budget and the counts.
#[must_use]
pub struct RetryLayer<P> {
    policy: Policy,
    is_idempotent: Arc<P>,
}

derive_clone!(RetryLayer::<P> { policy, is_idempotent });
derive_debug!(RetryLayer::<P> { policy });

impl<P> RetryLayer<P> {
    /// Creates a layer that retries the requests for which `is_idempotent` returns `true`: up to 3 attempts, 10 ms to 1 s
    /// apart, for a tenth of the calls and 20 at once.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower_kernels::layers::RetryLayer;
    /// use tower_kernels::service::{KernelRegistry, KernelRequest};
    ///
    /// let gets = RetryLayer::new(|request: &http::Request<()>| request.method().is_idempotent());
    ///
    /// let registry = Arc::new(KernelRegistry::new());
    /// let pure_kernels = RetryLayer::new(move |request: &KernelRequest| registry.is_pure(&request.kernel_id));
    /// ```
    pub fn new<R>(is_idempotent: P) -> Self
    where
        P: Fn(&R) -> bool,
    {
        let policy = Policy {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_secs(1),
            kinds: ErrorKinds::of(&[ErrorKind::Unavailable, ErrorKind::Overloaded]),
            budget: Budget::new(0.1, 20),
            counts: Arc::default(),
        };
        Self { policy, is_idempotent: Arc::new(is_idempotent) }
    }

    /// Sets how many attempts a call has, including the first.
    pub fn max_attempts(mut self, max: u32) -> Self {
        self.policy.max_attempts = max;
        self
    }

    /// Waits for a random time of up to `initial` before the second attempt, of up to twice that before the third and so on,
    /// and of up to `max` ([full jitter]). The retry-after of an error is added; an error whose retry-after is longer than
    /// `max` is not retried.
    ///
    /// [full jitter]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        (self.policy.initial_backoff, self.policy.max_backoff) = (initial, max);
        self
    }

    /// Sets which kinds of errors, and of responses that are rejections, are retried: `Unavailable` and `Overloaded` by
    /// default. Add `Internal` if errors can be a defect of one machine.
    pub fn on(mut self, kinds: impl Into<ErrorKinds>) -> Self {
        self.policy.kinds = kinds.into();
        self
    }

    /// Sets the budget of additional attempts, which several layers may share.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.policy.budget = budget;
        self
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> RetrySnapshot {
        *self.policy.counts.lock()
    }
}

impl<S: Clone, P> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, Arc::new(self.policy.clone()), Arc::clone(&self.is_idempotent))
    }
}
