//! The fields of spans, which are kept as values and formatted only for the events inside.
//!
//! Every request has a span, and few have an event. The layer of `tracing-subscriber` formats a field when it is recorded,
//! which takes most of the time that a span costs.

use std::fmt;
use std::ops::Range;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::values::{Bounded, Values};

/// Maximum bytes of the fields of a span; further ones are omitted.
const MAX_SPAN: usize = 4 * 1024;

/// Keeps the fields of spans, as the extension [`SpanFields`], and passes events on to a layer that writes them.
pub(super) struct KeepSpanFields<L> {
    events: L,
}

impl<L> KeepSpanFields<L> {
    pub(super) fn new(events: L) -> Self {
        Self { events }
    }
}

impl<S, L> Layer<S> for KeepSpanFields<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    L: Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields::new();
        fields.add(|visitor| attributes.record(visitor));
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            fields.add(|visitor| values.record(visitor));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.events.on_event(event, context);
    }
}

/// The fields of a span in the order in which they were recorded, truncated.
#[derive(Debug)]
pub(super) struct SpanFields {
    fields: Vec<(Field, Value)>,
    /// All texts, one after the other.
    text: String,
    /// Bytes that may still be added.
    remaining: usize,
}

#[derive(Debug)]
enum Value {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    /// A part of the text, with or without quotes.
    Text(Range<usize>, bool),
}

impl SpanFields {
    fn new() -> Self {
        // Enough for a request.
        Self { fields: Vec::with_capacity(12), text: String::with_capacity(128), remaining: MAX_SPAN }
    }

    fn add(&mut self, record: impl FnOnce(&mut dyn Visit)) {
        let remaining = self.remaining;
        let mut bounded = Bounded::new(&mut *self, remaining, false);
        record(&mut bounded);
        self.remaining = bounded.remaining();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Passes on all fields.
    pub(super) fn record(&self, into: &mut impl Values) {
        for (field, value) in &self.fields {
            match value {
                Value::Bool(value) => into.record_bool(field, *value),
                Value::Signed(value) => into.record_i64(field, *value),
                Value::Unsigned(value) => into.record_u64(field, *value),
                Value::Float(value) => into.record_f64(field, *value),
                Value::Text(range, quoted) => into.text(field, &self.text[range.clone()], *quoted),
            }
        }
    }

    fn push(&mut self, field: &Field, value: Value) {
        self.fields.push((field.clone(), value));
    }
}

impl Values for &mut SpanFields {
    fn text(&mut self, field: &Field, text: &str, quoted: bool) {
        let start = self.text.len();
        self.text.push_str(text);
        self.push(field, Value::Text(start..self.text.len(), quoted));
    }
}

impl Visit for &mut SpanFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bool(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"), false);
    }
}
