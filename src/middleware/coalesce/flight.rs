//! One run of the inner service, and the callers that wait for it.
//!
//! The future of the run is in the flight's state. Whichever caller is polled while there is reason to poll the run takes it
//! out, so that no lock is held meanwhile, and puts it back if it is pending. The waker of the run is the flight itself: it
//! notes that the run must be polled and wakes all callers, so it does not matter which of them is polled next or cancelled.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::request::Priority;
use crate::sync::Mutex;

pub(super) type Run<F> = Pin<Box<F>>;

/// How a run ended, for all callers.
#[derive(Debug)]
pub(super) enum Outcome<T, E> {
    Ended(Result<T, Arc<E>>),
    /// A poll of the run, or the call, panicked.
    Panicked,
    /// The caller that was to start the run was cancelled.
    Abandoned,
}

impl<T: Clone, E> Clone for Outcome<T, E> {
    fn clone(&self) -> Self {
        match self {
            Self::Ended(result) => Self::Ended(result.clone()),
            Self::Panicked => Self::Panicked,
            Self::Abandoned => Self::Abandoned,
        }
    }
}

#[derive(Debug)]
pub(super) struct Flight<K, F, T, E> {
    pub(super) key: K,
    pub(super) priority: Priority,
    state: Mutex<State<F, T, E>>,
}

#[derive(Debug)]
struct State<F, T, E> {
    phase: Phase<F, T, E>,
    /// Whether to poll the run: it has not been polled yet, or has been woken since.
    woken: bool,
    /// Callers that have not been dropped.
    callers: usize,
    /// By the index of the caller.
    wakers: Vec<Option<Waker>>,
}

#[derive(Debug)]
enum Phase<F, T, E> {
    /// Not started, or being polled by a caller.
    Taken,
    Pending(Run<F>),
    Ended(Outcome<T, E>),
    /// All callers have been dropped, and none can join.
    Closed,
}

/// What a caller is to do.
pub(super) enum Check<F, T, E> {
    Return(Outcome<T, E>),
    /// Poll the run, and then [`put_back`](Flight::put_back) or [`end`](Flight::end) it.
    Poll(Run<F>),
    Wait,
}

impl<F, T, E> State<F, T, E> {
    fn take_wakers(&mut self) -> Vec<Waker> {
        self.wakers.iter_mut().filter_map(Option::take).collect()
    }
}

fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl<K, F, T, E> Flight<K, F, T, E> {
    /// Creates a flight with its first caller, of index 0.
    pub(super) fn new(key: K, priority: Priority) -> Self {
        let state = State { phase: Phase::Taken, woken: true, callers: 1, wakers: vec![None] };
        Self { key, priority, state: Mutex::new(state) }
    }

    /// Adds a caller and returns its index, unless the run has ended.
    pub(super) fn join(&self) -> Option<usize> {
        let mut state = self.state.lock();
        if let Phase::Ended(_) | Phase::Closed = state.phase {
            return None;
        }
        state.callers += 1;
        state.wakers.push(None);
        Some(state.wakers.len() - 1)
    }

    /// Starts the run. Callers that found none are woken.
    pub(super) fn start(&self, run: Run<F>) {
        let mut state = self.state.lock();
        state.phase = Phase::Pending(run);
        let wakers = state.take_wakers();
        drop(state);
        wake_all(wakers);
    }

    /// Returns what a caller is to do, whose `waker` is woken when that changes.
    pub(super) fn check(&self, caller: usize, waker: &Waker) -> Check<F, T, E>
    where
        T: Clone,
    {
        let mut state = self.state.lock();
        if let Phase::Ended(outcome) = &state.phase {
            return Check::Return(outcome.clone());
        }
        match &mut state.wakers[caller] {
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
    pub(super) fn put_back(&self, run: Run<F>) {
        self.state.lock().phase = Phase::Pending(run);
    }

    /// Ends the flight, and returns the outcome for the caller that polled the run.
    pub(super) fn end(&self, outcome: Outcome<T, E>) -> Outcome<T, E>
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
        self.fail(outcome.clone());
        outcome
    }

    /// Ends the flight for all other callers.
    pub(super) fn fail(&self, outcome: Outcome<T, E>) {
        let mut state = self.state.lock();
        state.phase = Phase::Ended(outcome);
        let wakers = state.take_wakers();
        drop(state);
        wake_all(wakers);
    }

    /// Removes a caller. Returns the run if it was the last, to be dropped and so cancelled.
    pub(super) fn leave(&self, caller: usize) -> Option<Run<F>> {
        let mut state = self.state.lock();
        state.callers -= 1;
        let waker = state.wakers[caller].take();
        let (mut phase, mut wakers) = (Phase::Taken, Vec::new());
        if state.callers == 0 {
            phase = mem::replace(&mut state.phase, Phase::Closed);
        } else if state.woken {
            // It may have been this caller that was woken to poll the run.
            wakers = state.take_wakers();
        }
        drop(state);
        drop(waker);
        wake_all(wakers);
        if let Phase::Pending(run) = phase { Some(run) } else { None }
    }
}

impl<K, F, T, E> Wake for Flight<K, F, T, E>
where
    Self: Send + Sync + 'static,
{
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.woken = true;
        let wakers = state.take_wakers();
        drop(state);
        wake_all(wakers);
    }
}

#[cfg(all(test, tower_kernels_loom))]
#[path = "loom.rs"]
mod loom_tests;
