//! The figures of one operation.

use std::sync::OnceLock;
use std::time::Duration;

use super::histogram::{Counts, Durations, RATIO_ONE, Ratios, Sizes};
use crate::error::ErrorKind;
use crate::service::Execution;

/// How a call ended: `None` is `ok`.
pub(super) type Outcome = Option<ErrorKind>;

/// `ok`, and each kind of error.
const OUTCOMES: usize = 1 + ErrorKind::ALL.len();

/// `none`, three named ones, and the rest of them.
const BACKENDS: usize = 5;
const NO_BACKEND: &str = "none";
const REST: &str = "other";

/// What is known of the calls of one operation. A call in flight owns a share of it, so the number of shares but for
/// those of the table is the number of calls in flight.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) name: Box<str>,
    pub(super) payload: Sizes,
    /// Filled from the front, never emptied.
    backends: [OnceLock<Box<Backend>>; BACKENDS],
}

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: &'static str,
    /// Made at the first call that ends so: most never do.
    outcomes: [OnceLock<Box<Durations>>; OUTCOMES],
    pub(super) queue: Durations,
    pub(super) batch: Counts,
    pub(super) ratio: Ratios,
}

impl Operation {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), payload: Sizes::new(), backends: [const { OnceLock::new() }; BACKENDS] }
    }

    #[inline]
    pub(super) fn record(&self, outcome: Outcome, elapsed: Duration, execution: Option<&Execution>) {
        let backend = self.backend(execution.map_or(NO_BACKEND, |execution| execution.backend));
        backend.outcome(outcome).observe(nanos(elapsed));
        if let Some(execution) = execution {
            backend.queue.observe(nanos(execution.queued));
            backend.batch.observe(u64::from(execution.batch_size));
            if let Some(ratio) =
                (nanos(execution.executed).saturating_mul(RATIO_ONE)).checked_div(nanos(execution.estimated))
            {
                backend.ratio.observe(ratio);
            }
        }
    }

    #[inline]
    fn backend(&self, name: &'static str) -> &Backend {
        let (last, named) = self.backends.split_last().expect("there is more than one");
        for slot in named {
            let backend = slot.get_or_init(|| Box::new(Backend::new(name)));
            if std::ptr::eq(backend.name, name) || backend.name == name {
                return backend;
            }
        }
        last.get_or_init(|| Box::new(Backend::new(REST)))
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter_map(|slot| slot.get().map(|backend| &**backend))
    }
}

impl Backend {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            outcomes: [const { OnceLock::new() }; OUTCOMES],
            queue: Durations::new(),
            batch: Counts::new(),
            ratio: Ratios::new(),
        }
    }

    #[inline]
    fn outcome(&self, outcome: Outcome) -> &Durations {
        let index = outcome.map_or(0, |kind| 1 + kind as usize);
        self.outcomes[index].get_or_init(|| Box::new(Durations::new()))
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        let names = std::iter::once("ok").chain(ErrorKind::ALL.into_iter().map(ErrorKind::code));
        names.zip(&self.outcomes).filter_map(|(name, slot)| slot.get().map(|durations| (name, &**durations)))
    }
}

#[inline]
fn nanos(duration: Duration) -> u64 {
    // 584 years before it wraps.
    duration.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(duration.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    #[test]
    fn kinds_are_numbered_as_they_are_listed() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
