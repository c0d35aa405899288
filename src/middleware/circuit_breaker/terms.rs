use std::time::{Duration, Instant};

use super::machine::Verdict;
use super::settings::Settings;
use crate::error::ErrorKind;
use crate::middleware::clock;

/// What is known of a call as it begins, and decides what its end says of the service.
///
/// Times are in nanoseconds since the [epoch](Settings::epoch), as an `Instant` takes twice the room in each future.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When the call has taken so long that it is slow, where that matters.
    slow_after: u64,
    /// From when on a deadline that has passed is the caller's own doing, where it ever is.
    excused_from: u64,
}

/// A time that never comes.
const NEVER: u64 = u64::MAX;

/// A deadline of the caller's own that leaves less than this is excused whoever noticed that it would not be met.
const HASTY: Duration = Duration::from_secs(1);

impl Terms {
    /// Of a call that is yet to be made.
    pub(super) const NONE: Self = Self { slow_after: NEVER, excused_from: NEVER };

    /// Of a call that begins now, with the deadline that its caller chose, if it did.
    // Always, so that it is made where the call keeps it.
    #[inline(always)]
    pub(super) fn of(settings: &Settings, callers_deadline: Option<Instant>) -> Self {
        let mut terms = Self::NONE;
        if let Some(slow) = settings.slow {
            terms.slow_after = since(settings, clock::now()).saturating_add(nanos(slow.over));
        }
        if let Some(deadline) = callers_deadline {
            let (now, deadline) = (since(settings, clock::now()), since(settings, deadline));
            let hasty = deadline < now.saturating_add(nanos(settings.patience.unwrap_or(HASTY)));
            terms.excused_from = match settings.patience {
                _ if hasty => now,
                Some(_) => NEVER,
                None => deadline,
            };
        }
        terms
    }

    /// Of a call that has ended; `kind` is of the failure, if it is one.
    pub(super) fn verdict(&self, settings: &Settings, kind: Option<ErrorKind>, now: Instant) -> Verdict {
        let slow = self.is_slow(settings, now);
        match kind {
            None => Verdict::Success { slow },
            Some(ErrorKind::DeadlineExceeded) if since(settings, now) >= self.excused_from => Verdict::Nothing,
            Some(kind) if settings.failures.contains(kind) => Verdict::Failure { slow },
            Some(_) => Verdict::Nothing,
        }
    }

    /// Of a call that is dropped before its end.
    pub(super) fn left(&self, settings: &Settings, now: Instant) -> Verdict {
        if std::thread::panicking() {
            self.verdict(settings, Some(ErrorKind::Internal), now)
        } else if self.is_slow(settings, now) {
            // Whatever it would have come to.
            Verdict::Success { slow: true }
        } else {
            Verdict::Nothing
        }
    }

    #[inline]
    pub(super) fn is_slow(&self, settings: &Settings, now: Instant) -> bool {
        self.slow_after != NEVER && since(settings, now) > self.slow_after
    }
}

fn since(settings: &Settings, time: Instant) -> u64 {
    nanos(time.saturating_duration_since(settings.epoch))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
