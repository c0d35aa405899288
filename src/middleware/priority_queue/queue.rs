//! The calls that wait for one inner service.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::capacity::{Capacity, Removal};
use super::error::Rejection;
use super::layer::Settings;
use super::schedule::{QueuePosition, QueuedCall, Schedule};
use super::service_rate::ServiceRate;
use super::service_times::{ServiceTimer, ServiceTimes};
use super::tenant::TenantKey;
use crate::middleware::clock;
use crate::middleware::per_share::Operation;
use crate::request::limits::tenant_key;
use crate::request::{Priority, RequestContext, Share};
use crate::sync::Mutex;

/// The calls that wait for an inner service `S`.
pub(super) struct Queue<S> {
    pub(super) capacity: Arc<Capacity>,
    /// How long calls take, where that is learned.
    service_times: Option<Arc<ServiceTimes>>,
    min_service_time: Duration,
    keep_permits: bool,
    state: Mutex<State<S>>,
    /// The number of waiting calls, to be read without the lock.
    waiting: AtomicUsize,
    /// Wakes the worker when the earliest deadline has changed and when the queue has become empty.
    pub(super) changed: Notify,
}

struct State<S> {
    schedule: Schedule,
    /// The waiting calls by arrival.
    entries: HashMap<u64, Entry<S>>,
    next_arrival: u64,
    rate: ServiceRate,
    has_worker: bool,
}

