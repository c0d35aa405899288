//! The fields of a call's span.

use std::fmt;
use std::sync::Arc;

use tracing::{Level, Span};

use super::{TracingLayer, scope};
use crate::error::{AnyError, ErrorKind};
use crate::request::limits::name_prefix;
use crate::request::{Execution, RequestContext, ResponseContext};
use crate::text;

/// Creates a span named `request` with the given fields, and with those that are recorded later: tracing takes the values
/// of no others. Those of every call are first, as tracing finds a field by comparing names from the first on.
macro_rules! request_span {
    ($target:expr, $level:expr, { $($fields:tt)* }) => {
        tracing::span!(
            target: $target,
            $level,
            "request",
            $($fields)*
            otel.name = tracing::field::Empty,
            priority = tracing::field::Empty,
            request.size = tracing::field::Empty,
            request.operands = tracing::field::Empty,
            response.size = tracing::field::Empty,
            execution.backend = tracing::field::Empty,
            execution.device = tracing::field::Empty,
            execution.queued = tracing::field::Empty,
            execution.duration = tracing::field::Empty,
            execution.batch_size = tracing::field::Empty,
            execution.choice = tracing::field::Empty,
            trace_id = tracing::field::Empty,
            parent_span_id = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
            error.type = tracing::field::Empty,
            execution.device_upload = tracing::field::Empty,
            execution.device_kernel = tracing::field::Empty,
            execution.device_download = tracing::field::Empty,
            execution.device_roofline = tracing::field::Empty,
            execution.operands = tracing::field::Empty,
            execution.operands_resident = tracing::field::Empty,
        )
    };
}
pub(super) use request_span;

/// The kind of spans of requests from outside.
pub(super) const SERVER: &str = "server";

/// Returns the span of a call of `request`: its server's, if that is the current one, or else a new one.
pub(super) fn span<R: RequestContext>(settings: TracingLayer, request: &R) -> Span {
    let server_span = scope::current().filter(|_| settings.kind == SERVER);
    let span = server_span.unwrap_or_else(|| new_span(settings, request.tenant()));
    if !span.is_disabled() {
        // Together, as the subscriber looks up the span each time.
        tracing::record_all!(
            span,
            otel.name = name_prefix(request.operation()),
            priority = request.priority().as_str(),
            request.size = request.payload_bytes(),
            request.operands = request.operand_names(),
        );
        if let Some(context) = request.trace_context() {
            span.record("trace_id", format_args!("{:032x}", context.trace_id()));
            span.record("parent_span_id", format_args!("{:016x}", context.parent_id()));
        }
    }
    span
}

fn new_span(TracingLayer { level, kind }: TracingLayer, tenant: Option<&Arc<str>>) -> Span {
    let tenant = tenant.map(|tenant| name_prefix(tenant));
    // The level of a call site is a constant, so each level has its own.
    macro_rules! at {
        ($level:expr) => {
            request_span!("tower_kernels::middleware::tracing", $level, { otel.kind = kind, tenant = tenant, })
        };
    }
    match level {
        Level::TRACE => at!(Level::TRACE),
        Level::DEBUG => at!(Level::DEBUG),
        Level::INFO => at!(Level::INFO),
        Level::WARN => at!(Level::WARN),
        Level::ERROR => at!(Level::ERROR),
    }
}

/// Records the end of a call. Must be called inside its span.
pub(super) fn end<T, E>(span: &Span, result: &Result<T, E>)
where
    T: ResponseContext,
    E: AnyError,
{
    let (response, execution) = match result {
        Ok(response) => (response, response.execution()),
        Err(error) => return failure(span, error.classify().kind, error),
    };
    // Together, as the subscriber looks up the span each time.
    tracing::record_all!(
        span,
        response.size = response.payload_bytes(),
        execution.backend = execution.map(|execution| execution.backend),
        execution.device = execution.and_then(|execution| execution.device),
        execution.queued = execution.map(|execution| execution.queued.as_secs_f64()),
        execution.duration = execution.map(|execution| execution.executed.as_secs_f64()),
        execution.batch_size = execution.map(|execution| execution.batch_size),
        execution.choice = execution.and_then(Execution::choice).map(tracing::field::display),
    );
    if let Some(execution) = execution {
        let operands = execution.operands();
        if !operands.is_empty() && !span.is_disabled() {
            span.record("execution.operands", text::list(operands.iter()));
            span.record("execution.operands_resident", operands.iter().all(|operand| operand.resident));
        }
        if let Some(times) = execution.device_times() {
            span.record("execution.device_upload", times.upload.as_secs_f64());
            span.record("execution.device_kernel", times.kernel.as_secs_f64());
            span.record("execution.device_download", times.download.as_secs_f64());
            span.record("execution.device_roofline", times.roofline());
        }
    }
    if let Some(kind) = response.failure() {
        failure(span, kind, &"the response is a rejection");
    }
}

/// Records that a call was dropped. Must be called inside its span.
pub(super) fn dropped(span: &Span) {
    match std::thread::panicking() {
        true => failure(span, ErrorKind::Internal, &"the service panicked"),
        false => failure(span, ErrorKind::Cancelled, &"dropped before completion"),
    }
}

fn failure(span: &Span, kind: ErrorKind, message: &dyn fmt::Display) {
    span.record("error.type", kind.code());
    if kind.http_status() >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    macro_rules! at {
        ($level:expr) => {
            tracing::event!(
                target: "tower_kernels::middleware::tracing",
                $level,
                error.type = kind.code(),
                exception.message = display(message),
                "request failed"
            )
        };
    }
    match kind {
        ErrorKind::Internal | ErrorKind::Unavailable => at!(Level::ERROR),
        ErrorKind::Overloaded | ErrorKind::DeadlineExceeded => at!(Level::WARN),
        _ => at!(Level::DEBUG),
    }
}
