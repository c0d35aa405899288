//! [`OperandLimits`]: the memory and the number of operands. [`OperandReservation`]: the memory of one operand.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::error::{OperandBudget, OperandError};
use crate::sync::{AtomicU64, Mutex};

/// Limits of the operands of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperandLimits {
    /// Bytes of host memory that all operands may have together. A version that was replaced or deleted counts until the
    /// last request on it has ended. The tensors of an upload count as soon as they arrive.
    pub max_bytes: u64,
    /// Bytes of host memory that the operands of one tenant may have together, counted in the same way.
    pub max_bytes_per_tenant: u64,
    /// Maximum number of operands.
    pub max_operands: usize,
    /// Maximum number of operands of one tenant.
    pub max_operands_per_tenant: usize,
}

impl Default for OperandLimits {
    /// No limit on bytes, 100 000 operands.
    fn default() -> Self {
        Self {
            max_bytes: u64::MAX,
            max_bytes_per_tenant: u64::MAX,
            max_operands: 100_000,
            max_operands_per_tenant: 100_000,
        }
    }
}

/// How long memory counts as short after a reservation was rejected.
const SHORT_FOR: Duration = Duration::from_secs(2);

/// The host memory that the operands of a process have, together and of each tenant.
#[derive(Debug)]
pub(super) struct Budget {
    limits: OperandLimits,
    usage: Mutex<Usage>,
    /// Reservations that were rejected since the start.
    rejected: AtomicU64,
}

#[derive(Debug, Default)]
struct Usage {
    all: Account,
    /// Only tenants that have memory.
    tenants: HashMap<Arc<str>, Account>,
    /// Versions in memory.
    versions: u64,
}

/// The memory of all operands, or of one tenant's.
#[derive(Debug, Default)]
struct Account {
    bytes: u64,
    /// When a reservation was rejected that would fit into the limit if others had not taken the memory.
    last_rejection: Option<Instant>,
}

impl Account {
    fn is_short(&self) -> bool {
        self.last_rejection.is_some_and(|last| last.elapsed() <= SHORT_FOR)
    }

    /// Checks that `bytes` more are within a limit of `max`.
    fn check(&mut self, bytes: u64, max: u64, budget: OperandBudget) -> Result<(), OperandError> {
        let free = max.saturating_sub(self.bytes);
        if bytes <= free {
            return Ok(());
        }
        if bytes <= max {
            self.last_rejection = Some(Instant::now());
        }
        Err(OperandError::OverBudget { budget, need: bytes, free })
    }
}

impl Budget {
    pub(super) fn new(limits: OperandLimits) -> Self {
        Self { limits, usage: Mutex::default(), rejected: AtomicU64::new(0) }
    }

    pub(super) fn limits(&self) -> &OperandLimits {
        &self.limits
    }

    /// Returns the bytes of all versions and uploads.
    pub(super) fn bytes(&self) -> u64 {
        self.usage.lock().all.bytes
    }

    /// Returns the number of versions in memory.
    pub(super) fn versions(&self) -> u64 {
        self.usage.lock().versions
    }

    /// Returns how many reservations were rejected since the start.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Creates an empty reservation for an operand of a tenant.
    pub(super) fn reservation(self: &Arc<Self>, tenant: Arc<str>) -> OperandReservation {
        let account = Reserved { budget: Arc::clone(self), tenant, bytes: AtomicU64::new(0) };
        OperandReservation { reserved: Arc::new(account) }
    }

    /// Checks that a tenant can have `bytes` more, and takes them if `take` says so.
    fn reserve(&self, tenant: &Arc<str>, bytes: u64, take: bool) -> Result<(), OperandError> {
        let mut usage = self.usage.lock();
        let Usage { all, tenants, .. } = &mut *usage;
        let own = tenants.entry(Arc::clone(tenant)).or_default();
        let checked = own
            .check(bytes, self.limits.max_bytes_per_tenant, OperandBudget::Tenant)
            .and_then(|()| all.check(bytes, self.limits.max_bytes, OperandBudget::Host));
        match checked {
            Ok(()) if take => {
                own.bytes += bytes;
                all.bytes += bytes;
            }
            Ok(()) => {}
            Err(_) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
            }
        }
        if own.bytes == 0 {
            tenants.remove(tenant);
        }
        checked
    }

    fn release(&self, tenant: &Arc<str>, bytes: u64) {
        let mut usage = self.usage.lock();
        usage.all.bytes -= bytes;
        if let Some(own) = usage.tenants.get_mut(tenant) {
            own.bytes -= bytes;
            if own.bytes == 0 {
                usage.tenants.remove(tenant);
            }
        }
    }
}

/// The memory that one operand has of the budgets of the host and of its tenant, from the first byte of its upload on. Clones
/// share it, and it is released with the last of them.
///
/// The budgets hold however many uploads there are at a time: memory is reserved before it is allocated.
#[derive(Clone, Debug)]
pub(crate) struct OperandReservation {
    reserved: Arc<Reserved>,
}

#[derive(Debug)]
struct Reserved {
    budget: Arc<Budget>,
    tenant: Arc<str>,
    bytes: AtomicU64,
}

impl OperandReservation {
    /// Returns the bytes that it has.
    pub(crate) fn bytes(&self) -> u64 {
        self.reserved.bytes.load(Ordering::Relaxed)
    }

