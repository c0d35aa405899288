//! The batches that wait, for each key the oldest first, behind one lock.
//!
//! ```text
//! try_call  a request is called by itself, if nothing of its key waits and the key may have one more call in flight
//! push      a request joins the last batch of its key, or a new one
//! take      removes the first batch to be sent, of all keys that may have one more call in flight
//! cancel    removes cancelled requests, and a batch that none is left of
//! ```
//! `try_call` and `take` return an [`InFlight`]: once it is dropped, the key may have one more call in flight.
//!
//! While batches wait there is exactly one dispatcher. A caller that is told so by `push` starts it, and it ends when
//! [`next`](Queue::next) says so, under the same lock.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};
use tokio::sync::Notify;

use super::layer::BatchSnapshot;
use crate::middleware::derive::derive_debug;
use crate::sync::Mutex;

/// How large batches become, and when they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) requests: usize,
    pub(super) weight: u64,
    /// Calls in flight of one key, unless its policy allows fewer.
    pub(super) in_flight: usize,
    pub(super) delay: Duration,
    /// Requests that wait, of all keys.
    pub(super) capacity: usize,
}

/// The batches of requests `M` that wait, by their key `K`.
pub(super) struct Queue<K, M> {
    pub(super) limits: Limits,
    /// Batches that wait. It is changed with the lock, and read without: every request reads it, on all threads.
    waiting: AtomicUsize,
    state: Mutex<State<K, M>>,
    /// Wakes the dispatcher when the first batch of a key has changed and when no batch waits.
    pub(super) changed: Notify,
    pub(super) totals: Arc<Mutex<BatchSnapshot>>,
}

derive_debug!(Queue::<K, M> { limits });

struct State<K, M> {
    keys: HashMap<K, KeyQueue<K, M>>,
    /// The first batch of each key that may have one more call in flight, by when it is to be sent and its number.
    scheduled: BTreeMap<(Instant, u64), K>,
    next_number: u64,
    has_dispatcher: bool,
}

/// The calls in flight and the waiting batches of one key. Only the last batch takes further requests.
struct KeyQueue<K, M> {
    in_flight: usize,
    max_in_flight: usize,
    groups: VecDeque<BatchGroup<K, M>>,
    /// Its entry in `State::scheduled`.
    scheduled: Option<(Instant, u64)>,
}

/// A batch that waits.
struct BatchGroup<K, M> {
    id: Arc<BatchId<K, M>>,
    members: Vec<M>,
    weight: u64,
    started: Instant,
    /// When it is to be sent: after the delay, or at once if it is full.
    send_at: Instant,
}

/// A call in flight of a key, until it is dropped.
pub(super) struct InFlight<K: Hash + Eq + Clone, M> {
    key: K,
    queue: Arc<Queue<K, M>>,
}

impl<K: Hash + Eq + Clone, M> Drop for InFlight<K, M> {
    fn drop(&mut self) {
        let Queue { state, changed, .. } = &*self.queue;
        let mut state = state.lock();
        if let Some(queue) = state.keys.get_mut(&self.key) {
            queue.in_flight -= 1;
        }
        let has_changed = state.reschedule(&self.key);
        drop(state);
        if has_changed {
            changed.notify_one();
        }
    }
}

/// Identifies a batch. Its requests share it, so that they do not all count on one reference count of the queue.
pub(super) struct BatchId<K, M> {
    key: K,
    number: u64,
    queue: Arc<Queue<K, M>>,
}

impl<K: Hash + Eq + Clone, M> BatchId<K, M> {
    /// Removes the cancelled requests of the batch from the queue, if it has not been sent, and counts them.
    pub(super) fn cancel(&self, is_cancelled: impl Fn(&M) -> bool) {
        self.queue.cancel(self, is_cancelled);
    }
}

/// What the dispatcher has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send a batch once the inner service is ready.
    Send,
    /// Wait until then, or until something changes.
    NotBefore(Instant),
    /// Wait until something changes: all keys have enough calls in flight.
    Blocked,
    /// Nothing waits: the dispatcher has to end.
    End,
}

impl<K: Hash + Eq + Clone, M> Queue<K, M> {
    pub(super) fn new(limits: Limits, totals: Arc<Mutex<BatchSnapshot>>) -> Self {
        let state = State { keys: HashMap::new(), scheduled: BTreeMap::new(), next_number: 0, has_dispatcher: false };
        Self { limits, waiting: AtomicUsize::new(0), state: Mutex::new(state), changed: Notify::new(), totals }
    }

    /// Whether no batch waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts a request as called by itself, unless it has to wait: something of its key waits, or the key has enough calls
    /// in flight. The inner service has to be ready for it.
    pub(super) fn try_call(self: &Arc<Self>, key: &K, max_in_flight: usize) -> Option<InFlight<K, M>> {
        let Limits { in_flight, delay, .. } = self.limits;
        if !delay.is_zero() {
            return None;
        }
        let mut state = self.state.lock();
        let max_in_flight = max_in_flight.min(in_flight);
        let queue = state.keys.entry(key.clone()).or_insert_with(|| KeyQueue::new(max_in_flight));
        if queue.in_flight >= max_in_flight || !queue.groups.is_empty() {
            return None;
        }
        queue.in_flight += 1;
        drop(state);
        Some(InFlight { key: key.clone(), queue: Arc::clone(self) })
    }

