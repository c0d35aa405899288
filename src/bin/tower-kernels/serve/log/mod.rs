//! The program's log, on stderr.
//!
//! Requests never wait for whoever reads it, and clients cannot fill it:
//! * a thread of its own writes ([`writer`]); lines that find its queue full, or that cannot be written, are dropped and
//!   counted;
//! * of events of a kind a few are logged in any ten seconds, and of the rest the number ([`repeats`]); but for the
//!   access log where it is asked for, which has a line for each request;
//! * values and lines have a longest length, and control characters are escaped ([`format`]).
//!
//! `tracing-appender` would be the library for the first of these. Its queue is bounded in lines and not in bytes, what
//! it could not write it does not count, and at the end it prints to stdout, which panics where that is closed.

mod format;
mod metrics;
mod repeats;
mod writer;

use std::error::Error;
use std::io::IsTerminal;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::format::{Fields, Lines};
use self::repeats::Repeats;
use self::writer::{Queue, Writer};
use crate::config::Log;

/// What the log says of itself. The summaries must not be summed up.
const TARGET: &str = "tower_kernels::log";

/// The spans of requests.
const REQUEST: &str = "tower_kernels::request";
/// The events that say how each request ended.
const ACCESS: &str = "tower_kernels::access";

/// The log while it is written. Dropped, it writes what is left, for as long as somebody reads.
#[derive(Debug)]
pub(super) struct Logger {
    repeats: Arc<Repeats>,
    writer: Writer,
}

impl Logger {
    /// Logs from now on whatever `tracing` is told, panics included.
    pub(super) fn init(log: &Log) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let filter = filter(log)?;
        let repeats = Arc::new(Repeats::new(log.max_repeats));
        let queue = Queue::new(log.buffer);
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .event_format(Lines::new(log.format, Arc::clone(&repeats)))
            .fmt_fields(Fields::new(log.format))
            .log_internal_errors(false)
            .with_writer(queue.clone());
        tracing_subscriber::registry().with(filter).with(layer).try_init()?;
        std::panic::set_hook(Box::new(panicked));
        let writer = Writer::spawn(queue, Arc::clone(&repeats))?;
        Ok(Self { repeats, writer })
    }

    /// What adds the log's own figures to a page of metrics.
    pub(super) fn metrics(&self) -> impl Fn(&mut Registry) + Send + Sync + 'static {
        let (queue, repeats) = (self.writer.queue().clone(), Arc::clone(&self.repeats));
        move |registry| metrics::register(registry, queue.clone(), Arc::clone(&repeats))
    }
}

/// What `log.level` asks for, with the spans of requests, which any line about a request is to name, and the access log
/// where it is on.
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

/// The hook that there is without this writes to stderr itself: the thread that panicked would wait for its reader.
fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let literal = payload.downcast_ref::<&str>().copied();
    let message = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let location = info.location().map(tracing::field::display);
    let thread = std::thread::current();
    // Nothing, unless RUST_BACKTRACE asks for it.
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