    /// Returns whether other operands of the tenant or the host were rejected in the last two seconds for lack of memory.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn is_short(&self) -> bool {
        let Reserved { budget, tenant, .. } = &*self.reserved;
        let usage = budget.usage.lock();
        usage.all.is_short() || usage.tenants.get(tenant).is_some_and(Account::is_short)
    }

    /// Checks that `bytes` more are free now, without reserving them.
    ///
    /// # Errors
    /// [`OperandError::OverBudget`] if they are not.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn check_free(&self, bytes: u64) -> Result<(), OperandError> {
        self.reserved.budget.reserve(&self.reserved.tenant, bytes, false)
    }

    /// Reserves `bytes` more, or nothing.
    ///
    /// # Errors
    /// [`OperandError::OverBudget`] if they are not free.
    pub(crate) fn grow(&self, bytes: u64) -> Result<(), OperandError> {
        let Reserved { budget, tenant, bytes: reserved } = &*self.reserved;
        budget.reserve(tenant, bytes, true)?;
        reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Changes the reservation to `bytes`, the size of the value that was made of an upload. It stays as it was on error.
    ///
    /// # Errors
    /// [`OperandError::OverBudget`] if `bytes` are more than before, and the difference is not free. The error has the size
    /// of the value, and what is free for it.
    pub(super) fn resize(&self, bytes: u64) -> Result<(), OperandError> {
        let before = self.bytes();
        if bytes >= before {
            return self.grow(bytes - before).map_err(|error| error.with_reserved(before));
        }
        let Reserved { budget, tenant, bytes: reserved } = &*self.reserved;
        reserved.fetch_sub(before - bytes, Ordering::Relaxed);
        budget.release(tenant, before - bytes);
        Ok(())
    }

    /// Turns the reservation into the memory of a version.
    pub(super) fn into_charge(self) -> Charge {
        self.reserved.budget.usage.lock().versions += 1;
        Charge(self)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes > 0 {
            self.budget.release(&self.tenant, bytes);
        }
    }
}

/// The memory of one version, which counts as used until this is dropped.
#[derive(Debug)]
pub(super) struct Charge(OperandReservation);

impl Charge {
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.reserved.budget.usage.lock().versions -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OperandLimits =
        OperandLimits { max_bytes: 100, max_bytes_per_tenant: 60, max_operands: 10, max_operands_per_tenant: 10 };

    fn over(result: Result<(), OperandError>) -> Option<(OperandBudget, u64, u64)> {
        match result {
            Err(OperandError::OverBudget { budget, need, free }) => Some((budget, need, free)),
            Err(error) => panic!("{error}"),
            Ok(()) => None,
        }
    }

    #[test]
    fn reservations_of_a_tenant_and_of_all_stay_within_their_limits() {
        let budget = Arc::new(Budget::new(LIMITS));
        let (a, b) = (budget.reservation("a".into()), budget.reservation("b".into()));
        a.grow(40).unwrap();
        assert_eq!(over(a.grow(21)), Some((OperandBudget::Tenant, 21, 20)));
        b.grow(50).unwrap();
        assert_eq!(over(a.grow(11)), Some((OperandBudget::Host, 11, 10)));
        assert_eq!(over(a.resize(55)), Some((OperandBudget::Host, 55, 50)), "what it has already is free for it");
        assert_eq!((a.bytes(), b.bytes(), budget.bytes(), budget.rejected()), (40, 50, 90, 3));
        a.resize(50).unwrap();
        a.resize(10).unwrap();
        assert_eq!((a.bytes(), budget.bytes()), (10, 60));
        let charge = a.into_charge();
        assert_eq!((charge.bytes(), budget.bytes(), budget.versions()), (10, 60, 1));
        drop(b);
        assert_eq!((budget.bytes(), budget.versions()), (10, 1));
        drop(charge);
        assert_eq!((budget.bytes(), budget.versions(), budget.usage.lock().tenants.len()), (0, 0, 0));
    }

    #[test]
    fn the_limit_holds_however_many_threads_reserve_at_a_time() {
        let budget = Arc::new(Budget::new(LIMITS));
        std::thread::scope(|scope| {
            for tenant in ["a", "a", "a", "b", "b", "b"] {
                let budget = &budget;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        let upload = budget.reservation(tenant.into());
                        if upload.grow(20).is_ok() && upload.grow(20).is_ok() {
                            let _ = upload.resize(60);
                        }
                        let usage = budget.usage.lock();
                        let tenants: u64 = usage.tenants.values().map(|account| account.bytes).sum();
                        assert!(usage.all.bytes <= 100 && tenants == usage.all.bytes);
                        assert!(usage.tenants.values().all(|account| account.bytes <= 60));
                    }
                });
            }
        });
        assert_eq!((budget.bytes(), budget.usage.lock().tenants.len()), (0, 0));
    }

    #[test]
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    fn memory_is_short_for_those_who_hold_what_another_was_rejected_for() {
        let budget = Arc::new(Budget::new(LIMITS));
        let (a, b) = (budget.reservation("a".into()), budget.reservation("b".into()));
        a.grow(50).unwrap();
        b.grow(20).unwrap();
        assert!(a.check_free(101).is_err() && !a.is_short(), "more than there can be");
        assert!(a.check_free(20).is_err() && a.is_short() && !b.is_short(), "short for this tenant only");
        assert!(b.check_free(40).is_err() && b.is_short(), "the host's limit");
        assert_eq!(budget.bytes(), 70, "a check takes nothing");
    }
}
