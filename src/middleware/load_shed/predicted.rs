//! Rejects calls whose predicted wait is too long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::estimate::{Estimate, Estimator, LearnedEstimate, nanos};
use super::policy::Policy;
use super::throughput::{End, ThroughputEstimator};
use super::{LoadShedError, LoadShedSnapshot};
use crate::middleware::clock;
use crate::request::{Priority, RequestContext, ResponseContext, Share};
use crate::sync::Mutex;

/// Rejects calls whose predicted wait is too long. Made by
/// [`LoadShedLayer::predicting`](super::LoadShedLayer::predicting).
#[derive(Debug)]
pub struct Predicted<E = LearnedEstimate> {
    estimator: E,
    pub(super) settings: Settings,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) max_wait: Duration,
    /// How long a call may take in all.
    pub(super) timeout: Option<Duration>,
    pub(super) parallelism: Option<usize>,
    /// Of the longest wait, by priority.
    pub(super) max_wait_fractions: [f64; 3],
    /// Whether calls of a higher priority are served first.
    pub(super) by_priority: bool,
    /// Whether shares are served fairly, and each of them by priority.
    pub(super) by_share: bool,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    backlog: Backlog,
    throughput: ThroughputEstimator,
    recent: RecentEstimates,
    rejected: [u64; 3],
}

/// What recent calls took and had been expected to take, in nanoseconds. A call about sixteen calls ago counts a third.
#[derive(Debug, Default)]
struct RecentEstimates {
    took: u64,
    expected: u64,
}

impl RecentEstimates {
    fn observe(&mut self, took: u64, expected: u64) {
        for (sum, value) in [(&mut self.took, took), (&mut self.expected, expected)] {
            *sum = (*sum - *sum / 16).saturating_add(value);
        }
    }

    /// The factor for a backlog of estimates made when the calls were admitted: estimates from before a correction would count
    /// for as long as the calls wait. An error of less than a half is taken for chance.
    fn correction(&self) -> f64 {
        if self.took < self.expected / 2 { self.took as f64 / self.expected as f64 } else { 1.0 }
    }
}

/// Why a call is rejected, in nanoseconds.
struct TooLate {
    wait: u64,
    retry_after: u64,
    /// By itself, the call takes longer than the time left.
    by_itself: bool,
}

impl<E> Predicted<E> {
    pub(super) fn new(estimator: E, settings: Settings) -> Self {
        let state = State {
            in_flight: 0,
            backlog: Backlog::default(),
            throughput: ThroughputEstimator::new(settings.parallelism),
            recent: RecentEstimates::default(),
            rejected: [0; 3],
        };
        Self { estimator, settings, state: Mutex::new(state) }
    }

    pub(super) fn snapshot(&self) -> LoadShedSnapshot {
        let state = self.state.lock();
        let is_busy = state.throughput.is_busy(state.in_flight);
        let wait = if is_busy { state.time_for(state.backlog.total()) } else { 0 };
        LoadShedSnapshot {
            in_flight: state.in_flight,
            parallelism: state.throughput.parallelism,
            predicted_wait: Duration::from_nanos(wait),
            rejected: state.rejected.iter().sum(),
            rejected_by_priority: state.rejected,
        }
    }

    /// The time until the call's deadline.
    fn time_left<R: RequestContext>(&self, request: &R, now: Instant) -> Option<Duration> {
        let left = request.deadline().map(|deadline| deadline.saturating_duration_since(now));
        [left, self.settings.timeout].into_iter().flatten().min()
    }

    /// Checks whether a call can wait for the calls in flight and then take `estimate`.
    fn check<R: RequestContext>(
        &self,
        state: &mut State,
        request: &R,
        now: Instant,
        estimate: u64,
    ) -> Result<(), TooLate> {
        let priority = request.priority();
        let wait = state.wait(&self.settings, priority, request.share().unwrap_or_default());
        let mut max_wait = nanos(self.settings.max_wait);
        if let Some(left) = self.time_left(request, now) {
            let Some(spare) = nanos(left).checked_sub(estimate) else {
                return Err(TooLate { wait, retry_after: wait.max(estimate), by_itself: true });
            };
            max_wait = max_wait.min(spare);
        }
        if wait == 0 {
            return Ok(());
        }
        let mut allowed = (max_wait as f64 * self.settings.max_wait_fractions[priority as usize]) as u64;
        if priority < Priority::High && nanos(state.throughput.saturated_for(now)) > max_wait {
            // A standing queue is kept short, but not so short that the service runs dry.
            allowed = allowed.min((allowed / 2).max(2 * state.average()));
        }
        if wait > allowed {
            state.throughput.call_rejected();
            return Err(TooLate { wait, retry_after: wait - allowed, by_itself: false });
        }
        Ok(())
    }
}

impl State {
    /// Nanoseconds until the calls served before one of this priority and share are done.
    fn wait(&self, settings: &Settings, priority: Priority, share: Share) -> u64 {
        // No call is rejected because of a guess.
        if !self.throughput.is_known || !self.throughput.is_busy(self.in_flight) {
            return 0;
        }
        let total = self.backlog.total();
        let before = if settings.by_share {
            self.backlog.before(share, priority)
        } else if settings.by_priority {
            self.backlog.at_or_above(priority)
        } else {
            return self.time_for(total);
        };
        // The running calls come first, whatever their priority, and half of their work is done.
        let running = self.average().saturating_mul(self.throughput.parallelism as u64);
        let running_below = running.min(total.saturating_sub(before));
        self.time_for((before + running_below).saturating_sub(running / 2))
    }

