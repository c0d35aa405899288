//! The circuits that tenants have of one operation.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Circuit;
use crate::sync::Mutex;

/// What the circuits of tenants of all operations have in common.
#[derive(Clone, Debug)]
pub(super) struct TenantLimits {
    agreeing: NonZeroU32,
    /// How many there are, of all operations.
    made: Arc<AtomicUsize>,
}

/// How many there may be, of all operations.
const MAX: usize = 4096;
/// Circuits that say nothing any more are looked for this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl TenantLimits {
    pub(super) fn new(agreeing: NonZeroU32) -> Self {
        Self { agreeing, made: Arc::default() }
    }

    pub(super) fn agreeing(&self) -> NonZeroU32 {
        self.agreeing
    }

    /// Whether there may be one more, which then counts.
    fn make(&self) -> bool {
        let one_more = |made| (made < MAX).then_some(made + 1);
        self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }
}

/// The circuits of the tenants for which calls of an operation have failed.
#[derive(Debug)]
pub(super) struct Tenants {
    limits: TenantLimits,
    /// How many have one, for who looks without the lock.
    len: AtomicUsize,
    opened: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    circuits: HashMap<Arc<str>, Arc<Circuit>>,
    /// Of the tenants for whom there was no room.
    rest: Option<Arc<Circuit>>,
    next_sweep: Option<Instant>,
}

impl Tenants {
    pub(super) fn new(limits: &TenantLimits) -> Self {
        let (len, opened) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { limits: limits.clone(), len, opened, state: Mutex::new(State::default()) }
    }

    #[inline]
    pub(super) fn has_some(&self) -> bool {
        self.len.load(Ordering::Relaxed) > 0
    }

    pub(super) fn get(&self, tenant: &str, now: Instant) -> Option<Arc<Circuit>> {
        let mut state = self.state.lock();
        self.sweep(&mut state, now);
        state.circuits.get(tenant).or(state.rest.as_ref()).cloned()
    }

    pub(super) fn get_or_make(
        &self,
        tenant: &Arc<str>,
        make: impl FnOnce() -> Arc<Circuit>,
        now: Instant,
    ) -> Arc<Circuit> {
        let mut state = self.state.lock();
        if let Some(own) = state.circuits.get(tenant) {
            return Arc::clone(own);
        }
        self.sweep(&mut state, now);
        let circuit = if self.limits.make() {
            let made = make();
            state.circuits.insert(Arc::clone(tenant), Arc::clone(&made));
            made
        } else {
            Arc::clone(state.rest.get_or_insert_with(make))
        };
        self.count(&state);
        circuit
    }

    /// Whether the circuits of so many tenants are open that it is no matter of single ones.
    pub(super) fn agree(&self, now: Instant) -> bool {
        self.open(now) >= self.limits.agreeing.get()
    }

    /// How many are open, and not from so long ago that nobody asks any more.
    pub(super) fn open(&self, now: Instant) -> u32 {
        if !self.has_some() {
            return 0;
        }
        let state = self.state.lock();
        let all = state.circuits.values().chain(&state.rest);
        let open = all.filter(|circuit| circuit.is_kept_open(now)).count();
        u32::try_from(open).unwrap_or(u32::MAX)
    }

    /// A circuit of a tenant has opened.
    pub(super) fn count_opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Forgets circuits that say nothing any more, if that is due.
    fn sweep(&self, state: &mut State, now: Instant) {
        if state.next_sweep.is_some_and(|next| now < next) {
            return;
        }
        state.next_sweep = now.checked_add(SWEEP_INTERVAL);
        let before = state.circuits.len();
        // One whose calls are in flight is not forgotten; nobody can take a share of one meanwhile.
        let keep = |circuit: &Arc<Circuit>| Arc::strong_count(circuit) > 1 || !circuit.is_blank(now);
        state.circuits.retain(|_, circuit| keep(circuit));
        state.rest = state.rest.take().filter(keep);
        self.limits.made.fetch_sub(before - state.circuits.len(), Ordering::Relaxed);
        self.count(state);
    }

    fn count(&self, state: &State) {
        self.len.store(state.circuits.len() + usize::from(state.rest.is_some()), Ordering::Relaxed);
    }
}

impl Drop for Tenants {
    fn drop(&mut self) {
        let made = self.state.lock().circuits.len();
        self.limits.made.fetch_sub(made, Ordering::Relaxed);
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Instant;

    use crate::middleware::circuit_breaker::circuits::{PerOperation, Statuses};
    use crate::middleware::circuit_breaker::machine::{Ticket, Verdict};
    use crate::middleware::circuit_breaker::settings::Settings;
    use crate::middleware::circuit_breaker::status::CircuitState;

    #[test]
    fn loom_the_last_of_the_tenants_that_agree_opens_the_circuit_of_all() {
        loom::model(|| {
            let settings = Settings { consecutive: Some(1), ..Settings::default() };
            let circuits = Arc::new(PerOperation::per_tenant(settings, 2, NonZeroU32::new(2).unwrap()));
            let (circuit, now) = (circuits.make("a").unwrap(), Instant::now());
            let failed = Verdict::Failure { slow: false };
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                other.end_of_tenant(Some(&"one".into()), Ticket::FIRST, failed, now);
            });
            circuit.end_of_tenant(Some(&"two".into()), Ticket::FIRST, failed, now);
            thread.join().unwrap();
            let [a, _rest] = &circuits.statuses()[..] else { panic!("{circuits:?}") };
            assert_eq!((a.state, a.opened, a.tenants_opened), (CircuitState::Open, 1, 2));
        });
    }
}
