//! Bodies of requests that come slowly while there is not enough memory for others.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::service::HostReservation;

/// How long a body has to bring what it must.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a request may hold without anybody caring how fast it comes.
const SMALL: u64 = 64 << 10;

/// The least bytes that a body has to bring in an [`INTERVAL`].
const LEAST: u64 = 16 << 10;

/// The part of what a request holds that its body has to bring in an [`INTERVAL`]: no request holds much for longer than
/// some 30 seconds before it is there.
const PART: u64 = 32;

/// Watches the body of one request, and gives it up where it comes slowly, holds memory, and others are rejected for want
/// of it. While there is enough for everybody no body is too slow.
#[derive(Debug, Default)]
pub(crate) struct SlowBody {
    received: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl SlowBody {
    /// Counts what has come.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Ready once the body is to be given up. To be polled when nothing has come.
    pub(crate) fn poll_given_up(&mut self, held: &HostReservation, cx: &mut Context<'_>) -> Poll<()> {
        let bytes = held.bytes();
        if bytes <= SMALL {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(INTERVAL)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let is_slow = self.received < LEAST.max(bytes / PART);
            self.received = 0;
            if is_slow && held.memory().is_short() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::HostMemory;
    use std::future::poll_fn;

    /// Whether a body that brings so much every 900 ms is given up within ten seconds.
    async fn is_given_up(held: &HostReservation, bytes: usize) -> bool {
        let mut body = SlowBody::default();
        for _ in 0..11 {
            let wait = poll_fn(|cx| body.poll_given_up(held, cx));
            if tokio::time::timeout(Duration::from_millis(900), wait).await.is_ok() {
                return true;
            }
            body.received(bytes);
        }
        false
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_given_up_only_while_memory_is_short() {
        let memory = HostMemory::new(8 << 20);
        let (large, small) = (memory.reservation(0), memory.reservation(0));
        large.grow(4 << 20).unwrap();
        small.grow(SMALL).unwrap();
        assert!(!is_given_up(&large, 0).await, "there is enough for all");
        // Time is paused, and `is_short` goes by the real clock, in which all of this takes no time.
        assert!(memory.reservation(0).grow(4 << 20).is_err() && memory.is_short());
        assert!(!is_given_up(&small, 0).await);
        assert!(!is_given_up(&large, 256 << 10).await, "it comes fast enough");
        assert!(is_given_up(&large, 1).await, "it trickles");
        assert!(is_given_up(&large, 0).await);
    }
}
