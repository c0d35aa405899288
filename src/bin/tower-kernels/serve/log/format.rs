//! Formats events as lines of text or JSON.
//!
//! Values can come from clients, so their length is limited and control characters are escaped, which the formatters of
//! `tracing-subscriber` do not do.

use std::error::Error;
use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::repeats::Repeats;
use crate::config::LogFormat;

/// Maximum bytes of a value.
const MAX_VALUE: usize = 128;
/// Maximum bytes of a message or error.
const MAX_SENTENCE: usize = 512;
/// Maximum bytes of a backtrace, and of a value in an event of the program itself.
const MAX_OWN: usize = 8 * 1024;
/// Maximum bytes of the fields of an event; further ones are omitted.
const MAX_EVENT: usize = 16 * 1024;
/// Maximum bytes of the fields of a span; further ones are omitted.
const MAX_SPAN: usize = 4 * 1024;

/// Writes a line for each event that is not suppressed as a repeat.
#[derive(Debug)]
pub(super) struct Lines {
    format: LogFormat,
    repeats: Arc<Repeats>,
}

impl Lines {
    pub(super) fn new(format: LogFormat, repeats: Arc<Repeats>) -> Self {
        Self { format, repeats }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if !self.repeats.should_log(event) {
            return Ok(());
        }
        match self.format {
            LogFormat::Text => text(ctx, writer, event),
            LogFormat::Json => json(ctx, writer, event),
        }
    }
}

/// Whether an event comes from the program itself and holds nothing from clients, such as addresses and settings.
pub(super) fn is_own(metadata: &Metadata<'_>) -> bool {
    const OWN: &str = "tower_kernels::serve";
    metadata.target().strip_prefix(OWN).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn text<S, N>(ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let metadata = event.metadata();
    if writer.has_ansi_escapes() {
        let color = match *metadata.level() {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            Level::DEBUG => 34,
            Level::TRACE => 35,
        };
        writer.write_str("\u{1b}[2m")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "\u{1b}[0m \u{1b}[{color}m{:>5}\u{1b}[0m ", metadata.level().as_str())?;
    } else {
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {:>5} ", metadata.level().as_str())?;
    }
    if let Some(scope) = ctx.event_scope() {
        for span in scope.from_root() {
            writer.write_str(span.name())?;
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.fields.is_empty()) {
                write!(writer, "{{{}}}", fields.fields)?;
            }
            writer.write_char(':')?;
        }
        writer.write_char(' ')?;
    }
    write!(writer, "{}: ", metadata.target())?;
    let visitor = DefaultVisitor::new(writer.by_ref(), true);
    let mut bounded = Bounded::new(Text { visitor, keeps_lines: is_own(metadata) }, MAX_EVENT, is_own(metadata));
    event.record(&mut bounded);
    bounded.into.visitor.finish()?;
    writeln!(writer)
}

fn json<S, N>(ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let metadata = event.metadata();
    writer.write_str("{\"timestamp\":\"")?;
    SystemTime.format_time(&mut writer)?;
    write!(writer, "\",\"level\":\"{}\"", metadata.level())?;
    let mut bounded = Bounded::new(Json::new(writer.by_ref(), false), MAX_EVENT, is_own(metadata));
    event.record(&mut bounded);
    let Json { result, written, .. } = bounded.into;
    result?;
    writer.write_str(",\"target\":")?;
    write_json(&mut writer, metadata.target())?;
    if let Some(scope) = ctx.event_scope() {
        let mut spans = String::new();
        let mut current = 0;
        for span in scope.from_root() {
            if !spans.is_empty() {
                spans.push(',');
            }
            current = spans.len();
            spans.push('{');
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.fields.is_empty()) {
                write!(spans, "{},", fields.fields)?;
            }
            spans.push_str("\"name\":");
            write_json(&mut spans, span.name())?;
            spans.push('}');
        }
        write_request(&mut writer, &spans, written)?;
        write!(writer, ",\"span\":{},\"spans\":[{spans}]", &spans[current..])?;
    }
    writer.write_str("}\n")
}

