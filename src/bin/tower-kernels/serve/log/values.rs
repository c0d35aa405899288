//! Writes the values of events and spans, truncated and escaped.

use std::error::Error;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

use super::format::REQUEST;

/// Maximum bytes of a value.
pub(super) const MAX_VALUE: usize = 128;
/// Maximum bytes of a message or error.
const MAX_SENTENCE: usize = 512;
/// Maximum bytes of a backtrace, and of a value in an event of the program itself.
const MAX_OWN: usize = 8 * 1024;

/// The target of [`Bounded`].
pub(super) trait Values: Visit {
    /// Records a truncated text, with or without quotes.
    fn text(&mut self, field: &Field, text: &str, quoted: bool);
}

/// Passes values on, truncated. Fields for OpenTelemetry exporters are omitted.
pub(super) struct Bounded<V> {
    pub(super) into: V,
    /// Remaining bytes.
    remaining: usize,
    is_own: bool,
    /// The current value, truncated.
    value: String,
}

impl<V: Values> Bounded<V> {
    pub(super) fn new(into: V, remaining: usize, is_own: bool) -> Self {
        Self { into, remaining, is_own, value: String::new() }
    }

    /// Maximum bytes of a value of this field; `None` if it is omitted.
    fn max(&self, field: &Field) -> Option<usize> {
        if self.remaining == 0 || field.name().starts_with("otel.") {
            return None;
        }
        let max = match field.name() {
            _ if self.is_own => MAX_OWN,
            "message" | "exception.message" | "error" | "reason" | "path" => MAX_SENTENCE,
            "backtrace" => MAX_OWN,
            _ => MAX_VALUE,
        };
        Some(max.min(self.remaining))
    }

    fn pass(&mut self, field: &Field, value: fmt::Arguments<'_>, quoted: bool) {
        if let Some(max) = self.max(field) {
            self.value.clear();
            push_truncated(&mut self.value, value, max);
            self.take(self.value.len() + field.name().len());
            self.into.text(field, &self.value, quoted);
        }
    }

    pub(super) fn remaining(&self) -> usize {
        self.remaining
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
        let quoted = field.name() != "message";
        // The fields of a request's span are short, and are not formatted for nothing.
        if self.max(field).is_some_and(|max| value.len() <= max) {
            self.take(value.len() + field.name().len());
            self.into.text(field, value, quoted);
        } else {
            self.pass(field, format_args!("{value}"), quoted);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.pass(field, format_args!("{}", Causes(value)), false);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pass(field, format_args!("{value:?}"), false);
    }
}

/// Formats an error and its causes on one line. Unlike `tower_kernels::error::chain` it formats one after the other, so that
/// truncation bounds the work.
struct Causes<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
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
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes values as text, with the formatter of `tracing-subscriber`.
pub(super) struct Text<'a> {
    pub(super) visitor: DefaultVisitor<'a>,
    pub(super) keeps_lines: bool,
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
pub(super) struct Json<'a> {
    writer: Writer<'a>,
    is_first: bool,
    /// Which fields of [`REQUEST`] were written.
    pub(super) written: [bool; REQUEST.len()],
    pub(super) result: fmt::Result,
}

impl<'a> Json<'a> {
    pub(super) fn new(writer: Writer<'a>, is_first: bool) -> Self {
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
pub(super) fn write_json(out: &mut dyn Write, text: &str) -> fmt::Result {
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
