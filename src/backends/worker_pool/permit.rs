//! A service's hold on a pool: the slot that `poll_ready` reserves.

use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::PollSemaphore;

use super::{State, WorkerPool};
use crate::service::KernelError;

/// What a backend has to do: a [`Load`](tower::load::Load) to balance by. Of two backends the one whose work is
/// expected to take less time has the lower load, however many jobs that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolLoad {
    /// How long the jobs that hold a slot are expected to take, each by itself and from its start: the sum of what their
    /// kernels say of their cost. A job whose input has not been read yet counts with the time that takes, and none counts
    /// with less than 20 µs, which is what the shortest takes.
    pub predicted: Duration,
    /// How many jobs hold a slot, running ones included.
    pub jobs: usize,
}

impl Add for PoolLoad {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { predicted: self.predicted.saturating_add(other.predicted), jobs: self.jobs + other.jobs }
    }
}

/// A slot that is held, and how long its job is expected to take. Both end with this.
#[derive(Debug)]
pub(crate) struct Place {
    state: Arc<State>,
    /// Nanoseconds.
    predicted: u64,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(lanes: &WorkerPool, permit: OwnedSemaphorePermit) -> Self {
        lanes.state.predicted.fetch_add(LEAST, Ordering::Relaxed);
        Self { state: Arc::clone(&lanes.state), predicted: LEAST, _permit: permit }
    }

    /// How long the job is expected to take.
    pub(super) fn expected(&self) -> Duration {
        Duration::from_nanos(self.predicted)
    }

    /// The job is expected to take so long.
    pub(super) fn expect(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(LEAST, MOST);
        self.state.predicted.fetch_add(time.wrapping_sub(self.predicted), Ordering::Relaxed);
        self.predicted = time;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.predicted.fetch_sub(self.predicted, Ordering::Relaxed);
    }
}

/// In nanoseconds what the smallest job takes, there and back, and what the longest counts with: a day, so that the sum of
/// many that claim to take for ever still fits.
const LEAST: u64 = 20_000;
const MOST: u64 = 24 * 3600 * 1_000_000_000;

/// A pool of lanes, and a slot in it once one has been reserved.
pub(crate) struct Slot {
    lanes: Arc<WorkerPool>,
    semaphore: PollSemaphore,
    reserved: Option<Place>,
}

impl Slot {
    pub(crate) fn new(lanes: Arc<WorkerPool>) -> Self {
        let semaphore = PollSemaphore::new(Arc::clone(&lanes.state.slots));
        Self { lanes, semaphore, reserved: None }
    }

    pub(crate) fn lanes(&self) -> &Arc<WorkerPool> {
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
                Some(permit) => self.reserved = Some(Place::new(&self.lanes, permit)),
                None => return Poll::Ready(Err(self.lanes.state.error())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A slot of the pool, if there is one just now and nobody waits for it.
    pub(crate) fn try_reserve(lanes: &Arc<WorkerPool>) -> Option<Self> {
        let permit = Arc::clone(&lanes.state.slots).try_acquire_owned().ok()?;
        let reserved = Some(Place::new(lanes, permit));
        Some(Self { reserved, ..Self::new(Arc::clone(lanes)) })
    }

    /// Gives back what has been reserved.
    pub(crate) fn release(&mut self) {
        self.reserved = None;
    }

    /// The slot reserved.
    ///
    /// # Panics
    /// Where there is none: the service was called without having been ready, which its contract forbids.
    pub(crate) fn take(&mut self) -> Place {
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
