//! What waits, as one state behind one lock: batches that form, one line of them for each key.
//!
//! ```text
//! enter --> direct: as many calls of the key as may be in flight are not yet, and nothing of the key waits
//!       \-> the youngest batch of the key's line, or a new one
//! take  --> the oldest batch that is ripe, of all lines whose key may have one more in flight
//! done  --> the key may have one more in flight
//! left  --> who has left is taken out at once, and so is a batch that nobody is left of
//! ```
//! Nothing here waits or wakes: whoever changes something is told whom to wake, once the lock is let go. While anything
//! waits there is exactly one dispatcher. Who finds that there is none has to start it, and it learns from
//! [`next`](Queue::next) that it has ended, under the same lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::crew::Crew;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Who waits in a batch.
pub(super) trait Member {
    /// Whether anybody still wants the answer.
    fn is_here(&self) -> bool;
}

/// How large batches become, and when they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) requests: usize,
    pub(super) weight: u64,
    /// Calls of one key at one time.
    pub(super) in_flight: usize,
    pub(super) delay: Duration,
}

pub(super) struct Queue<K, M, H> {
    limits: Limits,
    /// Batches that wait: a hint, for who would rather not take the lock.
    waiting: AtomicUsize,
    state: Mutex<State<K, M, H>>,
}

struct State<K, M, H> {
    lines: HashMap<K, Line<K, M, H>>,
    /// The first batch of each line that could be sent now, by age.
    ripe: BTreeMap<u64, K>,
    /// The first batch of each line that is still in its delay, by age.
    ripening: BTreeMap<u64, (Instant, K)>,
    /// The number of the next batch.
    next: u64,
    /// How many wait, in all lines.
    waiting: usize,
    dispatcher: Dispatcher,
    /// Empty, for the next batches and the next line: the memory of those before.
    spare: Vec<Vec<M>>,
    spare_line: VecDeque<Forming<K, M, H>>,
}

enum Dispatcher {
    None,
    /// Runs, and is to be woken by this if it has looked.
    Runs(Option<Waker>),
}

/// The batches of one key that wait, the oldest first. Only the last takes any more in.
struct Line<K, M, H> {
    in_flight: usize,
    waiting: VecDeque<Forming<K, M, H>>,
}

pub(super) struct Forming<K, M, H> {
    pub(super) crew: Arc<Crew<K, H>>,
    pub(super) members: Vec<M>,
    weight: u64,
    full: bool,
    /// When it is to be sent though it is not full.
    due: Option<Instant>,
}

/// Requests that a new batch has room for.
const ROOM: usize = 16;

/// How many batches' memory is kept for the next, and for how many requests each at most.
const SPARE: usize = 4;
const SPARE_ROOM: usize = 1024;

/// What is to be done for the dispatcher, once the lock is let go.
#[must_use]
pub(super) enum Call {
    Nothing,
    Start,
    Wake(Waker),
}

impl Call {
    /// For changes that start nothing.
    pub(super) fn wake(self) {
        if let Self::Wake(waker) = self {
            waker.wake();
        }
    }
}

/// What becomes of a request.
pub(super) enum Entered<K, H> {
    /// It counts as in flight until [`done`](Queue::done) with this key.
    Direct(K),
    Waits(Arc<Crew<K, H>>, Call),
}

/// What the dispatcher finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A batch that can be taken.
    Ripe,
    /// Nothing before this.
    OperationIndex(Instant),
    /// All that waits is of keys that have enough in flight.
    Blocked,
    /// Nothing waits, and there is no dispatcher any more.
    End,
}

