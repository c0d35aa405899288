use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::gate::Ticket;
use super::limit::{Begin, End, Fixed};
use super::shared::{Places, Shared};
use crate::middleware::inner_service::inner_service;

/// Calls the inner service so many times at a time. See the [module](super).
#[derive(Debug)]
pub struct ConcurrencyLimit<S, L = Fixed> {
    inner: S,
    reservation: Reservation<L>,
}

impl<S, L> ConcurrencyLimit<S, L> {
    pub(super) fn new(inner: S, shared: Arc<Shared<L>>) -> Self {
        Self { inner, reservation: Reservation { shared, state: State::None } }
    }
}

inner_service!(ConcurrencyLimit::<S, L> { inner });

impl<S, L, R> Service<R> for ConcurrencyLimit<S, L>
where
    S: Service<R>,
    L: Begin<R> + End<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, L>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.reservation.is_held(cx) {
            return Poll::Pending;
        }
        let ready = self.inner.poll_ready(cx);
        if let Poll::Ready(Err(_)) = ready {
            // Who does not run needs no place.
            self.reservation.give_back();
        }
        ready
    }

    /// # Panics
    /// Without `poll_ready` having answered `Ready(Ok)`.
    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        self.reservation.take();
        let running = self.reservation.shared.begin((), &request);
        ResponseFuture::new(self.inner.call(request), running)
    }
}

// By hand: what one service has reserved is not its clone's.
impl<S: Clone, L> Clone for ConcurrencyLimit<S, L> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.reservation.shared))
    }
}

/// A service's hold on the gate; given back when it is dropped.
struct Reservation<L> {
    shared: Arc<Shared<L>>,
    state: State,
}

#[derive(Debug)]
enum State {
    None,
    Waiting(Ticket),
    Held,
}

impl<L> Reservation<L> {
    #[inline]
    fn is_held(&mut self, cx: &Context<'_>) -> bool {
        match self.state {
            State::Held => true,
            State::None if self.shared.places.try_enter() => {
                self.state = State::Held;
                true
            }
            _ => self.wait(cx),
        }
    }

    #[cold]
    fn wait(&mut self, cx: &Context<'_>) -> bool {
        let mut ticket = match std::mem::replace(&mut self.state, State::None) {
            State::Waiting(ticket) => Some(ticket),
            _ => None,
        };
        let held = self.shared.places.enter_or_wait(&mut ticket, cx.waker());
        self.state = match ticket {
            _ if held => State::Held,
            Some(ticket) => State::Waiting(ticket),
            None => State::None,
        };
        held
    }

    /// The place goes to a call.
    #[inline]
    fn take(&mut self) {
        assert!(matches!(self.state, State::Held), "`call` without `poll_ready` having answered `Ready(Ok)`");
        self.state = State::None;
    }

    fn give_back(&mut self) {
        match std::mem::replace(&mut self.state, State::None) {
            State::None => {}
            State::Waiting(ticket) => self.shared.places.give_up(ticket),
            State::Held => self.shared.places.leave(()),
        }
    }
}

impl<L> Drop for Reservation<L> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<L: fmt::Debug> fmt::Debug for Reservation<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("shared", &self.shared).field("state", &self.state).finish()
    }
}
