use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds the additional attempts to a share of the calls, plus a burst.
///
/// Each call adds its share of a token to a bucket, and each additional attempt takes a token. So a service that is down
/// gets at most that share of additional calls after the burst, however many clients retry. Clones share one bucket, which
/// starts full; several layers may use one budget.
///
/// ```
/// use tower_kernels::middleware::retry::Budget;
///
/// // A fifth of the calls may be retried, and 10 at any time.
/// let budget = Budget::new(0.2, 10);
/// assert_eq!(budget.available(), 10);
/// ```
#[derive(Clone, Debug)]
pub struct Budget(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// In millionths of a token.
    level: AtomicU64,
    share: u64,
    max: u64,
}

const TOKEN: u64 = 1_000_000;

impl Budget {
    /// Creates a budget of `share` additional attempts a call, and `burst` at once.
    ///
    /// # Panics
    /// If the share is not between 0 and 100.
    #[track_caller]
    pub fn new(share: f64, burst: u32) -> Self {
        assert!((0.0..=100.0).contains(&share), "the share of a budget must be between 0 and 100");
        let max = u64::from(burst) * TOKEN;
        Self(Arc::new(Bucket { level: AtomicU64::new(max), share: (share * TOKEN as f64) as u64, max }))
    }

    /// Returns how many attempts can be made at once.
    pub fn available(&self) -> u64 {
        self.0.level.load(Ordering::Relaxed) / TOKEN
    }

    /// Adds the share of one call.
    pub(in crate::middleware) fn deposit(&self) {
        self.add(self.0.share);
    }

    /// Takes a token for an attempt, if there is one.
    pub(in crate::middleware) fn withdraw(&self) -> Option<BudgetPermit> {
        let take = |level: u64| level.checked_sub(TOKEN);
        self.0.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(BudgetPermit(Some(self.clone())))
    }

    fn add(&self, share: u64) {
        // Nothing is written to a full bucket, which a healthy service has.
        let add = |level: u64| (level < self.0.max).then(|| level.saturating_add(share).min(self.0.max));
        let _ = self.0.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// A token for an attempt. It returns to the budget if it is dropped before the attempt is made.
#[derive(Debug)]
pub(in crate::middleware) struct BudgetPermit(Option<Budget>);

impl BudgetPermit {
    /// The attempt is made.
    pub(in crate::middleware) fn spend(&mut self) {
        self.0 = None;
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        if let Some(budget) = &self.0 {
            budget.add(TOKEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    fn spent(budget: &Budget) -> usize {
        (0..100).filter(|_| budget.withdraw().map(|mut permit| permit.spend()).is_some()).count()
    }

    #[test]
    fn it_allows_the_burst_and_then_the_share_of_the_calls() {
        let budget = Budget::new(0.1, 3);
        assert_eq!(spent(&budget), 3);
        for _ in 0..25 {
            budget.clone().deposit();
        }
        assert_eq!(spent(&budget), 2);
        for _ in 0..1000 {
            budget.deposit();
        }
        assert_eq!(spent(&budget), 3, "it holds no more than the burst");
    }

    #[test]
    fn a_permit_that_is_not_spent_returns_to_the_budget() {
        let budget = Budget::new(0.0, 1);
        let permit = budget.withdraw().unwrap();
        assert!(budget.withdraw().is_none());
        drop(permit);
        assert_eq!((budget.available(), spent(&budget), budget.available()), (1, 1, 0));
    }

    #[test]
    fn an_empty_budget_allows_nothing() {
        let budget = Budget::new(0.0, 0);
        budget.deposit();
        assert!(budget.withdraw().is_none());
    }
}