    fn time_for(&self, backlog: u64) -> u64 {
        self.throughput.time_for((backlog as f64 * self.recent.correction()) as u64)
    }

    fn average(&self) -> u64 {
        self.backlog.total() / self.in_flight.max(1) as u64
    }

    fn reject<E>(&mut self, priority: Priority, wait: u64, retry_after: u64) -> LoadShedError<E> {
        self.rejected[priority as usize] += 1;
        LoadShedError::Late {
            predicted_wait: Duration::from_nanos(wait),
            retry_after: Duration::from_nanos(retry_after),
        }
    }
}

impl<E, R, T> Policy<R, T> for Predicted<E>
where
    E: Estimate<R>,
    R: RequestContext,
    T: ResponseContext,
{
    type Admission = Admission<E>;

    fn admit<Error>(self: &Arc<Self>, request: &R, _is_ready: bool) -> Result<Admission<E>, LoadShedError<Error>> {
        let now = clock::now();
        let (estimate, call) = self.estimator.estimate(request);
        let priority = request.priority();
        let share = request.share().filter(|share| self.settings.by_share && !share.is_common());
        let mut state = self.state.lock();
        // An idle service takes any call: only a call can correct an estimate.
        if state.in_flight > 0 {
            // A call of unknown duration is rejected for the work ahead of it alone.
            let own = if self.estimator.is_known(&call) { estimate } else { 0 };
            if let Err(late) = self.check(&mut state, request, now, own) {
                if late.by_itself {
                    self.estimator.decay(&call);
                }
                return Err(state.reject(priority, late.wait, late.retry_after));
            }
        }
        let is_alone = state.in_flight < self.settings.parallelism.unwrap_or(1);
        state.in_flight += 1;
        state.backlog.add(share, priority, estimate);
        drop(state);
        let share = share.map(Share::key);
        Ok(Admission { policy: Arc::clone(self), call, estimate, share, priority, called: now, is_alone, end: None })
    }

    fn annotate(request: &mut R, admission: &Admission<E>) {
        if admission.estimate > 0 {
            request.set_expected_time(Duration::from_nanos(admission.estimate));
        }
    }

    fn wait_until(&self, request: &R) -> Option<Instant> {
        let now = clock::now();
        let max_wait = self.settings.max_wait;
        now.checked_add(self.time_left(request, now).map_or(max_wait, |left| left.min(max_wait)))
    }

    fn called(admission: &mut Admission<E>) {
        admission.called = clock::now();
    }

    fn timed_out<Error>(&self, request: &R) -> LoadShedError<Error> {
        let priority = request.priority();
        let mut state = self.state.lock();
        let wait = state.wait(&self.settings, priority, request.share().unwrap_or_default());
        state.reject(priority, wait, wait.max(1_000_000))
    }

    fn complete(admission: &mut Admission<E>, response: &T) {
        if response.failure().is_some() {
            return;
        }
        let Admission { policy, call, estimate, is_alone, .. } = admission;
        // An execution that took no time was not measured.
        let measured = response.execution().map(|execution| nanos(execution.executed)).filter(|&took| took > 0);
        let took = measured.unwrap_or_else(|| nanos(clock::read().saturating_duration_since(admission.called)));
        // A call that queued in the inner service took longer than its own time, unless it took less than expected.
        if measured.is_some() || *is_alone || took < *estimate {
            policy.estimator.observe(call, took);
        }
        admission.end = Some(match measured {
            Some(took) => End::Measured(took),
            None if policy.estimator.is_known(call) => End::Estimated(*estimate),
            None => End::Unknown,
        });
    }
}

/// An admitted call, counted in the backlog until it is dropped.
#[derive(Debug)]
pub struct Admission<E: Estimator> {
    policy: Arc<Predicted<E>>,
    call: E::Call,
    /// Nanoseconds.
    estimate: u64,
    called: Instant,
    /// `None` until the call has completed.
    end: Option<End>,
    /// The key of its share.
    share: Option<u32>,
    priority: Priority,
    /// Whether it had nothing to wait for when it was admitted.
    is_alone: bool,
}

impl<E: Estimator> Drop for Admission<E> {
    fn drop(&mut self) {
        let mut state = self.policy.state.lock();
        let in_flight = state.in_flight;
        state.in_flight -= 1;
        state.backlog.remove(self.share, self.priority, self.estimate);
        if let (Some(End::Measured(took)), 1..) = (self.end, self.estimate) {
            state.recent.observe(took, self.estimate);
        }
        if state.throughput.is_measuring(in_flight) {
            state.throughput.call_ended(in_flight, self.end.unwrap_or(End::Cancelled), clock::read());
        }
        drop(state);
        // A call cancelled after more than the expected time would have taken longer still.
        if self.end.is_none() && self.is_alone {
            let took = nanos(clock::read().saturating_duration_since(self.called));
            if took > self.estimate {
                self.policy.estimator.observe(&self.call, took);
            }
        }
    }
}
