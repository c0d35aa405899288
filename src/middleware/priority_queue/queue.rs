//! The calls that wait for one inner service.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::error::Rejection;
use super::schedule::{QueuePosition, QueuedCall, Schedule, TenantKey};
use super::service_times::{ServiceRate, ServiceTimer, ServiceTimes};
use super::shared::Shared;
use crate::middleware::clock;
use crate::middleware::derive::derive_debug;
use crate::request::limits::tenant_key;
use crate::request::{Priority, RequestContext};
use crate::sync::Mutex;

/// The calls that wait for an inner service `S`.
pub(super) struct Queue<S> {
    pub(super) shared: Arc<Shared>,
    /// How long calls take, where that is learned.
    service_times: Option<Arc<ServiceTimes>>,
    /// Whether no call waits. It is changed with the lock, and read without: every call reads it, on all threads.
    is_empty: AtomicBool,
    state: Mutex<State<S>>,
    /// Wakes the worker when the earliest deadline has changed and when the queue has become empty.
    pub(super) changed: Notify,
}

struct State<S> {
    shared: Arc<Shared>,
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
    timer: Option<Box<ServiceTimer>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<S> Entry<S> {
    /// When it is too late to start the call; a deadline before the clock's beginning has long passed.
    fn latest_start(&self, shared: &Shared, now: Instant) -> Option<Instant> {
        let learned = self.timer.as_ref().map_or(Duration::ZERO, |timer| timer.expected());
        Some(self.deadline?.checked_sub(shared.settings.min_service_time.max(learned)).unwrap_or(now))
    }
}

/// What becomes of a waiting call.
type Outcome<S> = Result<Turn<S>, Rejection>;

/// The inner service for a call whose turn it is.
pub(super) struct Turn<S> {
    /// It is ready, or failed to become ready.
    pub(super) service: S,
    /// Is to measure the service time, where that is learned.
    pub(super) timer: Option<Box<ServiceTimer>>,
}

impl<S> Queue<S> {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let state = State {
            shared: Arc::clone(&shared),
            schedule: Schedule::new(shared.settings.max_passed_over),
            next_arrival: 0,
            rate: ServiceRate::default(),
            has_worker: false,
            rejected: Vec::new(),
        };
        let service_times = shared.settings.learn_service_times.then(|| Arc::new(ServiceTimes::new()));
        Self { shared, service_times, is_empty: true.into(), state: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Relaxed)
    }

