//! Tests of the lines that are written for events.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tracing::Level;

use super::format::{Lines, MAX_EVENT};
use super::repeats::Repeats;
use super::span_fields::KeepSpanFields;
use super::values::{MAX_VALUE, is_unsafe};
use super::writer::Queue;
use crate::config::LogFormat;
use tracing_subscriber::layer::SubscriberExt;

const EVIL: &str = "a\n\u{1b}[31m\"\\\u{7}\u{9b}\u{202e}\u{7f}b";

/// The lines written for these events.
fn lines(format: LogFormat, max_repeats: u64, events: impl FnOnce()) -> String {
    let (repeats, queue) = (Arc::new(Repeats::new(max_repeats)), Queue::new(1 << 20));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(Lines::new(format, Arc::clone(&repeats)))
        .with_writer(queue.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(KeepSpanFields::new(layer)), || {
        events();
        repeats.log_summaries(true);
    });
    queue.taken()
}

fn evil() {
    let error = std::io::Error::other(EVIL);
    let span = tracing::info_span!("request", tenant = EVIL, later = tracing::field::Empty, n = 1.5);
    span.record("later", EVIL);
    let _entered = span.enter();
    tracing::info!(target: "t", name = EVIL, shown = %EVIL, debug = ?EVIL, error = &error as &dyn Error, "{EVIL}");
}

#[test]
fn control_characters_are_escaped_wherever_they_are() {
    let text = lines(LogFormat::Text, 0, evil);
    let escaped = r#"a\n\u{1b}[31m"\\u{7}\u{9b}\u{202e}\u{7f}b"#;
    assert!(text.ends_with('\n') && !text.trim_end().contains(is_unsafe), "{text:?}");
    assert!(text.contains(&format!("t: {escaped} name=")) && text.contains(&format!("error={escaped}")), "{text}");
    assert!(text.contains(r#"tenant="a\n\u{1b}[31m\"\\\u{7}"#), "{text}");

    let line = lines(LogFormat::Json, 0, evil);
    assert!(!line.trim_end().contains(is_unsafe), "{line:?}");
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    for value in [&json["message"], &json["name"], &json["shown"], &json["error"], &json["span"]["later"]] {
        assert_eq!(value, EVIL, "{line}");
    }
    assert_eq!((&json["spans"][0]["name"], &json["span"]["n"]), (&"request".into(), &1.5.into()), "{line}");
    assert_eq!((&json["level"], &json["target"]), (&"INFO".into(), &"t".into()), "{line}");
}

#[test]
fn a_long_value_is_truncated_and_the_rest_is_never_formatted() {
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("ää\n")?;
            }
        }
    }
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = lines(format, 0, || {
            let long = "x".repeat(1 << 20);
            let span = tracing::info_span!("request", a = long, b = %Endless, c = tracing::field::Empty);
            for _ in 0..1000 {
                span.record("c", &*long);
            }
            let _entered = span.enter();
            tracing::info!(target: "t", a = long, b = %Endless, c = ?long, d = %Endless, "{Endless}");
        });
        assert!(line.len() < MAX_EVENT && line.lines().count() == 1, "{} bytes", line.len());
        assert!(line.contains('…') && !line.contains(&"x".repeat(MAX_VALUE + 1)), "{line}");
        if format == LogFormat::Json {
            serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    }
}

#[test]
fn repeats_are_summarized_by_kind() {
    let text = lines(LogFormat::Text, 3, || {
        let log = |code: &str| tracing::event!(target: "t", Level::WARN, error.type = code, "request failed");
        (0..10).for_each(|_| log("overloaded"));
        (0..3).for_each(|_| log("deadline_exceeded"));
        (0..5).for_each(|_| log("what a client makes up"));
    });
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(count("t: request failed"), 3 + 3 + 3, "{text}");
    assert_eq!(count("error.type=\"overloaded\" repeats=7"), 1, "{text}");
    assert_eq!(count("event=\"request failed\" repeats=2"), 1, "{text}");
    assert_eq!(text.lines().count(), 3 + 3 + 3 + 2, "{text}");
}

#[test]
fn a_json_line_identifies_its_request() {
    let line = lines(LogFormat::Json, 0, || {
        let call = tracing::info_span!("request", request_id = "a", kernel = tracing::field::Empty, tenant = "t");
        let _call = call.enter();
        let request = tracing::info_span!("request", request_id = EVIL, kernel = "k", otel.name = "k");
        let _request = request.enter();
        tracing::info!(target: "t", kernel = "its own", "a");
    });
    // Each member once: the map has the last of a name.
    assert_eq!(line.matches(r#""kernel":"#).count(), 3, "{line}");
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    let names = (&json["request_id"], &json["kernel"], &json["tenant"]);
    assert_eq!(names, (&EVIL.into(), &"its own".into(), &"t".into()), "{line}");
    assert!(!line.contains("otel."), "{line}");
    let none = lines(LogFormat::Json, 0, || tracing::info!(target: "t", "no request"));
    assert!(!none.contains("request_id"), "{none}");
}

#[test]
fn the_access_log_has_every_line_where_it_is_on() {
    let logged = |level: Level| {
        let text = lines(LogFormat::Text, 2, || {
            for outcome in ["ok", "ok", "ok", "not_found"] {
                match level {
                    Level::INFO => tracing::info!(target: "tower_kernels::access", outcome, "request ended"),
                    _ => tracing::debug!(target: "tower_kernels::access", outcome, "request ended"),
                }
            }
        });
        text.lines().filter(|line| line.contains("request ended") && !line.contains("repeats")).count()
    };
    // At debug its lines are limited like others.
    assert_eq!((logged(Level::INFO), logged(Level::DEBUG)), (4, 3));
}
