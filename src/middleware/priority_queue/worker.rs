//! The task that stands in line at the inner service for all that wait here. It is started by the first call that waits,
//! and ends when nothing does.
//!
//! That it is a task of its own, and not one of the waiting calls, is what keeps the line moving when a caller holds its
//! future and does not poll it: such a caller is given its turn, and holds up no more than that.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::task::coop::{consume_budget, unconstrained};
use tokio::time::sleep_until;
use tower_service::Service;

use super::line::Line;
use crate::middleware::clock;

/// The duty to hand out turns. Dropped before it is done, by a panic or with its runtime, it answers all that wait.
pub(super) struct Duty<S> {
    line: Arc<Line<S>>,
    done: bool,
}

impl<S> Duty<S> {
    /// For whoever was told by [`Line::enter`] that there is no worker.
    pub(super) fn new(line: Arc<Line<S>>) -> Self {
        Self { line, done: false }
    }
}

impl<S> Drop for Duty<S> {
    fn drop(&mut self) {
        if !self.done {
            self.line.stop();
        }
    }
}

/// Hands out turns until nothing waits. `service` must be one that holds no readiness.
pub(super) async fn serve<S, R>(mut duty: Duty<S>, mut service: S)
where
    S: Service<R> + Clone,
{
    let mut timer = pin!(sleep_until(clock::read().into()));
    let mut set_to = None;
    poll_fn(|cx| {
        loop {
            let Some(deadline) = duty.line.look(cx.waker(), clock::read()) else {
                duty.done = true;
                return Poll::Ready(());
            };
            if let Some(deadline) = deadline {
                if set_to != Some(deadline) {
                    timer.as_mut().reset(deadline.into());
                    set_to = Some(deadline);
                }
                // Outside the budget: it does no more than look at the time, and is not to go off late for the rest.
                if pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
                    continue;
                }
            }
            let ready = ready!(service.poll_ready(cx));
            let unready = service.clone();
            let turn = match ready {
                Ok(()) => mem::replace(&mut service, unready),
                // A service that has failed is done with. The next in line asks with one of its own, and where it is still
                // so it has an error of its own; so do all after it.
                Err(_) => {
                    service = unready;
                    service.clone()
                }
            };
            // Where the last one has left meanwhile, this gives back what has been reserved for it.
            drop(duty.line.hand_out(turn, clock::read()));
            ready!(pin!(consume_budget()).poll(cx));
        }
    })
    .await;
}