    /// Adds a call, displacing less urgent ones if there is no room, or rejects it. Returns where its outcome will come, and
    /// whether the caller has to start the worker.
    pub(super) fn push<R: RequestContext>(
        self: &Arc<Self>,
        request: &R,
        permit: OwnedSemaphorePermit,
    ) -> (Receiver<S>, bool) {
        let now = clock::now();
        let settings = &self.shared.settings;
        let (priority, share, bytes) = (request.priority(), request.share(), request.payload_bytes().unwrap_or(0));
        let (tenant, weight) = settings.tenant(tenant_key(request), share);
        // Any call of a tenant can be displaced, by a tenant that has less waiting. Such a call does not keep its permit, which
        // other services may reserve.
        let has_tenant = share.is_some() || matches!(tenant, TenantKey::Name(_));
        let keeps_permit = settings.wait_when_full || (priority == Priority::High && !has_tenant);
        let permit = Some(permit).filter(|_| keeps_permit);
        let timer =
            self.service_times.as_ref().map(|times| Box::new(ServiceTimer::new(times, request.operation(), share)));
        let (sender, outcome) = oneshot::channel();
        let entry = Entry { sender, deadline: request.deadline(), timer, permit };
        let latest_start = entry.latest_start(&self.shared, now);
        let (arrival, start_worker) = self.update(|state| {
            let arrival = state.next_arrival;
            state.next_arrival += 1;
            let call = QueuedCall::new(latest_start, arrival, request.expected_time(), bytes);
            let position = QueuePosition { tenant, weight, priority, call };
            if let Err(rejection) = state.admit(&position, &entry, now) {
                state.reject(entry, rejection);
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

    /// Gives `service`, which is ready, to the next call that can complete in time. Drops it if no call waits.
    pub(super) fn serve_next(&self, mut service: S) {
        let now = clock::read();
        while let Some(Entry { sender, timer, .. }) = self.update(|state| state.next(now)) {
            match sender.send(Ok(Turn { service, timer })) {
                // Cancelled meanwhile: the service goes to the next call.
                Err(Ok(turn)) => service = turn.service,
                _ => return,
            }
        }
    }

    /// Rejects the calls whose deadline has passed. Returns the next deadline, or `None` if no call waits: then the worker has
    /// to end.
    pub(super) fn expire(&self) -> Option<Option<Instant>> {
        let now = clock::read();
        self.update(|state| {
            while let Some(arrival) = state.schedule.expired(now)
                && let Some(call) = state.schedule.remove(arrival)
            {
                let rejection = state.late(call.1.deadline, call.0.priority, now);
                state.evict(call, rejection);
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
                state.evict(call, Rejection::Stopped);
            }
        });
    }

    /// Changes the state, and wakes others once the lock is released.
    fn update<T>(&self, change: impl FnOnce(&mut State<S>) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let rejected = mem::take(&mut state.rejected);
        let is_empty = state.schedule.is_empty();
        let was_empty = self.is_empty.swap(is_empty, Ordering::Relaxed);
        drop(state);
        if is_empty && !was_empty {
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
    /// Counts a new call in, displacing others while it exceeds a bound.
    fn admit(&mut self, new: &QueuePosition, entry: &Entry<S>, now: Instant) -> Result<(), Rejection> {
        if new.call.deadline().is_some_and(|latest_start| latest_start <= now) {
            let rejection = self.late(entry.deadline, new.priority, now);
            if let (Rejection::Late { .. }, Some(timer)) = (rejection, &entry.timer) {
                timer.decay();
            }
            return Err(rejection);
        }
        while let Err(free_bytes) = self.shared.try_add(new, entry.permit.is_some()) {
            // No call is displaced for one that would not fit after that.
            let fits = |&(_, freed): &(u64, u64)| free_bytes.saturating_add(freed) >= new.call.bytes;
            let displaceable = self.schedule.displaceable(new).filter(fits);
            let retry_after = self.time_to_serve(displaceable.map_or(new.priority, |_| Priority::Low));
            let Some(displaced) = displaceable.and_then(|(arrival, _)| self.schedule.remove(arrival)) else {
                return Err(Rejection::Full { retry_after });
            };
            self.evict(displaced, Rejection::Displaced { retry_after });
        }
        Ok(())
    }

    /// Removes the next call that can complete in time, and rejects those before it that cannot.
    fn next(&mut self, now: Instant) -> Option<Entry<S>> {
        loop {
            let (position, entry) = self.schedule.pop()?;
            // More may be known about its service time than when it arrived.
            if entry.latest_start(&self.shared, now).is_none_or(|latest| latest > now) {
                self.rate.observe(now, self.schedule.is_empty());
                self.shared.remove(&position, entry.permit.is_some(), |counts| counts.served += 1);
                return Some(entry);
            }
            let rejection = self.late(entry.deadline, position.priority, now);
            self.evict((position, entry), rejection);
        }
    }

    /// Rejects a call that has waited.
    fn evict(&mut self, (position, entry): (QueuePosition, Entry<S>), rejection: Rejection) {
        self.shared.remove(&position, entry.permit.is_some(), |_| ());
        self.reject(entry, rejection);
    }

    fn reject(&mut self, entry: Entry<S>, rejection: Rejection) {
        self.shared.count_rejected(rejection);
        self.rejected.push((entry, rejection));
    }

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
    /// # Panics
    /// If polled again after it was ready.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<S>> {
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
            Ok(Ok(turn)) => self.queue.serve_next(turn.service),
            Ok(Err(_)) => {}
            Err(_) => {
                let count_out = |state: &mut State<S>| {
                    let call = state.schedule.remove(self.arrival);
                    call.inspect(|(position, entry)| state.shared.remove(position, entry.permit.is_some(), |_| ()))
                };
                // Dropped without the lock, as it wakes a service that waits for the permit.
                drop(self.queue.update(count_out));
            }
        }
    }
}

derive_debug!(Queue::<S> { shared });
