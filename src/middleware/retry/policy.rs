use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Budget;
use super::budget::BudgetPermit;
use crate::error::{AnyError, ErrorKinds};
use crate::middleware::clock;
use crate::middleware::jitter::random_delay;
use crate::request::ResponseContext;
use crate::sync::Mutex;

/// The state of a [`RetryLayer`](super::RetryLayer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "service", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetrySnapshot {
    /// Attempts beyond the first of each call.
    pub retries: u64,
    /// Calls that were not retried because the budget was exhausted. Many of them mean that the service is down.
    pub budget_exhausted: u64,
    /// Calls that were not retried because the next attempt would have begun after the deadline.
    pub deadline_exceeded: u64,
    /// Calls that wait for their next attempt.
    pub waiting: u64,
}

/// Which calls are retried, when and how often. Clones share the budget and the counts.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// Of one call, including the first.
    pub(super) max_attempts: u32,
    pub(super) initial_backoff: Duration,
    pub(super) max_backoff: Duration,
    pub(super) kinds: ErrorKinds,
    pub(super) budget: Budget,
    pub(super) counts: Arc<Mutex<RetrySnapshot>>,
}

impl Policy {
    /// Returns when to make the next attempt of a call that has had `attempts`, with the permit for it; `None` if `result`
    /// is final.
    pub(super) fn next_attempt<T, E>(
        &self,
        result: &Result<T, E>,
        attempts: u32,
        deadline: Option<Instant>,
    ) -> Option<(Instant, RetryPermit)>
    where
        T: ResponseContext,
        E: AnyError,
    {
        let (kind, retry_after) = match result {
            Ok(response) => (response.failure()?, Duration::ZERO),
            Err(error) => {
                let classification = error.classify();
                (classification.kind, classification.retry_after.unwrap_or_default())
            }
        };
        if !self.kinds.contains(kind) || attempts >= self.max_attempts || retry_after > self.max_backoff {
            return None;
        }
        // In addition to the time that the service asks for, which may be the same for all callers.
        let wait = retry_after.saturating_add(random_delay(self.max_backoff_after(attempts)));
        let due = clock::read().checked_add(wait)?;
        if deadline.is_some_and(|deadline| due >= deadline) {
            self.counts.lock().deadline_exceeded += 1;
            return None;
        }
        let Some(budget) = self.budget.withdraw() else {
            self.counts.lock().budget_exhausted += 1;
            return None;
        };
        self.counts.lock().waiting += 1;
        Some((due, RetryPermit { budget, counts: Arc::clone(&self.counts) }))
    }

    fn max_backoff_after(&self, attempts: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempts.saturating_sub(1));
        self.initial_backoff.saturating_mul(factor).min(self.max_backoff)
    }
}

/// Allows the next attempt of a call that waits for it.
#[derive(Debug)]
pub(super) struct RetryPermit {
    budget: BudgetPermit,
    counts: Arc<Mutex<RetrySnapshot>>,
}

impl RetryPermit {
    /// The attempt is made.
    pub(super) fn spend(mut self) {
        self.counts.lock().retries += 1;
        self.budget.spend();
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.counts.lock().waiting -= 1;
    }
}
