use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use scopeguard::ScopeGuard;

use super::flight::{Check, Flight, Outcome};
use super::{CoalesceError, Flights};
use crate::middleware::lazy_timer::LazyTimer;

/// A caller of a flight, until it is dropped.
pub(super) struct Caller<K, T, E> {
    flights: Arc<Flights<K, T, E>>,
    flight: Arc<Flight<K, T, E>>,
    /// Its index in the flight: 0 for the leader.
    index: usize,
    /// Whether it is a leader that has not started its run.
    is_starting: bool,
}

impl<K, T, E> Caller<K, T, E> {
    pub(super) fn new(flights: &Arc<Flights<K, T, E>>, flight: &Arc<Flight<K, T, E>>, index: usize) -> Self {
        Self { flights: Arc::clone(flights), flight: Arc::clone(flight), index, is_starting: index == 0 }
    }

    /// Whether this caller leads its flight, and so has to [`start`](Self::start) the run.
    pub(super) fn is_leader(&self) -> bool {
        self.index == 0
    }

    /// Starts the run with the future that `call` returns. If `call` panics, dropping this caller ends the flight.
    pub(super) fn start<F>(&mut self, call: impl FnOnce() -> F)
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let run = Box::pin(call());
        self.is_starting = false;
        self.flight.start(run);
    }

    /// Ends the flight for all callers that wait, and lets the next call start another.
    fn end_flight(&self, outcome: Outcome<T, E>) {
        self.flights.remove(&self.flight);
        self.flight.end(outcome);
    }
}

impl<K, T, E> Caller<K, T, E>
where
    Flight<K, T, E>: Send + Sync + 'static,
    T: Clone,
{
    /// Polls for the outcome of the run, until the deadline of `timer`.
    pub(super) fn poll(&self, cx: &mut Context<'_>, timer: Pin<&mut LazyTimer>) -> Poll<Outcome<T, E>> {
        match self.poll_run(cx) {
            Poll::Pending => timer.poll_elapsed(cx).map(|()| Some(Err(CoalesceError::Elapsed))),
            outcome => outcome,
        }
    }

    fn poll_run(&self, cx: &mut Context<'_>) -> Poll<Outcome<T, E>> {
        let mut run = match self.flight.check(self.index, cx.waker()) {
            Check::Return(outcome) => return Poll::Ready(outcome),
            Check::Wait => return Poll::Pending,
            Check::Poll(run) => run,
        };
        let waker = Waker::from(Arc::clone(&self.flight));
        let panicked = scopeguard::guard(self, |caller| caller.end_flight(Some(Err(CoalesceError::Panicked))));
        let polled = run.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            drop(run);
        } else {
            self.flight.put_back(run);
        }
        ScopeGuard::into_inner(panicked);
        polled.map(|result| {
            self.flights.remove(&self.flight);
            self.flight.end_and_return(Some(result.map_err(CoalesceError::from)))
        })
    }
}

impl<K, T, E> Drop for Caller<K, T, E> {
    fn drop(&mut self) {
        if self.is_starting {
            let panicking = std::thread::panicking();
            self.end_flight(panicking.then_some(Err(CoalesceError::Panicked)));
        } else if !self.is_leader() {
            self.flights.counts.lock().waiting -= 1;
        }
        if let Some(run) = self.flight.leave(self.index) {
            // First, as dropping the run may take a while.
            self.flights.remove(&self.flight);
            drop(run);
        }
    }
}
