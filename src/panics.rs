//! Catches panics of code that is not ours, whatever they carry: the one place for it.
//!
//! What a panic carries is a value of any type, and dropping it runs the code of whoever made it. A value whose `Drop`
//! panics turns a panic that has been caught into one that has not: it takes the worker, the task or the connection with
//! it. So the value of a panic never leaves this module. Texts, which nearly all panics carry, are read and dropped; other
//! values are leaked, because a drop that panics twice ends the process. That costs a few bytes for each such panic, and
//! only a kernel that calls [`panic_any`](std::panic::panic_any) makes any.
//!
//! # What cannot be caught
//!
//! A second panic while the first one unwinds, such as that of a `Drop` of a local variable of a function that panics, ends
//! the process: Rust leaves no choice. So does a panic whose value panics when `rayon` drops it, which it does where both
//! halves of a [`rayon::join`] panic.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::text::truncated;

/// A panic that has been caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panicked {
    message: String,
}

impl Panicked {
    /// Messages may repeat what a client sent, of which there can be much.
    const LONGEST: usize = 1024;

    /// Takes what a panic carries out of circulation. See the [module](self).
    #[cold]
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast::<&'static str>() {
            Ok(text) => truncated((*text).to_owned(), Self::LONGEST),
            Err(payload) => match payload.downcast::<String>() {
                Ok(text) => truncated(*text, Self::LONGEST),
                Err(payload) => match payload.downcast::<Cow<'static, str>>() {
                    Ok(text) => truncated(text.into_owned(), Self::LONGEST),
                    Err(payload) => {
                        std::mem::forget(payload);
                        "(a value that is not a text)".to_owned()
                    }
                },
            },
        };
        Self { message }
    }

    /// Panics again, with what it said and nothing else.
    #[cfg(feature = "hyper")]
    pub(crate) fn resume(self) -> ! {
        std::panic::resume_unwind(Box::new(self.message))
    }

    /// What it said. For the log and for callers in the same process, never for clients.
    pub(crate) fn into_message(self) -> String {
        self.message
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Does `work`, and catches its panic. What `work` borrows has to be fit for use after it was left half-way.
#[inline]
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panicked::new)
}

/// Drops a value of a type that is not ours. Its panic is logged, and does not reach the caller.
#[inline]
pub(crate) fn drop_caught<T>(value: T, type_name: &str) {
    if let Err(panicked) = catch_panic(|| drop(value)) {
        log_drop(type_name, &panicked);
    }
}

#[cold]
fn log_drop(type_name: &str, panicked: &Panicked) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(left_out) = LIMIT.next() {
        tracing::error!(r#type = type_name, panic = %panicked, left_out, "a value panicked when it was dropped");
    }
}

pin_project! {
    /// A future whose panic is its output. The inner future is dropped while it unwinds, as a task's is, so that layers in it
    /// count a panic and not a cancellation.
    pub(crate) struct CatchPanic<F> {
        #[pin]
        inner: Option<F>,
    }
}

impl<F> CatchPanic<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { inner: Some(inner) }
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        /// Drops the future with the frame that polled it, unless it is told that the poll came back.
        struct OnUnwind<'a, F>(Pin<&'a mut Option<F>>);

        impl<F> Drop for OnUnwind<'_, F> {
            fn drop(&mut self) {
                self.0.set(None);
            }
        }

        let mut inner = self.project().inner;
        let polled = catch_panic(|| {
            let mut guard = OnUnwind(inner.as_mut());
            let polled = guard.0.as_mut().as_pin_mut().expect("polled after it had completed").poll(cx);
            if polled.is_pending() {
                std::mem::forget(guard);
            }
            polled
        });
        Poll::Ready(match polled {
            Ok(polled) => Ok(ready!(polled)),
            Err(panicked) => Err(panicked),
        })
    }
}

/// A task that nobody waits for. Its panic is logged, and what it carries is not dropped by the runtime, which a second
/// panic would cost a thread.
pub(crate) async fn detached(task: &'static str, future: impl Future<Output = ()>) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Err(panicked) = CatchPanic::new(future).await
        && let Some(left_out) = LIMIT.next()
    {
        tracing::error!(task, panic = %panicked, left_out, "a task panicked");
    }
}

