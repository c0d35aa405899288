//! The calls that wait for one inner service.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::PriorityQueueSnapshot;
use super::capacity::Capacity;
use super::error::Rejection;
use super::layer::Settings;
use super::schedule::{QueuePosition, QueuedCall, Schedule};
use super::service_rate::ServiceRate;
use super::service_times::{ServiceTimer, ServiceTimes};
use super::tenant::TenantKey;
use crate::middleware::clock;
use crate::middleware::derive::derive_debug;
use crate::request::limits::tenant_key;
use crate::request::{Priority, RequestContext};
use crate::sync::Mutex;

/// The calls that wait for an inner service `S`.
pub(super) struct Queue<S> {
    pub(super) capacity: Arc<Capacity>,
    settings: Settings,
    /// How long calls take, where that is learned.
    service_times: Option<Arc<ServiceTimes>>,
    state: Mutex<State<S>>,
    /// Wakes the worker when the earliest deadline has changed and when the queue has become empty.
    pub(super) changed: Notify,
}

struct State<S> {
    schedule: Schedule<Entry<S>>,
    next_arrival: u64,
    rate: ServiceRate,
    has_worker: bool,
    /// Calls to reject once the lock is released: that wakes their tasks, and services that wait for the permits they held.
    rejected: Vec<(Entry<S>, Rejection)>,
}

/// A waiting call.
struct Entry<S> {
    sender: oneshot::Sender<Outcome<S>>,
    /// The deadline of the request; the schedule has the time at which it is too late to start.
    deadline: Option<Instant>,
    /// `None` where service times are not learned.
    timer: Option<ServiceTimer>,
    permit: Option<OwnedSemaphorePermit>,
}

/// A call that was removed from the schedule.
type Call<S> = (QueuePosition, Entry<S>);

/// What becomes of a waiting call.
type Outcome<S> = Result<Turn<S>, Rejection>;

/// The inner service for a call whose turn it is.
pub(super) struct Turn<S> {
    /// It is ready, or failed to become ready.
    pub(super) service: S,
    /// Is to measure the service time, where that is learned.
    pub(super) timer: Option<ServiceTimer>,
}