/// A waiting call.
struct Entry<S> {
    sender: oneshot::Sender<Outcome<S>>,
    position: QueuePosition,
    /// The deadline of the request; the schedule has the time at which it is too late to start.
    deadline: Option<Instant>,
    share: Option<Share>,
    /// `None` where service times are not learned.
    operation: Option<Operation>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What becomes of a waiting call.
type Outcome<S> = Result<Turn<S>, Rejection>;

/// The inner service for a call whose turn it is.
pub(super) struct Turn<S> {
    /// It is ready, or failed to become ready.
    pub(super) service: S,
    /// Measures the service time, where that is learned.
    pub(super) timer: Option<ServiceTimer>,
}

/// Calls to reject once the lock is released: that wakes their tasks, and services that wait for the permits they held.
struct DeferredWakes<S>(Vec<(Entry<S>, Rejection)>);

impl<S> DeferredWakes<S> {
    fn run(self) {
        for (Entry { permit, sender, .. }, rejection) in self.0 {
            drop(permit);
            // A call that was cancelled meanwhile needs no rejection.
            let _ = sender.send(Err(rejection));
        }
    }
}

impl<S> Queue<S> {
    pub(super) fn new(capacity: Arc<Capacity>, settings: &Settings) -> Self {
        let state = State {
            schedule: Schedule::new(settings.clone()),
            entries: HashMap::new(),
            next_arrival: 0,
            rate: ServiceRate::default(),
            has_worker: false,
        };
        Self {
            capacity,
            service_times: settings.learn_service_times.then(|| Arc::new(ServiceTimes::new())),
            min_service_time: settings.min_service_time,
            keep_permits: settings.wait_when_full,
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// Whether no call waits, as of a moment ago.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Adds a call, displacing less urgent ones if there is no room. Returns where its outcome will come, and whether the
    /// caller has to start the worker.
    pub(super) fn push<R: RequestContext>(
        self: &Arc<Self>,
        request: &R,
        permit: OwnedSemaphorePermit,
        now: Instant,
    ) -> Result<(Receiver<S>, bool), Rejection> {
        let (priority, share, bytes) = (request.priority(), request.share(), request.payload_bytes().unwrap_or(0));
        let tenant = TenantKey::new(tenant_key(request), share);
        // Any call of a tenant can be displaced, by a tenant that has less waiting. Such a call does not keep its permit, which
        // other services may reserve.
        let can_be_displaced = priority < Priority::High || share.is_some() || tenant != TenantKey::Anonymous;
        let (kept, released) =
            if self.keep_permits || !can_be_displaced { (Some(permit), None) } else { (None, Some(permit)) };
        let (sender, outcome) = oneshot::channel();
        let operation = self.service_times.as_ref().map(|times| times.operation(request.operation()));
        let latest_start = self.latest_start(request.deadline(), operation.as_ref(), share, now);
        let mut wakes = DeferredWakes(Vec::new());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let admitted = if latest_start.is_some_and(|latest| latest <= now) {
            self.capacity.count_expired();
            Err(state.late(request.deadline(), priority, now))
        } else {
            self.make_room(state, &tenant, share, priority, bytes, &mut wakes)
        };
        if let Err(rejection) = admitted {
            drop(guard);
            wakes.run();
            if let (Rejection::Late { .. }, Some(times), Some(operation)) = (rejection, &self.service_times, &operation)
            {
                times.decay(operation, share.unwrap_or_default());
            }
            return Err(rejection);
        }
        if kept.is_some() {
            self.capacity.keep_permit();
        }
        let arrival = state.next_arrival;
        state.next_arrival += 1;
        let first_deadline = state.schedule.first_deadline();
        let call = QueuedCall::new(latest_start, arrival, request.expected_time(), bytes);
        let position = state.schedule.insert(tenant, share, priority, call);
        let entry = Entry { sender, position, deadline: request.deadline(), share, operation, permit: kept };
        state.entries.insert(arrival, entry);
        if state.schedule.first_deadline() != first_deadline {
            self.changed.notify_one();
        }
        self.publish_len(state);
        let start_worker = !mem::replace(&mut state.has_worker, true);
        drop(guard);
        drop(released);
        wakes.run();
        Ok((Receiver { outcome, queue: Arc::clone(self), arrival }, start_worker))
    }

    /// Counts a new call in, displacing others while it exceeds a bound.
    fn make_room(
        &self,
        state: &mut State<S>,
        tenant: &TenantKey,
        share: Option<Share>,
        priority: Priority,
        bytes: u64,
        wakes: &mut DeferredWakes<S>,
    ) -> Result<(), Rejection> {
        while !self.capacity.try_add(priority, bytes) {
            let displaced = state.schedule.displaceable(tenant, share, priority);
            // No call is displaced for one that would not fit after that.
            let fits = |freed: u64| self.capacity.free_bytes().saturating_add(freed) >= bytes;
            let Some((displaced, _)) = displaced.filter(|(_, freed)| fits(*freed)) else {
                self.capacity.count_rejected();
                return Err(Rejection::Full { retry_after: state.rate.time_for(state.schedule.len_from(priority)) });
            };
            let rejection = Rejection::Displaced { retry_after: state.rate.time_for(state.schedule.len()) };
            wakes.0.push((self.remove(state, displaced.arrival(), Removal::Displaced).expect(HAS_ENTRY), rejection));
        }
        Ok(())
    }

    /// When it is too late to start a call; a deadline before the clock's beginning has long passed.
    fn latest_start(
        &self,
        deadline: Option<Instant>,
        operation: Option<&Operation>,
        share: Option<Share>,
        now: Instant,
    ) -> Option<Instant> {
        let learned = match (&self.service_times, operation) {
            (Some(times), Some(operation)) => times.service_time(operation, share),
            _ => Duration::ZERO,
        };
        Some(deadline?.checked_sub(self.min_service_time.max(learned)).unwrap_or(now))
    }

    /// Gives `service`, which is ready, to the next call that can complete in time. Drops it if no call waits.
    pub(super) fn serve_next(&self, mut service: S, now: Instant) {
        while let Some(Entry { sender, operation, share, .. }) = self.next(now) {
            let timer = match (&self.service_times, operation) {
                (Some(times), Some(operation)) => Some(ServiceTimer::new(Arc::clone(times), operation, share, now)),
                _ => None,
            };
            match sender.send(Ok(Turn { service, timer })) {
                // Cancelled meanwhile: the service goes to the next call.
                Err(Ok(turn)) => service = turn.discard(),
                _ => return,
            }
        }
    }

    /// Removes the next call that can complete in time, and rejects those before it that cannot.
    fn next(&self, now: Instant) -> Option<Entry<S>> {
        let mut wakes = DeferredWakes(Vec::new());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut next = None;
        while next.is_none()
            && let Some(call) = state.schedule.pop()
        {
            let entry = state.entries.remove(&call.arrival()).expect(HAS_ENTRY);
            // More may be known about its service time than when it arrived.
            let latest_start = self.latest_start(entry.deadline, entry.operation.as_ref(), entry.share, now);
            let is_late = latest_start.is_some_and(|latest| latest <= now);
            let removal = if is_late { Removal::Expired } else { Removal::Served };
            self.capacity.remove(&entry.position, entry.permit.is_some(), removal);
            if is_late {
                let rejection = state.late(entry.deadline, entry.position.priority, now);
                wakes.0.push((entry, rejection));
            } else {
                next = Some(entry);
            }
        }
        if next.is_some() {
            state.rate.observe(now, state.schedule.len() == 0);
        }
        self.publish_len(state);
        drop(guard);
        wakes.run();
        next
    }

    /// Rejects the calls whose deadline has passed. Returns the next deadline, or `None` if no call waits: then the worker has
    /// to end.
    pub(super) fn expire(&self, now: Instant) -> Option<Option<Instant>> {
        let mut wakes = DeferredWakes(Vec::new());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while let Some(call) = state.schedule.expired(now) {
            let entry = self.remove(state, call.arrival(), Removal::Expired).expect(HAS_ENTRY);
            let rejection = state.late(entry.deadline, entry.position.priority, now);
            wakes.0.push((entry, rejection));
        }
        self.publish_len(state);
        state.has_worker = state.schedule.len() > 0;
        let next = state.has_worker.then(|| state.schedule.first_deadline());
        drop(guard);
        wakes.run();
        next
    }

    /// Rejects all calls, as the worker has ended.
    pub(super) fn stop(&self) {
        let mut wakes = DeferredWakes(Vec::new());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.has_worker = false;
        while let Some(call) = state.schedule.pop() {
            let entry = state.entries.remove(&call.arrival()).expect(HAS_ENTRY);
            self.capacity.remove(&entry.position, entry.permit.is_some(), Removal::Cancelled);
            wakes.0.push((entry, Rejection::Stopped));
        }
        self.publish_len(state);
        drop(guard);
        wakes.run();
    }

    /// Removes a call that has not been served, if it is still there.
    fn remove(&self, state: &mut State<S>, arrival: u64, why: Removal) -> Option<Entry<S>> {
        let entry = state.entries.remove(&arrival)?;
        state.schedule.remove(&entry.position);
        self.capacity.remove(&entry.position, entry.permit.is_some(), why);
        Some(entry)
    }

    fn cancel(&self, arrival: u64) {
        let mut state = self.state.lock();
        let entry = self.remove(&mut state, arrival, Removal::Cancelled);
        self.publish_len(&state);
        drop(state);
        // Without the lock, as it wakes a service that waits for the permit.
        drop(entry);
    }

    /// Updates what is read without the lock, and ends the worker if no call waits.
    fn publish_len(&self, state: &State<S>) {
        let len = state.schedule.len();
        self.waiting.store(len, Ordering::Relaxed);
        if len == 0 {
            self.changed.notify_one();
        }
    }
}

const HAS_ENTRY: &str = "a scheduled call has an entry";

impl<S> State<S> {
    /// The rejection of a call that cannot complete in time.
    fn late(&self, deadline: Option<Instant>, priority: Priority, now: Instant) -> Rejection {
        match deadline {
            Some(deadline) if deadline > now => {
                Rejection::Late { retry_after: self.rate.time_for(self.schedule.len_from(priority)) }
            }
            _ => Rejection::Expired,
        }
    }
}

impl<S> Turn<S> {
    /// Takes the service from a call that was cancelled before it used it.
    fn discard(self) -> S {
        if let Some(timer) = self.timer {
            timer.finish(false);
        }
        self.service
    }
}

/// Receives the outcome of a waiting call. Dropping it cancels the call.
pub(super) struct Receiver<S> {
    outcome: oneshot::Receiver<Outcome<S>>,
    queue: Arc<Queue<S>>,
    arrival: u64,
}

impl<S> Receiver<S> {
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<S>> {
        Poll::Ready(ready!(Pin::new(&mut self.outcome).poll(cx)).unwrap_or(Err(Rejection::Stopped)))
    }
}

impl<S> Drop for Receiver<S> {
    fn drop(&mut self) {
        self.outcome.close();
        match self.outcome.try_recv() {
            Ok(Ok(turn)) => self.queue.serve_next(turn.discard(), clock::read()),
            Ok(Err(_)) => {}
            Err(_) => self.queue.cancel(self.arrival),
        }
    }
}

impl<S> fmt::Debug for Queue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
