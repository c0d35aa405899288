//! The metrics of one operation.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::histogram::{Counts, Durations, RATIO_ONE, Ratios, Sizes, Snapshot};
use super::thread::{COPIES, Writer};
use crate::error::ErrorKind;
use crate::request::{DeviceTimes, Execution};

/// How a call ended: `None` is `ok`.
pub(super) type Outcome = Option<ErrorKind>;

const KINDS: usize = ErrorKind::ALL.len();

/// The metrics of one operation.
#[derive(Debug)]
pub(super) struct Operation {
    copies: [OnceLock<Box<Figures>>; COPIES],
    in_flight: AtomicU64,
}

/// A call in flight, which counts until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Operation>);

impl InFlight {
    pub(super) fn begin(operation: &Arc<Operation>) -> Self {
        operation.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(operation))
    }
}

impl Deref for InFlight {
    type Target = Operation;

    fn deref(&self) -> &Operation {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One copy of the metrics.
#[derive(Debug)]
struct Figures {
    payload: Sizes,
    /// The head of a list of backends: that of calls whose response names none. The names are literals of the program, so
    /// the list is short.
    backend: Backend,
}

#[derive(Debug)]
struct Backend {
    name: Option<&'static str>,
    ok: Durations,
    /// By kind, created at the first failure of the kind.
    failed: [OnceLock<Box<Durations>>; KINDS],
    queue: Durations,
    batch: Counts,
    ratio: Ratios,
    /// Created with the first call that a device has timed.
    device: OnceLock<Box<Device>>,
    next: OnceLock<Box<Backend>>,
}

/// What devices have measured.
#[derive(Debug)]
struct Device {
    phases: [Durations; PHASES.len()],
    roofline: Ratios,
}

/// The names of the phases of a call on a device.
pub(super) const PHASES: [&str; 3] = ["upload", "kernel", "download"];

impl Operation {
    pub(super) fn new() -> Self {
        Self { copies: [const { OnceLock::new() }; COPIES], in_flight: AtomicU64::new(0) }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The copy that this thread writes.
    #[inline]
    fn figures(&self) -> (Writer, &Figures) {
        let writer = Writer::current();
        (writer, self.copies[writer.copy()].get_or_init(Figures::new))
    }

    #[inline]
    pub(super) fn record_payload(&self, bytes: u64) {
        let (writer, figures) = self.figures();
        figures.payload.observe(writer, bytes);
    }

    /// Records a call that took `elapsed` nanoseconds.
    #[inline]
    pub(super) fn record(&self, outcome: Outcome, elapsed: u64, execution: Option<&Execution>) {
        let (writer, figures) = self.figures();
        figures.record(writer, outcome, elapsed, execution);
    }

    /// The sum of all copies.
    pub(super) fn read(&self) -> OperationSnapshot {
        let mut sum = OperationSnapshot::default();
        for figures in self.copies.iter().filter_map(OnceLock::get) {
            sum.payload.add(&figures.payload.read(1.0));
            let mut next = Some(&figures.backend);
            while let Some(backend) = next {
                sum.backend(backend.name).add(backend);
                next = backend.next.get().map(|next| &**next);
            }
        }
        sum
    }
}

impl Figures {
    fn new() -> Box<Self> {
        Box::new(Self { payload: Sizes::new(), backend: Backend::new(None) })
    }

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
            backend.device.get_or_init(Device::new).record(writer, times);
        }
    }

    fn backend(&self, name: &'static str) -> &Backend {
        let mut link = &self.backend.next;
        loop {
            let backend = link.get_or_init(|| Box::new(Backend::new(Some(name))));
            // The same literal, most of the time.
            if backend.name.is_some_and(|known| std::ptr::eq(known, name) || known == name) {
                return backend;
            }
            link = &backend.next;
        }
    }
}

impl Backend {
    fn new(name: Option<&'static str>) -> Self {
        Self {
            name,
            ok: Durations::new(),
            failed: [const { OnceLock::new() }; KINDS],
            queue: Durations::new(),
            batch: Counts::new(),
            ratio: Ratios::new(),
            device: OnceLock::new(),
            next: OnceLock::new(),
        }
    }

    #[inline]
    fn outcome(&self, outcome: Outcome) -> &Durations {
        match outcome {
            None => &self.ok,
            Some(kind) => self.failed[kind as usize].get_or_init(Durations::boxed),
        }
    }
}

impl Device {
    fn new() -> Box<Self> {
        Box::new(Self { phases: [const { Durations::new() }; PHASES.len()], roofline: Ratios::new() })
    }

    /// Phases that the call did not have are not counted.
    fn record(&self, writer: Writer, times: &DeviceTimes) {
        let DeviceTimes { upload, kernel, download, bound: _ } = *times;
        for (durations, time) in self.phases.iter().zip([upload, kernel, download]) {
            if !time.is_zero() {
                durations.observe(writer, nanos(time));
            }
        }
        if let Some(roofline) = times.roofline() {
            // Saturates far past the last bucket.
            self.roofline.observe(writer, (roofline * RATIO_ONE as f64) as u64);
        }
    }
}

/// The metrics of an operation at one time.
#[derive(Debug, Default)]
pub(super) struct OperationSnapshot {
    pub(super) payload: Snapshot,
    pub(super) backends: Vec<BackendSnapshot>,
}

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

    /// Times on the device by phase.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, &Snapshot)> {
        PHASES.into_iter().zip(&self.phases)
    }

    /// Times of calls by outcome.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, &Snapshot)> {
        let failed = ErrorKind::ALL.into_iter().map(ErrorKind::code).zip(&self.failed);
        std::iter::once(("ok", &self.ok)).chain(failed).filter(|(_, durations)| durations.count != 0)
    }
}

#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    // Wraps after 584 years.
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
