use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Budget;
use super::budget::BudgetPermit;
use crate::error::{AnyError, ErrorKinds};
use crate::middleware::clock;
use crate::middleware::jitter::Jitter;
use crate::request::ResponseContext;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Of one call, including the first.
    pub(super) max_attempts: u32,
    pub(super) initial_backoff: Duration,
    pub(super) max_backoff: Duration,
    pub(super) kinds: ErrorKinds,
}

/// The state of a [`RetryLayer`](super::RetryLayer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize))]
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

/// What a layer, its clones and their services share.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) settings: Settings,
    pub(super) budget: Budget,
    jitter: Jitter,
    retries: AtomicU64,
    budget_exhausted: AtomicU64,
    deadline_exceeded: AtomicU64,
    waiting: AtomicU64,
}

impl Policy {
    pub(super) fn new(settings: Settings, budget: Budget) -> Self {
        let [retries, budget_exhausted, deadline_exceeded, waiting] = [const { AtomicU64::new(0) }; 4];
        Self { settings, budget, jitter: Jitter::new(), retries, budget_exhausted, deadline_exceeded, waiting }
    }

    pub(super) fn snapshot(&self) -> RetrySnapshot {
        RetrySnapshot {
            retries: self.retries.load(Ordering::Relaxed),
            budget_exhausted: self.budget_exhausted.load(Ordering::Relaxed),
            deadline_exceeded: self.deadline_exceeded.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Returns when to make the next attempt of a call that has had `attempts`, with the permit for it; `None` if `result`
    /// is final.
    pub(super) fn next_attempt<T, E>(
        self: &Arc<Self>,
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
        let settings = &self.settings;
        if !settings.kinds.contains(kind) || attempts >= settings.max_attempts || retry_after > settings.max_backoff {
            return None;
        }
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let backoff = settings.initial_backoff.saturating_mul(factor).min(settings.max_backoff);
        // In addition to the time that the service asks for, which may be the same for all callers.
        let wait = retry_after.saturating_add(self.jitter.up_to(backoff));
        let due = clock::read().checked_add(wait)?;
        if deadline.is_some_and(|deadline| due >= deadline) {
            self.count_deadline_exceeded();
            return None;
        }
        let Some(budget) = self.budget.withdraw() else {
            self.budget_exhausted.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Some((due, RetryPermit { budget, waiting: Waiting(Arc::clone(self)) }))
    }

    pub(super) fn count_deadline_exceeded(&self) {
        self.deadline_exceeded.fetch_add(1, Ordering::Relaxed);
    }
}

/// Allows the next attempt of a call that waits for it.
#[derive(Debug)]
pub(super) struct RetryPermit {
    budget: BudgetPermit,
    waiting: Waiting,
}

impl RetryPermit {
    /// The attempt is made.
    pub(super) fn spend(self) {
        self.waiting.0.retries.fetch_add(1, Ordering::Relaxed);
        self.budget.spend();
    }
}

#[derive(Debug)]
struct Waiting(Arc<Policy>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
