//! Aborts request bodies that arrive slowly while there is not enough memory for other requests.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::body_memory::BodyMemory;

/// Interval in which a body must make progress.
const INTERVAL: Duration = Duration::from_secs(1);

/// Memory that a request may hold however slowly it arrives.
const SMALL: u64 = 64 << 10;

/// Minimum progress in an [`INTERVAL`], in bytes.
const LEAST: u64 = 16 << 10;

/// Minimum progress in an [`INTERVAL`], as a share of the memory that the request holds: it holds much memory for at
/// most about 30 seconds before it is complete.
const PART: u64 = 32;

/// Monitors the body of a request, and aborts it if it arrives slowly, holds memory, and other requests are rejected
/// for lack of memory.
#[derive(Debug, Default)]
pub(crate) struct SlowBody {
    received: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl SlowBody {
    /// Records progress.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Ready once the body must be aborted. Poll it when no data is available.
    pub(super) fn poll_given_up(&mut self, memory: &BodyMemory, cx: &mut Context<'_>) -> Poll<()> {
        let bytes = memory.bytes();
        if bytes <= SMALL {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(INTERVAL)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let is_slow = self.received < LEAST.max(bytes / PART);
            self.received = 0;
            if is_slow && memory.is_short(SMALL) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{HostMemory, HostReservation, OperandLimits, Operands, PutOptions};
    use std::future::poll_fn;

    async fn is_given_up(held: &HostReservation, bytes: usize) -> bool {
        is_upload_given_up(&BodyMemory::of_request(held), bytes).await
    }

    /// Whether a body of which `bytes` arrive every 900 ms is given up within ten seconds.
    async fn is_upload_given_up(held: &BodyMemory, bytes: usize) -> bool {
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

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_is_given_up_only_while_it_holds_what_other_operands_need() {
        let limits = OperandLimits { max_bytes: 8 << 20, ..OperandLimits::default() };
        let (operands, memory) = (Operands::new(limits), HostMemory::new(8 << 20));
        let (request, operand) = (memory.reservation(0), operands.reservation(&PutOptions::default()));
        operand.grow(4 << 20).unwrap();
        let upload = BodyMemory::of_upload(&request, &operand);
        assert!(memory.reservation(0).grow(4 << 20).is_ok());
        let other = memory.reservation(0);
        other.grow(4 << 20).unwrap();
        assert!(memory.reservation(0).grow(4 << 20).is_err() && memory.is_short());
        assert!(!is_upload_given_up(&upload, 0).await, "it has no memory of requests");
        assert!(operands.reservation(&PutOptions::default()).grow(5 << 20).is_err());
        assert!(!is_upload_given_up(&upload, 256 << 10).await, "it comes fast enough");
        assert!(is_upload_given_up(&upload, 1).await, "it trickles");
    }
}
