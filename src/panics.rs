//! Catches panics of users' code. All of the crate catches them here.
//!
//! A panic's payload is a value of any type, and dropping it runs its own code. A payload whose `Drop` panics would turn a
//! caught panic into an uncaught one, and take the worker, the task or the connection with it. So payloads never leave this
//! module. Strings, which nearly all payloads are, are read and dropped; other payloads are leaked, because a drop that panics
//! twice aborts the process. That costs a few bytes for each such panic, which only a kernel that calls
//! [`panic_any`](std::panic::panic_any) causes.
//!
//! # Panics that cannot be caught
//!
//! A second panic while the first one unwinds, such as one in the `Drop` of a local variable, aborts the process. So does a
//! panic whose payload panics when `rayon` drops it, which it does if both halves of a [`rayon::join`] panic.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::text::truncated;

/// A caught panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panicked {
    message: String,
}

impl Panicked {
    /// The maximum length of a message, which can repeat what a client sent.
    const MAX_MESSAGE_BYTES: usize = 1024;

    /// Reads the message of a panic's payload, and disposes of the payload. See the [module](self).
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast::<&'static str>() {
            Ok(text) => truncated((*text).to_owned(), Self::MAX_MESSAGE_BYTES),
            Err(payload) => match payload.downcast::<String>() {
                Ok(text) => truncated(*text, Self::MAX_MESSAGE_BYTES),
                Err(payload) => match payload.downcast::<Cow<'static, str>>() {
                    Ok(text) => truncated(text.into_owned(), Self::MAX_MESSAGE_BYTES),
                    Err(payload) => {
                        std::mem::forget(payload);
                        "(a payload that is not a string)".to_owned()
                    }
                },
            },
        };
        Self { message }
    }

    /// Resumes the panic with its message alone.
    #[cfg(feature = "hyper")]
    pub(crate) fn resume(self) -> ! {
        std::panic::resume_unwind(Box::new(self.message))
    }

    /// Returns the message, which is for the log and for callers in the same process, but not for clients.
    pub(crate) fn into_message(self) -> String {
        self.message
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs `work` and catches its panic. What `work` borrows must be usable after `work` has been interrupted.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panicked::new)
}

/// Drops a value of a user's type. A panic is caught and logged.
pub(crate) fn drop_caught<T>(value: T, type_name: &str) {
    if let Err(panicked) = catch_panic(|| drop(value)) {
        log_drop(type_name, &panicked);
    }
}

fn log_drop(type_name: &str, panicked: &Panicked) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(left_out) = LIMIT.next() {
        tracing::error!(r#type = type_name, panic = %panicked, left_out, "a value panicked when it was dropped");
    }
}

pin_project! {
    /// A future that catches the panic of the inner future and outputs it as an error. The inner future is dropped while it
    /// unwinds, as a task's is, so that layers in it count a panic and not a cancellation.
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
        /// Drops the future during unwinding; it is forgotten if the poll returns.
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

/// Runs a detached task. A panic is caught and logged, so that the runtime does not drop its payload, whose own panic
/// would end a thread of the runtime.
pub(crate) async fn detached(task: &'static str, future: impl Future<Output = ()>) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Err(panicked) = CatchPanic::new(future).await
        && let Some(left_out) = LIMIT.next()
    {
        tracing::error!(task, panic = %panicked, left_out, "a task panicked");
    }
}

/// Limits the log lines that clients can cause: ten a second, with the number of suppressed lines in the next one.
#[derive(Debug)]
pub(crate) struct LogLimit {
    window: Mutex<Window>,
}

impl LogLimit {
    const LINES_PER_SECOND: u64 = 10;

    pub(crate) const fn new() -> Self {
        Self { window: Mutex::new(Window { start: None, lines: 0, suppressed: 0 }) }
    }

    /// Returns the number of lines suppressed since the last one, if a line may be written now.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if window.start.is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1)) {
            (window.start, window.lines) = (Some(now), 0);
        }
        if window.lines == Self::LINES_PER_SECOND {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

/// The lines of the current second.
#[derive(Debug)]
struct Window {
    start: Option<Instant>,
    lines: u64,
    suppressed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;
    use std::sync::atomic::{AtomicU64, Ordering};

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
            (catch_panic(|| panic_any(7)), "(a payload that is not a string)"),
            (catch_panic(|| panic_any(Bomb(1))), "(a payload that is not a string)"),
            // Dropping this one would end the process.
            (catch_panic(|| panic_any([Bomb(1), Bomb(1)])), "(a payload that is not a string)"),
        ] {
            assert_eq!(caught, Err::<(), _>(Panicked { message: message.to_owned() }));
        }
        assert_eq!(catch_panic(|| 1), Ok(1));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let panicked = catch_panic::<()>(|| panic!("{}", "é".repeat(5000))).unwrap_err();
        assert_eq!(panicked.into_message().len(), Panicked::MAX_MESSAGE_BYTES + '…'.len_utf8());
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
        assert_eq!(written + left_out + limit.window.lock().unwrap().suppressed, most);
    }
}
