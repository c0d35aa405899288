use std::sync::Arc;
use std::task::{Context, Poll};

use super::device_set::DeviceSet;
use crate::backends::worker_pool::PoolHandle;
use crate::service::BackendKind;

/// A handle's permit on one pool of a kind, or its positions in the queues for permits of all of them while all are full.
#[derive(Debug)]
pub(super) struct DevicePermit {
    kind: BackendKind,
    reserved: Option<PoolHandle>,
    waiting: Vec<PoolHandle>,
}

impl DevicePermit {
    pub(super) fn new(kind: BackendKind) -> Self {
        Self { kind, reserved: None, waiting: Vec::new() }
    }

    /// Sets the permit that was reserved elsewhere.
    pub(super) fn set(&mut self, reserved: PoolHandle) {
        self.reserved = Some(reserved);
    }

    pub(super) fn kind(&self) -> BackendKind {
        self.kind
    }

    /// Reserves a permit, unless one is reserved already. `false` if no pool of the kind is open.
    pub(super) fn poll_reserve(&mut self, devices: &DeviceSet, cx: &mut Context<'_>) -> Poll<bool> {
        if self.reserved.as_ref().is_some_and(|handle| !handle.pool().is_open()) {
            self.reserved = None;
        }
        if self.reserved.is_none() && self.waiting.is_empty() {
            self.reserved = devices.try_reserve(self.kind);
            if self.reserved.is_none() {
                self.waiting.extend(devices.open(self.kind).map(|pool| PoolHandle::new(Arc::clone(pool))));
            }
        }
        if self.reserved.is_some() {
            return Poll::Ready(true);
        }
        self.poll_waiting(cx)
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        // A pool that closes wakes those that wait for it, and never opens again.
        self.waiting.retain_mut(|handle| !matches!(handle.poll_reserve(cx), Poll::Ready(Err(_))));
        let ready = self.waiting.iter().enumerate().filter(|(_, handle)| handle.is_reserved());
        match ready.min_by_key(|(_, handle)| handle.pool().load()).map(|(at, _)| at) {
            Some(at) => {
                self.reserved = Some(self.waiting.swap_remove(at));
                self.waiting.clear();
                Poll::Ready(true)
            }
            None if self.waiting.is_empty() => Poll::Ready(false),
            None => Poll::Pending,
        }
    }

    /// Takes the handle that has a permit, and gives up waiting for others.
    pub(super) fn take(&mut self) -> Option<PoolHandle> {
        self.waiting.clear();
        self.reserved.take()
    }
}
