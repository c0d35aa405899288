//! Times of some requests by the device's own clock.
//!
//! A request's work on its stream is cut into *spans*, each of one [`Phase`]. A mark, which is an event that the device
//! writes its clock to, stands where one span ends and the next begins:
//!
//! * the upload begins with the first copy to the device, and ends with the last that is queued without another kind of
//!   work between. Where an array crosses in pieces the device may wait for the host to fill the next one; that counts.
//! * the kernel's span begins with the first launch, fill or copy within the device, and ends where the host next queues
//!   a transfer or goes to wait. What the host computes between launches counts where the device has nothing to do
//!   meanwhile.
//! * the download begins with the first copy from the device and ends with the last. Where the device waits for the host
//!   to empty a piece, that counts.
//!
//! What lies between spans (the host at work of its own, with the stream idle and no span open) counts for nothing, so the
//! three are together never more than the request's time on its lane. A request may go through the phases any number of
//! times; each gets the sum of its spans. A launch by itself shows as some 5 µs where the device is waiting for it.
//!
//! The marks of a small request cost it some 25 µs, so only one request in so many is timed. The
//! distance to the next is drawn at random around that, since a fixed one would fall into step with clients that send
//! kinds of requests in turn, and never see some of them.

use std::time::Duration;

use super::driver::Driver;
use super::error::Failure;
use super::stream::{Event, Stream};

/// What a stream is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Upload,
    Kernel,
    Download,
}

const PHASES: usize = 3;

/// The most marks that a stream may be behind the host. A request that has more on the way is not timed.
const MARKS: usize = 32;

#[derive(Debug)]
pub(crate) struct Timer {
    sampling: Sampling,
    /// All made with the lane; those of marks first.
    events: Vec<Event>,
    /// What begins at each mark.
    marks: Vec<Option<Phase>>,
    /// Whether this request is being timed.
    on: bool,
    sums: [Duration; PHASES],
}

impl Timer {
    /// One that times one request in `every`, and none where that is 0.
    pub(crate) fn new(driver: &'static Driver, every: u32, seed: u64) -> Result<Self, Failure> {
        let events = if every == 0 { 0 } else { MARKS };
        Ok(Self {
            sampling: Sampling::new(every, seed),
            events: (0..events).map(|_| Event::timed(driver)).collect::<Result<_, _>>()?,
            marks: Vec::with_capacity(events),
            on: false,
            sums: [Duration::ZERO; PHASES],
        })
    }

    /// A request begins.
    pub(crate) fn begin(&mut self) {
        self.on = self.sampling.next();
        if self.on {
            self.marks.clear();
            self.sums = [Duration::ZERO; PHASES];
        }
    }

    /// What is queued next is of this phase; of none where the host turns to something else. Where a mark cannot be made
    /// the request goes on untimed: what ails the device shows at its next call.
    #[inline]
    pub(crate) fn enter(&mut self, phase: Option<Phase>, stream: &mut Stream) {
        if self.on && self.marks.last().copied().flatten() != phase {
            self.mark(phase, stream);
        }
    }

    #[cold]
    fn mark(&mut self, phase: Option<Phase>, stream: &mut Stream) {
        if self.marks.len() == self.events.len() {
            self.fold();
        }
        match self.events.get(self.marks.len()).map(|event| event.record(stream)) {
            Some(Ok(())) => self.marks.push(phase),
            _ => self.on = false,
        }
    }

    /// Sums up the spans that the device has been through, and frees their marks.
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

    /// The sums of a request that has ended well, by phase, if it was timed. The stream is idle.
    pub(crate) fn take(&mut self) -> Option<[Duration; PHASES]> {
        if !std::mem::take(&mut self.on) {
            return None;
        }
        self.fold();
        // The last mark ends the last span and begins none; one that has not been reached is of a device that is lost.
        (self.marks.len() <= 1).then_some(self.sums)
    }
}

/// Picks one request in so many.
#[derive(Debug)]
struct Sampling {
    every: u32,
    /// Requests to let pass before the next.
    pass: u64,
    state: u64,
}

impl Sampling {
    fn new(every: u32, seed: u64) -> Self {
        let mut this = Self { every, pass: 0, state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 };
        this.pass = this.draw();
        this
    }

    #[inline]
    fn next(&mut self) -> bool {
        if self.every == 0 {
            return false;
        }
        if self.pass > 0 {
            self.pass -= 1;
            return false;
        }
        self.pass = self.draw();
        true
    }

    /// From 0 to twice `every` less 2, each as likely: `every` less 1 on average.
    fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let range = 2 * u64::from(self.every.max(1)) - 1;
        // Less than `range`.
        ((u128::from(self.state) * u128::from(range)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Sampling;

    #[test]
    fn one_request_in_so_many_is_picked_on_average() {
        for every in [1, 2, 16, 128] {
            for seed in 0..4 {
                let mut sampling = Sampling::new(every, seed);
                let requests = 20_000 * every;
                let picked = (0..requests).filter(|_| sampling.next()).count() as f64;
                assert!((picked / 20_000.0 - 1.0).abs() < 0.03, "1 in {every}: {picked} of {requests}");
            }
        }
        let mut sampling = Sampling::new(0, 1);
        assert!((0..1000).all(|_| !sampling.next()), "0 is none");
    }

    #[test]
    fn kinds_of_requests_that_come_in_turn_are_all_picked() {
        let mut sampling = Sampling::new(16, 7);
        let mut picked = [0; 4];
        (0..64_000).filter(|_| sampling.next()).for_each(|request| picked[request % 4] += 1);
        assert!(picked.iter().all(|&picked| (800..1200).contains(&picked)), "{picked:?}");
    }
}
