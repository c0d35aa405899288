//! A semaphore whose limit can change and whose permits are shared fairly among tenants.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::task::Waker;

use crate::sync::{Mutex, MutexGuard};

/// Permits to run, and the queue of those who wait for one.
///
/// A permit that becomes free goes to the waiting tenant that holds the fewest; among several to the one whose last turn is
/// the longest ago; within a tenant in order of arrival. With one tenant that is first come, first served. While anybody waits
/// no permit is free, and each released permit wakes one waiter.
///
/// Wakers are woken and dropped without the lock: the last reference to a task may be its waker, and the task may hold a
/// permit.
#[derive(Debug)]
pub struct Permits {
    state: Mutex<State>,
    max_waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    limit: usize,
    in_use: usize,
    waiting: usize,
    /// Counts arrivals and turns.
    clock: u64,
    tenants: Vec<Tenant>,
    ids: HashMap<Arc<str>, TenantId>,
    unused: Vec<TenantId>,
    /// The tenants that wait, the next one first: by permits held, then by their last turn, or when they began to wait.
    turns: BTreeSet<(usize, u64, TenantId)>,
    /// Waiters that were given a permit and have not been polled since. Their permits are in use.
    granted: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// `None` for requests without a tenant, and for an unused entry.
    name: Option<Arc<str>>,
    held: usize,
    turn: u64,
    /// In order of arrival; without a waker until the first poll.
    waiters: BTreeMap<u64, Option<Waker>>,
}

/// Index of a tenant with permits or waiters. 32 bits, as every call keeps one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TenantId(u32);

/// Requests without a tenant are one tenant together, which always exists.
const ANONYMOUS: TenantId = TenantId(0);

/// Identifies a waiter.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuePosition {
    number: u64,
    tenant: TenantId,
}

/// Result of [`Permits::acquire`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Acquired {
    Permit(TenantId),
    Waiting(QueuePosition),
    /// As many calls of the tenant wait as may, `waiting` in all.
    Full {
        waiting: usize,
    },
}

impl Permits {
    /// Creates `limit` permits. A tenant may have as many calls waiting as `max_waiting` has left over.
    pub(super) fn new(limit: usize, max_waiting: usize) -> Self {
        let state = State { limit, tenants: vec![Tenant::default()], ..State::default() };
        Self { state: Mutex::new(state), max_waiting }
    }

    /// Takes a permit, or else a position in the queue.
    pub(super) fn acquire(&self, tenant: Option<&Arc<str>>) -> Acquired {
        let mut state = self.state();
        let id = state.id_of(tenant);
        if state.waiting == 0 && state.in_use < state.limit {
            state.in_use += 1;
            state.tenant(id).held += 1;
            return Acquired::Permit(id);
        }
        let waiting = state.waiting;
        if state.tenant(id).waiters.len() >= self.max_waiting.saturating_sub(waiting) {
            state.remove_if_idle(id);
            return Acquired::Full { waiting };
        }
        let number = state.tick();
        let tenant = state.tenant(id);
        tenant.waiters.insert(number, None);
        if tenant.waiters.len() == 1 {
            tenant.turn = number;
            let turn = (tenant.held, number, id);
            state.turns.insert(turn);
        }
        state.waiting += 1;
        Acquired::Waiting(QueuePosition { number, tenant: id })
    }

    /// Returns the permit that `position` waits for if it has been granted; otherwise `waker` is woken when it is.
    pub(super) fn poll(&self, position: QueuePosition, waker: &Waker) -> Option<TenantId> {
        let mut state = self.state();
        if state.granted.remove(&position.number) {
            return Some(position.tenant);
        }
        let known = state.tenant(position.tenant).waiters.get_mut(&position.number);
        let old = known.and_then(|known| match known {
            Some(known) if known.will_wake(waker) => None,
            known => known.replace(waker.clone()),
        });
        drop(state);
        drop(old);
        None
    }

