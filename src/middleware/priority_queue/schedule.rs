//! The order in which waiting calls are served: fair among tenants, within a tenant by priority, then by deadline.
//!
//! Tenants take turns by start-time fair queueing: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing: A Scheduling
//! Algorithm for Integrated Services Packet Switching Networks", SIGCOMM 1996. A tenant's start tag is the virtual time at
//! which its next call starts; the tenant with the least tag is next. Virtual time is the tag of the call served last.
//! Serving a call advances its tenant's tag by the cost of the call over the weight of the tenant. A tenant that comes (back)
//! starts at virtual time: it gets no credit for the time in which it had no calls. While two tenants have calls waiting,
//! what they are served, each over its weight, never differs by more than the most expensive call of each over its weight,
//! however the speed of the inner service changes.
//!
//! The paper serves the packets of a tenant in order of arrival. Here a tag belongs to the tenant's turn, and which of its
//! calls takes the turn is decided by priority and deadline. So a priority orders the calls of one tenant and takes nothing
//! from another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use super::tenant::{Tenant, TenantKey};
use crate::request::Priority;

/// Cost of a call of unknown duration. A call whose duration is known costs its nanoseconds. 64 bits last for centuries of
/// virtual time, which restarts whenever the queue is empty.
const DEFAULT_COST: u64 = 1 << 16;
/// Least and greatest cost of a call of known duration.
const MIN_COST: u64 = 1_000;
const MAX_COST: u64 = 3_600_000_000_000;

/// Tenants remembered that have no call waiting and a tag ahead of virtual time. Beyond it those least ahead are forgotten.
const MAX_IDLE_TENANTS: usize = 4096;

/// Where something is in an order. Tests have an order of their own, which counts the comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(test), derive(PartialOrd, Ord))]
pub(super) struct Rank<T>(T);

/// A waiting call. The earlier deadline comes first, calls without a deadline last, ties in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuedCall {
    /// Whether there is no deadline, the deadline, and the arrival.
    rank: Rank<(bool, Option<Instant>, u64)>,
    /// What serving it adds to virtual time, at weight 1.
    pub(super) cost: u64,
    /// Size of its payload.
    pub(super) bytes: u64,
}

impl QueuedCall {
    /// Creates a call that has to be started before `deadline`. `arrival` is unique for each call.
    pub(super) fn new(deadline: Option<Instant>, arrival: u64, expected_time: Option<Duration>, bytes: u64) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(MIN_COST, MAX_COST);
        let cost = expected_time.map_or(DEFAULT_COST, nanos);
        Self { rank: Rank((deadline.is_none(), deadline, arrival)), cost, bytes }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.rank.0.1
    }

    pub(super) fn arrival(&self) -> u64 {
        self.rank.0.2
    }
}

/// Virtual time, or a tenant's waiting calls over its weight.
pub(super) type Tag = Rank<u64>;

impl Tag {
    /// Advances by `cost` at this weight.
    pub(super) fn advance(&mut self, cost: u64, weight: NonZeroU16) {
        self.0 = self.0.saturating_add(cost / u64::from(weight.get()));
    }

    /// The load of a tenant of this weight with so many calls waiting.
    fn load(calls: usize, weight: NonZeroU16) -> Self {
        Self((calls as u64).saturating_mul(DEFAULT_COST) / u64::from(weight.get()))
    }
}

/// Where a call is in the schedule.
#[derive(Clone, Debug)]
pub(super) struct QueuePosition {
    pub(super) tenant: TenantKey,
    /// The weight of the tenant, if it is not known yet.
    pub(super) weight: NonZeroU16,
    pub(super) priority: Priority,
    pub(super) call: QueuedCall,
}

/// All waiting calls in their order, each with a value `V`. Every operation is logarithmic in the number of calls.
#[derive(Debug)]
pub(super) struct Schedule<V> {
    max_passed_over: Option<NonZeroU32>,
    /// By arrival.
    calls: HashMap<u64, (QueuePosition, V)>,
    tenants: HashMap<TenantKey, Tenant>,
    /// The tenants with calls waiting, by start tag: the first is next.
    turns: BTreeMap<(Tag, QueuedCall), TenantKey>,
    /// The same tenants, by load.
    loads: BTreeSet<(Tag, TenantKey)>,
    /// The tenants without calls waiting whose tag is ahead of virtual time.
    idle: BTreeSet<(Tag, TenantKey)>,
    /// The calls with a deadline.
    deadlines: BTreeSet<QueuedCall>,
    virtual_time: Tag,
    waiting: [usize; 3],
}

