//! [`RequestStatistics`]: what the requests of a kernel took, as clients of model servers ask for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::request::Execution;

/// The statistics of the requests that servers of the Open Inference Protocol ran on a kernel.
#[derive(Debug, Default)]
pub(crate) struct RequestStatistics {
    /// Requests that have not been answered. Not among the sums, so that a request locks them once, at its end.
    pending: AtomicU64,
    totals: Mutex<RequestTotals>,
}

/// A request that has not been answered. One that is dropped was cancelled, and has no outcome.
#[derive(Debug)]
pub(crate) struct PendingRequest<'a> {
    statistics: &'a RequestStatistics,
    began: Instant,
}

/// Sums since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestTotals {
    /// Requests that succeeded, from their arrival to the encoded response.
    pub(crate) success: DurationTotal,
    pub(crate) failure: DurationTotal,
    /// Waits for a worker.
    pub(crate) queue: DurationTotal,
    /// Executions, by the number of requests that shared them.
    pub(crate) executions: BTreeMap<u32, ExecutionTotals>,
    /// Responses from a cache.
    pub(crate) cached: DurationTotal,
    /// When the last request ended.
    pub(crate) last: Option<SystemTime>,
}

/// Sums over requests that were executed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExecutionTotals {
    /// Copies to the device.
    pub(crate) input: DurationTotal,
    /// The execution, without copies to and from the device.
    pub(crate) compute: DurationTotal,
    /// Copies from the device.
    pub(crate) output: DurationTotal,
}

/// A number of durations, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DurationTotal {
    pub(crate) count: u64,
    pub(crate) sum: Duration,
}

impl DurationTotal {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.sum += duration;
    }
}

impl RequestStatistics {
    /// Counts a request that begins now.
    pub(crate) fn begin(&self) -> PendingRequest<'_> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingRequest { statistics: self, began: Instant::now() }
    }

    fn record(&self, elapsed: Duration, execution: Option<&Execution>) {
        let mut totals = self.totals.lock();
        totals.last = Some(SystemTime::now());
        let Some(execution) = execution else {
            totals.failure.add(elapsed);
            return;
        };
        totals.success.add(elapsed);
        if execution.backend == Execution::CACHE {
            totals.cached.add(elapsed);
            return;
        }
        totals.queue.add(execution.queued);
        let device = execution.device_times().copied().unwrap_or_default();
        let of_size = totals.executions.entry(execution.batch_size).or_default();
        of_size.input.add(device.upload);
        of_size.compute.add(execution.executed.saturating_sub(device.upload + device.download));
        of_size.output.add(device.download);
    }

    /// Returns the sums.
    pub(crate) fn totals(&self) -> RequestTotals {
        self.totals.lock().clone()
    }

    /// Returns the number of requests that have not been answered.
    #[cfg(any(test, feature = "axum", feature = "hyper"))]
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }
}

impl PendingRequest<'_> {
    /// Records the outcome: `None` if it failed, and otherwise how it was executed.
    pub(crate) fn end(self, execution: Option<&Execution>) {
        self.statistics.record(self.began.elapsed(), execution);
    }
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        self.statistics.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RequestTotals {
    /// Returns the number of requests that were executed, and not answered from a cache.
    pub(crate) fn inferences(&self) -> u64 {
        self.executions.values().map(|of_size| of_size.compute.count).sum()
    }

    /// Returns the number of executions. Requests that share one with requests of other protocols count in part.
    pub(crate) fn executions(&self) -> u64 {
        self.executions.iter().map(|(&size, of_size)| of_size.executions(size)).sum()
    }

    /// Returns the sums over all sizes.
    pub(crate) fn all_executions(&self) -> ExecutionTotals {
        let add = |left: DurationTotal, right: DurationTotal| DurationTotal {
            count: left.count + right.count,
            sum: left.sum + right.sum,
        };
        self.executions.values().fold(ExecutionTotals::default(), |sum, more| ExecutionTotals {
            input: add(sum.input, more.input),
            compute: add(sum.compute, more.compute),
            output: add(sum.output, more.output),
        })
    }
}

impl ExecutionTotals {
    /// Returns the number of executions of `size` requests each.
    pub(crate) fn executions(&self, size: u32) -> u64 {
        self.compute.count.div_ceil(u64::from(size.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn requests_are_summed_by_outcome_and_batch() {
        let statistics = RequestStatistics::default();
        let mut execution = Execution::new("CPU");
        (execution.queued, execution.executed) = (ms(2), ms(3));
        statistics.record(ms(6), Some(&execution));
        execution.batch_size = 4;
        (0..8).for_each(|_| statistics.record(ms(6), Some(&execution)));
        statistics.record(ms(1), None);
        statistics.record(ms(1), Some(&Execution::new(Execution::CACHE)));
        let totals = statistics.totals();
        let total = |count, each| DurationTotal { count, sum: ms(count * each) };
        assert_eq!((totals.success, totals.failure), (DurationTotal { count: 10, sum: ms(55) }, total(1, 1)));
        assert_eq!((totals.queue, totals.cached), (total(9, 2), total(1, 1)));
        assert_eq!((totals.inferences(), totals.executions()), (9, 3));
        assert_eq!(totals.all_executions().compute, total(9, 3));
        assert!(totals.last.is_some());
        let pending = [statistics.begin(), statistics.begin()];
        assert_eq!(statistics.pending(), 2);
        let [cancelled, failed] = pending;
        drop(cancelled);
        failed.end(None);
        assert_eq!((statistics.pending(), statistics.totals().failure.count), (0, 2));
    }
}
