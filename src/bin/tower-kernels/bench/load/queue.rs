//! The requests of one thread: when the next is due, and the statistics of completed ones.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::target::Client;
use super::Progress;
use super::schedule::Schedule;
use super::statistics::Statistics;
use super::timer::Timer;
use crate::client::{CLIENT_TIMEOUT, Failure};

/// A request sent this much later than due although a client was idle shows that this program is too slow.
const LATE: Duration = Duration::from_millis(1);

/// The request queue shared by the clients of one thread.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None` in a closed loop.
    schedule: Option<RefCell<Schedule>>,
    start: Instant,
    /// The end of the warm-up: requests due from then on are measured.
    begin: Instant,
    end: Option<Instant>,
    remaining: Option<Arc<AtomicU64>>,
    finished: Cell<bool>,
    timeout: Duration,
    statistics: RefCell<Statistics>,
    progress: Arc<Progress>,
}

impl Queue {
    pub(super) fn new(
        schedule: Option<Schedule>,
        start: Instant,
        begin: Instant,
        end: Option<Instant>,
        remaining: Option<Arc<AtomicU64>>,
        timeout: Duration,
        progress: Arc<Progress>,
    ) -> Self {
        let (schedule, finished, statistics) = (schedule.map(RefCell::new), Cell::new(false), RefCell::default());
        Self { schedule, start, begin, end, remaining, finished, timeout, statistics, progress }
    }

    /// When the next request is due; `None` when there are no more.
    ///
    /// In an open loop this keeps the schedule independent of responses: an idle client takes the oldest pending request,
    /// even one that was due long ago.
    fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        if self.finished.get() || self.end.is_some_and(|end| now >= end) {
            self.finish();
            return None;
        }
        let due = match &self.schedule {
            Some(schedule) => self.start + schedule.borrow_mut().next()?,
            None => now,
        };
        if self.end.is_some_and(|end| due >= end) || (due >= self.begin && !self.take()) {
            self.finished.set(true);
            return None;
        }
        Some(due)
    }

    /// Decrements the number of requests to be measured; `false` if none remain.
    fn take(&self) -> bool {
        let Some(remaining) = &self.remaining else { return true };
        remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
    }

    /// Ends the run, and counts the requests of the schedule that will not be sent.
    fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        if let (Some(schedule), Some(end)) = (&self.schedule, self.end) {
            for due in schedule.borrow_mut().by_ref().map(|due| self.start + due).take_while(|&due| due < end) {
                if due >= self.begin {
                    if !self.take() {
                        break;
                    }
                    self.statistics.borrow_mut().unsent += 1;
                }
            }
        }
    }

    fn record(&self, due: Instant, sent: Sent, result: Result<usize, Failure>) {
        let now = Instant::now();
        let counter = if result.is_ok() { &self.progress.succeeded } else { &self.progress.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if due < self.begin {
            return;
        }
        let mut statistics = self.statistics.borrow_mut();
        match sent {
            Sent::OnTime => {}
            Sent::Held => statistics.held += 1,
            Sent::Late => statistics.late += 1,
        }
        statistics.record(now - self.begin, now - due, result);
        statistics.last = Some(now);
    }

    /// Takes the statistics, once all clients have finished or were dropped.
    pub(super) fn take_statistics(&self) -> Statistics {
        self.statistics.take()
    }
}

/// When a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    OnTime,
    /// It was due before a client was idle.
    Held,
    /// A client was idle, but woke late.
    Late,
}

/// Sends requests with one client until there are no more.
pub(super) async fn run_client<C: Client>(mut client: C, timer: Timer, queue: Rc<Queue>) -> io::Result<()> {
    while let Some(due) = queue.next() {
        let sent = if queue.schedule.is_none() {
            Sent::OnTime
        } else if due <= Instant::now() {
            Sent::Held
        } else {
            timer.until(due).await?;
            if due.elapsed() > LATE { Sent::Late } else { Sent::OnTime }
        };
        let result = call(&mut client, queue.timeout).await;
        queue.record(due, sent, result);
        // A kernel that runs inside the call never yields; this lets the other clients of the thread run.
        tokio::task::consume_budget().await;
    }
    Ok(())
}

