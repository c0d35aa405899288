//! The order among tenants, weighted fair; in each of them by priority, and within that by deadline.
//!
//! This is start-time fair queueing: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing: A Scheduling Algorithm for
//! Integrated Services Packet Switching Networks", SIGCOMM 1996. A tenant's tag is the virtual time at which its next
//! request starts; the least tag is next. Virtual time is the tag of what was served last, and serving a request moves its
//! tenant's tag on by the request's length over the tenant's weight. A request is as long as it is expected to take, and
//! all are of one length where that is not known. A tenant that comes (back) starts at virtual time: it is owed nothing for
//! the time in which it asked for nothing. While two tenants have requests waiting, what they are served, each over its
//! weight, never differs by more than the longest request of each over its weight, whatever the inner service's speed does
//! meanwhile.
//!
//! The paper's packets of a tenant are served as they came. Here the tags belong to the tenant's turns, and which of its
//! requests takes the turn is free to be decided by priority and deadline. So a priority is one among the requests of the
//! same tenant, and takes nothing from another.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::numbers::ByNumber;
use super::sorted::Sorted;

/// What a request of a tenant of weight 1 moves virtual time on by where it is not known how long it takes. One of which
/// that is known moves it on by its nanoseconds. In 64 bits that lasts for centuries, and virtual time begins anew whenever
/// nothing waits.
const REQUEST: u64 = 1 << 16;
/// The shortest and the longest that a request counts as.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 3_600_000_000_000;

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
    /// How long it counts as.
    pub(super) length: Length,
    /// What its payload takes.
    pub(super) bytes: u64,
}

/// What a request moves virtual time on by, at weight 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length(u64);

impl Length {
    pub(super) fn of(expected: Option<Duration>) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(SHORTEST, LONGEST);
        Self(expected.map_or(REQUEST, nanos))
    }
}

/// Whose a request is: those of one owner take turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// A share that has been assigned, by its key.
    Share(u64),
    Tenant(&'a Arc<str>),
    /// Those without a tenant, who are one.
    Nobody,
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

/// The requests of all tenants.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    flows: ByNumber<Flow>,
    known: HashMap<Arc<str>, FlowId>,
    shares: ByNumber<FlowId>,
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
    spare: Vec<[Sorted<Urgency>; 3]>,
}

/// A tenant.
#[derive(Debug)]
struct Flow {
    name: Name,
    weight: NonZeroU16,
    tag: Tag,
    /// By priority, from the lowest on.
    waiting: [Sorted<Urgency>; 3],
    /// Turns of more urgent priorities since the last of this one, while it had something waiting.
    passed_over: [u32; 3],
    /// What the payloads of those that wait take.
    bytes: [u64; 3],
}

/// [`Owner`], kept.
#[derive(Debug)]
enum Name {
    Share(u64),
    Tenant(Arc<str>),
    Nobody,
}

impl Flow {
    fn len(&self) -> usize {
        self.waiting.iter().map(Sorted::len).sum()
    }

    fn load(&self, requests: usize) -> Tag {
        load(requests, self.weight)
    }

    /// The most urgent request. Another may be next, of a priority that has been passed over.
    fn first(&self) -> Option<Urgency> {
        self.waiting.iter().rev().find_map(Sorted::first).copied()
    }

    /// The last of the lowest priority, of those below `priority`.
    fn least_below(&self, priority: usize) -> Option<Urgency> {
        self.waiting[..priority].iter().find_map(Sorted::last).copied()
    }

    fn next_priority(&self, patience: Option<NonZeroU32>) -> Option<usize> {
        let mut waiting = (0..3).rev().filter(|&priority| !self.waiting[priority].is_empty());
        let first = waiting.next()?;
        let Some(patience) = patience else { return Some(first) };
        Some(waiting.find(|&lower| self.passed_over[lower] >= patience.get()).unwrap_or(first))
    }

    fn insert(&mut self, priority: usize, urgency: Urgency) {
        self.bytes[priority] = self.bytes[priority].saturating_add(urgency.bytes);
        self.waiting[priority].insert(urgency);
    }

    fn remove(&mut self, priority: usize, urgency: &Urgency) -> bool {
        self.bytes[priority] = self.bytes[priority].saturating_sub(urgency.bytes);
        let found = self.waiting[priority].remove(urgency);
        // Whoever has nothing waiting is not passed over.
        if self.waiting[priority].is_empty() {
            self.passed_over[priority] = 0;
        }
        found
    }

    /// Takes the next one out, to be served.
    fn pop(&mut self, patience: Option<NonZeroU32>) -> Option<(usize, Urgency)> {
        let priority = self.next_priority(patience)?;
        let urgency = *self.waiting[priority].first()?;
        self.remove(priority, &urgency);
        self.passed_over[priority] = 0;
        for lower in 0..priority {
            if !self.waiting[lower].is_empty() {
                self.passed_over[lower] += 1;
            }
        }
        self.tag = Tag(self.tag.0.saturating_add(urgency.length.0 / u64::from(self.weight.get())));
        Some((priority, urgency))
    }
}

