//! Refuses what cannot be done in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::drain::Drain;
use super::estimate::{Estimate, Estimator, Learned, nanos};
use super::policy::{Admit, Answered, Policy, Refusal};
use crate::layers::clock;
use crate::service::{Priority, RequestContext, ResponseContext};

/// Refuses a call when what is ahead leaves no time for it. Made by
/// [`LoadShedLayer::predicting`](super::LoadShedLayer::predicting).
#[derive(Debug)]
pub struct Predicted<F = Learned> {
    pub(super) estimator: F,
    drain: Drain,
    bounds: Bounds,
    in_flight: AtomicUsize,
    /// Nanoseconds of estimates of what has been let in and has not ended.
    backlog: AtomicU64,
    shed: [AtomicU64; 3],
}

/// What a layer was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_wait: Duration,
    /// How long a call may take in all.
    pub(super) answer_within: Option<Duration>,
    pub(super) parallelism: Option<usize>,
    /// Of the wait that is allowed, by priority.
    pub(super) parts: [f64; 3],
}

const fn index(priority: Priority) -> usize {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

impl<F> Predicted<F> {
    pub(super) fn new(estimator: F, bounds: Bounds) -> Self {
        Self {
            estimator,
            drain: Drain::new(bounds.parallelism),
            bounds,
            in_flight: AtomicUsize::new(0),
            backlog: AtomicU64::new(0),
            shed: Default::default(),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn shed(&self, priority: Priority) -> u64 {
        self.shed[index(priority)].load(Ordering::Relaxed)
    }

    pub(super) fn parallelism(&self) -> usize {
        self.drain.places()
    }

    /// How long the next call is expected to wait.
    pub(super) fn predicted_wait(&self) -> Duration {
        self.wait(self.in_flight())
    }

    fn wait(&self, in_flight: usize) -> Duration {
        if !self.drain.is_busy(in_flight) {
            return Duration::ZERO;
        }
        let wait = self.backlog.load(Ordering::Relaxed) as f64 / self.drain.rate();
        Duration::from_nanos(wait as u64)
    }

    /// Until the call has to be answered.
    fn time_left<R: RequestContext>(&self, request: &R, now: Instant) -> Option<Duration> {
        let left = request.deadline().map(|deadline| deadline.saturating_duration_since(now));
        match (left, self.bounds.answer_within) {
            (Some(left), Some(within)) => Some(left.min(within)),
            (left, within) => left.or(within),
        }
    }

    #[cold]
    fn refuse(&self, priority: Priority, predicted_wait: Duration, retry_after: Duration) -> Refusal {
        self.shed[index(priority)].fetch_add(1, Ordering::Relaxed);
        Refusal::Late { predicted_wait, retry_after }
    }
}

impl<F: Estimator> Policy for Predicted<F> {
    type Admitted = Work<F>;
}

impl<F, R> Admit<R> for Predicted<F>
where
    F: Estimate<R>,
    R: RequestContext,
{
    fn admit(self: &Arc<Self>, request: &R, _ready: bool) -> Result<Work<F>, Refusal> {
        let now = clock::now();
        let (estimate, call) = self.estimator.estimate(request);
        let in_flight = self.in_flight();
        let wait = self.wait(in_flight);
        let own = Duration::from_nanos(estimate);
        let priority = request.priority();
        let mut allowed = self.bounds.max_wait;
        // An idle service takes anything: an estimate can be wrong, and only a call can put it right.
        if in_flight > 0
            && let Some(left) = self.time_left(request, now)
        {
            let Some(spare) = left.checked_sub(own) else {
                self.estimator.doubt(&call);
                return Err(self.refuse(priority, wait, wait.max(own)));
            };
            allowed = allowed.min(spare);
        }
        let allowed = allowed.mul_f64(self.bounds.parts[index(priority)]);
        if wait > allowed {
            return Err(self.refuse(priority, wait, wait - allowed));
        }
        let alone = match self.bounds.parallelism {
            Some(places) => in_flight < places,
            None => in_flight == 0,
        };
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.backlog.fetch_add(estimate, Ordering::Relaxed);
        Ok(Work { policy: Arc::clone(self), call, estimate, called: now, alone, done: false })
    }

    fn wait_until(&self, request: &R) -> Option<Instant> {
        let now = clock::now();
        let longest = self.time_left(request, now).map_or(self.bounds.max_wait, |left| left.min(self.bounds.max_wait));
        now.checked_add(longest)
    }

    fn called(work: &mut Work<F>) {
        work.called = clock::now();
    }

    fn waited(&self, request: &R) -> Refusal {
        let wait = self.predicted_wait();
        self.refuse(request.priority(), wait, wait.max(Duration::from_millis(1)))
    }
}

impl<F: Estimator, T: ResponseContext> Answered<T> for Predicted<F> {
    fn answered(work: &mut Work<F>, response: &T) {
        if response.failure().is_some() {
            return;
        }
        work.done = true;
        // One that took no time at all was not timed.
        let exact = response.execution().map(|execution| nanos(execution.executed)).filter(|&executed| executed > 0);
        let took = exact.unwrap_or_else(|| work.took());
        // A call that queued further in took longer than its own time. One that took less than was expected says so
        // however long it queued.
        if exact.is_some() || work.alone || took < work.estimate {
            work.policy.estimator.observe(&work.call, took);
        }
    }
}

/// A call that has been let in, until it ends or is dropped.
#[derive(Debug)]
pub struct Work<F: Estimator> {
    policy: Arc<Predicted<F>>,
    call: F::Call,
    /// Nanoseconds, as it was counted.
    estimate: u64,
    called: Instant,
    /// Whether it was to have no call ahead of it when it was let in.
    alone: bool,
    /// Whether it has been answered.
    done: bool,
}

impl<F: Estimator> Work<F> {
    fn took(&self) -> u64 {
        nanos(clock::read().saturating_duration_since(self.called))
    }
}

impl<F: Estimator> Drop for Work<F> {
    fn drop(&mut self) {
        let policy = &self.policy;
        policy.backlog.fetch_sub(self.estimate, Ordering::Relaxed);
        let in_flight = policy.in_flight.fetch_sub(1, Ordering::Relaxed);
        let work = self.done.then_some(self.estimate);
        policy.drain.ended(in_flight, work, clock::read());
        // One that was given up after it had taken longer than expected would have taken longer still.
        if !self.done && self.alone {
            let took = self.took();
            if took > self.estimate {
                policy.estimator.observe(&self.call, took);
            }
        }
    }
}
