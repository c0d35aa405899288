//! Who holds how many places, who waits, and whose turn is next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::middleware::concurrency::shared::Places;

/// Under one lock, as each step looks at a tenant and at all of them. It is held for some map accesses, never while a
/// waker runs or is dropped: the last hold on a task may be its waker, and the task may hold a place here.
#[derive(Debug)]
pub(super) struct Shares {
    state: Mutex<State>,
    max_waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    limit: usize,
    inside: usize,
    waiting: usize,
    /// Counts arrivals and turns, so that they have an order.
    clock: u64,
    slots: Vec<Tenant>,
    names: HashMap<Arc<str>, usize>,
    unused: Vec<usize>,
    /// Tenants with calls that wait, the one whose turn is next first: by places held, then by when its last turn was,
    /// or when it began to wait.
    next: BTreeSet<(usize, u64, usize)>,
    /// Calls that have been given a place and have not come to see it yet. They count as inside.
    granted: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// `None` for those without a name, and for a slot that is unused.
    name: Option<Arc<str>>,
    held: usize,
    turn: u64,
    /// In the order in which they came; without a waker until the first poll.
    line: BTreeMap<u64, Option<Waker>>,
}

/// Whose a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TenantSlot(usize);

/// Requests without a tenant are one together, and it is always there.
const NAMELESS: usize = 0;

/// A place in a tenant's line.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    tenant: TenantSlot,
}

#[derive(Debug)]
pub(super) enum Entry {
    Held(TenantSlot),
    Waiting(Ticket),
    Full { waiting: usize },
}

impl Shares {
    pub(super) fn new(limit: usize, max_waiting: usize) -> Self {
        let state = State { limit, slots: vec![Tenant::default()], ..State::default() };
        Self { state: Mutex::new(state), max_waiting }
    }

    /// Takes a place, or a place in the line, or neither.
    pub(super) fn enter(&self, tenant: Option<&Arc<str>>) -> Entry {
        let mut state = self.state();
        let slot = state.slot_of(tenant);
        if state.waiting == 0 && state.inside < state.limit {
            state.inside += 1;
            state.slots[slot].held += 1;
            return Entry::Held(TenantSlot(slot));
        }
        let waiting = state.waiting;
        if state.slots[slot].line.len() >= self.max_waiting.saturating_sub(waiting) {
            state.forget_if_idle(slot);
            return Entry::Full { waiting };
        }
        let number = state.tick();
        let tenant = &mut state.slots[slot];
        tenant.line.insert(number, None);
        if tenant.line.len() == 1 {
            tenant.turn = number;
            let key = (tenant.held, number, slot);
            state.next.insert(key);
        }
        state.waiting += 1;
        Entry::Waiting(Ticket { number, tenant: TenantSlot(slot) })
    }

    /// Whether the place has come that `ticket` waits for. If not, `waker` is woken when it does.
    pub(super) fn has_come(&self, ticket: &Ticket, waker: &Waker) -> bool {
        let _old;
        let mut state = self.state();
        if state.granted.contains(&ticket.number) {
            return true;
        }
        if let Some(known) = state.slots[ticket.tenant.0].line.get_mut(&ticket.number)
            && !known.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            _old = known.replace(waker.clone());
        }
        false
    }

    /// The place that has come.
    pub(super) fn take(&self, ticket: Ticket) -> TenantSlot {
        let came = self.state().granted.remove(&ticket.number);
        debug_assert!(came, "taken before it had come");
        ticket.tenant
    }

    /// Waits no longer. A place that has come meanwhile goes to the next.
    pub(super) fn give_up(&self, ticket: Ticket) {
        let mut state = self.state();
        let slot = ticket.tenant.0;
        let left = state.slots[slot].line.remove(&ticket.number);
        if left.is_some() {
            state.waiting -= 1;
            let tenant = &state.slots[slot];
            if tenant.line.is_empty() {
                let key = (tenant.held, tenant.turn, slot);
                state.next.remove(&key);
                state.forget_if_idle(slot);
            }
            drop(state);
            drop(left);
        } else if state.granted.remove(&ticket.number) {
            drop(state);
            self.leave(ticket.tenant);
        }
    }

    /// How many places a tenant has, and how many of its calls wait.
    pub(super) fn tenant(&self, tenant: Option<&str>) -> (usize, usize) {
        let state = self.state();
        let slot = match tenant {
            None => Some(NAMELESS),
            Some(name) => state.names.get(name).copied(),
        };
        slot.map_or((0, 0), |slot| (state.slots[slot].held, state.slots[slot].line.len()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn slot_of(&mut self, tenant: Option<&Arc<str>>) -> usize {
        let Some(name) = tenant else { return NAMELESS };
        if let Some(&slot) = self.names.get(name) {
            return slot;
        }
        let slot = self.unused.pop().unwrap_or_else(|| {
            self.slots.push(Tenant::default());
            self.slots.len() - 1
        });
        self.slots[slot].name = Some(Arc::clone(name));
        self.names.insert(Arc::clone(name), slot);
        slot
    }

    fn forget_if_idle(&mut self, slot: usize) {
        let tenant = &mut self.slots[slot];
        if tenant.held == 0
            && tenant.line.is_empty()
            && let Some(name) = tenant.name.take()
        {
            self.names.remove(&name);
            self.unused.push(slot);
        }
    }

    /// The number of places that a tenant holds decides when its turn is.
    fn set_held(&mut self, slot: usize, held: usize) {
        let tenant = &mut self.slots[slot];
        let before = mem::replace(&mut tenant.held, held);
        if !tenant.line.is_empty() {
            let turn = tenant.turn;
            self.next.remove(&(before, turn, slot));
            self.next.insert((held, turn, slot));
        }
    }

    /// Gives the next place to whoever's turn it is; the waker is there if the call has been polled.
    fn grant(&mut self) -> Option<Option<Waker>> {
        if self.inside >= self.limit {
            return None;
        }
        let (held, _, slot) = self.next.pop_first()?;
        let turn = self.tick();
        let tenant = &mut self.slots[slot];
        let (number, waker) = tenant.line.pop_first()?;
        tenant.held = held + 1;
        tenant.turn = turn;
        if !tenant.line.is_empty() {
            self.next.insert((held + 1, turn, slot));
        }
        self.granted.insert(number);
        self.waiting -= 1;
        self.inside += 1;
        Some(waker)
    }
}

impl Places for Shares {
    type Held = TenantSlot;

    fn leave(&self, held: TenantSlot) {
        let next = {
            let mut state = self.state();
            state.inside -= 1;
            let places = state.slots[held.0].held - 1;
            state.set_held(held.0, places);
            let next = state.grant();
            state.forget_if_idle(held.0);
            next
        };
        if let Some(Some(waker)) = next {
            waker.wake();
        }
    }

    fn resize(&self, limit: usize) {
        self.state().limit = limit;
    }

    fn let_in(&self) {
        // One at a time, each woken without the lock.
        loop {
            let next = self.state().grant();
            match next {
                Some(Some(waker)) => waker.wake(),
                Some(None) => {}
                None => return,
            }
        }
    }

    fn limit(&self) -> usize {
        self.state().limit
    }

    fn inside(&self) -> usize {
        self.state().inside
    }

    fn waiting(&self) -> usize {
        self.state().waiting
    }
}
