use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Budget, RetryStats};
use crate::error::{AnyError, ErrorKind, ErrorKinds};
use crate::middleware::clock;
use crate::middleware::jitter::Jitter;
use crate::request::ResponseContext;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Of one call, the first included.
    pub(super) attempts: u32,
    pub(super) first: Duration,
    pub(super) most: Duration,
    pub(super) on: ErrorKinds,
}

/// What a layer, its clones and their services share.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) settings: Settings,
    pub(super) budget: Budget,
    jitter: Jitter,
    retries: AtomicU64,
    without_budget: AtomicU64,
    too_late: AtomicU64,
    waiting: AtomicU64,
}

impl Policy {
    pub(super) fn new(settings: Settings, budget: Budget) -> Self {
        Self {
            settings,
            budget,
            jitter: Jitter::new(),
            retries: AtomicU64::new(0),
            without_budget: AtomicU64::new(0),
            too_late: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }

    /// When the next attempt after `attempts` of them is made, and `None` where there is none. The budget has paid for it.
    pub(super) fn next<T, E>(&self, result: &Result<T, E>, attempts: u32, deadline: Option<Instant>) -> Option<Instant>
    where
        T: ResponseContext,
        E: AnyError,
    {
        let (kind, retry_after) = match result {
            Ok(response) => (response.failure()?, None),
            Err(error) => {
                let classification = error.classify();
                (classification.kind, classification.retry_after)
            }
        };
        self.next_after(kind, retry_after.unwrap_or_default(), attempts, deadline)
    }

    #[cold]
    fn next_after(
        &self,
        kind: ErrorKind,
        retry_after: Duration,
        attempts: u32,
        deadline: Option<Instant>,
    ) -> Option<Instant> {
        let Settings { attempts: most_attempts, first, most, on } = self.settings;
        if !on.contains(kind) || attempts >= most_attempts || retry_after > most {
            return None;
        }
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        // All of the backoff is random, so that those who failed together do not come again together; and it is waited on
        // top of what the service asked for, which it may have told them all.
        let backoff = self.jitter.up_to(first.saturating_mul(doubled).min(most));
        let due = clock::read().checked_add(retry_after.saturating_add(backoff))?;
        if deadline.is_some_and(|deadline| due >= deadline) {
            self.count_late();
            return None;
        }
        if !self.budget.withdraw() {
            self.without_budget.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(due)
    }

    pub(super) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_late(&self) {
        self.too_late.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> RetryStats {
        RetryStats {
            retries: self.retries.load(Ordering::Relaxed),
            without_budget: self.without_budget.load(Ordering::Relaxed),
            too_late: self.too_late.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Counts a call that waits for its next attempt.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { policy: Arc::clone(self), made: false }
    }
}

/// A call that waits for its next attempt. Where that is not made, the budget gets its token back.
#[derive(Debug)]
pub(super) struct Waiting {
    policy: Arc<Policy>,
    made: bool,
}

impl Waiting {
    /// The attempt is made, or at least as much as can be had of it.
    pub(super) fn end(mut self) {
        self.made = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.policy.waiting.fetch_sub(1, Ordering::Relaxed);
        if !self.made {
            self.policy.budget.give_back();
        }
    }
}