impl<S> Queue<S> {
    pub(super) fn new(capacity: Arc<Capacity>, settings: Settings) -> Self {
        let state = State {
            schedule: Schedule::new(settings.max_passed_over),
            next_arrival: 0,
            rate: ServiceRate::default(),
            has_worker: false,
            rejected: Vec::new(),
        };
        Self {
            capacity,
            service_times: settings.learn_service_times.then(|| Arc::new(ServiceTimes::new())),
            settings,
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().schedule.is_empty()
    }

    /// Adds a call, displacing less urgent ones if there is no room, or rejects it. Returns where its outcome will come, and
    /// whether the caller has to start the worker.
    pub(super) fn push<R: RequestContext>(
        self: &Arc<Self>,
        request: &R,
        permit: OwnedSemaphorePermit,
        now: Instant,
    ) -> (Receiver<S>, bool) {
        let (priority, share, deadline) = (request.priority(), request.share(), request.deadline());
        let (tenant, weight) = self.settings.tenant(tenant_key(request), share);
        // Any call of a tenant can be displaced, by a tenant that has less waiting. Such a call does not keep its permit, which
        // other services may reserve.
        let can_be_displaced = priority < Priority::High || share.is_some() || tenant != TenantKey::Anonymous;
        let permit = Some(permit).filter(|_| self.settings.wait_when_full || !can_be_displaced);
        let timer = self.service_times.as_ref().map(|times| ServiceTimer::new(times, request.operation(), share));
        let (sender, outcome) = oneshot::channel();
        let entry = Entry { sender, deadline, timer, permit };
        let latest_start = self.latest_start(&entry, now);
        let bytes = request.payload_bytes().unwrap_or(0);
        let (arrival, start_worker) = self.update(|state| {
            let arrival = state.next_arrival;
            state.next_arrival += 1;
            let call = QueuedCall::new(latest_start, arrival, request.expected_time(), bytes);
            let position = QueuePosition { tenant, weight, priority, call };
            if let Err(rejection) = self.admit(state, &position, &entry, now) {
                state.rejected.push((entry, rejection));
                return (arrival, false);
            }
            state.schedule.insert(position, entry);
            if latest_start.is_some() && latest_start == state.schedule.first_deadline() {
                self.changed.notify_one();
            }
            (arrival, !mem::replace(&mut state.has_worker, true))
        });
        (Receiver { outcome, queue: Arc::clone(self), arrival }, start_worker)
    }

    /// Counts a new call in, displacing others while it exceeds a bound.
    fn admit(
        &self,
        state: &mut State<S>,
        new: &QueuePosition,
        entry: &Entry<S>,
        now: Instant,
    ) -> Result<(), Rejection> {
        if new.call.deadline().is_some_and(|latest_start| latest_start <= now) {
            self.capacity.count(|counts| counts.expired += 1);
            let rejection = state.late(entry.deadline, new.priority, now);
            if let (Rejection::Late { .. }, Some(timer)) = (rejection, &entry.timer) {
                timer.decay();
            }
            return Err(rejection);
        }
        while !self.capacity.try_add(new, entry.permit.is_some()) {
            // No call is displaced for one that would not fit after that.
            let fits = |freed: u64| self.capacity.free_bytes().saturating_add(freed) >= new.call.bytes;
            let Some((displaced, _)) = state.schedule.displaceable(new).filter(|(_, freed)| fits(*freed)) else {
                self.capacity.count(|counts| counts.rejected += 1);
                return Err(Rejection::Full { retry_after: state.time_to_serve(new.priority) });
            };
            let rejection = Rejection::Displaced { retry_after: state.time_to_serve(Priority::Low) };
            let displaced = state.schedule.remove(displaced).expect("it is in the schedule");
            let entry = self.count_out(displaced, |counts| counts.displaced += 1);
            state.rejected.push((entry, rejection));
        }
        Ok(())
    }

    /// When it is too late to start a call; a deadline before the clock's beginning has long passed.
    fn latest_start(&self, call: &Entry<S>, now: Instant) -> Option<Instant> {
        let learned = call.timer.as_ref().map_or(Duration::ZERO, ServiceTimer::expected);
        Some(call.deadline?.checked_sub(self.settings.min_service_time.max(learned)).unwrap_or(now))
    }

    /// Gives `service`, which is ready, to the next call that can complete in time. Drops it if no call waits.
    pub(super) fn serve_next(&self, mut service: S, now: Instant) {
        while let Some(Entry { sender, timer, .. }) = self.update(|state| self.next(state, now)) {
            match sender.send(Ok(Turn { service, timer })) {
                // Cancelled meanwhile: the service goes to the next call.
                Err(Ok(turn)) => service = turn.service,
                _ => return,
            }
        }
    }

    /// Removes the next call that can complete in time, and rejects those before it that cannot.
    fn next(&self, state: &mut State<S>, now: Instant) -> Option<Entry<S>> {
        loop {
            let call = state.schedule.pop()?;
            // More may be known about its service time than when it arrived.
            if self.latest_start(&call.1, now).is_some_and(|latest| latest <= now) {
                self.reject_late(state, call, now);
                continue;
            }
            state.rate.observe(now, state.schedule.is_empty());
            return Some(self.count_out(call, |counts| counts.served += 1));
        }
    }

    /// Rejects the calls whose deadline has passed. Returns the next deadline, or `None` if no call waits: then the worker has
    /// to end.
    pub(super) fn expire(&self, now: Instant) -> Option<Option<Instant>> {
        self.update(|state| {
            while let Some(arrival) = state.schedule.expired(now)
                && let Some(call) = state.schedule.remove(arrival)
            {
                self.reject_late(state, call, now);
            }
            state.has_worker = !state.schedule.is_empty();
            state.has_worker.then(|| state.schedule.first_deadline())
        })
    }

    /// Rejects all calls, as the worker has ended.
    pub(super) fn stop(&self) {
        self.update(|state| {
            state.has_worker = false;
            while let Some(call) = state.schedule.pop() {
                let entry = self.count_out(call, |_| ());
                state.rejected.push((entry, Rejection::Stopped));
            }
        });
    }

    fn cancel(&self, arrival: u64) {
        let call = self.update(|state| state.schedule.remove(arrival).map(|call| self.count_out(call, |_| ())));
        // Without the lock, as it wakes a service that waits for the permit.
        drop(call);
    }

    fn reject_late(&self, state: &mut State<S>, (position, entry): Call<S>, now: Instant) {
        let rejection = state.late(entry.deadline, position.priority, now);
        let entry = self.count_out((position, entry), |counts| counts.expired += 1);
        state.rejected.push((entry, rejection));
    }

    /// Counts a call that no longer waits. `count` counts why.
    fn count_out(&self, (position, entry): Call<S>, count: fn(&mut PriorityQueueSnapshot)) -> Entry<S> {
        self.capacity.remove(&position, entry.permit.is_some(), count);
        entry
    }

    /// Changes the state, and wakes others once the lock is released.
    fn update<T>(&self, change: impl FnOnce(&mut State<S>) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let rejected = mem::take(&mut state.rejected);
        let is_empty = state.schedule.is_empty();
        drop(state);
        if is_empty {
            // The worker has to end.
            self.changed.notify_one();
        }
        for (Entry { permit, sender, .. }, rejection) in rejected {
            drop(permit);
            // A call that was cancelled meanwhile needs no rejection.
            let _ = sender.send(Err(rejection));
        }
        result
    }
}

impl<S> State<S> {
    /// The rejection of a call that cannot complete in time.
    fn late(&self, deadline: Option<Instant>, priority: Priority, now: Instant) -> Rejection {
        match deadline {
            Some(deadline) if deadline > now => Rejection::Late { retry_after: self.time_to_serve(priority) },
            _ => Rejection::Expired,
        }
    }

    /// The expected time until the calls of `priority` and above have been served, and one more.
    fn time_to_serve(&self, priority: Priority) -> Option<Duration> {
        self.rate.time_for(self.schedule.len_from(priority))
    }
}

/// Receives the outcome of a waiting call. Dropping it cancels the call.
pub(super) struct Receiver<S> {
    outcome: oneshot::Receiver<Outcome<S>>,
    queue: Arc<Queue<S>>,
    arrival: u64,
}

impl<S> Receiver<S> {
    /// Polled again after a rejection, it is stopped.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<S>> {
        if self.outcome.is_terminated() {
            return Poll::Ready(Err(Rejection::Stopped));
        }
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| outcome.unwrap_or(Err(Rejection::Stopped)))
    }
}

impl<S> Drop for Receiver<S> {
    fn drop(&mut self) {
        if self.outcome.is_terminated() {
            return;
        }
        self.outcome.close();
        match self.outcome.try_recv() {
            Ok(Ok(turn)) => self.queue.serve_next(turn.service, clock::read()),
            Ok(Err(_)) => {}
            Err(_) => self.queue.cancel(self.arrival),
        }
    }
}

derive_debug!(Queue::<S> { capacity });
