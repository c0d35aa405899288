//! Limits the unanswered messages of an actor, and counts its messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ActorError, ActorStats, KernelActorConfig};

/// Capacity and statistics of an actor. They outlive it, so that an actor that the supervisor restarts continues with
/// them.
#[derive(Debug)]
pub(super) struct Mailbox {
    name: Arc<str>,
    capacity: usize,
    // One lock rather than atomics, so that the statistics are consistent.
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    received: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    rejected: u64,
    in_flight: usize,
    executed: Duration,
    restarts: u64,
}

impl Mailbox {
    pub(super) fn new(config: &KernelActorConfig) -> Arc<Self> {
        Arc::new(Self {
            name: config.name.as_str().into(),
            capacity: config.mailbox_capacity.max(1),
            counts: Mutex::default(),
        })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn in_flight(&self) -> usize {
        self.counts().in_flight
    }

    pub(super) fn has_capacity(&self) -> bool {
        self.in_flight() < self.capacity
    }

    pub(super) fn restarted(&self) {
        self.counts().restarts += 1;
    }

    /// Accepts a message.
    ///
    /// # Errors
    /// [`ActorError::MailboxFull`] if the mailbox is full.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Result<MailboxPermit, ActorError> {
        let mut counts = self.counts();
        counts.received += 1;
        if counts.in_flight >= self.capacity {
            counts.rejected += 1;
            return Err(ActorError::MailboxFull { name: Arc::clone(&self.name), capacity: self.capacity });
        }
        counts.in_flight += 1;
        // tokio's clock, as for every deadline.
        let received_at = tokio::time::Instant::now().into_std();
        Ok(MailboxPermit { mailbox: Arc::clone(self), received_at, outcome: Outcome::Cancelled })
    }

    pub(super) fn stats(&self) -> ActorStats {
        let counts = self.counts();
        ActorStats {
            name: self.name.to_string(),
            received: counts.received,
            in_flight: counts.in_flight as u64,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            rejected: counts.rejected,
            executed: counts.executed,
            restarts: counts.restarts,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // No code that can panic runs while it is locked.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permit of an unanswered message. Dropping it counts the outcome of the message and frees the capacity.
#[derive(Debug)]
pub(super) struct MailboxPermit {
    mailbox: Arc<Mailbox>,
    received_at: Instant,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Completed(Duration),
    Failed,
    Cancelled,
}

impl MailboxPermit {
    /// When the message was accepted.
    pub(super) fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Ends a message that completed, with the execution time of its kernel, or that failed.
    pub(super) fn end(mut self, executed: Option<Duration>) {
        self.outcome = executed.map_or(Outcome::Failed, Outcome::Completed);
    }
}

impl Drop for MailboxPermit {
    fn drop(&mut self) {
        let mut counts = self.mailbox.counts();
        counts.in_flight -= 1;
        match self.outcome {
            Outcome::Completed(executed) => {
                counts.completed += 1;
                counts.executed = counts.executed.saturating_add(executed);
            }
            // A panic of the service ends the task or the actor, and the message with it.
            Outcome::Cancelled if std::thread::panicking() => counts.failed += 1,
            Outcome::Failed => counts.failed += 1,
            Outcome::Cancelled => counts.cancelled += 1,
        }
    }
}
