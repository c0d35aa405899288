//! Refuses what cannot be done in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::drain::{Drain, End};
use super::estimate::{Estimate, Estimator, Learned, nanos};
use super::policy::{Admit, Answered, Policy, Refusal};
use super::shares::Shares;
use crate::middleware::clock;
use crate::request::{Priority, RequestContext, ResponseContext, Share};

/// Refuses a call when what is ahead leaves no time for it. Made by
/// [`LoadShedLayer::predicting`](super::LoadShedLayer::predicting).
#[derive(Debug)]
pub struct Predicted<F = Learned> {
    pub(super) estimator: F,
    drain: Drain,
    bounds: Bounds,
    in_flight: AtomicUsize,
    /// Nanoseconds of estimates of what has been let in and has not ended, by priority.
    backlog: [AtomicU64; 3],
    /// Of that, what is of shares that have been assigned.
    shares: Shares,
    recent: Recent,
    shed: [AtomicU64; 3],
}

/// What calls that have ended lately took and were expected to take as they were let in, in nanoseconds; one that is some
/// sixteen calls ago counts a third. Of two that add at the same time one may be lost.
#[derive(Debug, Default)]
struct Recent {
    took: AtomicU64,
    expected: AtomicU64,
}

impl Recent {
    fn add(&self, took: u64, expected: u64) {
        for (sum, value) in [(&self.took, took), (&self.expected, expected)] {
            let before = sum.load(Ordering::Relaxed);
            sum.store((before - before / 16).saturating_add(value), Ordering::Relaxed);
        }
    }

    /// What to take of a backlog whose estimates were made when calls were let in. Those of before an estimate was put right
    /// would count for as long as they wait; what is off by less than a half is no more than chance.
    fn correction(&self) -> f64 {
        let (took, expected) = (self.took.load(Ordering::Relaxed), self.expected.load(Ordering::Relaxed));
        if took < expected / 2 { took as f64 / expected as f64 } else { 1.0 }
    }
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
    /// Whether calls of a higher priority are served first.
    pub(super) by_priority: bool,
    /// Whether calls are served fairly by share, and by priority within a share.
    pub(super) by_share: bool,
}

/// What has been let in and has not ended.
struct Ahead {
    in_flight: usize,
    /// Nanoseconds of estimates, by priority.
    backlog: [u64; 3],
}

impl Ahead {
    fn all(&self) -> u64 {
        self.from(0)
    }

    /// Of the priority `index` and above.
    fn from(&self, index: usize) -> u64 {
        Self::from_of(&self.backlog, index)
    }

    fn from_of(backlog: &[u64; 3], index: usize) -> u64 {
        backlog[index..].iter().fold(0, |sum, backlog| sum.saturating_add(*backlog))
    }

    fn average(&self) -> u64 {
        self.all() / self.in_flight.max(1) as u64
    }
}

/// Why a call cannot be let in, in nanoseconds.
struct Shortage {
    wait: u64,
    retry_after: u64,
    /// It takes more than the time it has.
    by_itself: bool,
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
            backlog: Default::default(),
            shares: Shares::default(),
            recent: Recent::default(),
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

    fn ahead(&self) -> Ahead {
        let backlog = self.backlog.each_ref().map(|backlog| backlog.load(Ordering::Relaxed));
        Ahead { in_flight: self.in_flight(), backlog }
    }

    /// How long the next call is expected to wait, if it is served after all that are ahead.
    pub(super) fn predicted_wait(&self) -> Duration {
        let ahead = self.ahead();
        let wait = if self.drain.is_busy(ahead.in_flight) { self.time(ahead.all()) } else { 0 };
        Duration::from_nanos(wait)
    }

    /// Nanoseconds until what is served before a call of this priority and share is done.
    fn wait(&self, priority: Priority, share: Share, ahead: &Ahead) -> u64 {
        // No call is refused on the strength of a guess.
        if !self.drain.is_known() || !self.drain.is_busy(ahead.in_flight) {
            return 0;
        }
        let all = ahead.all();
        let first = if self.bounds.by_share {
            self.shares.before(share, index(priority), &ahead.backlog)
        } else if self.bounds.by_priority {
            ahead.from(index(priority))
        } else {
            return self.time(all);
        };
        let runs = ahead.average().saturating_mul(self.drain.places() as u64);
        // What runs is ahead of everybody, whatever its priority, and half of it is done.
        let runs_below = runs.min(all.saturating_sub(first));
        self.time((first + runs_below).saturating_sub(runs / 2))
    }

    /// Nanoseconds until a backlog of so many is done.
    fn time(&self, backlog: u64) -> u64 {
        self.drain.time((backlog as f64 * self.recent.correction()) as u64)
    }

    /// Until the call has to be answered.
    fn time_left<R: RequestContext>(&self, request: &R, now: Instant) -> Option<Duration> {
        let left = request.deadline().map(|deadline| deadline.saturating_duration_since(now));
        match (left, self.bounds.answer_within) {
            (Some(left), Some(within)) => Some(left.min(within)),
            (left, within) => left.or(within),
        }
    }

