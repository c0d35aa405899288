//! The requests of one thread: which is next, and what became of it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::target::{CLIENT_TIMEOUT, Caller, Failure};
use super::Seen;
use super::schedule::Schedule;
use super::tally::Tally;
use super::timer::Timer;

/// A request that goes out later than this after it was due, while a caller was free, says that this program is slow.
const LATE: Duration = Duration::from_millis(1);

/// What the callers of one thread share.
#[derive(Debug)]
pub(super) struct Line {
    /// `None` in a closed loop.
    schedule: Option<RefCell<Schedule>>,
    start: Instant,
    /// The end of the warm-up: what is due from then on is measured.
    begin: Instant,
    end: Option<Instant>,
    left: Option<Arc<AtomicU64>>,
    over: Cell<bool>,
    timeout: Duration,
    tally: RefCell<Tally>,
    seen: Arc<Seen>,
}

impl Line {
    pub(super) fn new(
        schedule: Option<Schedule>,
        start: Instant,
        begin: Instant,
        end: Option<Instant>,
        left: Option<Arc<AtomicU64>>,
        timeout: Duration,
        seen: Arc<Seen>,
    ) -> Self {
        let (schedule, over, tally) = (schedule.map(RefCell::new), Cell::new(false), RefCell::default());
        Self { schedule, start, begin, end, left, over, timeout, tally, seen }
    }

    /// When the next request is due; `None` when there are no more.
    ///
    /// In an open loop this is what keeps the schedule whatever the answers do: a caller that comes free takes the
    /// oldest request that is not taken, even one that was due long ago.
    fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        if self.over.get() || self.end.is_some_and(|end| now >= end) {
            self.finish();
            return None;
        }
        let due = match &self.schedule {
            Some(schedule) => self.start + schedule.borrow_mut().next()?,
            None => now,
        };
        if self.end.is_some_and(|end| due >= end) || (due >= self.begin && !self.take()) {
            self.over.set(true);
            return None;
        }
        Some(due)
    }

    /// Takes one from the number of requests to be measured.
    fn take(&self) -> bool {
        let Some(left) = &self.left else { return true };
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// The time is up: what the schedule still holds will not be sent.
    fn finish(&self) {
        if self.over.replace(true) {
            return;
        }
        if let (Some(schedule), Some(end)) = (&self.schedule, self.end) {
            for due in schedule.borrow_mut().by_ref().map(|due| self.start + due).take_while(|&due| due < end) {
                if due >= self.begin {
                    if !self.take() {
                        break;
                    }
                    self.tally.borrow_mut().unsent += 1;
                }
            }
        }
    }

    fn record(&self, due: Instant, sent: Sent, result: Result<usize, Failure>) {
        let now = Instant::now();
        let counter = if result.is_ok() { &self.seen.answered } else { &self.seen.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if due < self.begin {
            return;
        }
        let mut tally = self.tally.borrow_mut();
        match sent {
            Sent::OnTime => {}
            Sent::Held => tally.held += 1,
            Sent::Late => tally.late += 1,
        }
        tally.record(now - self.begin, now - due, result);
        tally.last = Some(now);
    }

    /// The counters, when all callers are done or are given up.
    pub(super) fn close(&self) -> Tally {
        self.tally.take()
    }
}

/// How a request went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    OnTime,
    /// It was due before a caller was free.
    Held,
    /// A caller was free, and woke late.
    Late,
}

/// One caller, until there are no more requests.
pub(super) async fn work<C: Caller>(mut caller: C, timer: Timer, line: Rc<Line>) -> io::Result<()> {
    while let Some(due) = line.next() {
        let sent = if line.schedule.is_none() {
            Sent::OnTime
        } else if due <= Instant::now() {
            Sent::Held
        } else {
            timer.until(due).await?;
            if due.elapsed() > LATE { Sent::Late } else { Sent::OnTime }
        };
        let result = call(&mut caller, line.timeout).await;
        line.record(due, sent, result);
        // A kernel that runs inside the call never waits, and without this nobody else on the thread would have a turn.
        tokio::task::consume_budget().await;
    }
    Ok(())
}