impl<K: Hash + Eq + Clone, M: Member, H> Queue<K, M, H> {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            lines: HashMap::new(),
            ripe: BTreeMap::new(),
            ripening: BTreeMap::new(),
            next: 0,
            waiting: 0,
            dispatcher: Dispatcher::None,
            spare: Vec::new(),
            spare_line: VecDeque::new(),
        };
        Self { limits, waiting: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether no batch waits, as of a moment ago.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    // What could panic in here is the `Hash` or `Eq` of a key, which come before anything is changed.
    fn lock(&self) -> MutexGuard<'_, State<K, M, H>> {
        self.state.lock()
    }

    /// Takes a request in, which is made a `member` of a batch only if it has to wait. It need not where `can_go` says
    /// that the inner service would take it now.
    pub(super) fn enter(
        &self,
        key: K,
        can_go: bool,
        weight: u64,
        home: impl FnOnce() -> H,
        now: impl FnOnce() -> Instant,
        member: impl FnOnce() -> M,
    ) -> Entered<K, H> {
        let Limits { requests, weight: most, in_flight, delay } = self.limits;
        let mut state = self.lock();
        let state = &mut *state;
        let new = || Line { in_flight: 0, waiting: std::mem::take(&mut state.spare_line) };
        let line = state.lines.entry(key.clone()).or_insert_with(new);
        if can_go && delay.is_zero() && line.in_flight < in_flight && line.waiting.is_empty() {
            line.in_flight += 1;
            return Entered::Direct(key);
        }
        let mut changed = false;
        let fits = |last: &Forming<K, M, H>| !last.full && last.weight.saturating_add(weight) <= most;
        if !line.waiting.back().is_some_and(fits) {
            if let Some(last) = line.waiting.back_mut() {
                changed |= !last.full;
                last.full = true;
            }
            let due = if delay.is_zero() { None } else { now().checked_add(delay) };
            let crew = Arc::new(Crew::new(key, home(), state.next));
            // Room for some more than one, so that it does not grow at each of the first.
            let members = state.spare.pop().unwrap_or_else(|| Vec::with_capacity(requests.min(ROOM)));
            line.waiting.push_back(Forming { crew, members, weight: 0, full: false, due });
            state.next += 1;
            state.waiting += 1;
            self.waiting.store(state.waiting, Ordering::Relaxed);
            changed |= line.waiting.len() == 1;
        }
        let is_first = line.waiting.len() == 1;
        let Some(last) = line.waiting.back_mut() else { unreachable!("it has just been put there") };
        last.members.push(member());
        last.weight = last.weight.saturating_add(weight);
        last.crew.join();
        if last.members.len() >= requests || last.weight >= most {
            last.full = true;
            changed |= is_first;
        }
        let crew = Arc::clone(&last.crew);
        let changed = changed && state.list(&crew.key, &self.limits);
        let call = match &mut state.dispatcher {
            Dispatcher::None => {
                state.dispatcher = Dispatcher::Runs(None);
                Call::Start
            }
            Dispatcher::Runs(waker) if changed => waker.take().map_or(Call::Nothing, Call::Wake),
            Dispatcher::Runs(_) => Call::Nothing,
        };
        Entered::Waits(crew, call)
    }

    /// For the dispatcher: what there is to do, and `waker` for when that changes. What is left of the batch before, which
    /// is empty, is kept for another.
    pub(super) fn next(&self, now: impl FnOnce() -> Instant, waker: &Waker, before: Option<Vec<M>>) -> Next {
        let mut state = self.lock();
        if let Some(before) = before.filter(|before| before.capacity() <= SPARE_ROOM)
            && state.spare.len() < SPARE
        {
            state.spare.push(before);
        }
        if state.waiting == 0 {
            state.dispatcher = Dispatcher::None;
            return Next::End;
        }
        match &mut state.dispatcher {
            Dispatcher::Runs(Some(known)) if known.will_wake(waker) => {}
            dispatcher => *dispatcher = Dispatcher::Runs(Some(waker.clone())),
        }
        if !state.ripening.is_empty() {
            state.ripen(now());
        }
        match state.ripening.first_key_value() {
            _ if !state.ripe.is_empty() => Next::Ripe,
            Some((_, (due, _))) => Next::OperationIndex(*due),
            None => Next::Blocked,
        }
    }

    /// For the dispatcher: the oldest batch that is ripe. It counts as in flight until [`done`](Self::done).
    pub(super) fn take(&self) -> Option<Forming<K, M, H>> {
        let mut state = self.lock();
        let (_, key) = state.ripe.pop_first()?;
        let line = state.lines.get_mut(&key)?;
        let batch = line.waiting.pop_front()?;
        line.in_flight += 1;
        state.waiting -= 1;
        self.waiting.store(state.waiting, Ordering::Relaxed);
        state.list(&key, &self.limits);
        Some(batch)
    }

    /// A call of the key has ended.
    pub(super) fn done(&self, key: &K) -> Call {
        let mut state = self.lock();
        let Some(line) = state.lines.get_mut(key) else { return Call::Nothing };
        line.in_flight -= 1;
        if state.list(key, &self.limits) { state.wake() } else { Call::Nothing }
    }

    /// Takes those out that have left before their batch was sent, and tells how many they were.
    pub(super) fn left(&self, crew: &Crew<K, H>) -> (usize, Call) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        let Some(line) = state.lines.get_mut(&crew.key) else { return (0, Call::Nothing) };
        let Some(at) = line.waiting.iter().position(|batch| batch.crew.number == crew.number) else {
            return (0, Call::Nothing);
        };
        let batch = &mut line.waiting[at];
        gone.extend(batch.members.extract_if(.., |member| !member.is_here()));
        let left = gone.len();
        if !batch.members.is_empty() {
            // What its members weighed is not known any more; it takes fewer in, and never too much.
            return (left, Call::Nothing);
        }
        let empty = line.waiting.remove(at);
        state.ripe.remove(&crew.number);
        state.ripening.remove(&crew.number);
        state.waiting -= 1;
        self.waiting.store(state.waiting, Ordering::Relaxed);
        let changed = state.list(&crew.key, &self.limits);
        let call = if changed || state.waiting == 0 { state.wake() } else { Call::Nothing };
        drop(state);
        // With the lock let go: to drop a request may take its time.
        drop((gone, empty));
        (left, call)
    }

    /// For a dispatcher that has died: all that waits. Whoever comes next has to start another.
    pub(super) fn abandon(&self) -> Vec<Forming<K, M, H>> {
        let mut state = self.lock();
        let state = &mut *state;
        let waiting = state.lines.values_mut().flat_map(|line| line.waiting.drain(..)).collect();
        state.lines.retain(|_, line| line.in_flight > 0);
        state.ripe.clear();
        state.ripening.clear();
        state.waiting = 0;
        self.waiting.store(0, Ordering::Relaxed);
        state.dispatcher = Dispatcher::None;
        waiting
    }

    /// Calls in flight and batches that wait.
    pub(super) fn level(&self) -> (usize, usize) {
        let state = self.lock();
        (state.lines.values().map(|line| line.in_flight).sum(), state.waiting)
    }
}