    /// Adds a request to the last batch of its key, or to a new one. Returns the batch, and whether the caller has to start the
    /// dispatcher.
    pub(super) fn push(
        self: &Arc<Self>,
        key: K,
        max_in_flight: usize,
        weight: u64,
        now: Instant,
        member: M,
    ) -> (Arc<BatchId<K, M>>, bool) {
        let Limits { requests, weight: max_weight, in_flight, delay, .. } = self.limits;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let queue = match state.keys.get_mut(&key) {
            Some(queue) => queue,
            None => state.keys.entry(key.clone()).or_insert_with(|| KeyQueue::new(max_in_flight.min(in_flight))),
        };
        let has_room = |last: &BatchGroup<K, M>| {
            last.members.len() < requests && last.weight < max_weight && max_weight - last.weight >= weight
        };
        let mut is_to_schedule = false;
        if !queue.groups.back().is_some_and(has_room) {
            // The last one waits for no more requests.
            if let Some(last) = queue.groups.back_mut() {
                last.send_at = last.started;
            }
            let id = Arc::new(BatchId { key, number: state.next_number, queue: Arc::clone(self) });
            let send_at = now.checked_add(delay).unwrap_or(now);
            queue.groups.push_back(BatchGroup { id, members: Vec::new(), weight: 0, started: now, send_at });
            state.next_number += 1;
            self.waiting.fetch_add(1, Ordering::Relaxed);
            is_to_schedule = true;
        }
        let last = queue.groups.back_mut().expect("it has just been added");
        last.members.push(member);
        last.weight = last.weight.saturating_add(weight);
        if last.members.len() >= requests || last.weight >= max_weight {
            last.send_at = last.started;
            is_to_schedule = true;
        }
        let batch = Arc::clone(&last.id);
        // Most requests join a batch that is scheduled, and change nothing of that.
        let has_changed = is_to_schedule && state.reschedule(&batch.key);
        let start_dispatcher = !mem::replace(&mut state.has_dispatcher, true);
        drop(guard);
        if has_changed {
            self.changed.notify_one();
        }
        (batch, start_dispatcher)
    }

    /// Returns what the dispatcher has to do. The clock is read under the lock, so that it is not behind that of any request.
    pub(super) fn next(&self, now: impl FnOnce() -> Instant) -> Next {
        let mut state = self.state.lock();
        if self.is_empty() {
            state.has_dispatcher = false;
            return Next::End;
        }
        match state.scheduled.first_key_value() {
            Some(((send_at, _), _)) if *send_at <= now() => Next::Send,
            Some(((send_at, _), _)) => Next::NotBefore(*send_at),
            None => Next::Blocked,
        }
    }

    /// Removes the first batch that is to be sent, and counts it as in flight.
    pub(super) fn take(self: &Arc<Self>, now: impl FnOnce() -> Instant) -> Option<(InFlight<K, M>, Vec<M>)> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (_, key) = state.scheduled.first_key_value().filter(|((send_at, _), _)| *send_at <= now())?;
        let key = key.clone();
        let queue = state.keys.get_mut(&key)?;
        let group = queue.groups.pop_front()?;
        queue.in_flight += 1;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state.reschedule(&key);
        Some((InFlight { key, queue: Arc::clone(self) }, group.members))
    }

    fn cancel(&self, batch: &BatchId<K, M>, is_cancelled: impl Fn(&M) -> bool) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(queue) = state.keys.get_mut(&batch.key) else { return };
        let Some(index) = queue.groups.iter().position(|group| group.id.number == batch.number) else { return };
        let members = &mut queue.groups[index].members;
        let cancelled: Vec<M> = members.extract_if(.., |member| is_cancelled(member)).collect();
        // The weight of a batch is not reduced: it takes fewer further requests, and never too many.
        let mut notify = false;
        if members.is_empty() {
            queue.groups.remove(index);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            notify = state.reschedule(&batch.key) || self.is_empty();
        }
        drop(guard);
        if notify {
            self.changed.notify_one();
        }
        // They are dropped without the lock.
        self.totals.lock().cancelled += cancelled.len() as u64;
    }

    /// Removes all requests that wait, as the dispatcher has ended. The next request starts another.
    pub(super) fn drain(&self) -> Vec<M> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let groups = state.keys.values_mut().flat_map(|queue| queue.groups.drain(..));
        let members = groups.flat_map(|group| group.members).collect();
        state.keys.retain(|_, queue| {
            queue.scheduled = None;
            queue.in_flight > 0
        });
        state.scheduled.clear();
        self.waiting.store(0, Ordering::Relaxed);
        state.has_dispatcher = false;
        members
    }

    /// Returns the number of calls in flight and of batches that wait.
    pub(super) fn level(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.keys.values().map(|queue| queue.in_flight).sum(), self.waiting())
    }
}

impl<K, M> KeyQueue<K, M> {
    fn new(max_in_flight: usize) -> Self {
        Self { in_flight: 0, max_in_flight, groups: VecDeque::new(), scheduled: None }
    }
}

impl<K: Hash + Eq + Clone, M> State<K, M> {
    /// Updates the entry of a key in `scheduled` after a change, and removes a key that is idle. Returns whether the dispatcher
    /// has to know.
    fn reschedule(&mut self, key: &K) -> bool {
        let Some(queue) = self.keys.get_mut(key) else { return false };
        let first = queue.groups.front().filter(|_| queue.in_flight < queue.max_in_flight);
        let scheduled = first.map(|group| (group.send_at, group.id.number));
        let before = mem::replace(&mut queue.scheduled, scheduled);
        if queue.in_flight == 0 && queue.groups.is_empty() {
            self.keys.remove(key);
        }
        if before == scheduled {
            return false;
        }
        if let Some(before) = before {
            self.scheduled.remove(&before);
        }
        if let Some(scheduled) = scheduled {
            self.scheduled.insert(scheduled, key.clone());
        }
        scheduled.is_some()
    }
}
