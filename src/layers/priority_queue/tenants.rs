//! The order among the tenants of one priority, weighted fair, and among the requests of each of them, by deadline.
//!
//! This is start-time fair queueing: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing: A Scheduling Algorithm for
//! Integrated Services Packet Switching Networks", SIGCOMM 1996. A tenant's tag is the virtual time at which its next
//! request starts; the least tag is next. Virtual time is the tag of what was served last, and serving a request moves its
//! tenant's tag on by one over its weight. A tenant that comes (back) starts at virtual time: it is owed nothing for the
//! time in which it asked for nothing. While two tenants have requests waiting, what they are served, each over its weight,
//! never differs by more than one request of each over its weight, whatever the inner service's speed does meanwhile.
//!
//! The paper's packets of a tenant are served as they came. Here each request counts alike, so that the tags belong to the
//! tenant's turns, and which of its requests takes the turn is free to be decided by deadline.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use super::numbers::ByNumber;
use super::sorted::Sorted;

/// What a request of a tenant of weight 1 moves virtual time on by. In 64 bits that lasts for nine years of a million
/// requests a second, and virtual time begins anew whenever nothing waits.
const REQUEST: u64 = 1 << 16;

/// How many tenants are remembered that have nothing waiting and are ahead of virtual time. Past it those go that are
/// ahead the least.
const MAX_RESTING: usize = 4096;

/// How many empty lists are kept.
const MAX_SPARE: usize = 64;

/// The earlier deadline is the more urgent, any deadline more than none, and the earlier arrival where they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Urgency {
    pub(super) deadline: Option<Instant>,
    /// A number of its own for each request.
    pub(super) arrival: u64,
}

impl Ord for Urgency {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        count::one();
        let deadlines = match (self.deadline, other.deadline) {
            (Some(one), Some(other)) => one.cmp(&other),
            (one, other) => other.is_some().cmp(&one.is_some()),
        };
        deadlines.then(self.arrival.cmp(&other.arrival))
    }
}

impl PartialOrd for Urgency {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A point in virtual time, or a difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag(u64);

impl Ord for Tag {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        count::one();
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Tag {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A number of its own for each tenant, for as long as it is remembered.
pub(super) type FlowId = u64;

/// The requests of one priority.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    flows: ByNumber<Flow>,
    known: HashMap<Arc<str>, FlowId>,
    /// Those without a tenant, who are one.
    nobody: Option<FlowId>,
    /// Those with requests waiting: the first is next.
    turns: Sorted<(Tag, Urgency, FlowId)>,
    /// The same by how much they have waiting, over their weight.
    loads: Sorted<(Tag, FlowId)>,
    /// Those with none, whose tag is still ahead of virtual time.
    resting: Sorted<(Tag, FlowId)>,
    virtual_time: Tag,
    next_flow: FlowId,
    len: usize,
    /// Lists that are empty, for the tenants that come next.
    spare: Vec<Sorted<Urgency>>,
}

/// A tenant.
#[derive(Debug)]
struct Flow {
    tenant: Option<Arc<str>>,
    weight: NonZeroU16,
    tag: Tag,
    waiting: Sorted<Urgency>,
}

impl Flow {
    fn load(&self, requests: usize) -> Tag {
        Tag((requests as u64).saturating_mul(REQUEST) / u64::from(self.weight.get()))
    }
}

impl Tenants {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, tenant: Option<&Arc<str>>, weight: NonZeroU16, urgency: Urgency) -> FlowId {
        let id = self.known_as(tenant).unwrap_or_else(|| self.meet(tenant, weight));
        let virtual_time = self.virtual_time;
        self.change(id, |flow| {
            if flow.waiting.is_empty() {
                flow.tag = flow.tag.max(virtual_time);
            }
            flow.waiting.insert(urgency);
        });
        self.len += 1;
        id
    }

    fn known_as(&self, tenant: Option<&Arc<str>>) -> Option<FlowId> {
        match tenant {
            Some(tenant) => self.known.get(tenant).copied(),
            None => self.nobody,
        }
    }

