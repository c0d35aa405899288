use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tower_layer::Layer;

use super::LoadShed;
use super::estimate::{Given, Learned};
use super::policy::WhenNotReady;
use super::predict::{Bounds, Predicted};
use crate::request::Priority;

/// Refuses calls at once that come to nothing. See the [module](super).
///
/// Clones, and all the services that they make, share what is known of the load. The methods that configure the layer
/// begin anew, so configure first and clone after.
pub struct LoadShedLayer<P = WhenNotReady> {
    policy: Arc<P>,
}

/// What the lower priorities have of the wait that is allowed, if nothing else is said.
const PARTS: [f64; 3] = [0.5, 0.8, 1.0];

impl LoadShedLayer {
    /// Refuses a call when the inner service is not ready.
    pub fn new() -> Self {
        Self { policy: Arc::default() }
    }

    /// How many calls have been refused.
    pub fn shed_total(&self) -> u64 {
        self.policy.shed.load(Ordering::Relaxed)
    }
}

impl Default for LoadShedLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl LoadShedLayer<Predicted> {
    /// Refuses a call when it would wait for longer than `max_wait`, or for so long that it would not be done by its
    /// deadline. How long calls take is learned, for each operation, and so is how many run at a time.
    pub fn predicting(max_wait: Duration) -> Self {
        Self::bounded(Bounds {
            max_wait,
            answer_within: None,
            parallelism: None,
            parts: PARTS,
            by_priority: false,
            by_share: false,
        })
    }

    /// Goes by what `estimate` says that a call takes by itself, and corrects it by what calls have taken. Say it last:
    /// the layer that it makes is configured.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_kernels::layers::LoadShedLayer;
    ///
    /// let by_size = LoadShedLayer::predicting(Duration::from_millis(500))
    ///     .estimate(|request: &http::Request<Vec<u8>>| Duration::from_nanos(request.body().len() as u64));
    /// ```
    #[must_use]
    pub fn estimate<R, F>(self, estimate: F) -> LoadShedLayer<Predicted<Given<F>>>
    where
        F: Fn(&R) -> Duration,
    {
        LoadShedLayer { policy: Arc::new(Predicted::new(Given::new(estimate), self.policy.bounds())) }
    }

    /// Takes calls without a deadline, or with a later one, to have this long: what a
    /// [`TimeoutLayer`](crate::layers::TimeoutLayer) further in gives them, of which this layer would not know.
    #[must_use]
    pub fn answer_within(self, time: Duration) -> Self {
        Self::bounded(Bounds { answer_within: Some(time), ..self.policy.bounds() })
    }

    /// Takes so many calls to run beside each other, instead of learning how many do. None is taken for one.
    #[must_use]
    pub fn parallelism(self, calls: usize) -> Self {
        Self::bounded(Bounds { parallelism: Some(calls.max(1)), ..self.policy.bounds() })
    }

    /// Lets calls of low priority in up to the part `low` of the wait that is allowed, and those of normal priority up
    /// to `normal`: 0.5 and 0.8 if nothing is said. Those of high priority have all of it.
    ///
    /// # Panics
    /// Unless they are from 0 to 1.
    #[must_use]
    #[track_caller]
    pub fn parts(self, low: f64, normal: f64) -> Self {
        let whole = 0.0..=1.0;
        assert!(whole.contains(&low) && whole.contains(&normal), "a part is from 0 to 1");
        Self::bounded(Bounds { parts: [low, normal, 1.0], ..self.policy.bounds() })
    }

    /// Takes calls to be served by priority, as a [`PriorityQueueLayer`](crate::layers::PriorityQueueLayer) further in does
    /// it, and not in the order in which they come: what waits of lower priorities is not ahead of a call.
    #[must_use]
    pub fn by_priority(self) -> Self {
        Self::bounded(Bounds { by_priority: true, ..self.policy.bounds() })
    }

    /// Takes calls to be served fairly by their [share](crate::request::RequestContext::share), and by priority within a share,
    /// as a [`PriorityQueueLayer`](crate::layers::PriorityQueueLayer) further in does it: of what other shares have waiting only
    /// so much is ahead of a call as they are served meanwhile.
    #[must_use]
    pub fn by_share(self) -> Self {
        Self::bounded(Bounds { by_share: true, ..self.policy.bounds() })
    }

    fn bounded(bounds: Bounds) -> Self {
        Self { policy: Arc::new(Predicted::new(Learned::new(), bounds)) }
    }
}

impl<F> LoadShedLayer<Predicted<F>> {
    /// How many calls of this priority have been refused.
    pub fn shed(&self, priority: Priority) -> u64 {
        self.policy.shed(priority)
    }

    /// How many calls have been refused.
    pub fn shed_total(&self) -> u64 {
        [Priority::Low, Priority::Normal, Priority::High].map(|priority| self.shed(priority)).iter().sum()
    }

    /// How long the next call is expected to wait before its work begins.
    pub fn predicted_wait(&self) -> Duration {
        self.policy.predicted_wait()
    }

    /// How many calls have been let in and have not ended.
    pub fn in_flight(&self) -> usize {
        self.policy.in_flight()
    }

    /// How many calls run beside each other, as far as that is known.
    pub fn running_at_a_time(&self) -> usize {
        self.policy.parallelism()
    }
}

impl<S, P> Layer<S> for LoadShedLayer<P> {
    type Service = LoadShed<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadShed::new(inner, Arc::clone(&self.policy))
    }
}

// By hand: a clone needs no `P: Clone`, what is known is shared.
impl<P> Clone for LoadShedLayer<P> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy) }
    }
}

impl<P: fmt::Debug> fmt::Debug for LoadShedLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadShedLayer").field("policy", &self.policy).finish()
    }
}
