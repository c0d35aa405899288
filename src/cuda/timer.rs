//! [`Timer`]: times a sample of the runs by the device's clock, phase by phase.
//!
//! The work of a run on its stream is cut into *spans* of one [`Phase`] each. An event is recorded where one span ends and
//! the next begins:
//!
//! * The upload begins with the first copy to the device, and ends with the last that is queued before work of another
//!   phase. Where an array is copied in pieces, it includes the time that the device waits for the host to fill the next.
//! * The kernel's span begins with the first launch, fill, or copy within the device, and ends where the host next queues a
//!   transfer or waits. Work of the host between launches is included where the device is idle meanwhile.
//! * The download begins with the first copy from the device and ends with the last. It includes the time that the device
//!   waits for the host to empty a piece.
//!
//! The time between spans, when the stream is idle and the host works, is not counted. So the three phases together are at
//! most the time of the run. A run may go through the phases any number of times; each phase is the sum of its spans. A
//! single launch takes some 5 µs where the device waits for it.
//!
//! The events of a small run take some 25 µs, so only one in many runs is timed. The distance to the next is random, because
//! a fixed one could be in phase with clients that send kinds of requests in turn, and never sample some of them.

use std::time::Duration;

use super::CudaError;
use super::driver::Driver;
use super::event::Event;
use super::stream::Stream;

/// The kind of work in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Upload,
    Kernel,
    Download,
}

const PHASES: usize = 3;

/// The most events that the device may be behind the host. A run that exceeds it is not timed.
const MAX_MARKS: usize = 32;

/// The time that the device spent in each phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhaseTimes {
    pub(crate) upload: Duration,
    pub(crate) kernel: Duration,
    pub(crate) download: Duration,
}

/// Times runs of one stream.
#[derive(Debug)]
pub(super) struct Timer {
    sampling: Sampling,
    /// The events of `marks`, in order, and then unused ones.
    events: Vec<Event>,
    /// The phase that begins at each recorded event.
    marks: Vec<Option<Phase>>,
    /// Whether the current run is timed.
    is_timing: bool,
    sums: [Duration; PHASES],
}

impl Timer {
    /// A timer of one in `interval` runs, or of none if that is 0.
    pub(super) fn new(driver: &'static Driver, interval: u32, seed: u64) -> Result<Self, CudaError> {
        let events = if interval == 0 { 0 } else { MAX_MARKS };
        Ok(Self {
            sampling: Sampling::new(interval, seed),
            events: (0..events).map(|_| Event::timed(driver)).collect::<Result<_, _>>()?,
            marks: Vec::with_capacity(events),
            is_timing: false,
            sums: [Duration::ZERO; PHASES],
        })
    }

    /// Begins a run.
    pub(super) fn begin(&mut self) {
        self.is_timing = self.sampling.next();
        if self.is_timing {
            self.marks.clear();
            self.sums = [Duration::ZERO; PHASES];
        }
    }

    /// Sets the phase of the work that is queued next; `None` where the host does work of its own. If an event cannot be
    /// recorded the run is not timed; the next call of the driver reports the error.
    pub(super) fn enter(&mut self, phase: Option<Phase>, stream: &mut Stream) {
        if self.is_timing && self.marks.last().copied().flatten() != phase {
            self.mark(phase, stream);
        }
    }

    fn mark(&mut self, phase: Option<Phase>, stream: &mut Stream) {
        if self.marks.len() == self.events.len() {
            self.fold();
        }
        match self.events.get(self.marks.len()).map(|event| event.record(stream)) {
            Some(Ok(())) => self.marks.push(phase),
            _ => self.is_timing = false,
        }
    }

    /// Adds up the spans that the device has completed, and reuses their events.
    fn fold(&mut self) {
        let mut done = 0;
        while done + 1 < self.marks.len()
            && let Ok(Some(time)) = self.events[done + 1].since(&self.events[done])
        {
            if let Some(phase) = self.marks[done] {
                self.sums[phase as usize] += time;
            }
            done += 1;
        }
        self.events[..self.marks.len()].rotate_left(done);
        self.marks.drain(..done);
    }

    /// Returns the times of a run that has ended without an error, if it was timed. The stream is idle.
    pub(super) fn take(&mut self) -> Option<PhaseTimes> {
        if !std::mem::take(&mut self.is_timing) {
            return None;
        }
        self.fold();
        // The last mark ends the last span. More are left only if the device is lost.
        let [upload, kernel, download] = self.sums;
        (self.marks.len() <= 1).then_some(PhaseTimes { upload, kernel, download })
    }
}

/// Samples one in `interval` runs on average.
#[derive(Debug)]
struct Sampling {
    interval: u32,
    /// Runs to skip before the next sample.
    skip: u64,
    /// The state of a xorshift generator.
    state: u64,
}

impl Sampling {
    fn new(interval: u32, seed: u64) -> Self {
        let mut this = Self { interval, skip: 0, state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 };
        this.skip = this.draw();
        this
    }

    /// Whether the next run is a sample.
    fn next(&mut self) -> bool {
        if self.interval == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.skip = self.draw();
        true
    }

    /// A uniform random number from 0 to `2 * interval - 2`, so `interval - 1` on average.
    fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let range = 2 * u64::from(self.interval.max(1)) - 1;
        // Less than `range`.
        ((u128::from(self.state) * u128::from(range)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Sampling;

    #[test]
    fn one_run_in_each_interval_is_sampled_on_average() {
        for every in [1, 2, 16, 128] {
            for seed in 0..4 {
                let mut sampling = Sampling::new(every, seed);
                let requests = 20_000 * every;
                let picked = (0..requests).filter(|_| sampling.next()).count() as f64;
                assert!((picked / 20_000.0 - 1.0).abs() < 0.03, "1 in {every}: {picked} of {requests}");
            }
        }
        let mut sampling = Sampling::new(0, 1);
        assert!((0..1000).all(|_| !sampling.next()), "0 samples none");
    }

    #[test]
    fn kinds_of_runs_that_come_in_turn_are_all_sampled() {
        let mut sampling = Sampling::new(16, 7);
        let mut picked = [0; 4];
        (0..64_000).filter(|_| sampling.next()).for_each(|request| picked[request % 4] += 1);
        assert!(picked.iter().all(|&picked| (800..1200).contains(&picked)), "{picked:?}");
    }
}
