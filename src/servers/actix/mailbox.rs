//! Counts an actor's messages and bounds how many are unanswered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ActorError, ActorStats, ExecuteResult, KernelActorConfig};

/// One actor's account. It outlives the actor, so that the next one under this name goes on with it.
#[derive(Debug)]
pub(super) struct Ledger {
    name: Arc<str>,
    capacity: usize,
    // One lock and not one atomic a field: what is read adds up at any time.
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    received: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    refused: u64,
    in_flight: usize,
    executed: Duration,
    restarts: u64,
}

impl Ledger {
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

    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < self.capacity
    }

    pub(super) fn restarted(&self) {
        self.counts().restarts += 1;
    }

    /// Takes a message in, or refuses it where the mailbox is full.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission, ActorError> {
        let mut counts = self.counts();
        counts.received += 1;
        if counts.in_flight >= self.capacity {
            counts.refused += 1;
            return Err(ActorError::MailboxFull { name: Arc::clone(&self.name), capacity: self.capacity });
        }
        counts.in_flight += 1;
        // tokio's clock, as for every deadline.
        let since = tokio::time::Instant::now().into_std();
        Ok(Admission { ledger: Arc::clone(self), since, outcome: Outcome::Cancelled })
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
            refused: counts.refused,
            executed: counts.executed,
            restarts: counts.restarts,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that an actor has not answered yet. Whatever ends it, it is counted once and makes room for the next.
#[derive(Debug)]
pub(super) struct Admission {
    ledger: Arc<Ledger>,
    since: Instant,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Completed(Duration),
    Failed,
    Cancelled,
}

impl Admission {
    /// When the message was taken in.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn end(mut self, result: &Result<ExecuteResult, ActorError>) {
        self.outcome = match result {
            Ok(answer) => Outcome::Completed(answer.execution.executed),
            Err(_) => Outcome::Failed,
        };
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.ledger.counts();
        counts.in_flight -= 1;
        match self.outcome {
            Outcome::Completed(executed) => {
                counts.completed += 1;
                counts.executed = counts.executed.saturating_add(executed);
            }
            // A service that panics takes the task or the actor with it, and with that the message.
            Outcome::Cancelled if std::thread::panicking() => counts.failed += 1,
            Outcome::Failed => counts.failed += 1,
            Outcome::Cancelled => counts.cancelled += 1,
        }
    }
}
