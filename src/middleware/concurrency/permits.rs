//! A semaphore whose limit can change and whose permits are shared fairly among tenants.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::task::Waker;

use super::limit::{FinishCall, Limit, StartCall};
use crate::sync::Mutex;

/// The state of a concurrency limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencySnapshot {
    /// Calls that may run at a time.
    pub limit: usize,
    /// Permits in use: by calls that run, and by services that are ready and have not been called.
    pub in_flight: usize,
    /// Services or calls that wait for a permit.
    pub waiting: usize,
}

/// Permits to run, and the queue of calls that wait for one.
///
/// A permit that becomes free goes to the waiting tenant that holds the fewest; among several to the one whose last turn is
/// the longest ago; within a tenant in order of arrival. With one tenant that is first come, first served. While a call waits,
/// no permit is free, and each released permit wakes one waiter.
///
/// Wakers are woken and dropped without the lock: the last reference to a task may be its waker, and the task may hold a
/// permit.
#[derive(Debug)]
pub struct Permits<L> {
    state: Mutex<State>,
    max_waiting: usize,
    /// What sets the limit.
    pub(super) limit: L,
}

#[derive(Debug, Default)]
struct State {
    counts: ConcurrencySnapshot,
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
struct TenantId(u32);

/// Requests without a tenant are one tenant together, which always exists.
const ANONYMOUS: TenantId = TenantId(0);

/// A permit, or a position in the queue for one.
#[derive(Debug)]
pub(super) enum Reservation<L: Limit> {
    Permit(Permit<L>),
    Waiting(Waiter<L>),
}

/// A permit to run, given back when it is dropped. Its call counts as cancelled if it has started and not finished.
#[derive(Debug)]
pub(super) struct Permit<L: Limit> {
    permits: Arc<Permits<L>>,
    tenant: TenantId,
    /// While the call runs.
    mark: Option<L::Mark>,
}

/// A position in the queue, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Waiter<L: Limit> {
    permits: Arc<Permits<L>>,
    tenant: TenantId,
    number: u64,
}

impl<L: Limit> Permits<L> {
    /// Creates `count` permits. A tenant may have as many waiting calls as `max_waiting` less those of all tenants.
    pub(super) fn new(count: usize, max_waiting: usize, limit: L) -> Arc<Self> {
        let mut state = State { tenants: vec![Tenant::default()], ..State::default() };
        state.counts.limit = count;
        Arc::new(Self { state: Mutex::new(state), max_waiting, limit })
    }

    /// Takes a permit, or else a position in the queue.
    ///
    /// # Errors
    /// The number of waiting calls of all tenants, if the tenant may have no further one.
    pub(super) fn acquire(self: &Arc<Self>, tenant: Option<&Arc<str>>) -> Result<Reservation<L>, usize> {
        let mut state = self.state.lock();
        let id = state.id_of(tenant);
        if state.counts.waiting == 0 && state.counts.in_flight < state.counts.limit {
            state.counts.in_flight += 1;
            state.tenant(id).held += 1;
            return Ok(Reservation::Permit(Permit { permits: Arc::clone(self), tenant: id, mark: None }));
        }
        let waiting = state.counts.waiting;
        if state.tenant(id).waiters.len() >= self.max_waiting.saturating_sub(waiting) {
            state.remove_if_idle(id);
            return Err(waiting);
        }
        let number = state.tick();
        let tenant = state.tenant(id);
        tenant.waiters.insert(number, None);
        if tenant.waiters.len() == 1 {
            tenant.turn = number;
            let turn = (tenant.held, number, id);
            state.turns.insert(turn);
        }
        state.counts.waiting += 1;
        Ok(Reservation::Waiting(Waiter { permits: Arc::clone(self), tenant: id, number }))
    }

    /// Changes the limit. A higher one needs [`grant`](Self::grant) after it; a lower one takes effect as permits are given
    /// back.
    pub(super) fn resize(&self, limit: usize) {
        self.state.lock().counts.limit = limit;
    }

