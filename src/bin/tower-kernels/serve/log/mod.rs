//! The program's log, on stderr.
//!
//! Requests never wait for its reader, and clients cannot flood it:
//! * a dedicated thread writes ([`writer`]); lines that do not fit into its queue or cannot be written are dropped and
//!   counted;
//! * events of one kind are limited in number per ten seconds and summarized beyond that ([`repeats`]), except for the
//!   access log if it is on;
//! * the lengths of values and lines are limited, and control characters are escaped ([`values`]).
//!
//! `tracing-appender` does not fit: its queue is bounded in lines and not in bytes, it does not count failed writes, and at
//! the end it prints to stdout, which panics if that is closed.

mod format;
mod metrics;
mod repeats;
mod span_fields;
#[cfg(test)]
mod tests;
mod values;
mod writer;

use std::error::Error;
use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::format::Lines;
use self::repeats::Repeats;
use self::span_fields::KeepSpanFields;
use self::writer::{Queue, Writer};
use crate::config::Log;

/// The target of the log's own events, which are not summarized again.
const TARGET: &str = "tower_kernels::log";

/// The spans of requests.
const REQUEST: &str = "tower_kernels::request";
/// The events that say how each request ended.
const ACCESS: &str = "tower_kernels::access";

/// The running log. On drop it writes the remaining lines, within a time limit.
#[derive(Debug)]
pub(super) struct Logger {
    repeats: Arc<Repeats>,
    writer: Writer,
}

impl Logger {
    /// Installs the subscriber and the panic hook.
    pub(super) fn init(log: &Log) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let filter = filter(log)?;
        let repeats = Arc::new(Repeats::new(log.max_repeats));
        let queue = Queue::new(log.buffer);
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .event_format(Lines::new(log.format, Arc::clone(&repeats)))
            .log_internal_errors(false)
            .with_writer(queue.clone());
        tracing_subscriber::registry().with(filter).with(KeepSpanFields::new(layer)).try_init()?;
        std::panic::set_hook(Box::new(panicked));
        let writer = Writer::spawn(queue, Arc::clone(&repeats))?;
        Ok(Self { repeats, writer })
    }

    /// Returns a function that returns the log's own metrics as OpenMetrics text.
    pub(super) fn metrics(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let (queue, repeats) = (self.writer.queue().clone(), Arc::clone(&self.repeats));
        move || metrics::render(&queue, &repeats)
    }
}

/// The filter of `log.level`, plus the request spans, which lines about a request refer to, and the access log if it is
/// on.
fn filter(log: &Log) -> Result<Targets, Box<dyn Error + Send + Sync>> {
    let level = log.level.directives();
    let mut filter: Targets = level.parse()?;
    if level != "off" {
        filter = filter.with_target(REQUEST, LevelFilter::ERROR);
    }
    if log.access {
        filter = filter.with_target(ACCESS, LevelFilter::INFO);
    }
    Ok(filter)
}

/// Logs a panic. The default hook writes to stderr itself, so a panicking thread would wait for its reader.
fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let literal = payload.downcast_ref::<&str>().copied();
    let message = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let location = info.location().map(tracing::field::display);
    let thread = std::thread::current();
    // Empty unless RUST_BACKTRACE is set.
    let backtrace = std::backtrace::Backtrace::capture();
    let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    tracing::error!(
        target: "tower_kernels::panic",
        thread = thread.name(),
        location,
        backtrace = captured.then(|| tracing::field::display(&backtrace)),
        "panicked: {message}"
    );
}
