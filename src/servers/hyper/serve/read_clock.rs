//! How long a client lets its server wait while there is something to send to it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::later;

/// A client must take so many bytes, or all that there is, within the limit: 64 KiB. One that takes a byte now and then
/// would otherwise hold a response for as long as it likes.
pub(super) const MIN_PROGRESS: usize = 64 << 10;

/// A clock that runs while a client does not take what it is sent.
///
/// It does not run while there is nothing to send, so that the time in which a response is made is not the client's.
#[derive(Debug)]
pub(super) struct ReadClock {
    limit: Duration,
    /// When the client stopped taking, where it has not gone on.
    since: Option<Instant>,
    /// For how long it took nothing, since it last made progress.
    blocked: Duration,
    /// What it took since then.
    taken: usize,
    /// Made when it is first waited for: most clients read.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ReadClock {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None, blocked: Duration::ZERO, taken: 0, timer: None }
    }

    /// The client has taken this.
    #[inline]
    pub(super) fn took(&mut self, bytes: usize) {
        // Nothing to stop, which is so in nearly all cases.
        if self.since.is_none() && self.blocked.is_zero() {
            return;
        }
        if let Some(since) = self.since.take() {
            self.blocked += since.elapsed();
        }
        self.taken += bytes;
        if self.taken >= MIN_PROGRESS {
            self.took_all();
        }
    }

    /// The client has taken all that there was.
    pub(super) fn took_all(&mut self) {
        (self.since, self.blocked, self.taken) = (None, Duration::ZERO, 0);
    }

    /// The client does not take what there is. Ready once it has not for too long.
    pub(super) fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let deadline = later(since, self.limit.saturating_sub(self.blocked));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            // It may be set to an earlier moment, and is set anew once that has come: not with each write.
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
    async fn waits(clock: &mut ReadClock, time: Duration) -> bool {
        timeout(time, poll_fn(|cx| clock.poll_blocked(cx))).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_has_the_limit_once() {
        let mut clock = ReadClock::new(LIMIT);
        assert!(waits(&mut clock, LIMIT - SECOND).await);
        assert!(!waits(&mut clock, 2 * SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_no_progress() {
        let mut clock = ReadClock::new(LIMIT);
        for _ in 0..3 {
            assert!(waits(&mut clock, 9 * SECOND).await);
            clock.took(1);
        }
        assert!(!waits(&mut clock, 4 * SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_bytes_or_all_of_them_are_and_time_without_anything_to_send_is_not_counted() {
        let mut clock = ReadClock::new(LIMIT);
        for _ in 0..10 {
            assert!(waits(&mut clock, 29 * SECOND).await);
            clock.took(MIN_PROGRESS / 2);
            clock.took(MIN_PROGRESS / 2);
            assert!(waits(&mut clock, 29 * SECOND).await);
            clock.took_all();
        }
        assert!(waits(&mut clock, 20 * SECOND).await);
        clock.took(1);
        advance(100 * SECOND).await;
        assert!(waits(&mut clock, 9 * SECOND).await);
        assert!(!waits(&mut clock, 2 * SECOND).await);
    }
}
