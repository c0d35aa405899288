//! Statistics of completed requests.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{AdditionError, CreationError, Histogram};
use tokio::time::Instant;

use crate::client::Failure;

/// The length of the windows by which runs are compared.
pub(in super::super) const WINDOW: Duration = Duration::from_millis(500);

/// Failed requests of one code.
#[derive(Clone, Debug)]
pub(in super::super) struct Errors {
    pub(in super::super) count: u64,
    /// The message of the first.
    pub(in super::super) example: String,
}

/// Latencies and counters of one thread, or of all.
#[derive(Clone, Debug)]
pub(in super::super) struct Statistics {
    /// Latencies of successful requests, in nanoseconds.
    pub(in super::super) latency: Histogram<u64>,
    /// The same by the [`WINDOW`] of the response, with two digits.
    pub(in super::super) windows: Vec<Histogram<u32>>,
    pub(in super::super) errors: BTreeMap<String, Errors>,
    /// Bytes of response payloads.
    pub(in super::super) bytes_received: u64,
    /// Requests that waited for an idle client.
    pub(in super::super) held: u64,
    /// Requests sent late although a client was idle: this program is too slow.
    pub(in super::super) late: u64,
    /// Requests that were due before the end and never sent.
    pub(in super::super) unsent: u64,
    /// The time of the last response or failure.
    pub(in super::super) last: Option<Instant>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            latency: histogram(3),
            windows: Vec::new(),
            errors: BTreeMap::new(),
            bytes_received: 0,
            held: 0,
            late: 0,
            unsent: 0,
            last: None,
        }
    }
}

/// A histogram from a nanosecond to a day.
fn histogram<T: hdrhistogram::Counter>(digits: u8) -> Histogram<T> {
    const DAY: u64 = 86_400_000_000_000;
    let made: Result<Histogram<T>, CreationError> = Histogram::new_with_bounds(1, DAY, digits);
    made.expect("these bounds and from 0 to 5 digits are allowed")
}

impl Statistics {
    /// Records a request that ended at `into` of the measured time after `took`, with a payload size or a failure.
    pub(super) fn record(&mut self, into: Duration, took: Duration, result: Result<usize, Failure>) {
        match result {
            Ok(bytes) => {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                // More than a day counts as a day.
                self.latency.saturating_record(nanos);
                self.window(into).saturating_record(nanos);
                self.bytes_received += bytes as u64;
            }
            Err(Failure { code, message }) => {
                let errors = self.errors.entry(code.into_owned()).or_insert(Errors { count: 0, example: message });
                errors.count += 1;
            }
        }
    }

    fn window(&mut self, into: Duration) -> &mut Histogram<u32> {
        let index = (into.as_nanos() / WINDOW.as_nanos()) as usize;
        if index >= self.windows.len() {
            self.windows.resize_with(index + 1, || histogram(2));
        }
        &mut self.windows[index]
    }

    /// Merges the statistics of another thread.
    pub(super) fn add(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.latency.add(&other.latency)?;
        let windows = self.windows.len().max(other.windows.len());
        self.windows.resize_with(windows, || histogram(2));
        for (window, other) in self.windows.iter_mut().zip(&other.windows) {
            window.add(other)?;
        }
        for (code, errors) in &other.errors {
            match self.errors.get_mut(code) {
                Some(own) => own.count += errors.count,
                None => drop(self.errors.insert(code.clone(), errors.clone())),
            }
        }
        self.bytes_received += other.bytes_received;
        self.held += other.held;
        self.late += other.late;
        self.unsent += other.unsent;
        self.last = self.last.max(other.last);
        Ok(())
    }

    /// The number of failed requests.
    pub(in super::super) fn failures(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_by_window_and_by_code() {
        let millis = Duration::from_millis;
        let mut one = Statistics::default();
        one.record(millis(100), millis(2), Ok(10));
        one.record(millis(700), millis(4), Ok(10));
        one.record(millis(700), millis(9), Err(Failure::new("overloaded", "full")));
        let mut other = Statistics::default();
        other.record(millis(1200), millis(4), Ok(1));
        other.record(millis(1200), millis(4), Err(Failure::new("overloaded", "also full")));
        other.record(millis(1200), millis(4), Err(Failure::new("not_found", "no such kernel")));
        one.add(&other).unwrap();

        let windows: Vec<u64> = one.windows.iter().map(Histogram::len).collect();
        assert_eq!((one.latency.len(), windows), (3, vec![1, 1, 1]));
        assert_eq!((one.bytes_received, one.failures()), (21, 3));
        let overloaded = &one.errors["overloaded"];
        assert_eq!((overloaded.count, overloaded.example.as_str()), (2, "full"));
        // Within the three digits that are kept.
        assert!(one.latency.value_at_quantile(0.99).abs_diff(4_000_000) < 5_000);
    }

    #[test]
    fn a_latency_is_kept_to_three_digits_from_nanoseconds_to_hours() {
        for took in [Duration::from_nanos(7), Duration::from_micros(331), Duration::from_secs(7200)] {
            let mut statistics = Statistics::default();
            statistics.record(Duration::ZERO, took, Ok(0));
            let error = statistics.latency.max() as f64 / took.as_nanos() as f64 - 1.0;
            assert!(error.abs() < 0.0015, "{took:?}: {error}");
        }
    }
}