    /// Grants the free permits to waiting calls.
    pub(super) fn grant(&self) {
        // One at a time, as each is woken without the lock.
        let next = || self.state.lock().grant();
        while let Some(waker) = next() {
            waker.into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn snapshot(&self) -> ConcurrencySnapshot {
        self.state.lock().counts
    }

    /// As [`snapshot`](Self::snapshot), with the permits and waiters of one tenant.
    pub(super) fn tenant_snapshot(&self, tenant: Option<&str>) -> ConcurrencySnapshot {
        let mut state = self.state.lock();
        let id = tenant.map_or(Some(ANONYMOUS), |name| state.ids.get(name).copied());
        let (in_flight, waiting) =
            id.map(|id| state.tenant(id)).map_or((0, 0), |tenant| (tenant.held, tenant.waiters.len()));
        ConcurrencySnapshot { in_flight, waiting, ..state.counts }
    }

    fn release(&self, id: TenantId) {
        let mut state = self.state.lock();
        state.counts.in_flight -= 1;
        state.return_permit(id);
        let next = state.grant();
        state.remove_if_idle(id);
        drop(state);
        next.flatten().into_iter().for_each(Waker::wake);
    }
}

impl<L: Limit> Reservation<L> {
    /// Returns the permit if there is one; otherwise `waker` is woken when it is granted.
    pub(super) fn poll(&mut self, waker: &Waker) -> Option<&mut Permit<L>> {
        if let Self::Waiting(waiter) = self {
            *self = Self::Permit(waiter.poll(waker)?);
        }
        match self {
            Self::Permit(permit) => Some(permit),
            Self::Waiting(_) => None,
        }
    }

    pub(super) fn into_permit(self) -> Option<Permit<L>> {
        match self {
            Self::Permit(permit) => Some(permit),
            Self::Waiting(_) => None,
        }
    }
}

impl<L: Limit> Permit<L> {
    /// The call starts.
    pub(super) fn start<R>(&mut self, request: &R)
    where
        L: StartCall<R>,
    {
        self.mark = Some(self.permits.limit.start(request, &self.permits));
    }

    /// The call has ended: the limit learns from it, and the permit is given back.
    pub(super) fn finish<T, E>(mut self, result: &Result<T, E>)
    where
        L: FinishCall<T, E>,
    {
        if let Some(mark) = self.mark.take() {
            self.permits.limit.finish(mark, result, &self.permits);
        }
    }
}

impl<L: Limit> Drop for Permit<L> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.permits.limit.cancelled(mark, &self.permits);
        }
        self.permits.release(self.tenant);
    }
}

impl<L: Limit> Waiter<L> {
    fn poll(&mut self, waker: &Waker) -> Option<Permit<L>> {
        let mut state = self.permits.state.lock();
        if state.granted.remove(&self.number) {
            return Some(Permit { permits: Arc::clone(&self.permits), tenant: self.tenant, mark: None });
        }
        let old = match state.tenant(self.tenant).waiters.get_mut(&self.number) {
            Some(known) if !known.as_ref().is_some_and(|known| known.will_wake(waker)) => known.replace(waker.clone()),
            _ => None,
        };
        drop(state);
        drop(old);
        None
    }
}

