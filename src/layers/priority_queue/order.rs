//! Who is next: the more urgent priority, in it the tenant whose turn it is, of its requests the one with the earliest
//! deadline. No lock, no waker, no clock: those are the [`line`](super::line)'s.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sorted::Sorted;
use super::tenants::{FlowId, Tenants, Urgency};
use crate::service::Priority;

/// From the most urgent on.
const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// How the order is made.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Of so many turns in a row that went to more urgent priorities while one had something waiting, the next is its.
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
    priorities: [Tenants; 3],
    /// Turns of more urgent priorities since the last of this one, while it had something waiting.
    passed_over: [u32; 3],
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
        Self { rules, priorities: Default::default(), passed_over: [0; 3], deadlines: Sorted::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.priorities.iter().map(Tenants::len).sum()
    }

    /// How many wait that are as urgent as `priority` or more.
    pub(super) fn len_from(&self, priority: Priority) -> usize {
        self.priorities[priority as usize..].iter().map(Tenants::len).sum()
    }

    pub(super) fn insert(&mut self, priority: Priority, tenant: Option<&Arc<str>>, urgency: Urgency) -> Spot {
        let weight = self.weight(tenant);
        let flow = self.priorities[priority as usize].insert(tenant, weight, urgency);
        if urgency.deadline.is_some() {
            self.deadlines.insert(urgency);
        }
        Spot { priority, urgency, flow }
    }

    /// Takes out a request that leaves without a turn.
    pub(super) fn remove(&mut self, spot: Spot) {
        self.priorities[spot.priority as usize].remove(spot.flow, spot.urgency);
        self.deadlines.remove(&spot.urgency);
        self.rest(spot.priority);
    }

    /// Takes out the next one, to have its turn.
    pub(super) fn pop(&mut self) -> Option<Urgency> {
        let priority = self.next_priority()?;
        let urgency = self.priorities[priority as usize].pop()?;
        self.deadlines.remove(&urgency);
        self.passed_over[priority as usize] = 0;
        for lower in PRIORITIES.into_iter().filter(|&lower| lower < priority) {
            if self.priorities[lower as usize].len() > 0 {
                self.passed_over[lower as usize] += 1;
            }
        }
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

    /// The last of the lowest priority, if that is below `priority`.
    pub(super) fn least_below(&self, priority: Priority) -> Option<Urgency> {
        let mut lower = PRIORITIES.into_iter().rev().filter(|&lower| lower < priority);
        lower.find_map(|lower| self.priorities[lower as usize].least())
    }

    /// The last of a tenant of the same priority that has more waiting for its weight than `tenant` has with one more.
    pub(super) fn least_beside(&self, priority: Priority, tenant: Option<&Arc<str>>) -> Option<Urgency> {
        self.priorities[priority as usize].least_beside(tenant, self.weight(tenant))
    }

    /// Tenants that are remembered, counted for each priority.
    #[cfg(test)]
    pub(super) fn known_tenants(&self) -> usize {
        self.priorities.iter().map(Tenants::known).sum()
    }

    fn next_priority(&self) -> Option<Priority> {
        let mut waiting = PRIORITIES.into_iter().filter(|&priority| self.priorities[priority as usize].len() > 0);
        let first = waiting.next()?;
        let Some(patience) = self.rules.patience else { return Some(first) };
        Some(waiting.find(|&lower| self.passed_over[lower as usize] >= patience.get()).unwrap_or(first))
    }

    /// Whoever has nothing waiting is not passed over.
    fn rest(&mut self, priority: Priority) {
        if self.priorities[priority as usize].len() == 0 {
            self.passed_over[priority as usize] = 0;
        }
    }

    fn weight(&self, tenant: Option<&Arc<str>>) -> NonZeroU16 {
        tenant.and_then(|tenant| self.rules.weights.get(tenant)).copied().unwrap_or(NonZeroU16::MIN)
    }
}
