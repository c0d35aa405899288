//! What the services over one inner service share: the order, behind one lock, and what is to become of each call.
//!
//! No service's code runs under the lock: they are moved in and out of it, and cloned, called and dropped outside. Wakers
//! are woken outside as well.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::answers::{Answers, Kind, Watch};
use super::error::Refusal;
use super::numbers::ByNumber;
use super::order::{By, Order, Rules, Spot};
use super::pace::Pace;
use super::room::{Exit, Room};
use super::tenants::{Length, Urgency};
use crate::middleware::clock;
use crate::request::{Priority, Share};

/// The calls that wait for one inner service `S`.
pub(super) struct Line<S> {
    room: Arc<Room>,
    state: Mutex<State<S>>,
    /// Where it is learned how long calls take.
    answers: Option<Arc<Answers>>,
    /// How many wait, for who looks without the lock.
    waiting: AtomicUsize,
    time_to_answer: Duration,
}

struct State<S> {
    order: Order,
    /// By the number of their arrival.
    entries: ByNumber<Entry<S>>,
    arrivals: u64,
    pace: Pace,
    worker: Worker,
}

/// The task that asks the inner service whether it is ready. There is one while anything waits.
#[derive(Default)]
struct Worker {
    running: bool,
    /// Set once it has looked at what waits.
    waker: Option<Waker>,
    /// The deadline that it has set its timer to.
    timer: Option<Instant>,
}