/// Keeps what clients can cause from filling the log: so many lines a second, and then the number of those left out.
#[derive(Debug)]
pub(crate) struct LogLimit {
    /// The second of the last line in the upper half, and the lines of that second in the lower one.
    window: AtomicU64,
    left_out: AtomicU64,
}

impl LogLimit {
    const LINES_PER_SECOND: u64 = 10;

    pub(crate) const fn new() -> Self {
        Self { window: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether to write a line now, and how many were left out before it.
    pub(crate) fn next(&self) -> Option<u64> {
        let second = since_start().as_secs() & u64::from(u32::MAX);
        let count = |window: u64| {
            let lines = if window >> 32 == second { window & u64::from(u32::MAX) } else { 0 };
            (lines < Self::LINES_PER_SECOND).then_some(second << 32 | (lines + 1))
        };
        match self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) {
            Ok(_) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    /// Its drop panics with another, so often.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Self(self.0 - 1));
            }
        }
    }

    #[test]
    fn what_a_panic_carries_is_read_where_it_is_a_text_and_never_dropped_where_it_is_not() {
        for (caught, message) in [
            (catch_panic(|| panic!("a text")), "a text"),
            (catch_panic(|| panic!("a text with a {}", 1)), "a text with a 1"),
            (catch_panic(|| panic_any(Cow::<'static, str>::Borrowed("a cow"))), "a cow"),
            (catch_panic(|| panic_any(7)), "(a value that is not a text)"),
            (catch_panic(|| panic_any(Bomb(1))), "(a value that is not a text)"),
            // Dropping this one would end the process.
            (catch_panic(|| panic_any([Bomb(1), Bomb(1)])), "(a value that is not a text)"),
        ] {
            assert_eq!(caught, Err::<(), _>(Panicked { message: message.to_owned() }));
        }
        assert_eq!(catch_panic(|| 1), Ok(1));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let panicked = catch_panic::<()>(|| panic!("{}", "é".repeat(5000))).unwrap_err();
        assert_eq!(panicked.into_message().len(), Panicked::LONGEST + '…'.len_utf8());
    }

    #[test]
    fn a_drop_that_panics_does_not_reach_who_drops() {
        drop_caught(Bomb(3), "Bomb");
    }

    #[test]
    fn a_future_that_panics_is_dropped_while_it_unwinds() {
        struct Seen<'a>(&'a AtomicU64);
        impl Drop for Seen<'_> {
            fn drop(&mut self) {
                self.0.store(1 + u64::from(std::thread::panicking()), Ordering::Relaxed);
            }
        }
        for (panics, dropped) in [(true, 2), (false, 1)] {
            let seen = AtomicU64::new(0);
            let guard = Seen(&seen);
            let mut polls = 0;
            let mut future = CatchPanic::new(std::future::poll_fn(move |_| {
                let _guard = &guard;
                polls += 1;
                match polls {
                    1 => Poll::Pending,
                    _ if panics => panic_any(Bomb(3)),
                    _ => Poll::Ready(7),
                }
            }));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
            assert_eq!(seen.load(Ordering::Relaxed), 0, "it is needed for the next poll");
            let Poll::Ready(result) = Pin::new(&mut future).poll(&mut cx) else { panic!("it is ready") };
            assert_eq!((result.is_err(), seen.load(Ordering::Relaxed)), (panics, dropped));
        }
    }

    #[test]
    fn a_log_that_is_limited_says_what_it_left_out() {
        let limit = LogLimit::new();
        let most = 3 * LogLimit::LINES_PER_SECOND;
        // However long this takes: each second has its lines, and each line left out is counted.
        let (mut written, mut left_out) = (0, 0);
        for _ in 0..most {
            if let Some(before) = limit.next() {
                written += 1;
                left_out += before;
            }
        }
        assert!(written >= LogLimit::LINES_PER_SECOND);
        assert_eq!(written + left_out + limit.left_out.load(Ordering::Relaxed), most);
    }
}