    /// Stops waiting. A permit that has been granted meanwhile goes to the next waiter.
    pub(super) fn cancel(&self, QueuePosition { number, tenant: id }: QueuePosition) {
        let mut state = self.state();
        if state.granted.remove(&number) {
            drop(state);
            return self.release(id);
        }
        let tenant = state.tenant(id);
        let waker = tenant.waiters.remove(&number);
        let turn = (tenant.held, tenant.turn, id);
        if waker.is_some() {
            state.waiting -= 1;
        }
        if state.tenant(id).waiters.is_empty() {
            state.turns.remove(&turn);
            state.remove_if_idle(id);
        }
        drop(state);
        drop(waker);
    }

    /// Gives a permit back.
    pub(super) fn release(&self, id: TenantId) {
        let mut state = self.state();
        state.in_use -= 1;
        state.return_permit(id);
        let next = state.grant();
        state.remove_if_idle(id);
        drop(state);
        if let Some(Some(waker)) = next {
            waker.wake();
        }
    }

    /// Sets the number of permits. Permits in use beyond it are not replaced when they are given back. A greater limit needs
    /// [`grant`](Self::grant) after it.
    pub(super) fn resize(&self, limit: usize) {
        self.state().limit = limit;
    }

    /// Gives the permits that are free to those who wait.
    pub(super) fn grant(&self) {
        // One at a time, as each is woken without the lock.
        loop {
            let next = self.state().grant();
            match next {
                Some(Some(waker)) => waker.wake(),
                Some(None) => {}
                None => return,
            }
        }
    }

