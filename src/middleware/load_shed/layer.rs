use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tower_layer::Layer;

use super::LoadShed;
use super::estimate::{CustomEstimate, LearnedEstimate};
use super::policy::WhenNotReady;
use super::predicted::{Predicted, Settings};
use crate::middleware::derive::derive_clone;

/// Rejects calls that would wait too long. See the [module](super).
///
/// Clones of the layer, and all services that they make, share what is known of the load. The methods that configure the layer
/// reset it, so configure first and clone after.
#[derive(Debug, Default)]
#[must_use]
pub struct LoadShedLayer<P = WhenNotReady> {
    policy: Arc<P>,
}

/// The state of a [`LoadShedLayer::predicting`]: what is in flight now, and counts since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadShedSnapshot {
    /// Calls that were admitted and have not ended.
    pub in_flight: usize,
    /// How many of them run at a time, as far as that is known.
    pub parallelism: usize,
    /// How long the next call is expected to wait, if it is served last.
    pub predicted_wait: Duration,
    /// Rejected calls.
    pub rejected: u64,
    /// Rejected calls by priority: low, normal, high.
    pub rejected_by_priority: [u64; 3],
}

/// The state of a [`LoadShedLayer::new`]: counts since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotReadySnapshot {
    /// Rejected calls.
    pub rejected: u64,
}

impl LoadShedLayer {
    /// Rejects calls while the inner service is not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of rejected calls.
    pub fn snapshot(&self) -> NotReadySnapshot {
        NotReadySnapshot { rejected: self.policy.rejected.load(Ordering::Relaxed) }
    }
}

impl LoadShedLayer<Predicted> {
    /// Rejects calls that would wait for longer than `max_wait`, or would not complete by their deadline. How long calls of
    /// each operation take, and how many run at a time, is learned.
    pub fn predicting(max_wait: Duration) -> Self {
        Self::with_settings(Settings {
            max_wait,
            timeout: None,
            parallelism: None,
            max_wait_fractions: [0.5, 0.8, 1.0],
            by_priority: false,
            by_share: false,
        })
    }

    /// Estimates how long calls take by `estimate`, corrected by what they have taken, instead of learning it. Call this last:
    /// the returned layer has no further settings.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_kernels::layers::LoadShedLayer;
    ///
    /// let by_size = LoadShedLayer::predicting(Duration::from_millis(500))
    ///     .estimate(|request: &http::Request<Vec<u8>>| Duration::from_nanos(request.body().len() as u64));
    /// ```
    pub fn estimate<R, F>(self, estimate: F) -> LoadShedLayer<Predicted<CustomEstimate<F>>>
    where
        F: Fn(&R) -> Duration,
    {
        LoadShedLayer { policy: Arc::new(Predicted::new(CustomEstimate::new(estimate), self.policy.settings)) }
    }

    /// Sets the time after which a [`TimeoutLayer`](crate::layers::TimeoutLayer) inside this layer ends calls: they have this
    /// long, unless their own deadline is earlier.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.timeout = Some(timeout))
    }

    /// Sets how many calls run at a time, instead of learning it. 0 counts as 1.
    pub fn parallelism(self, calls: usize) -> Self {
        self.with(|settings| settings.parallelism = Some(calls.max(1)))
    }

    /// Sets the fraction of the longest wait that calls of low and of normal priority may use: 0.5 and 0.8 by default. Calls of
    /// high priority may use all of it.
    ///
    /// # Panics
    /// Unless both are from 0 to 1.
    #[track_caller]
    pub fn max_wait_fractions(self, low: f64, normal: f64) -> Self {
        let valid = 0.0..=1.0;
        assert!(valid.contains(&low) && valid.contains(&normal), "a fraction must be from 0 to 1");
        self.with(|settings| settings.max_wait_fractions = [low, normal, 1.0])
    }

    /// Expects the inner service to serve calls by priority, as a [`PriorityQueueLayer`](crate::layers::PriorityQueueLayer)
    /// does: calls of lower priorities are not ahead of a call. By default calls are served in order of arrival.
    pub fn by_priority(self) -> Self {
        self.with(|settings| settings.by_priority = true)
    }

    /// Expects the inner service to serve [shares](crate::request::RequestContext::share) fairly, and each share by priority, as
    /// a [`PriorityQueueLayer`](crate::layers::PriorityQueueLayer) does: of the calls of other shares only those that are served
    /// meanwhile are ahead of a call.
    pub fn by_share(self) -> Self {
        self.with(|settings| settings.by_share = true)
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.policy.settings;
        change(&mut settings);
        Self::with_settings(settings)
    }

    fn with_settings(settings: Settings) -> Self {
        Self { policy: Arc::new(Predicted::new(LearnedEstimate::new(), settings)) }
    }
}

impl<E> LoadShedLayer<Predicted<E>> {
    /// Returns the calls in flight, what is predicted, and the calls that were rejected.
    pub fn snapshot(&self) -> LoadShedSnapshot {
        self.policy.snapshot()
    }
}

impl<S, P> Layer<S> for LoadShedLayer<P> {
    type Service = LoadShed<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadShed::new(inner, Arc::clone(&self.policy))
    }
}

derive_clone!(LoadShedLayer::<P> { policy });
