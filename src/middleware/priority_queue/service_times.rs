//! Learns how long calls take from their turn to their response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::middleware::clock;
use crate::middleware::per_share::PerShare;
use crate::request::Share;
use crate::request::operation_table::{OperationIndex, OperationTable, to_keep};
use crate::sync::Mutex;

/// Operations with a service time of their own.
const MAX_OPERATIONS: usize = 512;

/// The upper quartile of the service times of each [operation](crate::request::RequestContext::operation): by the mean, every
/// other call would be late.
///
/// An assigned share has service times of its own. Nothing is known of its calls of an operation before one has completed.
#[derive(Debug)]
pub(super) struct ServiceTimes {
    operations: OperationTable<PerShare<ServiceTime>>,
    /// Of all calls, for operations without a service time of their own.
    overall: Mutex<ServiceTime>,
}

/// The operation of a waiting call.
#[derive(Debug)]
pub(super) enum Operation {
    Known(OperationIndex),
    /// Has no entry yet: names come from clients, and get one once a call has succeeded.
    Unknown(Box<str>),
}

/// Seconds; zero until one is observed.
#[derive(Clone, Copy, Debug, Default)]
struct ServiceTime(f64);

impl ServiceTime {
    /// Moves a quarter of the way to a longer time, and a 32nd to a shorter one: about three calls of four take no longer.
    fn observe(&mut self, seconds: f64) {
        let weight = if seconds > self.0 { 0.25 } else { 1.0 / 32.0 };
        self.0 = if self.0 == 0.0 { seconds } else { self.0 + (seconds - self.0) * weight };
    }

    fn decay(&mut self) {
        self.0 -= self.0 / 32.0;
    }
}

impl ServiceTimes {
    pub(super) fn new() -> Self {
        Self { operations: OperationTable::new(MAX_OPERATIONS), overall: Mutex::default() }
    }

    pub(super) fn operation(&self, name: &str) -> Operation {
        match self.operations.find(name) {
            Some((index, _)) => Operation::Known(index),
            None => Operation::Unknown(to_keep(name).into()),
        }
    }

    /// Returns how long such a call takes; zero if that is unknown.
    pub(super) fn get(&self, operation: &Operation, share: Option<Share>) -> Duration {
        let time = match self.of(operation) {
            Some(times) => times.get(share.unwrap_or_default()),
            None => share.is_none().then(|| *self.overall.lock()),
        };
        Duration::try_from_secs_f64(time.unwrap_or_default().0).unwrap_or(Duration::MAX)
    }

    /// Records how long a call took.
    fn observe(&self, operation: &Operation, share: Option<Share>, took: Duration) {
        let seconds = took.as_secs_f64();
        self.overall.lock().observe(seconds);
        if let Some(times) = self.of(operation) {
            times.observe(share.unwrap_or_default(), |time| time.observe(seconds));
        }
    }

    /// Shortens the service time of calls like one that was rejected because of it. Without this a time that is too long
    /// would reject all calls, and no call would correct it.
    pub(super) fn decay(&self, operation: &Operation, share: Option<Share>) {
        match self.of(operation) {
            Some(times) => times.update(share.unwrap_or_default(), ServiceTime::decay),
            None if share.is_none() => self.overall.lock().decay(),
            None => {}
        }
    }

    /// An operation that was unknown when a call arrived may be known by now.
    fn of(&self, operation: &Operation) -> Option<&PerShare<ServiceTime>> {
        match operation {
            Operation::Known(index) => Some(&self.operations[*index]),
            Operation::Unknown(name) => self.operations.find(name).map(|(_, times)| times),
        }
    }
}

/// Measures the service time of one call.
#[derive(Debug)]
pub(super) struct ServiceTimer {
    times: Arc<ServiceTimes>,
    operation: Operation,
    share: Option<Share>,
    started: Instant,
    is_finished: bool,
}

impl ServiceTimer {
    pub(super) fn new(times: Arc<ServiceTimes>, operation: Operation, share: Option<Share>, started: Instant) -> Self {
        Self { times, operation, share, started, is_finished: false }
    }

    /// Ends the measurement. A failure says nothing about the time of a success.
    pub(super) fn finish(mut self, is_success: bool) {
        self.is_finished = true;
        if is_success {
            if let Operation::Unknown(name) = &self.operation {
                self.times.operations.find_or_insert(name, PerShare::default);
            }
            self.times.observe(&self.operation, self.share, self.elapsed());
        }
    }

    fn elapsed(&self) -> Duration {
        clock::read().saturating_duration_since(self.started)
    }
}

impl Drop for ServiceTimer {
    fn drop(&mut self) {
        // A call cancelled after more than the expected time would have taken longer still.
        if !self.is_finished && self.elapsed() > self.times.get(&self.operation, self.share) {
            self.times.observe(&self.operation, self.share, self.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// Records a successful call.
    fn add(times: &Arc<ServiceTimes>, name: &str, share: Option<Share>, took: Duration) {
        times.operations.find_or_insert(name, PerShare::default);
        times.observe(&times.operation(name), share, took);
    }

    #[test]
    fn three_calls_of_four_take_no_longer_than_the_service_time() {
        let times = Arc::new(ServiceTimes::new());
        let unknown = Operation::Unknown("?".into());
        assert_eq!(times.get(&unknown, None), Duration::ZERO);
        // From 5 to 15 ms, in no order.
        let took: Vec<Duration> = (0..2000_u32).map(|n| MILLI * (5 + n * 7 % 11)).collect();
        took.iter().for_each(|&took| add(&times, "a", None, took));
        let known = times.operation("a");
        let expected = times.get(&known, None);
        let longer = took.iter().filter(|&&took| took > expected).count();
        assert!((400..=600).contains(&longer), "{longer} of 2000 took longer than {expected:?}");
        assert_eq!(times.get(&unknown, None), expected, "of all operations");
        let other = Some(Share::new(9, std::num::NonZeroU16::MIN));
        assert_eq!(times.get(&unknown, other), Duration::ZERO, "no guess for a share");
        assert_eq!(times.get(&known, other), Duration::ZERO, "nor from another share");
        add(&times, "a", other, MILLI * 900);
        assert_eq!(times.get(&known, other), MILLI * 900);
    }

    #[test]
    fn a_time_that_is_too_long_decays_and_operations_are_bounded() {
        let times = Arc::new(ServiceTimes::new());
        add(&times, "a", None, MILLI * 1000);
        let rejections = (0..).take_while(|_| {
            let operation = times.operation("a");
            times.decay(&operation, None);
            times.get(&operation, None) > MILLI * 100
        });
        assert!((50..100).contains(&rejections.count()));
        for n in 0..2 * MAX_OPERATIONS {
            add(&times, &n.to_string(), None, MILLI);
        }
        assert_eq!(times.operations.iter().count(), MAX_OPERATIONS);
        assert!(matches!(times.operation("a"), Operation::Known(_)));
        assert!(matches!(times.operation("1000"), Operation::Unknown(_)));
    }

    #[test]
    fn a_cancelled_call_teaches_no_name_and_a_success_does() {
        let times = Arc::new(ServiceTimes::new());
        let timer = || ServiceTimer::new(Arc::clone(&times), times.operation("a"), None, clock::read());
        drop(timer());
        timer().finish(false);
        assert!(matches!(times.operation("a"), Operation::Unknown(_)));
        timer().finish(true);
        assert!(matches!(times.operation("a"), Operation::Known(_)));
    }
}