impl<L: Limit> Drop for Waiter<L> {
    fn drop(&mut self) {
        let mut state = self.permits.state.lock();
        if state.granted.remove(&self.number) {
            // The permit goes to the next waiter.
            drop(state);
            return self.permits.release(self.tenant);
        }
        let tenant = state.tenant(self.tenant);
        let Some(waker) = tenant.waiters.remove(&self.number) else { return };
        let turn = (tenant.held, tenant.turn, self.tenant);
        if tenant.waiters.is_empty() {
            state.turns.remove(&turn);
            state.remove_if_idle(self.tenant);
        }
        state.counts.waiting -= 1;
        drop(state);
        drop(waker);
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
        if self.counts.in_flight >= self.counts.limit {
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
        self.counts.waiting -= 1;
        self.counts.in_flight += 1;
        Some(waker)
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Wake, Waker};

    use loom::thread;

    use super::super::Fixed;
    use super::{ConcurrencySnapshot, Permit, Permits};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn permits(count: usize) -> Arc<Permits<Fixed>> {
        Permits::new(count, usize::MAX, Fixed)
    }

    /// Takes a permit that is free.
    fn take(permits: &Arc<Permits<Fixed>>) -> Permit<Fixed> {
        permits.acquire(None).unwrap().into_permit().expect("a permit is free")
    }

    /// Whether a permit is free, which is given back.
    fn is_free(permits: &Arc<Permits<Fixed>>) -> bool {
        permits.acquire(None).unwrap().into_permit().is_some()
    }

    fn counts(permits: &Permits<Fixed>) -> (usize, usize, usize) {
        let ConcurrencySnapshot { limit, in_flight, waiting } = permits.snapshot();
        (limit, in_flight, waiting)
    }

    /// Acquires a permit, waiting for it if necessary; a wake that is lost hangs the model, which loom reports.
    fn acquire(permits: &Arc<Permits<Fixed>>) -> Permit<Fixed> {
        let mut reservation = permits.acquire(None).expect("the queue has no bound");
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut seen = 0;
        loop {
            if reservation.poll(&waker).is_some() {
                return reservation.into_permit().unwrap();
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
            let running = Arc::new(AtomicUsize::new(0));
            let run = |permits: Arc<Permits<Fixed>>, running: Arc<AtomicUsize>| {
                move || {
                    let permit = acquire(&permits);
                    assert_eq!(running.fetch_add(1, SeqCst), 0, "two run where one may");
                    running.fetch_sub(1, SeqCst);
                    drop(permit);
                }
            };
            let other = thread::spawn(run(Arc::clone(&permits), Arc::clone(&running)));
            run(Arc::clone(&permits), running)();
            other.join().unwrap();
            assert_eq!(counts(&permits), (1, 0, 0));
            assert!(is_free(&permits));
        });
    }

    #[test]
    fn loom_a_limit_that_is_raised_lets_waiters_in() {
        loom::model(|| {
            let permits = permits(0);
            let other = Arc::clone(&permits);
            let waits = thread::spawn(move || drop(acquire(&other)));
            permits.resize(1);
            permits.grant();
            waits.join().unwrap();
            assert_eq!(counts(&permits), (1, 0, 0));
            assert!(is_free(&permits));
        });
    }

    #[test]
    fn loom_a_limit_that_is_lowered_while_a_permit_is_released_holds_afterwards() {
        loom::model(|| {
            let permits = permits(2);
            let (first, second) = (take(&permits), take(&permits));
            let releases = thread::spawn(move || drop(first));
            permits.resize(1);
            permits.grant();
            assert!(!is_free(&permits), "one is in use, and one may be");
            releases.join().unwrap();
            assert_eq!(counts(&permits), (1, 1, 0));
            assert!(!is_free(&permits));
            drop(second);
            assert!(is_free(&permits));
        });
    }

    #[test]
    fn loom_a_waiter_that_is_cancelled_while_it_is_granted_a_permit_passes_it_on() {
        loom::model(|| {
            let permits = permits(1);
            let permit = take(&permits);
            let mut waiter = permits.acquire(None).unwrap();
            assert!(waiter.poll(Waker::noop()).is_none(), "the permit is in use");
            let releases = thread::spawn(move || drop(permit));
            let other = Arc::clone(&permits);
            let second = thread::spawn(move || drop(acquire(&other)));
            drop(waiter);
            releases.join().unwrap();
            second.join().unwrap();
            assert_eq!(counts(&permits), (1, 0, 0));
            assert!(is_free(&permits));
        });
    }
}
