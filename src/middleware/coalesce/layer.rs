use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tower_layer::Layer;

use super::again::Shared;
use super::flights::Gauges;
use super::{Coalesce, Flights};

/// Lets equal requests in flight share one run. See the [module](super).
///
/// Clones share their runs. [`run_for`](Self::run_for) begins anew, so configure first and clone after. The type of what is shared,
/// `L`, follows from the service that the layer is put around.
pub struct CoalesceLayer<P, L> {
    shared: Arc<Shared<P, L>>,
}

impl<P, K, F, T, E> CoalesceLayer<P, Flights<K, F, T, E>> {
    /// Shares a run among those requests that `repeats` takes for repeats of each other.
    pub fn new(repeats: P) -> Self {
        Self::counted_by(repeats, &CoalesceHandle::default())
    }

    /// Counts in `handle`, with others that do.
    pub(crate) fn counted_by(repeats: P, handle: &CoalesceHandle) -> Self {
        let flights = Arc::new(Flights::new(Arc::clone(&handle.gauges)));
        Self { shared: Arc::new(Shared { repeats, run_for: None, flights }) }
    }

    /// Gives each run so much time from its start, or more where its first caller has more, so that it goes on when that one
    /// has left: for callers of one question who differ much in how long they wait. What is inside then does not see how
    /// soon the first answer is due. A request without a deadline has none here either.
    #[must_use]
    pub fn run_for(self, time: Duration) -> Self
    where
        P: Clone,
    {
        let repeats = self.shared.repeats.clone();
        let flights = Arc::new(Flights::new(Arc::default()));
        Self { shared: Arc::new(Shared { repeats, run_for: Some(time), flights }) }
    }

    /// Reads what is in flight.
    pub fn handle(&self) -> CoalesceHandle {
        CoalesceHandle { gauges: Arc::clone(&self.shared.flights.gauges) }
    }

    /// How many runs are in flight.
    pub fn in_flight(&self) -> usize {
        self.handle().in_flight()
    }

    /// How many calls wait for a run that another has begun.
    pub fn waiting(&self) -> usize {
        self.handle().waiting()
    }

    /// How many runs have been begun.
    pub fn led(&self) -> u64 {
        self.handle().led()
    }

    /// How many times a call has joined a run of another.
    pub fn joined(&self) -> u64 {
        self.handle().joined()
    }
}

/// Reads what a [`CoalesceLayer`] has in flight. Clones read the same.
#[derive(Clone, Debug, Default)]
pub struct CoalesceHandle {
    gauges: Arc<Gauges>,
}

impl CoalesceHandle {
    /// How many runs are in flight.
    pub fn in_flight(&self) -> usize {
        self.gauges.runs.load(Ordering::Relaxed)
    }

    /// How many calls wait for a run that another has begun.
    pub fn waiting(&self) -> usize {
        self.gauges.waiting.load(Ordering::Relaxed)
    }

    /// How many runs have been begun.
    pub fn led(&self) -> u64 {
        self.gauges.led.load(Ordering::Relaxed)
    }

    /// How many times a call has joined a run of another.
    pub fn joined(&self) -> u64 {
        self.gauges.joined.load(Ordering::Relaxed)
    }
}

impl<S, P, L> Layer<S> for CoalesceLayer<P, L> {
    type Service = Coalesce<S, P, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Coalesce::new(inner, Arc::clone(&self.shared))
    }
}

// By hand: the runs are shared.
impl<P, L> Clone for CoalesceLayer<P, L> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P, L: fmt::Debug> fmt::Debug for CoalesceLayer<P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceLayer")
            .field("run_for", &self.shared.run_for)
            .field("flights", &self.shared.flights)
            .finish_non_exhaustive()
    }
}
