use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many further attempts there may be: a share of the calls, and some at once.
///
/// Each call puts its share of a token into a bucket, and each further attempt takes a whole one out. So a service that is
/// down gets, beyond a burst, no more than that share of additional calls, however many clients would try again. Clones are
/// one bucket, which starts full; several layers may share one.
///
/// ```
/// use tower_kernels::middleware::retry::Budget;
///
/// // A fifth of the calls may be made again, and 10 at any time.
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
    most: u64,
}

const TOKEN: u64 = 1_000_000;

impl Budget {
    /// A share of `share` of the calls, and `burst` at once.
    ///
    /// # Panics
    /// Where the share is not between 0 and 100.
    #[track_caller]
    pub fn new(share: f64, burst: u32) -> Self {
        assert!((0.0..=100.0).contains(&share), "a budget is a share of the calls between 0 and 100");
        let most = u64::from(burst) * TOKEN;
        Self(Arc::new(Bucket { level: AtomicU64::new(most), share: (share * TOKEN as f64) as u64, most }))
    }

    /// How many attempts can be made at once.
    pub fn available(&self) -> u64 {
        self.0.level.load(Ordering::Relaxed) / TOKEN
    }

    /// Counts a call.
    #[inline]
    pub(in crate::middleware) fn deposit(&self) {
        // A full bucket, which is what a healthy service has, is not written to.
        if self.0.level.load(Ordering::Relaxed) < self.0.most {
            self.add(self.0.share);
        }
    }

    /// Takes a token for an attempt, if there is one.
    pub(in crate::middleware) fn withdraw(&self) -> bool {
        self.0.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |level| level.checked_sub(TOKEN)).is_ok()
    }

    /// Puts back the token of an attempt that was not made.
    pub(in crate::middleware) fn give_back(&self) {
        self.add(TOKEN);
    }

    #[cold]
    fn add(&self, share: u64) {
        let add = |level: u64| (level < self.0.most).then(|| level.saturating_add(share).min(self.0.most));
        // It fails where the bucket has become full, and then there is nothing to add.
        let _ = self.0.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn a_burst_and_then_the_share_of_the_calls() {
        let budget = Budget::new(0.1, 3);
        let taken = |budget: &Budget| (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(taken(&budget), 3);
        for _ in 0..25 {
            budget.clone().deposit();
        }
        assert_eq!(taken(&budget), 2);
        for _ in 0..1000 {
            budget.deposit();
        }
        assert_eq!(taken(&budget), 3, "it holds no more than the burst");
    }

    #[test]
    fn a_budget_of_nothing_has_nothing() {
        let budget = Budget::new(0.0, 0);
        budget.deposit();
        assert!(!budget.withdraw());
        budget.give_back();
        assert!(!budget.withdraw());
    }
}
