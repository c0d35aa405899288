//! Events of a kind that come in great number: a few are logged, and of the others how many there were.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tower_kernels::error::ErrorKind;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use super::format::{is_own, push_cut};
use super::{ACCESS, TARGET};

/// The time in which [`Repeats`] counts.
const WINDOW: Duration = Duration::from_secs(10);

/// Counts events by kind: where in the code they are made, and the `error.type` or `outcome` that they tell of.
///
/// There are as many kinds as such places, times the kinds of errors, whatever clients do.
#[derive(Debug)]
pub(super) struct Repeats {
    /// How many of a kind are logged in a window; 0 is all of them.
    max: u64,
    kinds: Mutex<HashMap<(Identifier, Option<&'static str>), Kind>>,
    repeated: AtomicU64,
}

#[derive(Debug)]
struct Kind {
    metadata: &'static Metadata<'static>,
    /// When the window began, and how many were logged in it.
    begun: Instant,
    logged: u64,
    /// Those that were not, since when, and what the first of them said.
    more: Option<More>,
}

#[derive(Debug)]
struct More {
    since: Instant,
    count: u64,
    message: String,
}

impl Repeats {
    pub(super) fn new(max: u64) -> Self {
        Self { max, kinds: Mutex::default(), repeated: AtomicU64::new(0) }
    }

    /// Events that were not logged one by one.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Whether this event is to be logged; if not it is counted.
    pub(super) fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // What was asked for, line by line; at debug the same lines are as others are.
        let is_access_log = metadata.target() == ACCESS && *metadata.level() == Level::INFO;
        if self.max == 0 || metadata.target() == TARGET || is_own(metadata) || is_access_log {
            return true;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let now = Instant::now();
        let mut kinds = self.kinds.lock();
        let kind = kinds.entry((metadata.callsite(), said.code)).or_insert_with(|| Kind {
            metadata,
            begun: now,
            logged: 0,
            more: None,
        });
        if now.duration_since(kind.begun) >= WINDOW {
            (kind.begun, kind.logged) = (now, 0);
        }
        if kind.logged < self.max {
            kind.logged += 1;
            return true;
        }
        kind.more.get_or_insert(More { since: now, count: 0, message: said.message }).count += 1;
        drop(kinds);
        self.repeated.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Logs how many events of each kind there were that were not logged, once it has been long enough, or `all` of them.
    pub(super) fn sum_up(&self, all: bool) {
        let now = Instant::now();
        let mut due = Vec::new();
        self.kinds.lock().retain(|(_, code), kind| {
            if let Some(more) = kind.more.take_if(|more| all || now.duration_since(more.since) >= WINDOW) {
                due.push((kind.metadata, *code, more));
            }
            kind.more.is_some() || now.duration_since(kind.begun) < WINDOW
        });
        // The lock is free again: to log is to come here.
        for (metadata, code, More { since, count, message }) in due {
            let seconds = now.duration_since(since).as_secs();
            log(*metadata.level(), metadata.target(), code, &message, count, seconds);
        }
    }
}

fn log(level: Level, of: &str, code: Option<&str>, message: &str, repeats: u64, seconds: u64) {
    // The level of a place that logs is a constant.
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
                "and more like it, not logged one by one"
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

/// What tells one kind of event at a place from another.
#[derive(Default)]
struct Said {
    code: Option<&'static str>,
    message: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "error.type" | "outcome" => {
                self.code = ErrorKind::ALL.into_iter().map(ErrorKind::code).find(|code| *code == value)
            }
            "message" => push_cut(&mut self.message, format_args!("{value}"), 128),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            push_cut(&mut self.message, format_args!("{value:?}"), 128);
        }
    }
}
