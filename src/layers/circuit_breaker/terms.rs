use std::time::{Duration, Instant};

use super::machine::Verdict;
use super::settings::Settings;
use crate::error::ErrorKind;
use crate::layers::clock;

/// What is known of a call as it begins, and decides what its end says of the service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When the call has taken so long that it is slow, where that matters.
    slow_after: Option<Instant>,
    /// From when on a deadline that has passed is the caller's own doing, where it ever is.
    excused_from: Option<Instant>,
}

/// A deadline of the caller's own that leaves less than this is excused whoever noticed that it would not be met.
const HASTY: Duration = Duration::from_secs(1);
/// A year: longer than any deadline is away, and short enough to be added to an instant.
const MOST: Duration = Duration::from_secs(365 * 86_400);

impl Terms {
    /// Of a call that is yet to be made.
    pub(super) const NONE: Self = Self { slow_after: None, excused_from: None };

    /// Of a call that begins now, with the deadline that its caller chose, if it did.
    // Always, so that it is made where the call keeps it.
    #[inline(always)]
    pub(super) fn of(settings: &Settings, callers_deadline: Option<Instant>) -> Self {
        let slow_after = settings.slow.and_then(|slow| clock::now().checked_add(slow.over));
        let excused_from = callers_deadline.and_then(|deadline| {
            let now = clock::now();
            let hasty = deadline < now + settings.patience.unwrap_or(HASTY).min(MOST);
            match settings.patience {
                _ if hasty => Some(now),
                Some(_) => None,
                None => Some(deadline),
            }
        });
        Self { slow_after, excused_from }
    }

    /// Of a call that has ended; `kind` is of the failure, if it is one.
    pub(super) fn verdict(&self, settings: &Settings, kind: Option<ErrorKind>, now: Instant) -> Verdict {
        let slow = self.is_slow(now);
        match kind {
            None => Verdict::Success { slow },
            Some(ErrorKind::DeadlineExceeded) if self.excused_from.is_some_and(|from| now >= from) => Verdict::Nothing,
            Some(kind) if settings.failures.contains(kind) => Verdict::Failure { slow },
            Some(_) => Verdict::Nothing,
        }
    }

    /// Of a call that is dropped before its end.
    pub(super) fn left(&self, settings: &Settings, now: Instant) -> Verdict {
        if std::thread::panicking() {
            self.verdict(settings, Some(ErrorKind::Internal), now)
        } else if self.is_slow(now) {
            // Whatever it would have come to.
            Verdict::Success { slow: true }
        } else {
            Verdict::Nothing
        }
    }

    #[inline]
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        self.slow_after.is_some_and(|slow_after| now > slow_after)
    }
}
