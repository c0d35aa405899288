//! Learns how long calls take once they are served, and how fast they are served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::middleware::clock;
use crate::middleware::per_share::{LearnedTime, Operation, OperationTimes};
use crate::request::Share;

/// The service times of each [operation](crate::request::RequestContext::operation).
///
/// An assigned share has service times of its own. Nothing is known of its calls of an operation before one has completed.
pub(super) type ServiceTimes = OperationTimes<UpperQuartile>;

/// An estimate of the upper quartile, in nanoseconds: by the mean, every other call would be late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UpperQuartile(u64);

impl LearnedTime for UpperQuartile {
    /// Moves a quarter of the way to a longer time, and a 32nd to a shorter one: about three calls of four take no longer.
    fn observe(&mut self, nanos: u64) {
        self.0 = match self.0 {
            0 => nanos,
            known if nanos > known => known + (nanos - known) / 4,
            known => known - (known - nanos) / 32,
        };
    }

    fn decay(&mut self) {
        self.0 -= self.0 / 32;
    }
}

impl ServiceTimes {
    /// Returns how long such a call takes; zero if that is unknown.
    pub(super) fn service_time(&self, operation: &Operation, share: Option<Share>) -> Duration {
        let time = match self.get(operation) {
            Some(times) => times.get(share.unwrap_or_default()),
            None => share.is_none().then(|| self.overall()),
        };
        Duration::from_nanos(time.unwrap_or_default().0)
    }
}

/// The service time of one call: at first what is expected, and then what it is.
#[derive(Debug)]
pub(super) struct ServiceTimer {
    times: Arc<ServiceTimes>,
    operation: Operation,
    share: Option<Share>,
    /// `None` while the call waits, and once it has ended.
    started: Option<Instant>,
}

impl ServiceTimer {
    pub(super) fn new(times: &Arc<ServiceTimes>, operation: &str, share: Option<Share>) -> Self {
        Self { times: Arc::clone(times), operation: times.operation(operation), share, started: None }
    }

    /// Returns how long the call is expected to take; zero if that is unknown.
    pub(super) fn expected(&self) -> Duration {
        self.times.service_time(&self.operation, self.share)
    }

    /// Lowers the expected time, after the call was rejected because of it.
    pub(super) fn decay(&self) {
        self.times.decay(&self.operation, self.share.unwrap_or_default());
    }

    /// Starts the measurement, just before the call.
    pub(super) fn start(&mut self) {
        self.started = Some(clock::read());
    }

    /// Ends the measurement. A failure says nothing about the time of a success.
    pub(super) fn finish(mut self, is_success: bool) {
        if let Some(elapsed) = self.stop()
            && is_success
        {
            self.times.insert(&self.operation);
            self.times.observe(&self.operation, self.share.unwrap_or_default(), elapsed);
        }
    }

    /// Returns the nanoseconds since the start.
    fn stop(&mut self) -> Option<u64> {
        let elapsed = clock::read().saturating_duration_since(self.started.take()?);
        Some(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Drop for ServiceTimer {
    fn drop(&mut self) {
        // A call cancelled after more than the expected time would have taken longer still.
        if let Some(elapsed) = self.stop()
            && Duration::from_nanos(elapsed) > self.expected()
        {
            self.times.observe(&self.operation, self.share.unwrap_or_default(), elapsed);
        }
    }
}

/// The mean time between turns while calls wait, over about the last eight turns.
#[derive(Debug, Default)]
pub(super) struct ServiceRate {
    /// The last turn, unless it emptied the queue.
    last: Option<Instant>,
    /// Seconds; `None` until two turns have followed each other.
    interval: Option<f64>,
}

impl ServiceRate {
    /// Records a turn. The time in which the queue is empty says nothing about its rate.
    pub(super) fn observe(&mut self, now: Instant, is_empty: bool) {
        if let Some(last) = self.last {
            let seconds = now.saturating_duration_since(last).as_secs_f64();
            let interval = self.interval.get_or_insert(seconds);
            *interval += (seconds - *interval) / 8.0;
        }
        self.last = (!is_empty).then_some(now);
    }

    /// The expected time until this many turns and one more have passed.
    pub(super) fn time_for(&self, turns: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.interval? * (turns as f64 + 1.0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::per_share::MAX_OPERATIONS;

    const MILLI: Duration = Duration::from_millis(1);

    /// Records a successful call.
    fn add(times: &Arc<ServiceTimes>, name: &str, share: Option<Share>, took: Duration) {
        let operation = times.operation(name);
        times.insert(&operation);
        times.observe(&operation, share.unwrap_or_default(), took.as_nanos() as u64);
    }

    #[test]
    fn three_calls_of_four_take_no_longer_than_the_service_time() {
        let times = Arc::new(ServiceTimes::new());
        let unknown = Operation::New("?".into());
        assert_eq!(times.service_time(&unknown, None), Duration::ZERO);
        // From 5 to 15 ms, in no order.
        let took: Vec<Duration> = (0..2000_u32).map(|n| MILLI * (5 + n * 7 % 11)).collect();
        took.iter().for_each(|&took| add(&times, "a", None, took));
        let known = times.operation("a");
        let expected = times.service_time(&known, None);
        let longer = took.iter().filter(|&&took| took > expected).count();
        assert!((400..=600).contains(&longer), "{longer} of 2000 took longer than {expected:?}");
        assert_eq!(times.service_time(&unknown, None), expected, "of all operations");
        let other = Some(Share::new(9, std::num::NonZeroU16::MIN));
        assert_eq!(times.service_time(&unknown, other), Duration::ZERO, "no guess for a share");
        assert_eq!(times.service_time(&known, other), Duration::ZERO, "nor from another share");
        add(&times, "a", other, MILLI * 900);
        assert_eq!(times.service_time(&known, other), MILLI * 900);
    }

    #[test]
    fn a_time_that_is_too_long_decays_and_operations_are_bounded() {
        let times = Arc::new(ServiceTimes::new());
        add(&times, "a", None, MILLI * 1000);
        let rejections = (0..).take_while(|_| {
            let operation = times.operation("a");
            times.decay(&operation, Share::COMMON);
            times.service_time(&operation, None) > MILLI * 100
        });
        assert!((50..100).contains(&rejections.count()));
        for n in 0..2 * MAX_OPERATIONS {
            add(&times, &n.to_string(), None, MILLI);
        }
        let known = |n: &usize| matches!(times.operation(&n.to_string()), Operation::Known(_));
        assert_eq!((0..2 * MAX_OPERATIONS).filter(known).count(), MAX_OPERATIONS - 1);
        assert!(matches!(times.operation("a"), Operation::Known(_)));
        assert!(matches!(times.operation("1000"), Operation::Unlisted));
    }

    #[test]
    fn a_cancelled_call_teaches_no_name_and_a_success_does() {
        let times = Arc::new(ServiceTimes::new());
        let timer = || {
            let mut timer = ServiceTimer::new(&times, "a", None);
            timer.start();
            timer
        };
        drop(timer());
        timer().finish(false);
        assert!(matches!(times.operation("a"), Operation::New(_)));
        timer().finish(true);
        assert!(matches!(times.operation("a"), Operation::Known(_)));
    }
}
