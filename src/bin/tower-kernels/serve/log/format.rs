//! Formats events as lines of text or JSON.
//!
//! Values can come from clients, so their length is limited and control characters are escaped, which the formatters of
//! `tracing-subscriber` do not do.

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::repeats::Repeats;
use super::values::{Bounded, Json, Text, write_json};
use crate::config::LogFormat;

/// Maximum bytes of the fields of an event; further ones are omitted.
pub(super) const MAX_EVENT: usize = 16 * 1024;
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
