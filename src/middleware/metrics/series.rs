//! The metrics of one operation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::histogram::{Counts, Durations, RATIO_ONE, Ratios, Sizes, Snapshot};
use super::thread::{COPIES, Writer};
use crate::error::ErrorKind;
use crate::request::{DeviceTimes, Execution};

/// The kind of a call's failure, or `None` if it succeeded.
pub(super) type Outcome = Option<ErrorKind>;

const KINDS: usize = ErrorKind::ALL.len();

/// The metrics of one operation.
#[derive(Debug)]
pub(super) struct Operation {
    copies: [OnceLock<Box<MetricsCopy>>; COPIES],
    in_flight: AtomicU64,
}

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

/// One copy of the metrics. [`Writer`] assigns the copies to threads.
#[derive(Debug, Default)]
struct MetricsCopy {
    payload: Sizes,
    /// The head of a linked list of backends, for calls whose response names none. The list is short, because names are
    /// literals of the program.
    backend: Backend,
}

#[derive(Debug, Default)]
struct Backend {
    name: Option<&'static str>,
    ok: Durations,
    /// Durations of failed calls by kind, created at the first failure of the kind.
    failed: [OnceLock<Box<Durations>>; KINDS],
    queue: Durations,
    batch: Counts,
    ratio: Ratios,
    /// Created at the first call with device times.
    device: OnceLock<Box<Device>>,
    next: OnceLock<Box<Backend>>,
}

/// Times that the device has measured.
#[derive(Debug, Default)]
struct Device {
    phases: [Durations; PHASES.len()],
    roofline: Ratios,
}

/// Values of the label `phase`.
pub(super) const PHASES: [&str; 3] = ["upload", "kernel", "download"];

impl Operation {
    pub(super) fn new() -> Self {
        Self { copies: [const { OnceLock::new() }; COPIES], in_flight: AtomicU64::new(0) }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the copy that this thread writes.
    fn copy(&self) -> (Writer, &MetricsCopy) {
        let writer = Writer::current();
        (writer, self.copies[writer.copy()].get_or_init(Box::default))
    }

    pub(super) fn record_payload(&self, bytes: u64) {
        let (writer, copy) = self.copy();
        copy.payload.observe(writer, bytes);
    }

    /// Records a call that took `elapsed` nanoseconds.
    pub(super) fn record(&self, outcome: Outcome, elapsed: u64, execution: Option<&Execution>) {
        let (writer, copy) = self.copy();
        copy.record(writer, outcome, elapsed, execution);
    }

    /// Returns the sum of all copies.
    pub(super) fn read(&self) -> OperationSnapshot {
        let mut sum = OperationSnapshot::default();
        for copy in self.copies.iter().filter_map(OnceLock::get) {
            sum.payload.add(&copy.payload.read(1.0));
            let mut next = Some(&copy.backend);
            while let Some(backend) = next {
                sum.backend(backend.name).add(backend);
                next = backend.next.get().map(|next| &**next);
            }
        }
        sum
    }
}

impl MetricsCopy {
    fn record(&self, writer: Writer, outcome: Outcome, elapsed: u64, execution: Option<&Execution>) {
        let Some(execution) = execution else {
            return self.backend.outcome(outcome).observe(writer, elapsed);
        };
        let backend = self.backend(execution.backend);
        backend.outcome(outcome).observe(writer, elapsed);
        backend.queue.observe(writer, nanos(execution.queued));
        backend.batch.observe(writer, u64::from(execution.batch_size));
        let executed = nanos(execution.executed).saturating_mul(RATIO_ONE);
        if let Some(ratio) = executed.checked_div(nanos(execution.estimated)) {
            backend.ratio.observe(writer, ratio);
        }
        if let Some(times) = &execution.device_times {
            backend.device.get_or_init(Box::default).record(writer, times);
        }
    }

    fn backend(&self, name: &'static str) -> &Backend {
        let mut link = &self.backend.next;
        loop {
            let backend = link.get_or_init(|| Box::new(Backend { name: Some(name), ..Backend::default() }));
            // Usually the same literal, so the pointers are compared first.
            if backend.name.is_some_and(|known| std::ptr::eq(known, name) || known == name) {
                return backend;
            }
            link = &backend.next;
        }
    }
}

impl Backend {
    fn outcome(&self, outcome: Outcome) -> &Durations {
        match outcome {
            None => &self.ok,
            Some(kind) => self.failed[kind as usize].get_or_init(Box::default),
        }
    }
}

impl Device {
    /// Records the phases that the call had.
    fn record(&self, writer: Writer, times: &DeviceTimes) {
        let DeviceTimes { upload, kernel, download, bound: _ } = *times;
        for (durations, time) in self.phases.iter().zip([upload, kernel, download]) {
            if !time.is_zero() {
                durations.observe(writer, nanos(time));
            }
        }
        if let Some(roofline) = times.roofline() {
            // Values far above the last bucket saturate.
            self.roofline.observe(writer, (roofline * RATIO_ONE as f64) as u64);
        }
    }
}

/// The metrics of an operation, summed over all copies.
#[derive(Debug, Default)]
pub(super) struct OperationSnapshot {
    pub(super) payload: Snapshot,
    pub(super) backends: Vec<BackendSnapshot>,
}

/// The metrics of an operation on a backend.
#[derive(Debug, Default)]
pub(super) struct BackendSnapshot {
    pub(super) name: Option<&'static str>,
    ok: Snapshot,
    failed: [Snapshot; KINDS],
    pub(super) queue: Snapshot,
    pub(super) batch: Snapshot,
    pub(super) ratio: Snapshot,
    phases: [Snapshot; PHASES.len()],
    pub(super) roofline: Snapshot,
}

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

impl OperationSnapshot {
    fn backend(&mut self, name: Option<&'static str>) -> &mut BackendSnapshot {
        let at = self.backends.iter().position(|backend| backend.name == name).unwrap_or_else(|| {
            self.backends.push(BackendSnapshot { name, ..BackendSnapshot::default() });
            self.backends.len() - 1
        });
        &mut self.backends[at]
    }
}

impl BackendSnapshot {
    fn add(&mut self, backend: &Backend) {
        self.ok.add(&backend.ok.read(NANOS));
        for (sum, failed) in self.failed.iter_mut().zip(&backend.failed) {
            if let Some(durations) = failed.get() {
                sum.add(&durations.read(NANOS));
            }
        }
        self.queue.add(&backend.queue.read(NANOS));
        self.batch.add(&backend.batch.read(1.0));
        self.ratio.add(&backend.ratio.read(RATIO_ONE as f64));
        if let Some(device) = backend.device.get() {
            self.phases.iter_mut().zip(&device.phases).for_each(|(sum, phase)| sum.add(&phase.read(NANOS)));
            self.roofline.add(&device.roofline.read(RATIO_ONE as f64));
        }
    }

    /// Returns the device times by phase.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, &Snapshot)> {
        PHASES.into_iter().zip(&self.phases)
    }

    /// Returns the durations of calls by outcome.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, &Snapshot)> {
        let failed = ErrorKind::ALL.into_iter().map(ErrorKind::code).zip(&self.failed);
        std::iter::once(("ok", &self.ok)).chain(failed).filter(|(_, durations)| durations.count != 0)
    }
}

/// Returns the nanoseconds of a duration, modulo 2^64.
pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    #[test]
    fn the_discriminant_of_a_kind_is_its_index() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
