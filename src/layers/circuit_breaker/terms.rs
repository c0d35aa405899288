use std::time::Instant;

use super::machine::Verdict;
use super::settings::Settings;
use crate::error::ErrorKind;
use crate::layers::clock;

/// What is known of a call as it begins, and decides what its end says of the service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When the call has taken so long that it is slow, where that matters.
    slow_after: Option<Instant>,
    /// The caller's own deadline leaves too little time to blame the service.
    hasty: bool,
}

impl Terms {
    /// Of a call that is yet to be made.
    pub(super) const NONE: Self = Self { slow_after: None, hasty: false };

    /// Of a call that begins now.
    // Always, so that it is made where the call keeps it.
    #[inline(always)]
    pub(super) fn of(settings: &Settings, deadline: Option<Instant>) -> Self {
        let slow_after = settings.slow.and_then(|slow| clock::now().checked_add(slow.over));
        let hasty = deadline.is_some_and(|deadline| {
            clock::now().checked_add(settings.patience).is_none_or(|patient| deadline < patient)
        });
        Self { slow_after, hasty }
    }

    /// Of a call that has ended; `kind` is of the failure, if it is one.
    pub(super) fn verdict(&self, settings: &Settings, kind: Option<ErrorKind>, now: Instant) -> Verdict {
        let slow = self.is_slow(now);
        match kind {
            None => Verdict::Success { slow },
            Some(ErrorKind::DeadlineExceeded) if self.hasty => Verdict::Nothing,
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