/// One request; an answer that does not come is a failure of ours, and the caller starts afresh.
pub(super) async fn call<C: Caller>(caller: &mut C, timeout: Duration) -> Result<usize, Failure> {
    match tokio::time::timeout(timeout, caller.call()).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(CLIENT_TIMEOUT, "no answer within --timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::args::Arrivals;
    use tokio::task::LocalSet;
    use tokio::time::sleep;

    /// Answers in a millisecond; one call takes longer.
    struct Stalls {
        calls: Rc<Cell<u64>>,
        at: u64,
        stall: Duration,
    }

    impl Caller for Stalls {
        async fn call(&mut self) -> Result<usize, Failure> {
            self.calls.set(self.calls.get() + 1);
            sleep(if self.calls.get() == self.at { self.stall } else { Duration::from_millis(1) }).await;
            Ok(1)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// `callers` on a line that lasts 10 s after a second of warm-up, against a service that stalls once for a second.
    async fn run(rate: Option<f64>, callers: u64, left: Option<u64>) -> Tally {
        let start = Instant::now();
        let schedule = rate.map(|rate| Schedule::new(Arrivals::Constant, rate, 0, 1));
        let (begin, left) = (start + SECOND, left.map(|left| Arc::new(AtomicU64::new(left))));
        let line = Line::new(schedule, start, begin, Some(begin + 10 * SECOND), left, 30 * SECOND, Arc::default());
        let (line, calls) = (Rc::new(line), Rc::new(Cell::new(0)));
        let local = LocalSet::new();
        for _ in 0..callers {
            let caller = Stalls { calls: Rc::clone(&calls), at: 1200, stall: SECOND };
            local.spawn_local(work(caller, Timer::Ticking, Rc::clone(&line)));
        }
        local.await;
        line.close()
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_leaves_out_the_latencies_that_a_stall_would_have_caused() {
        let tally = run(None, 1, None).await;
        assert!(tally.latency.len().abs_diff(9000) < 1000, "{}", tally.latency.len());
        assert!(tally.latency.value_at_quantile(0.999) < 3_000_000, "the one slow request is above it");
        assert!(tally.latency.max() > 990_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_what_a_stall_held_up() {
        // One caller, which can do 1 000 a second: the stall of a second holds up 200 requests, and catching up takes a
        // quarter of a second more. So 250 of 2 000 waited, from no time to the whole second.
        let tally = run(Some(200.0), 1, None).await;
        assert_eq!(tally.latency.len() + tally.unsent, 2000);
        assert!(tally.held.abs_diff(250) < 5, "{}", tally.held);
        let millis = |quantile| tally.latency.value_at_quantile(quantile) / 1_000_000;
        assert!(millis(0.87) < 10, "{}", millis(0.87));
        assert!(millis(0.90).abs_diff(200) < 20, "{}", millis(0.90));
        assert!(millis(0.95).abs_diff(600) < 20, "{}", millis(0.95));
    }

    #[tokio::test(start_paused = true)]
    async fn with_room_in_flight_a_stall_of_one_request_holds_up_no_other() {
        let tally = run(Some(200.0), 8, None).await;
        assert_eq!((tally.latency.len(), tally.held, tally.unsent), (2000, 0, 0));
        assert!(tally.latency.value_at_quantile(0.999) < 3_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_that_cannot_be_kept_says_what_was_not_sent() {
        // A caller does 500 a second at most on timers of a millisecond, so about half or more remain.
        let tally = run(Some(2000.0), 1, None).await;
        assert_eq!(tally.latency.len() + tally.unsent, 20_000);
        assert!(tally.unsent > 9_000, "{}", tally.unsent);
        assert!(tally.held > 4_000, "{}", tally.held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_of_requests_ends_it_and_the_warm_up_does_not_count() {
        for rate in [None, Some(200.0)] {
            let tally = run(rate, 4, Some(100)).await;
            assert_eq!((tally.latency.len(), tally.bytes_received), (100, 100), "{rate:?}");
        }
    }
}