impl<K: Hash + Eq + Clone, M, H> State<K, M, H> {
    /// Lists the first batch of a line where the dispatcher looks for it, if its key may have one more in flight, and
    /// tells whether that is news. A line with nothing in it goes.
    fn list(&mut self, key: &K, limits: &Limits) -> bool {
        let Some(line) = self.lines.get(key) else { return false };
        let Some(first) = line.waiting.front() else {
            if line.in_flight == 0
                && let Some(line) = self.lines.remove(key)
            {
                self.spare_line = line.waiting;
            }
            return false;
        };
        if line.in_flight >= limits.in_flight {
            return false;
        }
        let number = first.crew.number;
        if self.ripe.contains_key(&number) {
            return false;
        }
        match first.due.filter(|_| !first.full) {
            Some(due) => self.ripening.insert(number, (due, key.clone())).is_none(),
            None => {
                self.ripening.remove(&number);
                self.ripe.insert(number, key.clone()).is_none()
            }
        }
    }

    /// Batches are numbered as they begin and all wait for as long, so they ripen in order.
    fn ripen(&mut self, now: Instant) {
        while let Some(first) = self.ripening.first_entry()
            && first.get().0 <= now
        {
            let (number, (_, key)) = first.remove_entry();
            self.ripe.insert(number, key);
        }
    }

    fn wake(&mut self) -> Call {
        match &mut self.dispatcher {
            Dispatcher::Runs(waker) => waker.take().map_or(Call::Nothing, Call::Wake),
            Dispatcher::None => Call::Nothing,
        }
    }
}
