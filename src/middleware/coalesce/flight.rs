//! One run of the inner service, and the callers that wait for it.
//!
//! The future of the run is in the flight's state. Whichever caller is polled while there is reason to poll the run takes it
//! out, so that no lock is held meanwhile, and puts it back if it is pending. The waker of the run is the flight itself: it
//! notes that the run must be polled and wakes all callers, so it does not matter which of them is polled next or cancelled.

use std::future::Future;
use std::iter;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

use super::CoalesceError;
use crate::request::Priority;
use crate::sync::Mutex;

pub(super) type Run<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// How a run ended, for all callers. `None` if the caller that was to start it was cancelled.
pub(super) type Outcome<T, E> = Option<Result<T, CoalesceError<E>>>;

pub(super) struct Flight<K, T, E> {
    pub(super) key: K,
    pub(super) digest: u128,
    pub(super) priority: Priority,
    state: Mutex<State<T, E>>,
}

struct State<T, E> {
    phase: Phase<T, E>,
    /// Whether to poll the run: it has not been polled yet, or has been woken since.
    woken: bool,
    /// Callers that have not been dropped.
    callers: usize,
    /// Not in a list with the others, as most runs have no caller but the leader.
    leader_waker: Option<Waker>,
    /// By the index of the caller, from 1 on.
    joined_wakers: Vec<Option<Waker>>,
}

enum Phase<T, E> {
    /// Not started, or being polled by a caller.
    Taken,
    Pending(Run<T, E>),
    Ended(Outcome<T, E>),
    /// All callers have been dropped, and none can join.
    Closed,
}

/// What a caller is to do.
pub(super) enum Check<T, E> {
    Return(Outcome<T, E>),
    /// Poll the run, and then [`put_back`](Flight::put_back) or [`end`](Flight::end) it.
    Poll(Run<T, E>),
    Wait,
}

impl<T, E> State<T, E> {
    fn waker(&mut self, caller: usize) -> &mut Option<Waker> {
        match caller {
            0 => &mut self.leader_waker,
            index => &mut self.joined_wakers[index - 1],
        }
    }
}

impl<K, T, E> Flight<K, T, E> {
    /// Creates a flight with its leader, the caller of index 0.
    pub(super) fn new(key: K, digest: u128, priority: Priority) -> Self {
        let state =
            State { phase: Phase::Taken, woken: true, callers: 1, leader_waker: None, joined_wakers: Vec::new() };
        Self { key, digest, priority, state: Mutex::new(state) }
    }

    /// Adds a caller and returns its index, unless the run has ended.
    pub(super) fn join(&self) -> Option<usize> {
        let mut state = self.state.lock();
        if let Phase::Ended(_) | Phase::Closed = state.phase {
            return None;
        }
        state.callers += 1;
        state.joined_wakers.push(None);
        Some(state.joined_wakers.len())
    }

    /// Starts the run. Callers that found none are woken.
    pub(super) fn start(&self, run: Run<T, E>) {
        self.change_and_wake(|state| state.phase = Phase::Pending(run));
    }

    /// Returns what a caller is to do, whose `waker` is woken when that changes.
    pub(super) fn check(&self, caller: usize, waker: &Waker) -> Check<T, E>
    where
        T: Clone,
    {
        let mut state = self.state.lock();
        if let Phase::Ended(outcome) = &state.phase {
            return Check::Return(outcome.clone());
        }
        match state.waker(caller) {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        if !state.woken {
            return Check::Wait;
        }
        match mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Pending(run) => {
                state.woken = false;
                Check::Poll(run)
            }
            other => {
                state.phase = other;
                Check::Wait
            }
        }
    }

    /// Puts back a run that is pending.
    pub(super) fn put_back(&self, run: Run<T, E>) {
        self.state.lock().phase = Phase::Pending(run);
    }

    /// Ends the flight for all callers that wait.
    pub(super) fn end(&self, outcome: Outcome<T, E>) {
        self.change_and_wake(|state| state.phase = Phase::Ended(outcome));
    }

    /// Ends the flight, and returns the outcome for the caller that polled the run.
    pub(super) fn end_and_return(&self, outcome: Outcome<T, E>) -> Outcome<T, E>
    where
        T: Clone,
    {
        let mut state = self.state.lock();
        if state.callers == 1 {
            // Nobody else needs a copy, which may be large.
            state.phase = Phase::Closed;
            return outcome;
        }
        drop(state);
        self.end(outcome.clone());
        outcome
    }

    /// Removes a caller. Returns the run if it was the last, to be dropped and so cancelled.
    pub(super) fn leave(&self, caller: usize) -> Option<Run<T, E>> {
        let mut state = self.state.lock();
        state.callers -= 1;
        let waker = state.waker(caller).take();
        let last_phase = (state.callers == 0).then(|| mem::replace(&mut state.phase, Phase::Closed));
        let woken = state.woken;
        drop(state);
        // Without the lock, as dropping a waker runs the code of its task.
        drop(waker);
        match last_phase {
            Some(Phase::Pending(run)) => return Some(run),
            // It may have been this caller that was woken to poll the run.
            None if woken => self.change_and_wake(|_| ()),
            _ => {}
        }
        None
    }

    /// Changes the state, and wakes all callers once the lock is released.
    fn change_and_wake(&self, change: impl FnOnce(&mut State<T, E>)) {
        let mut state = self.state.lock();
        change(&mut state);
        let State { leader_waker, joined_wakers, .. } = &mut *state;
        let wakers: Vec<Waker> = iter::once(leader_waker).chain(joined_wakers).filter_map(Option::take).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<K, T, E> Wake for Flight<K, T, E>
where
    Self: Send + Sync + 'static,
{
    fn wake(self: Arc<Self>) {
        self.change_and_wake(|state| state.woken = true);
    }
}

#[cfg(all(test, tower_kernels_loom))]
#[path = "loom.rs"]
mod loom_tests;
