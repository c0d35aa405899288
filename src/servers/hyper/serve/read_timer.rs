//! Timeout of clients that do not read.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::later;

/// Bytes that a client must read within the limit, unless it reads everything available: 64 KiB. Otherwise a client
/// that reads a byte now and then could hold a response for ever.
pub(super) const MIN_PROGRESS: usize = 64 << 10;

/// Timer that runs while a client does not read data that is available.
///
/// It is stopped while there is nothing to send, so that the time of producing a response does not count.
#[derive(Debug)]
pub(super) struct ReadTimer {
    limit: Duration,
    /// When the client stopped reading, if it has not continued.
    since: Option<Instant>,
    /// Total time of not reading since the client last made progress.
    blocked: Duration,
    /// Bytes read since the client last made progress.
    bytes_read: usize,
    /// Created when it is first polled, because most clients read in time.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ReadTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None, blocked: Duration::ZERO, bytes_read: 0, timer: None }
    }

    /// Records that the client has read `bytes`.
    #[inline]
    pub(super) fn record_read(&mut self, bytes: usize) {
        // The timer is not running, as in nearly all cases.
        if self.since.is_none() && self.blocked.is_zero() {
            return;
        }
        if let Some(since) = self.since.take() {
            self.blocked += since.elapsed();
        }
        self.bytes_read += bytes;
        if self.bytes_read >= MIN_PROGRESS {
            self.record_drained();
        }
    }

    /// Records that the client has read everything available, and stops the timer.
    pub(super) fn record_drained(&mut self) {
        (self.since, self.blocked, self.bytes_read) = (None, Duration::ZERO, 0);
    }

    /// Runs the timer while the client does not read. Ready once it has not read for too long.
    pub(super) fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let deadline = later(since, self.limit.saturating_sub(self.blocked));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            // The timer is only reset to an earlier deadline or when it has elapsed, not with each write.
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::{advance, timeout};

    const LIMIT: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    /// Whether it is still waited for after this time.
    async fn waits(clock: &mut ReadTimer, time: Duration) -> bool {
        timeout(time, poll_fn(|cx| clock.poll_blocked(cx))).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_has_the_limit_once() {
        let mut clock = ReadTimer::new(LIMIT);
        assert!(waits(&mut clock, LIMIT - SECOND).await);
        assert!(!waits(&mut clock, 2 * SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_no_progress() {
        let mut clock = ReadTimer::new(LIMIT);
        for _ in 0..3 {
            assert!(waits(&mut clock, 9 * SECOND).await);
            clock.record_read(1);
        }
        assert!(!waits(&mut clock, 4 * SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_bytes_or_all_of_them_are_and_time_without_anything_to_send_is_not_counted() {
        let mut clock = ReadTimer::new(LIMIT);
        for _ in 0..10 {
            assert!(waits(&mut clock, 29 * SECOND).await);
            clock.record_read(MIN_PROGRESS / 2);
            clock.record_read(MIN_PROGRESS / 2);
            assert!(waits(&mut clock, 29 * SECOND).await);
            clock.record_drained();
        }
        assert!(waits(&mut clock, 20 * SECOND).await);
        clock.record_read(1);
        advance(100 * SECOND).await;
        assert!(waits(&mut clock, 9 * SECOND).await);
        assert!(!waits(&mut clock, 2 * SECOND).await);
    }
}
