//! One run and those who wait for it.
//!
//! The run is in the flight's state, and whoever is polled when there is reason to polls it: takes it out, so that no
//! lock is held meanwhile, and puts it back if it is pending. What the run is told to wake is the flight itself, which
//! notes that there is a reason and wakes all who wait; so it does not matter which of them is polled next, or leaves.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::request::Priority;
use crate::sync::{Mutex, MutexGuard};

/// A future in a box that is used again for the next.
pub(super) type Run<F> = Pin<Box<Option<F>>>;

/// What all who wait are told.
#[derive(Debug)]
pub(super) enum Outcome<T, E> {
    Ended(Result<T, Arc<E>>),
    /// A poll, or the call, has panicked.
    Panicked,
    /// Who was to begin it has left before.
    Abandoned,
}

impl<T: Clone, E> Clone for Outcome<T, E> {
    fn clone(&self) -> Self {
        match self {
            Self::Ended(Ok(answer)) => Self::Ended(Ok(answer.clone())),
            Self::Ended(Err(error)) => Self::Ended(Err(Arc::clone(error))),
            Self::Panicked => Self::Panicked,
            Self::Abandoned => Self::Abandoned,
        }
    }
}

#[derive(Debug)]
pub(super) struct Flight<K, F, T, E> {
    pub(super) question: K,
    pub(super) priority: Priority,
    state: Mutex<State<F, T, E>>,
}

#[derive(Debug)]
struct State<F, T, E> {
    phase: Phase<F, T, E>,
    /// There is reason to poll the run: it has not been polled yet, or it has woken the flight since.
    woken: bool,
    /// Those who have not left.
    callers: usize,
    /// The waker of the first caller, and those of the others: most have no others.
    first: Option<Waker>,
    others: Vec<Option<Waker>>,
}

#[derive(Debug)]
enum Phase<F, T, E> {
    /// Not called yet, or being polled by one of the callers.
    Away,
    Waiting(Run<F>),
    Over(Outcome<T, E>),
    /// All have left. Nobody can join any more.
    Left,
}

/// What a caller finds.
pub(super) enum Found<F, T, E> {
    Outcome(Outcome<T, E>),
    /// It is for this caller to poll the run, and to give it back or say what came of it.
    Run(Run<F>),
    Nothing,
}

/// Wakers of which each is to be woken, with no lock held.
#[must_use]
#[derive(Debug)]
pub(super) struct ToWake {
    first: Option<Waker>,
    others: Vec<Option<Waker>>,
}

impl ToWake {
    pub(super) fn wake(self) {
        for waker in self.first.into_iter().chain(self.others.into_iter().flatten()) {
            waker.wake();
        }
    }
}

impl<F, T, E> State<F, T, E> {
    fn waker(&mut self, place: usize) -> &mut Option<Waker> {
        match place.checked_sub(1) {
            None => &mut self.first,
            Some(other) => &mut self.others[other],
        }
    }

    fn wakers(&mut self) -> ToWake {
        // Places are told apart by their number, so the vector keeps its length.
        let empty = self.others.iter().map(|_| None).collect();
        ToWake { first: self.first.take(), others: mem::replace(&mut self.others, empty) }
    }
}

impl<K, F, T, E> Flight<K, F, T, E> {
    /// With its first caller, at place 0.
    pub(super) fn new(question: K, priority: Priority) -> Self {
        let state = State { phase: Phase::Away, woken: true, callers: 1, first: None, others: Vec::new() };
        Self { question, priority, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State<F, T, E>> {
        // Nothing panics with the lock held but an allocation that fails.
        self.state.lock()
    }

    /// A place for another caller, unless it is over.
    pub(super) fn join(&self) -> Option<usize> {
        let mut state = self.lock();
        if let Phase::Over(_) | Phase::Left = state.phase {
            return None;
        }
        state.callers += 1;
        state.others.push(None);
        Some(state.others.len())
    }

    /// The inner service was called.
    pub(super) fn begin(&self, run: Run<F>) {
        let mut state = self.lock();
        state.phase = Phase::Waiting(run);
        // Those who have looked in vain.
        if !state.others.is_empty() {
            let wakers = state.wakers();
            drop(state);
            wakers.wake();
        }
    }

    /// What there is for the caller at `place`, who is to be woken by `waker` when there is more.
    pub(super) fn look(&self, place: usize, waker: &Waker) -> Found<F, T, E>
    where
        T: Clone,
    {
        let mut state = self.lock();
        if let Phase::Over(outcome) = &state.phase {
            return Found::Outcome(outcome.clone());
        }
        let known = state.waker(place);
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        if state.woken
            && let Phase::Waiting(_) = state.phase
            && let Phase::Waiting(run) = mem::replace(&mut state.phase, Phase::Away)
        {
            state.woken = false;
            return Found::Run(run);
        }
        Found::Nothing
    }

    /// The run is pending. If it has woken the flight meanwhile, then whoever gives it back as well.
    pub(super) fn give_back(&self, run: Run<F>) {
        self.lock().phase = Phase::Waiting(run);
    }

    /// The run is over. What comes back is for the one who polled it, and a copy of it for each of the others.
    pub(super) fn end(&self, outcome: Outcome<T, E>) -> Outcome<T, E>
    where
        T: Clone,
    {
        let mut state = self.lock();
        if state.callers == 1 {
            state.phase = Phase::Left;
            return outcome;
        }
        let ours = outcome.clone();
        state.phase = Phase::Over(outcome);
        let wakers = state.wakers();
        drop(state);
        wakers.wake();
        ours
    }

    /// There is no run any more, and none that is over.
    pub(super) fn fail(&self, outcome: Outcome<T, E>) {
        let mut state = self.lock();
        state.phase = Phase::Over(outcome);
        let wakers = state.wakers();
        drop(state);
        wakers.wake();
    }

    /// The caller at `place` leaves. What comes back is to be dropped and cancelled: nobody is left to wait for it.
    pub(super) fn leave(&self, place: usize) -> Option<Run<F>> {
        let mut state = self.lock();
        state.callers -= 1;
        let gone = state.waker(place).take();
        if state.callers == 0 {
            let phase = mem::replace(&mut state.phase, Phase::Left);
            drop(state);
            return match phase {
                Phase::Waiting(run) => Some(run),
                Phase::Away | Phase::Over(_) | Phase::Left => None,
            };
        }
        // It may have been woken to poll the run, and will not.
        let wakers = state.woken.then(|| state.wakers());
        drop(state);
        drop(gone);
        if let Some(wakers) = wakers {
            wakers.wake();
        }
        None
    }
}

impl<K, F, T, E> Wake for Flight<K, F, T, E>
where
    Self: Send + Sync + 'static,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        state.woken = true;
        let wakers = state.wakers();
        drop(state);
        wakers.wake();
    }
}

#[cfg(all(test, tower_kernels_loom))]
#[path = "loom.rs"]
mod loom_tests;
