//! The waiting calls of one tenant.

use std::collections::BTreeSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use super::schedule::{QueuedCall, Tag};

/// Identifies the calls that take turns together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TenantKey {
    /// Calls without a tenant, or of the common share.
    Anonymous,
    /// The key of an assigned share, which takes precedence over the tenant's name.
    Share(u32),
    /// The tenant's name.
    Name(Arc<str>),
}

/// The waiting calls of a tenant, by priority.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) weight: NonZeroU16,
    /// Start tag of its next call.
    pub(super) tag: Tag,
    waiting: [BTreeSet<QueuedCall>; 3],
    /// Turns of higher priorities since the last turn of this one, while it had calls waiting.
    passed_over: [u32; 3],
    bytes: [u64; 3],
}

impl Tenant {
    pub(super) fn new(weight: NonZeroU16, tag: Tag) -> Self {
        Self { weight, tag, waiting: Default::default(), passed_over: [0; 3], bytes: [0; 3] }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.iter().map(BTreeSet::len).sum()
    }

    /// The most urgent call. Another may be next, of a priority that has been passed over.
    pub(super) fn first(&self) -> Option<QueuedCall> {
        self.waiting.iter().rev().find_map(BTreeSet::first).copied()
    }

    /// The last call of the lowest priority below `priority`.
    pub(super) fn last_below(&self, priority: usize) -> Option<QueuedCall> {
        self.waiting[..priority].iter().find_map(BTreeSet::last).copied()
    }

    /// The payload bytes of the calls below `priority`.
    pub(super) fn bytes_below(&self, priority: usize) -> u64 {
        self.bytes[..priority].iter().sum()
    }

    pub(super) fn insert(&mut self, priority: usize, call: QueuedCall) {
        self.bytes[priority] = self.bytes[priority].saturating_add(call.bytes);
        self.waiting[priority].insert(call);
    }

    pub(super) fn remove(&mut self, priority: usize, call: &QueuedCall) {
        let found = self.waiting[priority].remove(call);
        debug_assert!(found, "a waiting call is where it was inserted");
        self.bytes[priority] = self.bytes[priority].saturating_sub(call.bytes);
        if self.waiting[priority].is_empty() {
            self.passed_over[priority] = 0;
        }
    }

    /// Removes the next call, to be served: of the highest priority, or of a lower one that has been passed over
    /// `max_passed_over` times.
    pub(super) fn pop(&mut self, max_passed_over: Option<NonZeroU32>) -> Option<QueuedCall> {
        let mut waiting = (0..3).rev().filter(|&priority| !self.waiting[priority].is_empty());
        let highest = waiting.next()?;
        let due = |lower: &usize| max_passed_over.is_some_and(|max| self.passed_over[*lower] >= max.get());
        let priority = waiting.find(due).unwrap_or(highest);
        let call = *self.waiting[priority].first()?;
        self.remove(priority, &call);
        self.passed_over[priority] = 0;
        for lower in 0..priority {
            self.passed_over[lower] += u32::from(!self.waiting[lower].is_empty());
        }
        self.tag.advance(call.cost, self.weight);
        Some(call)
    }
}
