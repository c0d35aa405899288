//! Limits repeated events: a few of each kind are logged, and the number of the others.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tower_kernels::error::ErrorKind;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use super::format::is_own;
use super::values::push_truncated;
use super::{ACCESS, TARGET};

/// The period in which [`Repeats`] counts.
const WINDOW: Duration = Duration::from_secs(10);

/// Counts events by kind: their callsite, and their `error.type` or `outcome`.
///
/// The number of kinds is bounded by callsites times error kinds, whatever clients do.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Maximum number of events of a kind logged in a window; 0 is no limit.
    max: u64,
    kinds: Mutex<HashMap<(Identifier, Option<&'static str>), Kind>>,
    repeated: AtomicU64,
}

#[derive(Debug)]
struct Kind {
    metadata: &'static Metadata<'static>,
    /// The start of the window, and the number logged in it.
    begun: Instant,
    logged: u64,
    suppressed: Option<Suppressed>,
}

/// The events that were not logged: since when, how many, and the message of the first.
#[derive(Debug)]
struct Suppressed {
    since: Instant,
    count: u64,
    message: String,
}

impl Repeats {
    pub(super) fn new(max: u64) -> Self {
        Self { max, kinds: Mutex::default(), repeated: AtomicU64::new(0) }
    }

    /// The number of events that were not logged individually.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Whether to log this event; if not, it is counted.
    pub(super) fn should_log(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // At debug its lines are limited like others.
        let is_access_log = metadata.target() == ACCESS && *metadata.level() == Level::INFO;
        if self.max == 0 || metadata.target() == TARGET || is_own(metadata) || is_access_log {
            return true;
        }
        let mut kind = KindVisitor::default();
        event.record(&mut kind);
        let now = Instant::now();
        let mut kinds = self.kinds.lock();
        let KindVisitor { code, message } = kind;
        let kind = kinds.entry((metadata.callsite(), code)).or_insert_with(|| Kind {
            metadata,
            begun: now,
            logged: 0,
            suppressed: None,
        });
        if now.duration_since(kind.begun) >= WINDOW {
            (kind.begun, kind.logged) = (now, 0);
        }
        if kind.logged < self.max {
            kind.logged += 1;
            return true;
        }
        kind.suppressed.get_or_insert(Suppressed { since: now, count: 0, message }).count += 1;
        drop(kinds);
        self.repeated.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Logs a summary of each kind whose suppressed events are old enough, or of `all`.
    pub(super) fn log_summaries(&self, all: bool) {
        let now = Instant::now();
        let mut due = Vec::new();
        self.kinds.lock().retain(|(_, code), kind| {
            if let Some(suppressed) = kind.suppressed.take_if(|one| all || now.duration_since(one.since) >= WINDOW) {
                due.push((kind.metadata, *code, suppressed));
            }
            kind.suppressed.is_some() || now.duration_since(kind.begun) < WINDOW
        });
        // The lock is released: logging calls `should_log`.
        for (metadata, code, Suppressed { since, count, message }) in due {
            let seconds = now.duration_since(since).as_secs();
            log(*metadata.level(), metadata.target(), code, &message, count, seconds);
        }
    }
}

fn log(level: Level, of: &str, code: Option<&str>, message: &str, repeats: u64, seconds: u64) {
    // The level of a callsite is a constant.
    macro_rules! at {
        ($level:expr) => {
            tracing::event!(
                target: TARGET,
                $level,
                of,
                event = message,
                error.type = code,
                repeats,
                seconds,
                "similar events were not logged individually"
            )
        };
    }
    match level {
        Level::ERROR => at!(Level::ERROR),
        Level::WARN => at!(Level::WARN),
        Level::INFO => at!(Level::INFO),
        Level::DEBUG => at!(Level::DEBUG),
        Level::TRACE => at!(Level::TRACE),
    }
}

/// Reads the kind and the message of an event.
#[derive(Default)]
struct KindVisitor {
    code: Option<&'static str>,
    message: String,
}

impl Visit for KindVisitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "error.type" | "outcome" => {
                self.code = ErrorKind::ALL.into_iter().map(ErrorKind::code).find(|code| *code == value)
            }
            "message" => push_truncated(&mut self.message, format_args!("{value}"), 128),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            push_truncated(&mut self.message, format_args!("{value:?}"), 128);
        }
    }
}
