//! Formats events as lines of text or JSON.
//!
//! Values can come from clients, so their length is limited and control characters are escaped, which the formatters of
//! `tracing-subscriber` do not do.

use std::fmt;
use std::sync::Arc;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::field::VisitOutput;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::repeats::Repeats;
use super::span_fields::SpanFields;
use super::values::{Bounded, Json, Text, write_json};
use crate::config::LogFormat;

/// Maximum bytes of the fields of an event; further ones are omitted.
pub(super) const MAX_EVENT: usize = 16 * 1024;

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
            if let Some(fields) = extensions.get::<SpanFields>().filter(|fields| !fields.is_empty()) {
                writer.write_char('{')?;
                let visitor = DefaultVisitor::new(writer.by_ref(), true);
                let mut text = Text { visitor, keeps_lines: false };
                fields.record(&mut text);
                text.visitor.finish()?;
                writer.write_char('}')?;
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
            if let Some(fields) = extensions.get::<SpanFields>().filter(|fields| !fields.is_empty()) {
                let mut json = Json::new(Writer::new(&mut spans), true);
                fields.record(&mut json);
                json.result?;
                spans.push(',');
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
pub(super) const REQUEST: [&str; 3] = ["request_id", "kernel", "tenant"];

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
