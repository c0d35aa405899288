//! A service's hold on a pool: the slot that `poll_ready` reserves.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::PollSemaphore;

use super::Lanes;
use crate::service::KernelError;

/// How many jobs hold a slot of a backend, running ones included: a [`Load`](tower::load::Load) to balance by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneLoad(pub usize);

/// A pool of lanes, and a slot in it once one has been reserved.
pub(crate) struct Slot {
    lanes: Arc<Lanes>,
    semaphore: PollSemaphore,
    reserved: Option<OwnedSemaphorePermit>,
}

impl Slot {
    pub(crate) fn new(lanes: Arc<Lanes>) -> Self {
        let semaphore = PollSemaphore::new(Arc::clone(&lanes.state.slots));
        Self { lanes, semaphore, reserved: None }
    }

    pub(crate) fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }

    /// Reserves a slot, once however often it is asked. A slot of a pool that has ended is of no use, so that is asked
    /// first.
    pub(crate) fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        if let Some(reason) = self.lanes.state.closed() {
            return Poll::Ready(Err(reason.clone()));
        }
        if self.reserved.is_none() {
            match ready!(self.semaphore.poll_acquire(cx)) {
                Some(permit) => self.reserved = Some(permit),
                None => return Poll::Ready(Err(self.lanes.state.error())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives back what has been reserved.
    #[cfg(feature = "cuda")]
    pub(crate) fn release(&mut self) {
        self.reserved = None;
    }

    /// The slot reserved.
    ///
    /// # Panics
    /// Where there is none: the service was called without having been ready, which its contract forbids.
    pub(crate) fn take(&mut self) -> OwnedSemaphorePermit {
        self.reserved.take().expect("`call` without `poll_ready` having answered `Ready(Ok)`")
    }
}

/// A clone starts without a slot: what one handle has reserved is its alone.
impl Clone for Slot {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.lanes))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("lanes", &self.lanes).field("reserved", &self.reserved.is_some()).finish()
    }
}