    fn meet(&mut self, tenant: Option<&Arc<str>>, weight: NonZeroU16) -> FlowId {
        let id = self.next_flow;
        self.next_flow += 1;
        match tenant {
            Some(tenant) => {
                self.known.insert(Arc::clone(tenant), id);
            }
            None => self.nobody = Some(id),
        }
        let waiting = self.spare.pop().unwrap_or_default();
        self.flows.insert(id, Flow { tenant: tenant.cloned(), weight, tag: self.virtual_time, waiting });
        id
    }

    fn forget(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(&id)?;
        match &flow.tenant {
            Some(tenant) => {
                self.known.remove(tenant);
            }
            None => self.nobody = None,
        }
        Some(flow)
    }

    /// Takes a request out that is not served; its tenant's turn is not used up.
    pub(super) fn remove(&mut self, id: FlowId, urgency: Urgency) {
        let found = self.change(id, |flow| flow.waiting.remove(&urgency));
        debug_assert!(found, "a request that waits is where it was put");
        self.len -= 1;
        self.tidy();
    }

    /// Takes the next one out, to be served.
    pub(super) fn pop(&mut self) -> Option<Urgency> {
        let &(tag, urgency, id) = self.turns.first()?;
        self.virtual_time = tag;
        self.change(id, |flow| {
            flow.waiting.remove(&urgency);
            flow.tag = Tag(flow.tag.0 + flow.load(1).0);
        });
        self.len -= 1;
        self.tidy();
        Some(urgency)
    }

    /// The least urgent request of the tenant that has the most waiting for its weight.
    pub(super) fn least(&self) -> Option<Urgency> {
        let (_, id) = self.loads.last()?;
        self.flows[id].waiting.last().copied()
    }

    /// The same, if one more of `tenant` would still be less than that for its weight.
    pub(super) fn least_beside(&self, tenant: Option<&Arc<str>>, weight: NonZeroU16) -> Option<Urgency> {
        let &(most, id) = self.loads.last()?;
        let new = match self.known_as(tenant) {
            Some(known) if known == id => return None,
            Some(known) => {
                let flow = &self.flows[&known];
                flow.load(flow.waiting.len() + 1)
            }
            None => Tag(REQUEST / u64::from(weight.get())),
        };
        if new < most { self.flows[&id].waiting.last().copied() } else { None }
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.known.len() + usize::from(self.nobody.is_some())
    }

    /// Changes a tenant and puts it where it then belongs.
    fn change<T>(&mut self, id: FlowId, change: impl FnOnce(&mut Flow) -> T) -> T {
        let flow = self.flows.get_mut(&id).expect("a tenant with requests waiting is known");
        match flow.waiting.first() {
            Some(&first) => {
                self.turns.remove(&(flow.tag, first, id));
                self.loads.remove(&(flow.load(flow.waiting.len()), id));
            }
            None => {
                self.resting.remove(&(flow.tag, id));
            }
        }
        let result = change(flow);
        match flow.waiting.first() {
            Some(&first) => {
                self.turns.insert((flow.tag, first, id));
                self.loads.insert((flow.load(flow.waiting.len()), id));
            }
            None => {
                self.resting.insert((flow.tag, id));
            }
        }
        result
    }

    /// Forgets the tenants that virtual time has caught up with, and all where nothing waits.
    fn tidy(&mut self) {
        if self.len == 0 {
            let lists = self.flows.drain().map(|(_, flow)| flow.waiting);
            self.spare.extend(lists.take(MAX_SPARE.saturating_sub(self.spare.len())));
            self.known.clear();
            self.nobody = None;
            self.resting.clear();
            self.virtual_time = Tag::default();
            return;
        }
        while let Some(&(tag, id)) = self.resting.first()
            && (tag <= self.virtual_time || self.resting.len() > MAX_RESTING)
        {
            self.resting.pop_first();
            if let Some(flow) = self.forget(id)
                && self.spare.len() < MAX_SPARE
            {
                self.spare.push(flow.waiting);
            }
        }
    }
}

/// Comparisons made on this thread, for the tests that count them.
#[cfg(test)]
pub(super) mod count {
    use std::cell::Cell;

    thread_local! {
        static COMPARISONS: Cell<u64> = const { Cell::new(0) };
    }

    pub(in super::super) fn one() {
        COMPARISONS.set(COMPARISONS.get() + 1);
    }

    pub(in super::super) fn total() -> u64 {
        COMPARISONS.get()
    }
}
