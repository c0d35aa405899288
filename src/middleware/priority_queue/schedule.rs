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

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};

use crate::request::Priority;

/// Cost of a call of unknown duration. A call whose duration is known costs its nanoseconds. 64 bits last for centuries of
/// virtual time, which restarts whenever the queue is empty.
const DEFAULT_COST: u64 = 1 << 16;
/// Least and greatest cost of a call of known duration.
const MIN_COST: u64 = 1_000;
const MAX_COST: u64 = 3_600_000_000_000;

/// Tenants remembered that have no call waiting. Beyond it all of them are forgotten, each of which loses at most the rest of
/// the cost of its last call.
const MAX_IDLE_TENANTS: usize = 4096;

/// Where something is in an order. Tests have an order of their own, which counts the comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(test), derive(PartialOrd, Ord))]
pub(super) struct Rank<T>(T);

/// Virtual time, or a tenant's waiting calls over its weight.
type Tag = Rank<u64>;

/// Returns the load of a tenant of this weight with so many calls waiting.
fn load(calls: usize, weight: NonZeroU16) -> Tag {
    Rank((calls as u64).saturating_mul(DEFAULT_COST) / u64::from(weight.get()))
}

/// A waiting call. The earlier deadline comes first, calls without a deadline last, ties in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuedCall {
    /// Whether there is no deadline, the deadline, and the arrival.
    rank: Rank<(bool, Option<Instant>, u64)>,
    /// What serving it adds to virtual time, at weight 1.
    cost: u64,
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

/// Identifies the calls that take turns together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TenantKey {
    /// The key of the share. Calls without a tenant are of the common share.
    Share(u32),
    /// The tenant's name.
    Name(Arc<str>),
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

/// The waiting calls of a tenant.
#[derive(Debug)]
struct Tenant {
    weight: NonZeroU16,
    /// Start tag of its next call.
    tag: Tag,
    /// From the lowest priority on.
    levels: [Level; 3],
}

/// The waiting calls of one priority of a tenant.
#[derive(Debug, Default)]
struct Level {
    calls: BTreeSet<QueuedCall>,
    bytes: u64,
    /// Turns of higher priorities since the last turn of this one, while it had calls waiting.
    passed_over: u32,
}

impl Tenant {
    fn len(&self) -> usize {
        self.levels.iter().map(|level| level.calls.len()).sum()
    }

    /// The most urgent call. Another may be next, of a priority that has been passed over.
    fn first(&self) -> Option<QueuedCall> {
        self.levels.iter().rev().find_map(|level| level.calls.first()).copied()
    }

    /// The call to serve next: of the highest priority, or of a lower one that has been passed over `max_passed_over` times.
    fn next(&self, max_passed_over: Option<NonZeroU32>) -> Option<QueuedCall> {
        let due = |level: &&Level| max_passed_over.is_some_and(|max| level.passed_over >= max.get());
        let mut waiting = self.levels.iter().rev().filter(|level| !level.calls.is_empty());
        let highest = waiting.next()?;
        waiting.find(due).unwrap_or(highest).calls.first().copied()
    }

    /// The last call of the lowest priority below `priority`.
    fn last_below(&self, priority: usize) -> Option<QueuedCall> {
        self.levels[..priority].iter().find_map(|level| level.calls.last()).copied()
    }

    fn insert(&mut self, QueuePosition { priority, call, .. }: &QueuePosition) {
        let level = &mut self.levels[*priority as usize];
        level.bytes = level.bytes.saturating_add(call.bytes);
        level.calls.insert(*call);
    }

    fn remove(&mut self, QueuePosition { priority, call, .. }: &QueuePosition) {
        let level = &mut self.levels[*priority as usize];
        let found = level.calls.remove(call);
        debug_assert!(found, "a waiting call is where it was inserted");
        level.bytes = level.bytes.saturating_sub(call.bytes);
        if level.calls.is_empty() {
            level.passed_over = 0;
        }
    }

