//! Who is next: the tenant whose turn it is, of its requests the more urgent priority, and of those the one with the earliest
//! deadline. No lock, no waker, no clock: those are the [`line`](super::line)'s.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sorted::Sorted;
use super::tenants::{FlowId, Owner, Tenants, Urgency};
use crate::request::{Priority, Share};

/// How the order is made.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Of so many turns of a tenant in a row that went to more urgent priorities while one had something waiting, the next is
    /// its.
    pub(super) patience: Option<NonZeroU32>,
    /// Of the tenants that have another weight than 1.
    pub(super) weights: HashMap<Arc<str>, NonZeroU16>,
    /// How long before its deadline a call's time is up, at the least.
    pub(super) time_to_answer: Duration,
    /// Whether it is learned how long that is.
    pub(super) learns: bool,
}

/// What waits, in its order.
#[derive(Debug)]
pub(super) struct Order {
    rules: Rules,
    tenants: Tenants,
    /// How many wait, by priority.
    waiting: [usize; 3],
    /// Those that have one.
    deadlines: Sorted<Urgency>,
}

/// Where a request stands, to take it out again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) priority: Priority,
    pub(super) urgency: Urgency,
    flow: FlowId,
}

impl Order {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, tenants: Tenants::default(), waiting: [0; 3], deadlines: Sorted::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.tenants.len()
    }

    /// How many wait that are as urgent as `priority` or more.
    pub(super) fn len_from(&self, priority: Priority) -> usize {
        self.waiting[priority as usize..].iter().sum()
    }

    pub(super) fn insert(&mut self, priority: Priority, by: By<'_>, urgency: Urgency) -> Spot {
        let flow = self.tenants.insert(by.owner(), self.weight(by), priority as usize, urgency);
        self.waiting[priority as usize] += 1;
        if urgency.deadline.is_some() {
            self.deadlines.insert(urgency);
        }
        Spot { priority, urgency, flow }
    }

    /// Takes out a request that leaves without a turn.
    pub(super) fn remove(&mut self, spot: Spot) {
        self.tenants.remove(spot.flow, spot.priority as usize, spot.urgency);
        self.waiting[spot.priority as usize] -= 1;
        self.deadlines.remove(&spot.urgency);
    }

    /// Takes out the next one, to have its turn.
    pub(super) fn pop(&mut self) -> Option<Urgency> {
        let (priority, urgency) = self.tenants.pop(self.rules.patience)?;
        self.waiting[priority] -= 1;
        self.deadlines.remove(&urgency);
        Some(urgency)
    }

    /// The earliest deadline of all that wait.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().and_then(|urgency| urgency.deadline)
    }

    /// One whose deadline is not after `now`.
    pub(super) fn expired(&self, now: Instant) -> Option<Urgency> {
        self.deadlines.first().copied().filter(|urgency| urgency.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Who has to go for a new request, and how many bytes could be freed for it in that way.
    pub(super) fn who_makes_room(&self, priority: Priority, by: By<'_>) -> Option<(Urgency, u64)> {
        self.tenants.who_makes_room(by.owner(), self.weight(by), priority as usize)
    }

    /// Tenants that are remembered.
    #[cfg(test)]
    pub(super) fn known_tenants(&self) -> usize {
        self.tenants.known()
    }

    fn weight(&self, by: By<'_>) -> NonZeroU16 {
        match by {
            By { share: Some(share), .. } => share.weight(),
            By { tenant, .. } => {
                tenant.and_then(|tenant| self.rules.weights.get(tenant)).copied().unwrap_or(NonZeroU16::MIN)
            }
        }
    }
}

/// On whose behalf a request is made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct By<'a> {
    pub(super) tenant: Option<&'a Arc<str>>,
    /// Goes before the tenant's name where one has been assigned.
    pub(super) share: Option<Share>,
}

impl<'a> By<'a> {
    fn owner(self) -> Owner<'a> {
        match (self.share, self.tenant) {
            (Some(share), _) if share.is_common() => Owner::Nobody,
            (Some(share), _) => Owner::Share(share.key().into()),
            (None, Some(tenant)) => Owner::Tenant(tenant),
            (None, None) => Owner::Nobody,
        }
    }

    pub(super) fn is_nobody(self) -> bool {
        self.share.is_none() && self.tenant.is_none()
    }
}
