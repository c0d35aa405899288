use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::policy::{Policy, Settings};
use super::{Budget, Retry, RetrySnapshot};
use crate::error::{ErrorKind, ErrorKinds};

/// Retries calls that failed transiently. See the [module](super).
///
/// Clones share the budget and the counts. The methods that configure the layer begin with new counts, so configure first
/// and clone after.
pub struct RetryLayer<P> {
    policy: Arc<Policy>,
    is_idempotent: Arc<P>,
}

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
        let settings = Settings {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_secs(1),
            kinds: ErrorKinds::of(&[ErrorKind::Unavailable, ErrorKind::Overloaded]),
        };
        Self { policy: Arc::new(Policy::new(settings, Budget::new(0.1, 20))), is_idempotent: Arc::new(is_idempotent) }
    }

    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.policy.settings;
        set(&mut settings);
        let budget = self.policy.budget.clone();
        Self { policy: Arc::new(Policy::new(settings, budget)), is_idempotent: self.is_idempotent }
    }

    /// Sets how many attempts a call has, including the first.
    #[must_use]
    pub fn max_attempts(self, max: u32) -> Self {
        self.set(|settings| settings.max_attempts = max)
    }

    /// Waits for a random time of up to `initial` before the second attempt, of up to twice that before the third and so on,
    /// and of up to `max` ([full jitter]). The retry-after of an error is added; an error whose retry-after is longer than
    /// `max` is not retried.
    ///
    /// [full jitter]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    #[must_use]
    pub fn backoff(self, initial: Duration, max: Duration) -> Self {
        self.set(|settings| (settings.initial_backoff, settings.max_backoff) = (initial, max))
    }

    /// Sets which kinds of errors, and of responses that are rejections, are retried: `Unavailable` and `Overloaded` by
    /// default. Add `Internal` if errors can be a defect of one machine.
    #[must_use]
    pub fn on(self, kinds: impl Into<ErrorKinds>) -> Self {
        let kinds = kinds.into();
        self.set(|settings| settings.kinds = kinds)
    }

    /// Sets the budget of additional attempts, which several layers may share.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        Self { policy: Arc::new(Policy::new(self.policy.settings, budget)), is_idempotent: self.is_idempotent }
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> RetrySnapshot {
        self.policy.snapshot()
    }
}

impl<S: Clone, P> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, Arc::clone(&self.policy), Arc::clone(&self.is_idempotent))
    }
}

// By hand, as a derive would require `P: Clone`.
impl<P> Clone for RetryLayer<P> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy), is_idempotent: Arc::clone(&self.is_idempotent) }
    }
}

impl<P> fmt::Debug for RetryLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("policy", &self.policy).finish_non_exhaustive()
    }
}
