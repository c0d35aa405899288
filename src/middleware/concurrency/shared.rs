//! What the services of one layer share, and the permit of a call.

use std::sync::Arc;
use std::task::Waker;

use super::limit::{FinishCall, Limit, StartCall};
use super::permits::{self, Permits, QueuePosition, TenantId};

/// The state of a concurrency limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencySnapshot {
    /// Calls that may run at a time.
    pub limit: usize,
    /// Permits in use: by calls that run, and by services that are ready and have not been called.
    pub in_flight: usize,
    /// Services or calls that wait for a permit.
    pub waiting: usize,
}

#[derive(Debug)]
pub(super) struct Shared<L> {
    pub(super) permits: Permits,
    pub(super) limit: L,
}

/// Result of [`Shared::acquire`].
#[derive(Debug)]
pub(super) enum Acquired<L> {
    Permit(Permit<L>),
    Waiting(Waiter<L>),
    Full { waiting: usize },
}

impl<L> Shared<L> {
    pub(super) fn new(permits: Permits, limit: L) -> Arc<Self> {
        Arc::new(Self { permits, limit })
    }

    /// Takes a permit, or else a position in the queue.
    pub(super) fn acquire(self: &Arc<Self>, tenant: Option<&Arc<str>>) -> Acquired<L> {
        match self.permits.acquire(tenant) {
            permits::Acquired::Permit(tenant) => Acquired::Permit(Permit { shared: Arc::clone(self), tenant }),
            permits::Acquired::Waiting(position) => {
                Acquired::Waiting(Waiter { shared: Arc::clone(self), position: Some(position) })
            }
            permits::Acquired::Full { waiting } => Acquired::Full { waiting },
        }
    }

    /// Sets the limit, and lets those who wait run if there is room for them now.
    pub(super) fn set_limit(&self, limit: usize) {
        self.permits.resize(limit);
        self.permits.grant();
    }

    pub(super) fn snapshot(&self) -> ConcurrencySnapshot {
        let (limit, in_flight, waiting) = self.permits.counts();
        ConcurrencySnapshot { limit, in_flight, waiting }
    }
}

/// A permit to run, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit<L> {
    shared: Arc<Shared<L>>,
    tenant: TenantId,
}

impl<L> Permit<L> {
    /// Starts a call with this permit.
    pub(super) fn start<R>(self, request: &R) -> RunningCall<L>
    where
        L: StartCall<R>,
    {
        let mark = self.shared.limit.start(request, &self.shared.permits);
        RunningCall { permit: self, mark: Some(mark) }
    }
}

impl<L> Drop for Permit<L> {
    fn drop(&mut self) {
        self.shared.permits.release(self.tenant);
    }
}

/// A position in the queue, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Waiter<L> {
    shared: Arc<Shared<L>>,
    /// `None` once the permit has been taken.
    position: Option<QueuePosition>,
}

impl<L> Waiter<L> {
    /// Returns the permit if it has been granted; otherwise `waker` is woken when it is.
    pub(super) fn poll(&mut self, waker: &Waker) -> Option<Permit<L>> {
        let tenant = self.shared.permits.poll(self.position?, waker)?;
        self.position = None;
        Some(Permit { shared: Arc::clone(&self.shared), tenant })
    }
}

impl<L> Drop for Waiter<L> {
    fn drop(&mut self) {
        if let Some(position) = self.position {
            self.shared.permits.cancel(position);
        }
    }
}

/// The permit of a running call. Dropped before it has [finished](Self::finish), the call counts as cancelled.
#[derive(Debug)]
pub(super) struct RunningCall<L: Limit> {
    permit: Permit<L>,
    /// `None` once the call has finished.
    mark: Option<L::Mark>,
}

impl<L: Limit> RunningCall<L> {
    /// Records how the call ended, and gives the permit back.
    pub(super) fn finish<T, E>(mut self, result: &Result<T, E>)
    where
        L: FinishCall<T, E>,
    {
        let shared = &self.permit.shared;
        if let Some(mark) = self.mark.take() {
            shared.limit.finish(mark, result, &shared.permits);
        }
    }
}

impl<L: Limit> Drop for RunningCall<L> {
    fn drop(&mut self) {
        let shared = &self.permit.shared;
        if let Some(mark) = self.mark.take() {
            shared.limit.cancelled(mark, &shared.permits);
        }
    }
}
