//! What goes into a span, and when.

use std::fmt;

use tracing::field::Empty;
use tracing::{Level, Span};

use super::scope;
use crate::error::{AnyError, ErrorKind};
use crate::request::limits::name_prefix;
use crate::request::{RequestContext, ResponseContext};

/// The kind of spans of requests from outside.
pub(super) const SERVER: &str = "server";

/// The span of a call of `request`: that of its server where it is the current one, and else a new one.
pub(super) fn span<R: RequestContext>(level: Level, kind: &'static str, request: &R) -> Span {
    match scope::current().filter(|_| kind == SERVER) {
        Some(span) => {
            span.record("otel.name", name_prefix(request.operation()));
            span.record("priority", request.priority().as_str());
            if let Some(bytes) = request.payload_bytes() {
                span.record("request.size", bytes);
            }
            with_trace(span, request)
        }
        None => with_trace(own_span(level, kind, request), request),
    }
}

fn with_trace<R: RequestContext>(span: Span, request: &R) -> Span {
    if let Some(context) = request.trace_context()
        && !span.is_disabled()
    {
        span.record("trace_id", format_args!("{:032x}", context.trace_id()));
        span.record("parent_span_id", format_args!("{:016x}", context.parent_id()));
    }
    span
}

fn own_span<R: RequestContext>(level: Level, kind: &'static str, request: &R) -> Span {
    // The level of a call site is a constant, so each level has its own.
    macro_rules! at {
        ($level:expr) => {
            tracing::span!(
                target: "tower_kernels::middleware::tracing",
                $level,
                "request",
                otel.name = name_prefix(request.operation()),
                otel.kind = kind,
                otel.status_code = Empty,
                error.type = Empty,
                priority = request.priority().as_str(),
                tenant = request.tenant().map(|tenant| name_prefix(tenant)),
                trace_id = Empty,
                parent_span_id = Empty,
                request.size = request.payload_bytes(),
                response.size = Empty,
                execution.backend = Empty,
                execution.device = Empty,
                execution.queued = Empty,
                execution.duration = Empty,
                execution.batch_size = Empty,
                execution.device_upload = Empty,
                execution.device_kernel = Empty,
                execution.device_download = Empty,
                execution.device_roofline = Empty,
            )
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

/// The end of a call, to be called inside its span.
pub(super) fn end<T, E>(span: &Span, result: &Result<T, E>)
where
    T: ResponseContext,
    E: AnyError,
{
    let response = match result {
        Ok(response) => response,
        Err(error) => return failure(span, error.classify().kind, error),
    };
    if let Some(bytes) = response.payload_bytes() {
        span.record("response.size", bytes);
    }
    if let Some(execution) = response.execution() {
        span.record("execution.backend", execution.backend);
        span.record("execution.device", execution.device);
        span.record("execution.queued", execution.queued.as_secs_f64());
        span.record("execution.duration", execution.executed.as_secs_f64());
        span.record("execution.batch_size", execution.batch_size);
        if let Some(times) = &execution.device_times {
            span.record("execution.device_upload", times.upload.as_secs_f64());
            span.record("execution.device_kernel", times.kernel.as_secs_f64());
            span.record("execution.device_download", times.download.as_secs_f64());
            span.record("execution.device_roofline", times.roofline());
        }
    }
    if let Some(kind) = response.failure() {
        failure(span, kind, &"the response is a refusal");
    }
}

/// The end of a call that was dropped, to be called inside its span.
pub(super) fn dropped(span: &Span) {
    if std::thread::panicking() {
        failure(span, ErrorKind::Internal, &"the service panicked");
    } else {
        failure(span, ErrorKind::Cancelled, &"dropped before its end");
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