fn load(requests: usize, weight: NonZeroU16) -> Tag {
    Tag((requests as u64).saturating_mul(REQUEST) / u64::from(weight.get()))
}

impl Tenants {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, owner: Owner<'_>, weight: NonZeroU16, priority: usize, urgency: Urgency) -> FlowId {
        let id = self.known_as(owner).unwrap_or_else(|| self.meet(owner, weight));
        let virtual_time = self.virtual_time;
        self.change(id, |flow| {
            if flow.len() == 0 {
                flow.tag = flow.tag.max(virtual_time);
            }
            flow.insert(priority, urgency);
        });
        self.len += 1;
        id
    }

    fn known_as(&self, owner: Owner<'_>) -> Option<FlowId> {
        match owner {
            Owner::Share(key) => self.shares.get(&key).copied(),
            Owner::Tenant(tenant) => self.known.get(tenant).copied(),
            Owner::Nobody => self.nobody,
        }
    }

    fn meet(&mut self, owner: Owner<'_>, weight: NonZeroU16) -> FlowId {
        let id = self.next_flow;
        self.next_flow += 1;
        let name = match owner {
            Owner::Share(key) => {
                self.shares.insert(key, id);
                Name::Share(key)
            }
            Owner::Tenant(tenant) => {
                self.known.insert(Arc::clone(tenant), id);
                Name::Tenant(Arc::clone(tenant))
            }
            Owner::Nobody => {
                self.nobody = Some(id);
                Name::Nobody
            }
        };
        let waiting = self.spare.pop().unwrap_or_default();
        let (tag, passed_over, bytes) = (self.virtual_time, [0; 3], [0; 3]);
        self.flows.insert(id, Flow { name, weight, tag, waiting, passed_over, bytes });
        id
    }

    fn forget(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(&id)?;
        match &flow.name {
            Name::Share(key) => drop(self.shares.remove(key)),
            Name::Tenant(tenant) => drop(self.known.remove(tenant)),
            Name::Nobody => self.nobody = None,
        }
        Some(flow)
    }

    /// Takes a request out that is not served; its tenant's turn is not used up.
    pub(super) fn remove(&mut self, id: FlowId, priority: usize, urgency: Urgency) {
        let found = self.change(id, |flow| flow.remove(priority, &urgency));
        debug_assert!(found, "a request that waits is where it was put");
        self.len -= 1;
        self.tidy();
    }

    /// Takes the next one out, to be served, with its priority.
    pub(super) fn pop(&mut self, patience: Option<NonZeroU32>) -> Option<(usize, Urgency)> {
        let &(tag, _, id) = self.turns.first()?;
        self.virtual_time = tag;
        let next = self.change(id, |flow| flow.pop(patience));
        self.len -= usize::from(next.is_some());
        self.tidy();
        next
    }

    /// Who makes room for one more of `owner`: the least urgent request of the tenant that has the most waiting for its
    /// weight, if that is another and would still have the most; else the least urgent of the same tenant that is less urgent
    /// than the new one. With it, what can be freed in that way.
    pub(super) fn who_makes_room(
        &self,
        owner: Owner<'_>,
        weight: NonZeroU16,
        priority: usize,
    ) -> Option<(Urgency, u64)> {
        let &(most, heaviest) = self.loads.last()?;
        let own = self.known_as(owner).map(|id| (id, &self.flows[&id]));
        let new = own.map_or_else(|| load(1, weight), |(_, flow)| flow.load(flow.len() + 1));
        if own.is_none_or(|(id, _)| id != heaviest) && new < most {
            let least = self.flows[&heaviest].least_below(3)?;
            return Some((least, least.bytes));
        }
        let (_, own) = own?;
        Some((own.least_below(priority)?, own.bytes[..priority].iter().sum()))
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.known.len() + self.shares.len() + usize::from(self.nobody.is_some())
    }

    /// Changes a tenant and puts it where it then belongs.
    fn change<T>(&mut self, id: FlowId, change: impl FnOnce(&mut Flow) -> T) -> T {
        let flow = self.flows.get_mut(&id).expect("a tenant with requests waiting is known");
        match flow.first() {
            Some(first) => {
                self.turns.remove(&(flow.tag, first, id));
                self.loads.remove(&(flow.load(flow.len()), id));
            }
            None => {
                self.resting.remove(&(flow.tag, id));
            }
        }
        let result = change(flow);
        match flow.first() {
            Some(first) => {
                self.turns.insert((flow.tag, first, id));
                self.loads.insert((flow.load(flow.len()), id));
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
            self.shares.clear();
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
