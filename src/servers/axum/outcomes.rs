//! How executions have ended: ever since, by code, and over the last minute, faults against all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::ErrorKind;
use crate::error::problem::HTTP_ONLY_CODES;
use crate::servers::http::Problem;

/// One slot of the window is this long.
const SLOT: Duration = Duration::from_secs(5);
const SLOTS: usize = 12;
/// What [`Outcomes::recent`] looks back on, in seconds.
pub(super) const WINDOW: u64 = SLOT.as_secs() * SLOTS as u64;

/// Bits of a slot's word: how many executions, how many of them faults, and in which turn of the window. The counts
/// stay exact up to 3.3 million executions a second; a turn comes again after 45 days.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

#[derive(Debug)]
pub(super) struct Outcomes {
    ok: AtomicU64,
    failed: [AtomicU64; ErrorKind::ALL.len()],
    /// Those with a status that HTTP alone has.
    of_http: [AtomicU64; HTTP_ONLY_CODES.len()],
    /// One word a slot, so that a slot is cleared and counted in one step.
    slots: [AtomicU64; SLOTS],
    begun: Instant,
}

/// What happened over the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) executions: u64,
    pub(super) faults: u64,
}

impl Recent {
    pub(super) fn error_rate(self) -> f64 {
        if self.executions == 0 { 0.0 } else { self.faults as f64 / self.executions as f64 }
    }
}

impl Outcomes {
    pub(super) fn new() -> Self {
        Self {
            ok: AtomicU64::new(0),
            failed: [const { AtomicU64::new(0) }; ErrorKind::ALL.len()],
            of_http: [const { AtomicU64::new(0) }; HTTP_ONLY_CODES.len()],
            slots: [const { AtomicU64::new(0) }; SLOTS],
            begun: now(),
        }
    }

    /// Counts an execution that has ended, `None` for one that was answered.
    pub(super) fn record(&self, problem: Option<&Problem>) {
        let refusal = problem.map(Problem::kind);
        let of_http = problem.and_then(|one| HTTP_ONLY_CODES.iter().position(|(_, code)| *code == one.code()));
        let total = match (of_http, refusal) {
            (Some(index), _) => &self.of_http[index],
            (None, Some(kind)) => &self.failed[kind as usize],
            (None, None) => &self.ok,
        };
        total.fetch_add(1, Ordering::Relaxed);
        let (turn, slot) = self.position();
        let fault = u64::from(refusal.is_some_and(is_fault));
        let count = |word: u64| {
            let word = if word >> (2 * COUNT_BITS) == turn { word } else { turn << (2 * COUNT_BITS) };
            // Full is full; past it the counts of the slot stand still together.
            (word & COUNT_MASK < COUNT_MASK).then_some(word + 1 + (fault << COUNT_BITS))
        };
        // Refused only by a full slot.
        let _ = self.slots[slot].fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// The executions of the last minute, in steps of five seconds.
    pub(super) fn recent(&self) -> Recent {
        let (turn, current) = self.position();
        let mut recent = Recent { executions: 0, faults: 0 };
        for (slot, word) in self.slots.iter().enumerate() {
            let word = word.load(Ordering::Relaxed);
            // Slots after the current one are of the turn before.
            let of = if slot <= current { Some(turn) } else { turn.checked_sub(1) };
            if of == Some(word >> (2 * COUNT_BITS)) {
                recent.executions += word & COUNT_MASK;
                recent.faults += (word >> COUNT_BITS) & COUNT_MASK;
            }
        }
        recent
    }

    /// Every outcome that has happened, by its code.
    pub(super) fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failed = ErrorKind::ALL.into_iter().map(ErrorKind::code).zip(&self.failed);
        let of_http = HTTP_ONLY_CODES.into_iter().map(|(_, code)| code).zip(&self.of_http);
        let all = std::iter::once(("ok", &self.ok)).chain(failed).chain(of_http);
        all.map(|(code, count)| (code, count.load(Ordering::Relaxed))).filter(|(_, count)| *count != 0)
    }

    fn position(&self) -> (u64, usize) {
        let slot = (now() - self.begun).as_secs() / SLOT.as_secs();
        ((slot / SLOTS as u64) & 0xffff, (slot % SLOTS as u64) as usize)
    }
}

/// What is wrong on this side. Clients can make refusals, overload and missed deadlines as often as they like.
fn is_fault(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Internal | ErrorKind::Unavailable)
}

/// tokio's, so that time can be paused.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_window_forgets_and_the_totals_do_not() {
        let outcomes = Outcomes::new();
        for round in 0..40u64 {
            outcomes.record(None);
            for kind in [ErrorKind::Internal, ErrorKind::InvalidArgument, ErrorKind::Overloaded] {
                outcomes.record(Some(&Problem::new(kind, "")));
            }
            let rounds = (round + 1).min(SLOTS as u64);
            assert_eq!(outcomes.recent(), Recent { executions: 4 * rounds, faults: rounds }, "round {round}");
            tokio::time::advance(SLOT).await;
        }
        assert_eq!(outcomes.recent().error_rate(), 0.25);
        tokio::time::advance(Duration::from_secs(WINDOW)).await;
        assert_eq!(outcomes.recent().error_rate(), 0.0);
        outcomes.record(Some(&Problem::request_timeout("")));
        let totals: Vec<_> = outcomes.totals().collect();
        assert_eq!(
            totals,
            [("ok", 40), ("invalid_argument", 40), ("internal", 40), ("overloaded", 40), ("request_timeout", 1)]
        );
    }

    #[test]
    fn counts_of_many_threads_are_exact() {
        let outcomes = Outcomes::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1000).for_each(|_| outcomes.record(Some(&Problem::new(ErrorKind::Unavailable, ""))));
                });
            }
        });
        assert_eq!(outcomes.recent(), Recent { executions: 4000, faults: 4000 });
    }
}
