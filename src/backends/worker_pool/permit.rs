//! Permits of a pool, and the pool's load that follows from them.

use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::PollSemaphore;

use super::{PoolState, WorkerPool};
use crate::service::KernelError;

/// The [`Load`](tower::load::Load) of a backend, to balance by: the predicted run time of its jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolLoad {
    /// The sum of the estimated run times of all jobs that hold a permit, each as if it ran alone and from its start. Each
    /// job counts at least 20 µs.
    pub predicted: Duration,
    /// The number of jobs that hold a permit, queued and running.
    pub jobs: usize,
}

impl Add for PoolLoad {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { predicted: self.predicted.saturating_add(other.predicted), jobs: self.jobs + other.jobs }
    }
}

/// The minimum that a job counts in the load, in nanoseconds.
const MIN_PREDICTED: u64 = 20_000;
/// The maximum that a job counts in the load, in nanoseconds: a day, so that the sum of many does not overflow.
const MAX_PREDICTED: u64 = 24 * 3600 * 1_000_000_000;

/// The right to have one job in the pool, queued or running. Its job's predicted run time is part of the pool's load until it
/// is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<PoolState>,
    /// Nanoseconds.
    predicted: u64,
    _permit: OwnedSemaphorePermit,
}

impl Permit {
    fn new(pool: &WorkerPool, permit: OwnedSemaphorePermit) -> Self {
        pool.state.predicted.fetch_add(MIN_PREDICTED, Ordering::Relaxed);
        Self { pool: Arc::clone(&pool.state), predicted: MIN_PREDICTED, _permit: permit }
    }

    /// Returns the predicted run time of the job.
    pub(super) fn predicted(&self) -> Duration {
        Duration::from_nanos(self.predicted)
    }

    /// Sets the predicted run time of the job.
    pub(super) fn set_predicted(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(MIN_PREDICTED, MAX_PREDICTED);
        self.pool.predicted.fetch_add(time.wrapping_sub(self.predicted), Ordering::Relaxed);
        self.predicted = time;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.predicted.fetch_sub(self.predicted, Ordering::Relaxed);
    }
}

/// A service's handle to a pool, with the permit that `poll_ready` reserves.
pub(crate) struct PoolHandle {
    pool: Arc<WorkerPool>,
    semaphore: PollSemaphore,
    permit: Option<Permit>,
}

impl PoolHandle {
    pub(crate) fn new(pool: Arc<WorkerPool>) -> Self {
        let semaphore = PollSemaphore::new(Arc::clone(&pool.state.permits));
        Self { pool, semaphore, permit: None }
    }

    pub(crate) fn pool(&self) -> &Arc<WorkerPool> {
        &self.pool
    }

    /// Reserves a permit, unless one is reserved already.
    pub(crate) fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        // A permit of a pool that has closed is useless, so that is checked first.
        if let Some(reason) = self.pool.state.closed() {
            return Poll::Ready(Err(reason.clone()));
        }
        if self.permit.is_none() {
            match ready!(self.semaphore.poll_acquire(cx)) {
                Some(permit) => self.permit = Some(Permit::new(&self.pool, permit)),
                None => return Poll::Ready(Err(self.pool.state.closed_error())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Returns a handle with a permit, if one is available now and no other handle waits for it.
    pub(crate) fn try_reserve(pool: &Arc<WorkerPool>) -> Option<Self> {
        let permit = Arc::clone(&pool.state.permits).try_acquire_owned().ok()?;
        let permit = Some(Permit::new(pool, permit));
        Some(Self { permit, ..Self::new(Arc::clone(pool)) })
    }

    /// Returns the load of the pool without the permit of this handle.
    pub(crate) fn load_of_others(&self) -> PoolLoad {
        let own = self
            .permit
            .as_ref()
            .map_or(PoolLoad::default(), |permit| PoolLoad { predicted: permit.predicted(), jobs: 1 });
        let all = self.pool.load();
        PoolLoad { predicted: all.predicted.saturating_sub(own.predicted), jobs: all.jobs.saturating_sub(own.jobs) }
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.permit.is_some()
    }

    /// Takes the reserved permit.
    ///
    /// # Panics
    /// If there is none: the service was called without having been ready, which its contract forbids.
    pub(crate) fn take_permit(&mut self) -> Permit {
        self.permit.take().expect("`call` needs `poll_ready` to have returned `Ready(Ok)` first")
    }
}

/// A clone starts without a permit: a reservation belongs to the handle that made it.
impl Clone for PoolHandle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.pool))
    }
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolHandle").field("pool", &self.pool).field("is_reserved", &self.is_reserved()).finish()
    }
}
