use std::ops::{AddAssign, SubAssign};
use std::time::{Duration, Instant};

/// How calls ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

impl AddAssign for Counts {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
    }
}

impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
    }
}

const STEPS: usize = 10;

/// The calls of the last while, counted in steps of a tenth of it. The sums run along, so that neither counting a call nor
/// reading the sums depends on how many calls there were.
#[derive(Debug)]
pub(super) struct Window {
    /// The step that calls are counted in.
    current: Counts,
    /// When the next one begins.
    turns: Instant,
    /// The steps before, and the place of the current one for when it is over.
    steps: [Counts; STEPS],
    at: usize,
    /// Of the steps before.
    sums: Counts,
    step: Duration,
}

impl Window {
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let step = (length / STEPS as u32).max(Duration::from_nanos(1));
        Self {
            current: Counts::default(),
            turns: now,
            steps: [Counts::default(); STEPS],
            at: 0,
            sums: Counts::default(),
            step,
        }
    }

    pub(super) fn add(&mut self, counts: Counts, now: Instant) {
        if now >= self.turns {
            self.turn(now);
        }
        self.current += counts;
    }

    /// Counts a call that neither failed nor was slow, unless the next step has begun.
    #[inline]
    pub(super) fn add_success(&mut self, now: Instant) -> bool {
        let within = now < self.turns;
        if within {
            self.current.calls += 1;
        }
        within
    }

    /// What there was in the last while.
    pub(super) fn sums(&mut self, now: Instant) -> Counts {
        if now >= self.turns {
            self.turn(now);
        }
        let mut sums = self.sums;
        sums += self.current;
        sums
    }

    pub(super) fn clear(&mut self) {
        self.current = Counts::default();
        self.steps = [Counts::default(); STEPS];
        self.sums = Counts::default();
    }

    /// Leaves the steps behind whose time is over.
    #[cold]
    fn turn(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.turns);
        let turns = 1 + late.as_nanos() / self.step.as_nanos();
        let (steps, next) = match u32::try_from(turns) {
            Ok(turns) if turns < STEPS as u32 => (turns as usize, self.turns.checked_add(self.step * turns)),
            // Longer than the window is long: nothing of it is left, and it begins anew.
            _ => (STEPS, now.checked_add(self.step)),
        };
        for _ in 0..steps {
            self.steps[self.at] = std::mem::take(&mut self.current);
            self.sums += self.steps[self.at];
            self.at = (self.at + 1) % STEPS;
            self.sums -= std::mem::take(&mut self.steps[self.at]);
        }
        // A step that no instant can end goes on.
        self.turns = next.unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Window};
    use std::time::{Duration, Instant};

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: Counts = Counts { calls: 1, failures: 1, slow: 0 };
    const SUCCESS: Counts = Counts { calls: 1, failures: 0, slow: 0 };

    #[test]
    fn calls_leave_the_window_a_step_at_a_time() {
        let begun = Instant::now();
        let mut window = Window::new(10 * SECOND, begun);
        for at in 0..10 {
            window.add(ONE, begun + at * SECOND);
        }
        assert_eq!(window.sums(begun + 9 * SECOND).calls, 10);
        assert_eq!(window.sums(begun + 12 * SECOND).calls, 7);
        assert_eq!(window.sums(begun + 18 * SECOND).failures, 1);
        assert_eq!(window.sums(begun + 19 * SECOND), Counts::default());
    }

    #[test]
    fn what_is_longer_ago_than_the_window_is_forgotten_at_once() {
        let begun = Instant::now();
        let mut window = Window::new(10 * SECOND, begun);
        window.add(ONE, begun);
        window.add(ONE, begun + 86_400 * 365 * SECOND);
        assert_eq!(window.sums(begun + 86_400 * 365 * SECOND).calls, 1);
    }

    /// The sums are those of a list of all calls, up to the step that a call falls in.
    #[test]
    fn the_sums_are_those_of_the_calls() {
        let begun = Instant::now();
        let mut window = Window::new(SECOND, begun);
        let mut calls = Vec::new();
        let mut at = Duration::ZERO;
        for i in 0..5000_u32 {
            at += Duration::from_micros(u64::from(i * 7919 % 3001));
            let counts = Counts { calls: 1, failures: u64::from(i % 3 / 2), slow: u64::from(i % 5 / 4) };
            if counts != SUCCESS || !window.add_success(begun + at) {
                window.add(counts, begun + at);
            }
            calls.push((at, counts));
            let sums = window.sums(begun + at);
            let within = |length: Duration, count: fn(&Counts) -> u64| {
                calls.iter().filter(|(when, _)| at - *when < length).map(|(_, counts)| count(counts)).sum::<u64>()
            };
            let kinds: [fn(&Counts) -> u64; 3] =
                [|counts| counts.calls, |counts| counts.failures, |counts| counts.slow];
            for count in kinds {
                let (least, most) = (within(SECOND * 9 / 10, count), within(SECOND, count));
                assert!((least..=most).contains(&count(&sums)), "call {i}: {sums:?}");
            }
        }
    }
}