/// The fields that identify a request.
const REQUEST: [&str; 3] = ["request_id", "kernel", "tenant"];

/// Writes the fields that identify the request as members of the line itself, from the innermost of `spans` that has
/// them, unless the event has `written` them.
fn write_request(writer: &mut Writer<'_>, spans: &str, written: [bool; REQUEST.len()]) -> fmt::Result {
    // Written as JSON above. If it did not parse, the line would only lack these fields.
    let spans: Vec<serde_json::Value> = serde_json::from_str(&format!("[{spans}]")).unwrap_or_default();
    for (name, _) in REQUEST.into_iter().zip(written).filter(|(_, written)| !written) {
        if let Some(value) = spans.iter().rev().find_map(|span| span.get(name)?.as_str()) {
            write!(writer, ",\"{name}\":")?;
            write_json(writer, value)?;
        }
    }
    Ok(())
}

/// Formats the fields of spans: in JSON as members without braces, so that more can follow.
#[derive(Debug)]
pub(super) struct Fields {
    format: LogFormat,
}

impl Fields {
    pub(super) fn new(format: LogFormat) -> Self {
        Self { format }
    }

    fn write<R: RecordFields>(&self, writer: Writer<'_>, fields: R, max: usize, is_first: bool) -> fmt::Result {
        match self.format {
            LogFormat::Text => {
                let visitor = DefaultVisitor::new(writer, is_first);
                let mut bounded = Bounded::new(Text { visitor, keeps_lines: false }, max, false);
                fields.record(&mut bounded);
                bounded.into.visitor.finish()
            }
            LogFormat::Json => {
                let mut bounded = Bounded::new(Json::new(writer, is_first), max, false);
                fields.record(&mut bounded);
                bounded.into.result
            }
        }
    }
}

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.write(writer, fields, MAX_SPAN, true)
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let (max, is_first) = (MAX_SPAN.saturating_sub(current.fields.len()), current.fields.is_empty());
        self.write(current.as_writer(), fields, max, is_first)
    }
}

/// The target of [`Bounded`].
trait Values: Visit {
    /// Records a truncated text, with or without quotes.
    fn text(&mut self, field: &Field, text: &str, quoted: bool);
}

/// Passes values on, truncated. Fields for OpenTelemetry exporters are omitted.
struct Bounded<V> {
    into: V,
    /// Remaining bytes.
    remaining: usize,
    is_own: bool,
    /// The current value, truncated.
    value: String,
}

impl<V: Values> Bounded<V> {
    fn new(into: V, remaining: usize, is_own: bool) -> Self {
        Self { into, remaining, is_own, value: String::new() }
    }

    fn pass(&mut self, field: &Field, value: fmt::Arguments<'_>, quoted: bool) {
        let max = match field.name() {
            _ if self.is_own => MAX_OWN,
            "message" | "exception.message" | "error" | "reason" | "path" => MAX_SENTENCE,
            "backtrace" => MAX_OWN,
            _ => MAX_VALUE,
        };
        if self.remaining > 0 && !field.name().starts_with("otel.") {
            self.value.clear();
            push_truncated(&mut self.value, value, max.min(self.remaining));
            self.take(self.value.len() + field.name().len());
            self.into.text(field, &self.value, quoted);
        }
    }

    fn take(&mut self, bytes: usize) {
        self.remaining = self.remaining.saturating_sub(bytes);
    }
}

impl<V: Values> Visit for Bounded<V> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(24);
        self.into.record_f64(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(20);
        self.into.record_i64(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(20);
        self.into.record_u64(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.into.record_bool(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.pass(field, format_args!("{value}"), field.name() != "message");
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.pass(field, format_args!("{}", Chain(value)), false);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pass(field, format_args!("{value:?}"), false);
    }
}

/// Formats an error and its causes on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = Some(self.0);
        let mut colon = "";
        while let Some(error) = next {
            write!(f, "{colon}{error}")?;
            (next, colon) = (error.source(), ": ");
        }
        Ok(())
    }
}

