//! The metrics of one operation.
//!
//! All cores may count calls of one operation at the same time, so there are several copies of its metrics, each with a
//! lock, and each thread uses one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::histogram::{Counts, Durations, RATIO_ONE, Ratios, Sizes};
use crate::error::ErrorKind;
use crate::request::{DeviceTimes, Execution};
use crate::sync::{Mutex, MutexGuard};

/// The kind of a call's failure, or `None` if it succeeded.
pub(super) type Outcome = Option<ErrorKind>;

/// Number of copies of the metrics of an operation.
const SHARDS: usize = 16;

thread_local! {
    /// The shard of this thread. Threads get them in turn.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

/// The metrics of one operation.
#[derive(Debug, Default)]
pub(super) struct Operation {
    shards: [Shard; SHARDS],
    in_flight: AtomicU64,
}

/// Aligned so that no two shards are in one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<RecordedCalls>);

/// Counts a call as in flight until dropped.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Arc<Operation>);

impl InFlight {
    pub(super) fn begin(operation: &Arc<Operation>) -> Self {
        operation.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(operation))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Operation {
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn record_payload(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.shard().payload.observe(bytes);
        }
    }

    /// Counts a call that has ended.
    pub(super) fn record(&self, outcome: Outcome, elapsed: Duration, execution: Option<&Execution>) {
        let mut calls = self.shard();
        let backend = calls.backend(execution.map(|execution| execution.backend));
        backend.outcomes[outcome_index(outcome)].observe(nanos(elapsed));
        execution.into_iter().for_each(|execution| backend.record(execution));
    }

    /// Locks the shard of this thread.
    fn shard(&self) -> MutexGuard<'_, RecordedCalls> {
        self.shards[SHARD.with(|shard| *shard)].0.lock()
    }

    /// Returns the sum of all shards.
    pub(super) fn read(&self) -> RecordedCalls {
        let mut sum = RecordedCalls::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.0.lock()));
        sum.backends.sort_by_key(|backend| backend.name);
        sum
    }
}

/// The calls of one operation that have ended.
#[derive(Debug, Default)]
pub(super) struct RecordedCalls {
    pub(super) payload: Sizes,
    /// By the backend that the response names, if it does. Few, because names are literals of the program.
    pub(super) backends: Vec<Backend>,
}

impl RecordedCalls {
    fn backend(&mut self, name: Option<&'static str>) -> &mut Backend {
        let index = self.backends.iter().position(|backend| backend.name == name).unwrap_or_else(|| {
            self.backends.push(Backend { name, ..Backend::default() });
            self.backends.len() - 1
        });
        &mut self.backends[index]
    }

    fn add(&mut self, other: &Self) {
        self.payload.add(&other.payload);
        other.backends.iter().for_each(|backend| self.backend(backend.name).add(backend));
    }
}

/// The calls of one operation that ended on one backend.
#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) name: Option<&'static str>,
    /// Durations by outcome, see [`outcome_index`].
    outcomes: [Durations; 1 + ErrorKind::ALL.len()],
    pub(super) queue: Durations,
    pub(super) batch: Counts,
    pub(super) ratio: Ratios,
    /// Times that the device has measured.
    phases: [Durations; PHASES.len()],
    pub(super) roofline: Ratios,
}

/// Values of the label `phase`.
const PHASES: [&str; 3] = ["upload", "kernel", "download"];

/// `ok` is the first outcome; after it come the kinds of failures in their order.
fn outcome_index(outcome: Outcome) -> usize {
    outcome.map_or(0, |kind| 1 + kind as usize)
}

impl Backend {
    fn record(&mut self, execution: &Execution) {
        self.queue.observe(nanos(execution.queued));
        self.batch.observe(u64::from(execution.batch_size));
        let executed = nanos(execution.executed).saturating_mul(RATIO_ONE);
        if let Some(ratio) = executed.checked_div(nanos(execution.estimated)) {
            self.ratio.observe(ratio);
        }
        if let Some(times) = execution.device_times() {
            self.record_device(times);
        }
    }

    /// Records the phases that the call had.
    fn record_device(&mut self, times: &DeviceTimes) {
        let DeviceTimes { upload, kernel, download, bound: _ } = *times;
        for (durations, time) in self.phases.iter_mut().zip([upload, kernel, download]) {
            if !time.is_zero() {
                durations.observe(nanos(time));
            }
        }
        if let Some(roofline) = times.roofline() {
            // Values far above the last bucket saturate.
            self.roofline.observe((roofline * RATIO_ONE as f64) as u64);
        }
    }

    fn add(&mut self, other: &Self) {
        self.outcomes.iter_mut().zip(&other.outcomes).for_each(|(sum, more)| sum.add(more));
        self.queue.add(&other.queue);
        self.batch.add(&other.batch);
        self.ratio.add(&other.ratio);
        self.phases.iter_mut().zip(&other.phases).for_each(|(sum, more)| sum.add(more));
        self.roofline.add(&other.roofline);
    }

    /// Returns the device times by phase.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        PHASES.into_iter().zip(&self.phases)
    }

    /// Returns the durations of calls by outcome.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        let names = std::iter::once("ok").chain(ErrorKind::ALL.into_iter().map(ErrorKind::code));
        names.zip(&self.outcomes).filter(|(_, durations)| durations.count() > 0)
    }
}

/// Returns the nanoseconds of a duration, modulo 2^64.
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discriminant_of_a_kind_is_its_index() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    #[test]
    fn no_call_of_many_threads_is_lost() {
        let operation = Operation::default();
        std::thread::scope(|scope| {
            for thread in 0..2 * SHARDS {
                let operation = &operation;
                scope.spawn(move || {
                    let execution = Execution::new(if thread % 2 == 0 { "CPU" } else { "CUDA" });
                    for _ in 0..1000 {
                        operation.record_payload(Some(1));
                        operation.record(None, Duration::from_nanos(2), Some(&execution));
                        operation.record(Some(ErrorKind::Internal), Duration::from_nanos(3), None);
                    }
                });
            }
        });
        let calls = operation.read();
        let each = 1000 * SHARDS as u64;
        assert_eq!((calls.payload.count(), calls.payload.sum()), (2 * each, 2 * each));
        let counted = calls.backends.iter().flat_map(|backend| backend.outcomes().map(|of| (backend.name, of)));
        let counted: Vec<_> = counted.map(|(name, (outcome, all))| (name, outcome, all.count(), all.sum())).collect();
        assert_eq!(
            counted,
            [
                (None, "internal", 2 * each, 6 * each),
                (Some("CPU"), "ok", each, 2 * each),
                (Some("CUDA"), "ok", each, 2 * each),
            ]
        );
    }
}
