//! The figures of one operation.

use std::sync::OnceLock;
use std::time::Duration;

use super::histogram::{Counts, Durations, RATIO_ONE, Ratios, Sizes, Snapshot};
use super::thread::{COPIES, Writer};
use crate::error::ErrorKind;
use crate::request::{DeviceTimes, Execution};

/// How a call ended: `None` is `ok`.
pub(super) type Outcome = Option<ErrorKind>;

const KINDS: usize = ErrorKind::ALL.len();

/// What is known of the calls of one operation. A call in flight owns a share of it, so the number of shares but for
/// that of the table is the number of calls in flight.
#[derive(Debug)]
pub(super) struct Operation {
    copies: [OnceLock<Box<Figures>>; COPIES],
}

/// One copy of the figures.
#[derive(Debug)]
struct Figures {
    payload: Sizes,
    /// Of calls whose response does not say what ran it, which has no name, and the head of the list of those that do.
    /// Their names are literals of the program, so the list has an end.
    backend: Backend,
}

#[derive(Debug)]
struct Backend {
    name: Option<&'static str>,
    ok: Durations,
    /// By kind. Made at the first call that ends so: most never do.
    failed: [OnceLock<Box<Durations>>; KINDS],
    queue: Durations,
    batch: Counts,
    ratio: Ratios,
    /// Made with the first call that a device has timed.
    device: OnceLock<Box<Device>>,
    next: OnceLock<Box<Backend>>,
}

/// What devices have measured of some calls.
#[derive(Debug)]
struct Device {
    phases: [Durations; PHASES.len()],
    roofline: Ratios,
}

/// The phases of a call on a device, as they are called.
pub(super) const PHASES: [&str; 3] = ["upload", "kernel", "download"];

impl Operation {
    pub(super) fn new() -> Self {
        Self { copies: [const { OnceLock::new() }; COPIES] }
    }

    /// The figures that this thread writes, once it has written any.
    #[inline]
    fn written(&self) -> Option<(Writer, &Figures)> {
        let writer = Writer::known();
        let figures = self.copies.get(writer.copy())?.get()?;
        Some((writer, figures))
    }

    #[cold]
    fn first_written(&self) -> (Writer, &Figures) {
        let writer = Writer::current();
        (writer, self.copies[writer.copy()].get_or_init(Figures::new))
    }

    #[inline]
    pub(super) fn record_payload(&self, bytes: u64) {
        match self.written() {
            Some((writer, figures)) => figures.payload.observe(writer, bytes),
            None => self.record_first_payload(bytes),
        }
    }

    #[cold]
    #[inline(never)]
    fn record_first_payload(&self, bytes: u64) {
        let (writer, figures) = self.first_written();
        figures.payload.observe(writer, bytes);
    }

    /// A call that took `elapsed` nanoseconds.
    // What is not so in most calls is left to other functions, so that what is fits into the caller.
    #[inline]
    pub(super) fn record(&self, outcome: Outcome, elapsed: u64, execution: Option<&Execution>) {
        match (self.written(), outcome, execution) {
            (Some((writer, figures)), None, None) => figures.backend.ok.observe(writer, elapsed),
            (Some((writer, figures)), _, _) => figures.record(writer, outcome, elapsed, execution),
            (None, _, _) => self.record_first(outcome, elapsed, execution),
        }
    }

    #[cold]
    #[inline(never)]
    fn record_first(&self, outcome: Outcome, elapsed: u64, execution: Option<&Execution>) {
        let (writer, figures) = self.first_written();
        figures.record(writer, outcome, elapsed, execution);
    }

    /// All copies together.
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
    #[cold]
    fn new() -> Box<Self> {
        Box::new(Self { payload: Sizes::new(), backend: Backend::new(None) })
    }

    #[inline(never)]
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
    #[cold]
    fn new() -> Box<Self> {
        Box::new(Self { phases: [const { Durations::new() }; PHASES.len()], roofline: Ratios::new() })
    }

    /// A phase that the call did not go through is not counted.
    #[cold]
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

/// The figures of an operation as of now.
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
        for (sum, slot) in self.failed.iter_mut().zip(&backend.failed) {
            if let Some(durations) = slot.get() {
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

    /// How long calls were at each phase on the device, by name.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, &Snapshot)> {
        PHASES.into_iter().zip(&self.phases)
    }

    /// How calls have ended, under the names of the outcomes.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, &Snapshot)> {
        let failed = ErrorKind::ALL.into_iter().map(ErrorKind::code).zip(&self.failed);
        std::iter::once(("ok", &self.ok)).chain(failed).filter(|(_, durations)| durations.count != 0)
    }
}

#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
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
