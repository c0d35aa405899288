use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::flight::{Check, Flight, Outcome};
use super::flights::{Flights, Membership};

/// A caller of a flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Caller<K, F, T, E> {
    flights: Arc<Flights<K, F, T, E>>,
    flight: Arc<Flight<K, F, T, E>>,
    digest: u128,
    role: Role,
}

#[derive(Clone, Copy, Debug)]
enum Role {
    /// It is to start the run.
    Starting,
    /// It has started the run.
    Leading,
    /// It has joined the run of another, with this index.
    Joined(usize),
}

impl<K, F, T, E> Caller<K, F, T, E> {
    pub(super) fn new(flights: &Arc<Flights<K, F, T, E>>, digest: u128, membership: Membership<K, F, T, E>) -> Self {
        let (flight, role) = match membership {
            Membership::Lead(flight) => (flight, Role::Starting),
            Membership::Join(flight, caller) => (flight, Role::Joined(caller)),
        };
        Self { flights: Arc::clone(flights), flight, digest, role }
    }

    /// Whether this caller is to [`start`](Self::start) the run.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.role, Role::Starting)
    }

    /// Starts the run with the future that `call` returns. If `call` panics, dropping this caller ends the flight.
    pub(super) fn start(&mut self, call: impl FnOnce() -> F) {
        let run = Box::pin(call());
        self.role = Role::Leading;
        self.flight.start(run);
    }

    fn index(&self) -> usize {
        match self.role {
            Role::Starting | Role::Leading => 0,
            Role::Joined(index) => index,
        }
    }

    fn remove_flight(&self) {
        self.flights.remove(self.digest, &self.flight);
    }
}

impl<K, F, T, E> Caller<K, F, T, E>
where
    Flight<K, F, T, E>: Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
    T: Clone,
{
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome<T, E>> {
        let mut run = match self.flight.check(self.index(), cx.waker()) {
            Check::Return(outcome) => return Poll::Ready(outcome),
            Check::Wait => return Poll::Pending,
            Check::Poll(run) => run,
        };
        let waker = Waker::from(Arc::clone(&self.flight));
        let panic_guard = PanicGuard(self);
        let polled = run.as_mut().poll(&mut Context::from_waker(&waker));
        let Poll::Ready(result) = polled else {
            std::mem::forget(panic_guard);
            self.flight.put_back(run);
            return Poll::Pending;
        };
        drop(run);
        std::mem::forget(panic_guard);
        self.remove_flight();
        Poll::Ready(self.flight.end(Outcome::Ended(result.map_err(Arc::new))))
    }
}

impl<K, F, T, E> Drop for Caller<K, F, T, E> {
    fn drop(&mut self) {
        match self.role {
            Role::Starting => {
                let panicking = std::thread::panicking();
                self.remove_flight();
                self.flight.fail(if panicking { Outcome::Panicked } else { Outcome::Abandoned });
            }
            Role::Leading => {}
            Role::Joined(_) => {
                self.flights.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Some(run) = self.flight.leave(self.index()) {
            // First, as dropping the run may take a while.
            self.remove_flight();
            drop(run);
        }
    }
}

/// Ends the flight if a poll of the run panics.
struct PanicGuard<'a, K, F, T, E>(&'a Caller<K, F, T, E>);

impl<K, F, T, E> Drop for PanicGuard<'_, K, F, T, E> {
    fn drop(&mut self) {
        self.0.remove_flight();
        self.0.flight.fail(Outcome::Panicked);
    }
}