/// Appends at most `max` bytes of the formatted value, and an ellipsis if it is longer. Formatting stops there.
pub(super) fn push_truncated(text: &mut String, value: fmt::Arguments<'_>, max: usize) {
    struct Truncate<'a> {
        text: &'a mut String,
        remaining: usize,
    }
    impl Write for Truncate<'_> {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            let fits = (0..=self.remaining.min(more.len())).rev().find(|&at| more.is_char_boundary(at)).unwrap_or(0);
            self.text.push_str(&more[..fits]);
            self.remaining -= fits;
            if fits < more.len() {
                self.text.push('…');
                return Err(fmt::Error);
            }
            Ok(())
        }
    }
    // The error of a truncated value ends the formatting.
    let _ = Truncate { text, remaining: max }.write_fmt(value);
}

/// Characters that can move a terminal's cursor, break a line, or reorder text.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes values as text, with the formatter of `tracing-subscriber`.
struct Text<'a> {
    visitor: DefaultVisitor<'a>,
    keeps_lines: bool,
}

/// Escapes unsafe characters.
struct Escaped<'a> {
    text: &'a str,
    keeps_lines: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.text.split_inclusive(is_unsafe) {
            let last = part.chars().next_back().filter(|&c| is_unsafe(c) && !(c == '\n' && self.keeps_lines));
            f.write_str(&part[..part.len() - last.map_or(0, char::len_utf8)])?;
            if let Some(c) = last {
                write!(f, "{}", c.escape_default())?;
            }
        }
        Ok(())
    }
}

impl Values for Text<'_> {
    fn text(&mut self, field: &Field, text: &str, quoted: bool) {
        if quoted {
            // `Debug` quotes and escapes.
            self.visitor.record_debug(field, &text);
        } else {
            let escaped = Escaped { text, keeps_lines: self.keeps_lines };
            self.visitor.record_debug(field, &format_args!("{escaped}"));
        }
    }
}

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.visitor.record_debug(field, value);
    }
}

/// Writes values as members of a JSON object.
struct Json<'a> {
    writer: Writer<'a>,
    is_first: bool,
    /// Which fields of [`REQUEST`] were written.
    written: [bool; REQUEST.len()],
    result: fmt::Result,
}

impl<'a> Json<'a> {
    fn new(writer: Writer<'a>, is_first: bool) -> Self {
        Self { writer, is_first, written: [false; REQUEST.len()], result: Ok(()) }
    }

    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'a>) -> fmt::Result) {
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        for (written, _) in self.written.iter_mut().zip(REQUEST).filter(|(_, of_request)| *of_request == name) {
            *written = true;
        }
        let comma = if std::mem::take(&mut self.is_first) { "" } else { "," };
        self.result = self.result.and_then(|()| {
            self.writer.write_str(comma)?;
            write_json(&mut self.writer, name)?;
            self.writer.write_char(':')?;
            value(&mut self.writer)
        });
    }
}

impl Values for Json<'_> {
    fn text(&mut self, field: &Field, text: &str, _: bool) {
        self.member(field, |writer| write_json(writer, text));
    }
}

impl Visit for Json<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        self.member(
            field,
            |writer| if value.is_finite() { write!(writer, "{value:?}") } else { write!(writer, "null") },
        );
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |writer| write_json(writer, &format!("{value:?}")));
    }
}

/// Writes a JSON string, with unsafe characters escaped.
fn write_json(out: &mut dyn Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            c if is_unsafe(c) => {
                c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?
            }
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::log::writer::Queue;
    use tracing_subscriber::layer::SubscriberExt;

    const EVIL: &str = "a\n\u{1b}[31m\"\\\u{7}\u{9b}\u{202e}\u{7f}b";

    /// The lines written for these events.
    fn lines(format: LogFormat, max_repeats: u64, events: impl FnOnce()) -> String {
        let (repeats, queue) = (Arc::new(Repeats::new(max_repeats)), Queue::new(1 << 20));
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Lines::new(format, Arc::clone(&repeats)))
            .fmt_fields(Fields::new(format))
            .with_writer(queue.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
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
}
