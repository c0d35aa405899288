use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::policy::{Policy, Settings};
use super::{Budget, Retry, RetryStats};
use crate::error::{ErrorKind, ErrorKinds};

/// Makes calls again that failed in passing. See the [module](super).
///
/// Clones share the budget and the counts. The methods that configure the layer begin new counts, so configure first and
/// clone after.
pub struct RetryLayer<P> {
    policy: Arc<Policy>,
    again: Arc<P>,
}

impl<P> RetryLayer<P> {
    /// Makes calls again for which `again` says that it does no harm: up to 3 attempts in all, 10 ms to 1 s apart, for a
    /// tenth of the calls and 20 at once.
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
    pub fn new<R>(again: P) -> Self
    where
        P: Fn(&R) -> bool,
    {
        let settings = Settings {
            attempts: 3,
            first: Duration::from_millis(10),
            most: Duration::from_secs(1),
            on: ErrorKinds::of(&[ErrorKind::Unavailable, ErrorKind::Overloaded]),
        };
        Self { policy: Arc::new(Policy::new(settings, Budget::new(0.1, 20))), again: Arc::new(again) }
    }

    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.policy.settings;
        set(&mut settings);
        let budget = self.policy.budget.clone();
        Self { policy: Arc::new(Policy::new(settings, budget)), again: self.again }
    }

    /// Sets how many attempts a call has in all, the first included.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        self.set(|settings| settings.attempts = attempts)
    }

    /// Waits for a random time of up to `first` before the second attempt, of up to twice that before the third and so on,
    /// and never more than `most`: [full jitter]. An error that says when to retry is waited for on top of that; one that
    /// says longer than `most` is not tried again.
    ///
    /// [full jitter]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    #[must_use]
    pub fn backoff(self, first: Duration, most: Duration) -> Self {
        self.set(|settings| (settings.first, settings.most) = (first, most))
    }

    /// Sets which failures are tried again, in errors and in responses that are refusals: `Unavailable` and `Overloaded` if
    /// nothing is said. `Internal` is worth a second try where the defect may be one machine's own.
    #[must_use]
    pub fn on(self, kinds: impl Into<ErrorKinds>) -> Self {
        let kinds = kinds.into();
        self.set(|settings| settings.on = kinds)
    }

    /// Sets what further attempts are paid from. Given to several layers, it is one for all of them.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        Self { policy: Arc::new(Policy::new(self.policy.settings, budget)), again: self.again }
    }

    /// What has been done so far, and is waiting just now.
    pub fn stats(&self) -> RetryStats {
        self.policy.stats()
    }
}

impl<S: Clone, P> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, Arc::clone(&self.policy), Arc::clone(&self.again))
    }
}

// By hand: a clone needs no `P: Clone`, the policy is shared.
impl<P> Clone for RetryLayer<P> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy), again: Arc::clone(&self.again) }
    }
}

impl<P> fmt::Debug for RetryLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("policy", &self.policy).finish_non_exhaustive()
    }
}