    /// Returns the limit, the permits in use and the number of waiters.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.limit, state.in_use, state.waiting)
    }

    /// Returns the permits that a tenant holds and the number of its waiters.
    pub(super) fn tenant_counts(&self, tenant: Option<&str>) -> (usize, usize) {
        let mut state = self.state();
        let id = tenant.map_or(Some(ANONYMOUS), |name| state.ids.get(name).copied());
        id.map_or((0, 0), |id| {
            let tenant = state.tenant(id);
            (tenant.held, tenant.waiters.len())
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn tenant(&mut self, id: TenantId) -> &mut Tenant {
        &mut self.tenants[id.0 as usize]
    }

    fn id_of(&mut self, tenant: Option<&Arc<str>>) -> TenantId {
        let Some(name) = tenant else { return ANONYMOUS };
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.unused.pop().unwrap_or_else(|| {
            self.tenants.push(Tenant::default());
            TenantId(self.tenants.len() as u32 - 1)
        });
        self.tenant(id).name = Some(Arc::clone(name));
        self.ids.insert(Arc::clone(name), id);
        id
    }

    /// Forgets a tenant without permits and waiters, so that the number of tenants needs no bound.
    fn remove_if_idle(&mut self, id: TenantId) {
        let tenant = self.tenant(id);
        if tenant.held == 0
            && tenant.waiters.is_empty()
            && let Some(name) = tenant.name.take()
        {
            self.ids.remove(&name);
            self.unused.push(id);
        }
    }

    fn return_permit(&mut self, id: TenantId) {
        let tenant = self.tenant(id);
        let (held, turn, is_waiting) = (tenant.held, tenant.turn, !tenant.waiters.is_empty());
        tenant.held -= 1;
        if is_waiting {
            self.turns.remove(&(held, turn, id));
            self.turns.insert((held - 1, turn, id));
        }
    }

    /// Gives a permit to the next waiter. Returns its waker, if it has been polled.
    fn grant(&mut self) -> Option<Option<Waker>> {
        if self.in_use >= self.limit {
            return None;
        }
        let (held, _, id) = self.turns.pop_first()?;
        let turn = self.tick();
        let tenant = self.tenant(id);
        let (number, waker) = tenant.waiters.pop_first()?;
        tenant.held = held + 1;
        tenant.turn = turn;
        if !tenant.waiters.is_empty() {
            self.turns.insert((held + 1, turn, id));
        }
        self.granted.insert(number);
        self.waiting -= 1;
        self.in_use += 1;
        Some(waker)
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Wake, Waker};

    use loom::sync::Arc;
    use loom::thread;

    use super::{Acquired, Permits, TenantId};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn permits(limit: usize) -> Arc<Permits> {
        Arc::new(Permits::new(limit, usize::MAX))
    }

    /// Takes a permit that is free.
    fn take(permits: &Permits) -> TenantId {
        match permits.acquire(None) {
            Acquired::Permit(permit) => permit,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a permit is free, which is given back.
    fn is_free(permits: &Permits) -> bool {
        match permits.acquire(None) {
            Acquired::Permit(permit) => permits.release(permit),
            Acquired::Waiting(position) => {
                permits.cancel(position);
                return false;
            }
            Acquired::Full { .. } => unreachable!("the queue has no bound"),
        }
        true
    }

    /// Acquires a permit, waiting for it if necessary; a wake that is lost hangs the model, which loom reports.
    fn acquire(permits: &Permits) -> TenantId {
        let position = match permits.acquire(None) {
            Acquired::Permit(permit) => return permit,
            Acquired::Waiting(position) => position,
            Acquired::Full { .. } => unreachable!("the queue has no bound"),
        };
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        let mut seen = 0;
        loop {
            if let Some(permit) = permits.poll(position, &waker) {
                return permit;
            }
            while woken.0.load(SeqCst) == seen {
                thread::yield_now();
            }
            seen = woken.0.load(SeqCst);
        }
    }

    #[test]
    fn loom_the_limit_holds_and_no_waiter_is_forgotten() {
        loom::model(|| {
            let permits = permits(1);
            let running = std::sync::Arc::new(AtomicUsize::new(0));
            let run = |permits: Arc<Permits>, running: std::sync::Arc<AtomicUsize>| {
                move || {
                    let permit = acquire(&permits);
                    assert_eq!(running.fetch_add(1, SeqCst), 0, "two run where one may");
                    running.fetch_sub(1, SeqCst);
                    permits.release(permit);
                }
            };
            let other = thread::spawn(run(Arc::clone(&permits), std::sync::Arc::clone(&running)));
            run(Arc::clone(&permits), running)();
            other.join().unwrap();
            assert_eq!(permits.counts(), (1, 0, 0));
            assert!(is_free(&permits));
        });
    }

    #[test]
    fn loom_a_limit_that_is_raised_lets_waiters_in() {
        loom::model(|| {
            let permits = permits(0);
            let waits = {
                let permits = Arc::clone(&permits);
                thread::spawn(move || {
                    let permit = acquire(&permits);
                    permits.release(permit);
                })
            };
            permits.resize(1);
            permits.grant();
            waits.join().unwrap();
            assert_eq!(permits.counts(), (1, 0, 0));
            assert!(is_free(&permits));
        });
    }

    #[test]
    fn loom_a_limit_that_is_lowered_while_a_permit_is_released_holds_afterwards() {
        loom::model(|| {
            let permits = permits(2);
            let (first, second) = (take(&permits), take(&permits));
            let releases = {
                let permits = Arc::clone(&permits);
                thread::spawn(move || permits.release(first))
            };
            permits.resize(1);
            permits.grant();
            assert!(!is_free(&permits), "one is in use, and one may be");
            releases.join().unwrap();
            assert_eq!(permits.counts().1, 1);
            assert!(!is_free(&permits));
            permits.release(second);
            assert!(is_free(&permits));
        });
    }

    #[test]
    fn loom_a_waiter_that_is_cancelled_while_it_is_granted_a_permit_passes_it_on() {
        loom::model(|| {
            let permits = permits(1);
            let permit = take(&permits);
            let Acquired::Waiting(position) = permits.acquire(None) else { panic!("the permit is in use") };
            assert!(permits.poll(position, Waker::noop()).is_none());
            let releases = {
                let permits = Arc::clone(&permits);
                thread::spawn(move || permits.release(permit))
            };
            let second = {
                let permits = Arc::clone(&permits);
                thread::spawn(move || {
                    let permit = acquire(&permits);
                    permits.release(permit);
                })
            };
            permits.cancel(position);
            releases.join().unwrap();
            second.join().unwrap();
            assert_eq!(permits.counts(), (1, 0, 0));
            assert!(is_free(&permits));
        });
    }
}