/// Sends one request with a timeout.
pub(super) async fn call<C: Client>(client: &mut C, timeout: Duration) -> Result<usize, Failure> {
    match tokio::time::timeout(timeout, client.call()).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(CLIENT_TIMEOUT, "no response within --timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::args::Arrivals;
    use tokio::task::LocalSet;
    use tokio::time::sleep;

    /// Responds in a millisecond, except for one call that stalls.
    struct Stalls {
        calls: Rc<Cell<u64>>,
        at: u64,
        stall: Duration,
    }

    impl Client for Stalls {
        async fn call(&mut self) -> Result<usize, Failure> {
            self.calls.set(self.calls.get() + 1);
            sleep(if self.calls.get() == self.at { self.stall } else { Duration::from_millis(1) }).await;
            Ok(1)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs `clients` for 10 s after a second of warm-up, against a service that stalls once for a second.
    async fn run(rate: Option<f64>, clients: u64, remaining: Option<u64>) -> Statistics {
        let start = Instant::now();
        let schedule = rate.map(|rate| Schedule::new(Arrivals::Constant, rate, 0, 1));
        let (begin, remaining) = (start + SECOND, remaining.map(|count| Arc::new(AtomicU64::new(count))));
        let queue =
            Queue::new(schedule, start, begin, Some(begin + 10 * SECOND), remaining, 30 * SECOND, Arc::default());
        let (queue, calls) = (Rc::new(queue), Rc::new(Cell::new(0)));
        let local = LocalSet::new();
        for _ in 0..clients {
            let client = Stalls { calls: Rc::clone(&calls), at: 1200, stall: SECOND };
            local.spawn_local(run_client(client, Timer::Tokio, Rc::clone(&queue)));
        }
        local.await;
        queue.take_statistics()
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_omits_the_latencies_of_requests_that_a_stall_prevented() {
        let statistics = run(None, 1, None).await;
        assert!(statistics.latency.len().abs_diff(9000) < 1000, "{}", statistics.latency.len());
        assert!(statistics.latency.value_at_quantile(0.999) < 3_000_000, "the one slow request is above it");
        assert!(statistics.latency.max() > 990_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_requests_that_a_stall_delayed() {
        // One client, which can do 1 000 a second: the stall of a second holds up 200 requests, and catching up takes a
        // quarter of a second more. So 250 of 2 000 waited, from no time to the whole second.
        let statistics = run(Some(200.0), 1, None).await;
        assert_eq!(statistics.latency.len() + statistics.unsent, 2000);
        assert!(statistics.held.abs_diff(250) < 5, "{}", statistics.held);
        let millis = |quantile| statistics.latency.value_at_quantile(quantile) / 1_000_000;
        assert!(millis(0.87) < 10, "{}", millis(0.87));
        assert!(millis(0.90).abs_diff(200) < 20, "{}", millis(0.90));
        assert!(millis(0.95).abs_diff(600) < 20, "{}", millis(0.95));
    }

    #[tokio::test(start_paused = true)]
    async fn with_enough_concurrency_a_stall_of_one_request_delays_no_other() {
        let statistics = run(Some(200.0), 8, None).await;
        assert_eq!((statistics.latency.len(), statistics.held, statistics.unsent), (2000, 0, 0));
        assert!(statistics.latency.value_at_quantile(0.999) < 3_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_schedule_that_cannot_be_met_count_as_unsent() {
        // A client does 500 a second at most on timers of a millisecond, so about half or more remain.
        let statistics = run(Some(2000.0), 1, None).await;
        assert_eq!(statistics.latency.len() + statistics.unsent, 20_000);
        assert!(statistics.unsent > 9_000, "{}", statistics.unsent);
        assert!(statistics.held > 4_000, "{}", statistics.held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_of_requests_ends_it_and_the_warm_up_does_not_count() {
        for rate in [None, Some(200.0)] {
            let statistics = run(rate, 4, Some(100)).await;
            assert_eq!((statistics.latency.len(), statistics.bytes_received), (100, 100), "{rate:?}");
        }
    }
}