impl Worker {
    /// Nothing waits any more, so its service stands in the inner service's line for nobody.
    fn dismiss(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

struct Entry<S> {
    fate: Fate<S>,
    spot: Spot,
    bytes: u64,
    deadline: Option<Instant>,
    kind: Kind,
    /// Of an operation that was not known when the call came, and may be when it is its turn.
    name: Option<Box<str>>,
    share: Option<Share>,
    waker: Option<Waker>,
    place: Option<OwnedSemaphorePermit>,
}

enum Fate<S> {
    Waiting,
    /// Has its turn, with this service, since then.
    Turn(S, Instant),
    Refused(Refusal),
}

/// What is known of a call that comes.
pub(super) struct Newcomer<'a> {
    pub(super) operation: &'a str,
    pub(super) priority: Priority,
    pub(super) by: By<'a>,
    pub(super) expected_time: Option<Duration>,
    pub(super) deadline: Option<Instant>,
    pub(super) bytes: u64,
    pub(super) place: OwnedSemaphorePermit,
}

/// Whom to tell that a call's fate is settled, and the place that it held.
type Parts = (Option<Waker>, Option<OwnedSemaphorePermit>);

/// What to do once the lock is released. Mostly one has left, so that there is room for one without a list.
#[derive(Default)]
struct After {
    one: Parts,
    more: Vec<Parts>,
    /// The place of who has just come, where it is not kept.
    place: Option<OwnedSemaphorePermit>,
    worker: Option<Waker>,
}

impl After {
    fn tell(&mut self, parts: Parts) {
        match &self.one {
            (None, None) => self.one = parts,
            _ => self.more.push(parts),
        }
    }
}

impl Drop for After {
    fn drop(&mut self) {
        let (waker, place) = mem::take(&mut self.one);
        drop((place, self.place.take()));
        for waker in [waker, self.worker.take()].into_iter().flatten() {
            waker.wake();
        }
        if !self.more.is_empty() {
            for (waker, place) in mem::take(&mut self.more) {
                drop(place);
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }
}

impl<S> Line<S> {
    pub(super) fn new(room: Arc<Room>, rules: Rules) -> Self {
        let Rules { time_to_answer, learns, .. } = rules;
        let state = State {
            order: Order::new(rules),
            entries: ByNumber::default(),
            arrivals: 0,
            pace: Pace::default(),
            worker: Worker::default(),
        };
        let (state, answers) = (Mutex::new(state), learns.then(|| Arc::new(Answers::new())));
        Self { room, state, answers, waiting: AtomicUsize::new(0), time_to_answer }
    }

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    fn kind(&self, operation: &str) -> Kind {
        self.answers.as_ref().map_or(Kind::New, |answers| answers.kind(operation))
    }

    /// Whether nothing waits. It is a hint: who comes meanwhile is not seen.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Puts a call in line, where there is room for it or room can be made, and says whether there is a worker.
    pub(super) fn enter(self: &Arc<Self>, new: Newcomer<'_>, now: Instant) -> Result<(Ticket<S>, bool), Refusal> {
        let (kind, share) = (self.kind(new.operation), new.by.share);
        let deadline = self.time_is_up(new.deadline, kind, share, now);
        let mut after = After::default();
        let mut state = self.lock();
        let state = &mut *state;
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.room.expire();
            let late = late(state, new.deadline, new.priority, now);
            if let Refusal::Late { .. } = late {
                self.answers.iter().for_each(|answers| answers.doubt(kind, share));
            }
            return Err(late);
        }
        while !self.room.enter(new.priority, new.bytes) {
            let retry_after = state.pace.time(state.order.len_from(new.priority));
            let Some(least) = self.who_makes_room(state, &new) else {
                self.room.refuse();
                return Err(Refusal::Full { retry_after });
            };
            let retry_after = state.pace.time(state.order.len());
            after.tell(self.take_out(state, least, Refusal::Displaced { retry_after }, Exit::Displaced));
        }
        let id = state.arrivals;
        state.arrivals += 1;
        let urgency = Urgency { deadline, arrival: id, length: Length::of(new.expected_time), bytes: new.bytes };
        let spot = state.order.insert(new.priority, new.by, urgency);
        // Who can be displaced leaves the promise of a place to others. Any call of a tenant can be, by a tenant that has less
        // waiting.
        let place = if self.room.keep_places || (new.priority == Priority::High && new.by.is_nobody()) {
            self.room.keep();
            Some(new.place)
        } else {
            after.place = Some(new.place);
            None
        };
        let Newcomer { bytes, deadline: its, .. } = new;
        let name = self.answers.as_ref().filter(|_| kind == Kind::New && its.is_some()).map(|_| new.operation.into());
        let entry = Entry { fate: Fate::Waiting, spot, bytes, deadline: its, kind, name, share, waker: None, place };
        state.entries.insert(id, entry);
        self.count(state);
        let running = mem::replace(&mut state.worker.running, true);
        if deadline.is_some_and(|deadline| state.worker.timer.is_none_or(|timer| deadline < timer)) {
            after.worker = state.worker.waker.take();
        }
        Ok((Ticket { line: Arc::clone(self), id }, running))
    }

    /// When it is too late for a call to have its turn. A deadline that the clock began after it is long past.
    fn time_is_up(&self, deadline: Option<Instant>, kind: Kind, share: Option<Share>, now: Instant) -> Option<Instant> {
        let deadline = deadline?;
        let learned = self.answers.as_ref().map_or(Duration::ZERO, |answers| answers.time(kind, share));
        Some(deadline.checked_sub(self.time_to_answer.max(learned)).unwrap_or(now))
    }

    /// Gives `service`, which is ready, to the next in line that can be answered in time; gives it back where nobody waits.
    pub(super) fn hand_out(&self, service: S, now: Instant) -> Option<S> {
        let mut after = After::default();
        let mut state = self.lock();
        let state = &mut *state;
        let mut left = Some(service);
        while left.is_some()
            && let Some(next) = state.order.pop()
        {
            // More may be known by now of how long it takes than when it came.
            let Entry { deadline, kind, ref name, share, spot, .. } = state.entries[&next.arrival];
            let kind = name.as_deref().map_or(kind, |name| self.kind(name));
            let parts = if self.time_is_up(deadline, kind, share, now).is_some_and(|until| until <= now) {
                let late = late(state, deadline, spot.priority, now);
                self.settle(state, next, Fate::Refused(late), Exit::Expired)
            } else {
                let Some(service) = left.take() else { break };
                self.settle(state, next, Fate::Turn(service, now), Exit::Served)
            };
            after.tell(parts);
        }
        let last = state.order.len() == 0;
        if last {
            after.worker = state.worker.dismiss();
        }
        if left.is_none() {
            state.pace.turn(now, last);
        }
        self.count(state);
        left
    }

    /// What the worker does first at each poll: refuses what has expired, and says when the next will have. `None` is
    /// where nothing waits, and then this was the worker's end.
    pub(super) fn look(&self, worker: &Waker, now: Instant) -> Option<Option<Instant>> {
        let mut after = After::default();
        let mut state = self.lock();
        let state = &mut *state;
        while let Some(late) = state.order.expired(now) {
            let Entry { deadline, spot, .. } = state.entries[&late.arrival];
            let refusal = self::late(state, deadline, spot.priority, now);
            after.tell(self.take_out(state, late, refusal, Exit::Expired));
        }
        self.count(state);
        if state.order.len() == 0 {
            state.worker = Worker::default();
            return None;
        }
        match &mut state.worker.waker {
            Some(known) => known.clone_from(worker),
            none => *none = Some(worker.clone()),
        }
        state.worker.timer = state.order.first_deadline();
        Some(state.worker.timer)
    }

    /// Answers all that wait: the worker has ended with calls in line.
    pub(super) fn stop(&self) {
        let mut after = After::default();
        let mut state = self.lock();
        let state = &mut *state;
        state.worker = Worker::default();
        while let Some(next) = state.order.pop() {
            after.tell(self.settle(state, next, Fate::Refused(Refusal::Stopped), Exit::Left));
        }
        self.count(state);
    }

    /// Who has to go before there can be room for `new`. Nobody is sent away for one who would not fit in after that.
    fn who_makes_room(&self, state: &State<S>, new: &Newcomer<'_>) -> Option<Urgency> {
        let (least, freed) = state.order.who_makes_room(new.priority, new.by)?;
        (self.room.free_bytes().saturating_add(freed) >= new.bytes).then_some(least)
    }

    /// Takes a call out of the line that has not had its turn.
    fn take_out(&self, state: &mut State<S>, who: Urgency, fate: Refusal, how: Exit) -> Parts {
        state.order.remove(state.entries[&who.arrival].spot);
        self.settle(state, who, Fate::Refused(fate), how)
    }

    /// Says what is to become of a call that is no longer in the order.
    fn settle(&self, state: &mut State<S>, who: Urgency, fate: Fate<S>, how: Exit) -> Parts {
        let entry = state.entries.get_mut(&who.arrival).expect("what waits has an entry");
        entry.fate = fate;
        let priority = entry.spot.priority;
        self.room.leave(priority, entry.bytes, how);
        (entry.waker.take(), self.room.give_back(entry.place.take()))
    }

    fn count(&self, state: &State<S>) {
        self.waiting.store(state.order.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call is refused whose time is up.
fn late<S>(state: &State<S>, deadline: Option<Instant>, priority: Priority, now: Instant) -> Refusal {
    match deadline {
        Some(deadline) if deadline > now => {
            Refusal::Late { retry_after: state.pace.time(state.order.len_from(priority)) }
        }
        _ => Refusal::Expired,
    }
}

/// The service to call, and what takes the time from the turn on where that is learned.
pub(super) type Turn<S> = (S, Option<Watch>);

/// A call's place in line, given up when it is dropped.
pub(super) struct Ticket<S> {
    line: Arc<Line<S>>,
    id: u64,
}

impl<S> Ticket<S> {
    /// What it is given, once it is this call's turn.
    pub(super) fn poll_turn(&mut self, operation: &str, cx: &mut Context<'_>) -> Poll<Result<Turn<S>, Refusal>> {
        let mut state = self.line.lock();
        let entry = state.entries.get_mut(&self.id).expect("polled after it had completed");
        if let Fate::Waiting = entry.fate {
            let stale = match &mut entry.waker {
                Some(known) if known.will_wake(cx.waker()) => None,
                known => known.replace(cx.waker().clone()),
            };
            drop(state);
            drop(stale);
            return Poll::Pending;
        }
        match state.entries.remove(&self.id).map(|entry| (entry.fate, entry.share)) {
            Some((Fate::Turn(service, begun), share)) => {
                drop(state);
                let answers = self.line.answers.as_ref();
                let watch = answers.map(|answers| Watch::new(Arc::clone(answers), operation, share, begun));
                Poll::Ready(Ok((service, watch)))
            }
            Some((Fate::Refused(refusal), _)) => Poll::Ready(Err(refusal)),
            Some((Fate::Waiting, _)) | None => Poll::Pending,
        }
    }
}

impl<S> Drop for Ticket<S> {
    fn drop(&mut self) {
        let line = &self.line;
        let mut after = After::default();
        let mut locked = line.lock();
        let state = &mut *locked;
        let Some(mut entry) = state.entries.remove(&self.id) else { return };
        match entry.fate {
            Fate::Waiting => {
                state.order.remove(entry.spot);
                line.room.leave(entry.spot.priority, entry.bytes, Exit::Left);
                line.count(state);
                if state.order.len() == 0 {
                    after.worker = state.worker.dismiss();
                }
                after.tell((None, line.room.give_back(entry.place.take())));
                drop(locked);
                drop(after);
            }
            Fate::Turn(service, _) => {
                drop(locked);
                // Where nobody waits it is dropped, and gives back what it has reserved.
                drop(line.hand_out(service, clock::read()));
            }
            Fate::Refused(_) => {}
        }
    }
}

impl<S> fmt::Debug for Line<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("waiting", &self.waiting).field("room", &self.room).finish_non_exhaustive()
    }
}