impl<V> Schedule<V> {
    pub(super) fn new(max_passed_over: Option<NonZeroU32>) -> Self {
        Self {
            max_passed_over,
            calls: HashMap::new(),
            tenants: HashMap::new(),
            turns: BTreeMap::new(),
            loads: BTreeSet::new(),
            idle: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            virtual_time: Tag::default(),
            waiting: [0; 3],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The number of waiting calls of `priority` and above.
    pub(super) fn len_from(&self, priority: Priority) -> usize {
        self.waiting[priority as usize..].iter().sum()
    }

    /// The earliest deadline of all waiting calls.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().and_then(QueuedCall::deadline)
    }

    /// The arrival of a call whose deadline is not after `now`.
    pub(super) fn expired(&self, now: Instant) -> Option<u64> {
        let first = self.deadlines.first()?;
        first.deadline().is_some_and(|deadline| deadline <= now).then(|| first.arrival())
    }

    /// Adds a call.
    pub(super) fn insert(&mut self, position: QueuePosition, value: V) {
        let QueuePosition { tenant, weight, priority, call } = &position;
        let virtual_time = self.virtual_time;
        self.tenants.entry(tenant.clone()).or_insert_with(|| Tenant::new(*weight, virtual_time));
        self.update(tenant, |state| {
            if state.len() == 0 {
                state.tag = state.tag.max(virtual_time);
            }
            state.insert(*priority as usize, *call);
        });
        self.waiting[*priority as usize] += 1;
        if call.deadline().is_some() {
            self.deadlines.insert(*call);
        }
        self.calls.insert(call.arrival(), (position, value));
    }

    /// Removes a call that is not served, if it is still there. Its tenant's turn is not used up.
    pub(super) fn remove(&mut self, arrival: u64) -> Option<(QueuePosition, V)> {
        let (QueuePosition { tenant, priority, call, .. }, _) = self.calls.get(&arrival)?;
        let (tenant, priority, call) = (tenant.clone(), *priority, *call);
        self.update(&tenant, |state| state.remove(priority as usize, &call));
        self.removed(arrival)
    }

    /// Removes the next call, to be served.
    pub(super) fn pop(&mut self) -> Option<(QueuePosition, V)> {
        let (&(tag, _), tenant) = self.turns.first_key_value()?;
        let tenant = tenant.clone();
        self.virtual_time = tag;
        let max_passed_over = self.max_passed_over;
        let call = self.update(&tenant, |state| state.pop(max_passed_over))?;
        self.removed(call.arrival())
    }

    /// Finds the call to displace for a new one: the least urgent of the tenant with the greatest load, if that is another
    /// tenant and would still have the greatest load; else the least urgent of the same tenant with a lower priority. Returns
    /// its arrival and the bytes that can be freed by displacing further calls in the same way.
    pub(super) fn displaceable(&self, new: &QueuePosition) -> Option<(u64, u64)> {
        let (greatest, heaviest) = self.loads.last()?;
        let own = self.tenants.get(&new.tenant);
        let load = Tag::load(own.map_or(0, Tenant::len) + 1, own.map_or(new.weight, |own| own.weight));
        if *heaviest != new.tenant && load < *greatest {
            let call = self.tenants[heaviest].last_below(3)?;
            return Some((call.arrival(), call.bytes));
        }
        let own = own?;
        let priority = new.priority as usize;
        Some((own.last_below(priority)?.arrival(), own.bytes_below(priority)))
    }

    /// The number of tenants that are remembered.
    #[cfg(test)]
    pub(super) fn known_tenants(&self) -> usize {
        self.tenants.len()
    }

    /// Changes a tenant and moves it to its new position in `turns`, `loads` and `idle`.
    fn update<T>(&mut self, key: &TenantKey, change: impl FnOnce(&mut Tenant) -> T) -> T {
        let tenant = self.tenants.get_mut(key).expect("a tenant with calls waiting is known");
        match tenant.first() {
            Some(first) => {
                self.turns.remove(&(tenant.tag, first));
                self.loads.remove(&(Tag::load(tenant.len(), tenant.weight), key.clone()));
            }
            None => drop(self.idle.remove(&(tenant.tag, key.clone()))),
        }
        let result = change(tenant);
        match tenant.first() {
            Some(first) => {
                self.turns.insert((tenant.tag, first), key.clone());
                self.loads.insert((Tag::load(tenant.len(), tenant.weight), key.clone()));
            }
            None => drop(self.idle.insert((tenant.tag, key.clone()))),
        }
        result
    }

    /// Accounts for a call that was removed from its tenant, and forgets tenants that virtual time has caught up with.
    fn removed(&mut self, arrival: u64) -> Option<(QueuePosition, V)> {
        let (position, value) = self.calls.remove(&arrival)?;
        self.waiting[position.priority as usize] -= 1;
        self.deadlines.remove(&position.call);
        if self.turns.is_empty() {
            self.tenants.clear();
            self.idle.clear();
            self.virtual_time = Tag::default();
        }
        while let Some((tag, _)) = self.idle.first()
            && (*tag <= self.virtual_time || self.idle.len() > MAX_IDLE_TENANTS)
            && let Some((_, tenant)) = self.idle.pop_first()
        {
            self.tenants.remove(&tenant);
        }
        Some((position, value))
    }
}

/// Counts comparisons made on this thread.
#[cfg(test)]
pub(super) mod comparisons {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use super::Rank;

    thread_local! {
        static COMPARISONS: Cell<u64> = const { Cell::new(0) };
    }

    impl<T: Ord> Ord for Rank<T> {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl<T: Ord> PartialOrd for Rank<T> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    pub(in super::super) fn total() -> u64 {
        COMPARISONS.get()
    }
}
