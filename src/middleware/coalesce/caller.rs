use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::flight::{Flight, Found, Outcome, Run};
use super::flights::{Boarded, Flights};

/// A caller's place in a run, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Caller<K, F, T, E> {
    flights: Arc<Flights<K, F, T, E>>,
    flight: Arc<Flight<K, F, T, E>>,
    digest: u128,
    role: Role<F>,
}

#[derive(Debug)]
enum Role<F> {
    /// It is to begin the run, and may have a box for it.
    Begins(Option<Run<F>>),
    /// It has begun the run.
    Leads,
    /// It has joined the run at this place.
    Joins(usize),
}

impl<F> Role<F> {
    fn place(&self) -> usize {
        match self {
            Self::Begins(_) | Self::Leads => 0,
            Self::Joins(place) => *place,
        }
    }
}

impl<K, F, T, E> Caller<K, F, T, E> {
    /// At the place that was given; `None` where there is none, as another question has the same digest.
    pub(super) fn new(flights: &Arc<Flights<K, F, T, E>>, digest: u128, boarded: Boarded<K, F, T, E>) -> Option<Self> {
        let (flight, role) = match boarded {
            Boarded::Leads(flight, spare) => (flight, Role::Begins(spare)),
            Boarded::Joins(flight, place) => (flight, Role::Joins(place)),
            Boarded::Collides => return None,
        };
        Some(Self { flights: Arc::clone(flights), flight, digest, role })
    }

    /// Whether it is for this caller to begin the run.
    pub(super) fn is_to_begin(&self) -> bool {
        matches!(self.role, Role::Begins(_))
    }

    /// Begins the run that `call` makes.
    pub(super) fn begin(&mut self, call: impl FnOnce() -> F) {
        // If this panics it has not begun, and whoever has joined meanwhile is told when it is dropped.
        let future = call();
        if let Role::Begins(spare) = std::mem::replace(&mut self.role, Role::Leads) {
            let run = match spare {
                Some(mut run) => {
                    run.set(Some(future));
                    run
                }
                None => Box::pin(Some(future)),
            };
            self.flight.begin(run);
        }
    }
}

impl<K, F, T, E> Caller<K, F, T, E>
where
    Flight<K, F, T, E>: Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
    T: Clone,
{
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome<T, E>> {
        let mut run = match self.flight.look(self.role.place(), cx.waker()) {
            Found::Outcome(outcome) => return Poll::Ready(outcome),
            Found::Nothing => return Poll::Pending,
            Found::Run(run) => run,
        };
        let waker = Waker::from(Arc::clone(&self.flight));
        let panics = Panics(self);
        let polled = match Option::as_pin_mut(run.as_mut()) {
            Some(future) => future.poll(&mut Context::from_waker(&waker)),
            None => unreachable!("a box is emptied when its run is over, and is not given back"),
        };
        let Poll::Ready(result) = polled else {
            std::mem::forget(panics);
            self.flight.give_back(run);
            return Poll::Pending;
        };
        run.as_mut().set(None);
        std::mem::forget(panics);
        self.flights.take_off(self.digest, &self.flight, Some(run));
        Poll::Ready(self.flight.end(Outcome::Ended(result.map_err(Arc::new))))
    }
}

impl<K, F, T, E> Drop for Caller<K, F, T, E> {
    fn drop(&mut self) {
        match self.role {
            Role::Begins(_) => {
                let panicking = std::thread::panicking();
                self.flights.take_off(self.digest, &self.flight, None);
                self.flight.fail(if panicking { Outcome::Panicked } else { Outcome::Abandoned });
            }
            Role::Leads => {}
            Role::Joins(_) => {
                self.flights.gauges.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Some(mut run) = self.flight.leave(self.role.place()) {
            // Off the table first, as the drop of the work may take a while.
            self.flights.take_off(self.digest, &self.flight, None);
            run.as_mut().set(None);
        }
    }
}

/// Dropped by a panic: tells everybody.
struct Panics<'a, K, F, T, E>(&'a Caller<K, F, T, E>);

impl<K, F, T, E> Drop for Panics<'_, K, F, T, E> {
    fn drop(&mut self) {
        self.0.flights.take_off(self.0.digest, &self.0.flight, None);
        self.0.flight.fail(Outcome::Panicked);
    }
}