    /// Whether there is time for a call that is expected to take `estimate`, behind others.
    #[inline(never)]
    fn has_time<R: RequestContext>(&self, request: &R, now: Instant, estimate: u64) -> Result<(), Shortage> {
        let priority = request.priority();
        let ahead = self.ahead();
        let wait = self.wait(priority, request.share().unwrap_or_default(), &ahead);
        let mut whole = nanos(self.bounds.max_wait);
        if let Some(left) = self.time_left(request, now) {
            let Some(spare) = nanos(left).checked_sub(estimate) else {
                return Err(Shortage { wait, retry_after: wait.max(estimate), by_itself: true });
            };
            whole = whole.min(spare);
        }
        if wait == 0 {
            return Ok(());
        }
        let mut allowed = (whole as f64 * self.bounds.parts[index(priority)]) as u64;
        if priority < Priority::High && nanos(self.drain.stands_for(now)) > whole {
            // Not so short that the places run dry.
            allowed = allowed.min((allowed / 2).max(2 * ahead.average()));
        }
        if wait > allowed {
            self.drain.refused();
            return Err(Shortage { wait, retry_after: wait - allowed, by_itself: false });
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self, priority: Priority, wait: u64, retry_after: u64) -> Refusal {
        self.shed[index(priority)].fetch_add(1, Ordering::Relaxed);
        Refusal::Late { predicted_wait: Duration::from_nanos(wait), retry_after: Duration::from_nanos(retry_after) }
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
    #[inline]
    fn admit(self: &Arc<Self>, request: &R, _ready: bool) -> Result<Work<F>, Refusal> {
        let now = clock::now();
        let (estimate, call) = self.estimator.estimate(request);
        let in_flight = self.in_flight();
        // A call of which nothing has been measured is refused for what is ahead of it alone.
        let own = if self.estimator.knows(&call) { estimate } else { 0 };
        // An idle service takes anything: an estimate can be wrong, and only a call can put it right.
        if in_flight > 0
            && let Err(shortage) = self.has_time(request, now, own)
        {
            if shortage.by_itself {
                self.estimator.doubt(&call);
            }
            return Err(self.refuse(request.priority(), shortage.wait, shortage.retry_after));
        }
        let alone = match self.bounds.parallelism {
            Some(places) => in_flight < places,
            None => in_flight == 0,
        };
        let index = index(request.priority());
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.backlog[index].fetch_add(estimate, Ordering::Relaxed);
        let share = request.share().filter(|share| self.bounds.by_share && !share.is_common());
        if let Some(share) = share {
            self.shares.enter(share, index, estimate);
        }
        let policy = Arc::clone(self);
        let (index, share) = (index as u8, share.map_or(0, Share::key));
        Ok(Work { policy, call, estimate, share, called: now, index, alone, done: None })
    }

    fn wait_until(&self, request: &R) -> Option<Instant> {
        let now = clock::now();
        let longest = self.bounds.max_wait;
        let longest = self.time_left(request, now).map_or(longest, |left| left.min(longest));
        now.checked_add(longest)
    }

    fn called(work: &mut Work<F>) {
        work.called = clock::now();
    }

    fn tell(request: &mut R, work: &Work<F>) {
        if work.estimate > 0 {
            request.set_expected_time(Duration::from_nanos(work.estimate));
        }
    }

    fn waited(&self, request: &R) -> Refusal {
        let wait = self.wait(request.priority(), request.share().unwrap_or_default(), &self.ahead());
        self.refuse(request.priority(), wait, wait.max(1_000_000))
    }
}

impl<F: Estimator, T: ResponseContext> Answered<T> for Predicted<F> {
    #[inline]
    fn answered(work: &mut Work<F>, response: &T) {
        if response.failure().is_some() {
            return;
        }
        // One that took no time at all was not timed.
        let exact = response.execution().map(|execution| nanos(execution.executed)).filter(|&executed| executed > 0);
        let took = exact.unwrap_or_else(|| work.took());
        // A call that queued further in took longer than its own time. One that took less than was expected says so
        // however long it queued.
        if exact.is_some() || work.alone || took < work.estimate {
            work.policy.estimator.observe(&work.call, took);
        }
        if let (Some(took), 1..) = (exact, work.estimate) {
            work.policy.recent.add(took, work.estimate);
        }
        work.done = Some(match exact {
            Some(took) => End::Answered(took),
            None if work.policy.estimator.knows(&work.call) => End::Answered(work.estimate),
            None => End::Unknown,
        });
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
    /// Of its priority.
    index: u8,
    /// Whether it was to have no call ahead of it when it was let in.
    alone: bool,
    /// What it was, once it has been answered.
    done: Option<End>,
    /// The key of the share that it counts in; zero where it counts in none.
    share: u32,
}

impl<F: Estimator> Work<F> {
    #[inline]
    fn took(&self) -> u64 {
        nanos(clock::read().saturating_duration_since(self.called))
    }
}

impl<F: Estimator> Drop for Work<F> {
    #[inline]
    fn drop(&mut self) {
        let index = usize::from(self.index);
        self.policy.backlog[index].fetch_sub(self.estimate, Ordering::Relaxed);
        if self.share != 0 {
            self.policy.shares.leave(self.share, index, self.estimate);
        }
        let in_flight = self.policy.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.policy.drain.is_concerned(in_flight) {
            let end = self.done.unwrap_or(End::Unanswered);
            self.policy.drain.ended(in_flight, end, clock::read());
        }
        // One that was given up after it had taken longer than expected would have taken longer still.
        if self.done.is_none() && self.alone {
            let took = self.took();
            if took > self.estimate {
                self.policy.estimator.observe(&self.call, took);
            }
        }
    }
}