    /// Removes a call whose turn it is.
    fn serve(&mut self, position: &QueuePosition) {
        self.remove(position);
        let [lower @ .., level] = &mut self.levels[..=position.priority as usize] else { return };
        level.passed_over = 0;
        for lower in lower.iter_mut().filter(|level| !level.calls.is_empty()) {
            lower.passed_over += 1;
        }
        self.tag.0 = self.tag.0.saturating_add(position.call.cost / u64::from(self.weight.get()));
    }
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
        self.deadlines.first().filter(|call| call.deadline() <= Some(now)).map(QueuedCall::arrival)
    }

    /// Adds a call.
    pub(super) fn insert(&mut self, position: QueuePosition, value: V) {
        let new = || Tenant { weight: position.weight, tag: self.virtual_time, levels: Default::default() };
        let tenant = self.tenants.entry(position.tenant.clone()).or_insert_with(new);
        if tenant.len() == 0 {
            tenant.tag = tenant.tag.max(self.virtual_time);
        }
        self.update(&position, Tenant::insert);
        self.waiting[position.priority as usize] += 1;
        if position.call.deadline().is_some() {
            self.deadlines.insert(position.call);
        }
        self.calls.insert(position.call.arrival(), (position, value));
    }

    /// Removes a call that is not served, if it is still there. Its tenant's turn is not used up.
    pub(super) fn remove(&mut self, arrival: u64) -> Option<(QueuePosition, V)> {
        self.take(arrival, Tenant::remove)
    }

    /// Removes the next call, to be served.
    pub(super) fn pop(&mut self) -> Option<(QueuePosition, V)> {
        let (&(tag, _), tenant) = self.turns.first_key_value()?;
        let next = self.tenants[tenant].next(self.max_passed_over)?;
        self.virtual_time = tag;
        self.take(next.arrival(), Tenant::serve)
    }

    /// Finds the call to displace for a new one: the least urgent of the tenant with the greatest load, if that is another
    /// tenant and would still have the greatest load; else the least urgent of the same tenant with a lower priority. Returns
    /// its arrival and the bytes that can be freed by displacing further calls in the same way.
    pub(super) fn displaceable(&self, new: &QueuePosition) -> Option<(u64, u64)> {
        let (greatest, heaviest) = self.loads.last()?;
        let own = self.tenants.get(&new.tenant);
        let own_load = load(own.map_or(0, Tenant::len) + 1, own.map_or(new.weight, |own| own.weight));
        if *heaviest != new.tenant && own_load < *greatest {
            let call = self.tenants[heaviest].last_below(3)?;
            return Some((call.arrival(), call.bytes));
        }
        let (own, priority) = (own?, new.priority as usize);
        let freed = own.levels[..priority].iter().map(|level| level.bytes).sum();
        Some((own.last_below(priority)?.arrival(), freed))
    }

    /// Changes the tenant of a call and moves it to its new position in `turns` and `loads`.
    fn update(&mut self, position: &QueuePosition, change: fn(&mut Tenant, &QueuePosition)) {
        let key = &position.tenant;
        let tenant = self.tenants.get_mut(key).expect("a tenant with calls waiting is known");
        let before = tenant.first().map(|first| (tenant.tag, first));
        before.map(|_| self.loads.remove(&(load(tenant.len(), tenant.weight), key.clone())));
        change(tenant, position);
        let now = tenant.first().map(|first| (tenant.tag, first));
        now.map(|_| self.loads.insert((load(tenant.len(), tenant.weight), key.clone())));
        // Most calls come after the first of their tenant.
        if before != now {
            before.map(|turn| self.turns.remove(&turn));
            now.map(|turn| self.turns.insert(turn, key.clone()));
        }
    }

    /// Removes a call, and from its tenant by `remove`.
    fn take(&mut self, arrival: u64, remove: fn(&mut Tenant, &QueuePosition)) -> Option<(QueuePosition, V)> {
        let (position, value) = self.calls.remove(&arrival)?;
        self.waiting[position.priority as usize] -= 1;
        self.deadlines.remove(&position.call);
        self.update(&position, remove);
        if self.is_empty() {
            self.tenants.clear();
            self.virtual_time = Tag::default();
        } else if self.tenants.len() > self.turns.len() + MAX_IDLE_TENANTS {
            self.tenants.retain(|_, tenant| tenant.len() > 0);
        }
        Some((position, value))
    }
}

#[cfg(test)]
mod inspection {
    impl<V> super::Schedule<V> {
        /// The number of tenants that are remembered.
        pub(in super::super) fn known_tenants(&self) -> usize {
            self.tenants.len()
        }
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
