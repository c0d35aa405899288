//! Request metadata, and how HTTP headers, gRPC metadata and JSON documents are parsed into it.
//!
//! | field | headers of REST | metadata of gRPC | documents |
//! |---|---|---|---|
//! | deadline | `grpc-timeout`, `connect-timeout-ms` | `grpc-timeout` | `timeout_ms` |
//! | priority | | `priority` | `priority` |
//! | tenant | | `tenant` | `tenant` |
//! | backend | | `backend` | `backend` |
//! | trace | `traceparent`, `tracestate` | `traceparent`, `tracestate` | `trace_id` |
//! | request id | `x-request-id` | `x-request-id` | |

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

use super::limits::check_name;
use super::{BackendKind, Priority, TraceContext};

/// Deadline, priority, tenant, backend, trace and id of a request.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "axum", feature = "grpc", feature = "hyper")),
    allow(dead_code, reason = "only servers read when a request arrived and its id")
)]
pub(crate) struct RequestMetadata {
    /// When the request arrived.
    pub(crate) received_at: Instant,
    pub(crate) deadline: Option<Instant>,
    /// Whether the deadline is the server's timeout and not the client's choice.
    pub(crate) is_server_timeout: bool,
    pub(crate) priority: Option<Priority>,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) backend: Option<BackendKind>,
    /// Boxed, because most requests have none.
    pub(crate) trace: Option<Box<TraceContext>>,
    /// That of gRPC. In REST the response has it, and not the kernel's request.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) request_id: Option<super::request_id::RequestId>,
}

/// An invalid field of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(crate) struct InvalidMetadata {
    /// Name of the header, or path in the document.
    pub(crate) field: String,
    pub(crate) reason: String,
}

impl InvalidMetadata {
    fn new(field: &'static str, reason: impl ToString) -> Self {
        Self { field: field.to_owned(), reason: reason.to_string() }
    }

    /// Prefixes the field with the `object` that contains it.
    pub(crate) fn within(self, object: &str) -> Self {
        Self { field: format!("{object}.{}", self.field), ..self }
    }
}

/// Scheduling metadata of a request. Every field is optional.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RequestMetadata")]
pub(crate) struct MetadataDocument<'a> {
    /// Deadline, in milliseconds from the arrival of the request.
    pub(crate) timeout_ms: Option<u64>,
    /// Scheduling priority.
    #[serde(borrow)]
    #[schemars(with = "Option<Priority>")]
    pub(crate) priority: Option<Cow<'a, str>>,
    /// Tenant that the request belongs to.
    #[serde(borrow)]
    pub(crate) tenant: Option<Cow<'a, str>>,
    /// The backend to run it on, `cpu` or `cuda`. By default it runs where the response is predicted to come first.
    #[serde(borrow)]
    #[schemars(extend("enum" = ["cpu", "cuda", null]))]
    pub(crate) backend: Option<Cow<'a, str>>,
    /// Trace id of 32 lowercase hex digits, or a whole `traceparent`.
    #[serde(borrow)]
    pub(crate) trace_id: Option<Cow<'a, str>>,
}

impl RequestMetadata {
    /// Empty metadata of a request that arrives now.
    pub(crate) fn new() -> Self {
        Self {
            // tokio's clock, so that paused time in tests moves deadlines too.
            received_at: tokio::time::Instant::now().into_std(),
            deadline: None,
            is_server_timeout: false,
            priority: None,
            tenant: None,
            backend: None,
            trace: None,
            #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
            request_id: None,
        }
    }

    /// Parses the `metadata` object of a document.
    ///
    /// # Errors
    /// The first field that is invalid.
    pub(crate) fn from_document(document: MetadataDocument<'_>) -> Result<Self, InvalidMetadata> {
        let mut metadata = Self::new();
        if let Some(timeout) = document.timeout_ms {
            metadata.set_timeout(Duration::from_millis(timeout));
        }
        metadata.priority = document.priority.as_deref().map(parse_priority).transpose()?;
        metadata.tenant = document.tenant.as_deref().map_or(Ok(None), parse_tenant)?;
        metadata.backend = document.backend.as_deref().map(parse_backend).transpose()?;
        if let Some(trace) = document.trace_id {
            let invalid = || InvalidMetadata::new("trace_id", "neither a trace id of 32 hex digits nor a traceparent");
            metadata.trace = Some(Box::new(parse_trace_id(&trace).ok_or_else(invalid)?));
        }
        Ok(metadata)
    }

    /// Sets the deadline to `timeout` after the arrival, if that is earlier. A timeout that overflows sets no deadline.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        if let Some(deadline) = self.received_at.checked_add(timeout)
            && self.deadline.is_none_or(|earlier| deadline < earlier)
        {
            self.deadline = Some(deadline);
        }
    }
}

fn parse_priority(text: &str) -> Result<Priority, InvalidMetadata> {
    text.parse().map_err(|error| InvalidMetadata::new("priority", error))
}

fn parse_backend(text: &str) -> Result<BackendKind, InvalidMetadata> {
    text.parse().map_err(|error| InvalidMetadata::new("backend", error))
}

/// An empty tenant is no tenant.
pub(crate) fn parse_tenant(text: &str) -> Result<Option<Arc<str>>, InvalidMetadata> {
    if text.is_empty() {
        return Ok(None);
    }
    check_name(text).map_err(|error| InvalidMetadata::new("tenant", error))?;
    Ok(Some(text.into()))
}

/// Parses a `traceparent` or a bare trace id. A bare id has no parent span, which must not be zero, so the low half of
/// the id is used.
fn parse_trace_id(text: &str) -> Option<TraceContext> {
    if let Ok(context) = text.parse() {
        return Some(context);
    }
    let is_hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    TraceContext::new(id, (id as u64).max(1), true)
}

#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use self::headers::HeaderFormat;

#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod headers {
    //! Metadata in the headers of a request, and in its extensions.

    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

    use super::{InvalidMetadata, RequestMetadata, parse_backend, parse_priority, parse_tenant};
    use crate::request::limits::{InvalidName, MAX_TRACE_STATE_BYTES};
    use crate::request::request_id::RequestId;
    use crate::request::{Deadline, Tenant, TraceContext};

    // As constants, because a name given as text is parsed at each look-up.
    const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
    const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
    const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
    const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

    /// Replaces a timeout that overflows.
    const FAR_FUTURE: Duration = Duration::from_secs(365 * 86_400);

    /// Set of metadata in the headers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum HeaderFormat {
        /// HTTP headers of REST, where priority and tenant are in the document.
        #[cfg_attr(not(any(feature = "axum", feature = "hyper")), allow(dead_code, reason = "gRPC alone"))]
        Rest,
        /// gRPC metadata.
        #[cfg_attr(not(feature = "grpc"), allow(dead_code, reason = "REST alone"))]
        Grpc,
    }

    impl RequestMetadata {
        /// Parses headers and extensions.
        ///
        /// Extensions ([`Tenant`], [`Priority`], [`TraceContext`]) take precedence over headers, as layers and
        /// interceptors insert what they have checked. The earliest of the timeouts and a [`Deadline`] extension is the
        /// deadline. A malformed `traceparent` is ignored, as the standard requires.
        ///
        /// # Errors
        /// The first header that is invalid.
        pub(crate) fn from_headers(
            headers: &HeaderMap,
            extensions: &Extensions,
            format: HeaderFormat,
        ) -> Result<Self, InvalidMetadata> {
            let mut metadata = Self::new();
            metadata.read_timeouts(headers, format)?;
            if let Some(&Deadline(deadline)) = extensions.get() {
                metadata.deadline = Some(metadata.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
            }
            metadata.priority = extensions.get().copied();
            metadata.tenant = extensions.get().map(|Tenant(tenant)| Arc::clone(tenant));
            if format == HeaderFormat::Grpc {
                if let (None, Some(value)) = (metadata.priority, headers.get("priority")) {
                    metadata.priority = Some(parse_priority(value.to_str().unwrap_or_default())?);
                }
                if let (None, Some(value)) = (&metadata.tenant, headers.get("tenant")) {
                    // What is not ASCII has no visible characters.
                    let text = value.to_str().map_err(|_| InvalidMetadata::new("tenant", InvalidName::Invisible))?;
                    metadata.tenant = parse_tenant(text)?;
                }
                if let Some(value) = headers.get("backend") {
                    metadata.backend = Some(parse_backend(value.to_str().unwrap_or_default())?);
                }
                metadata.request_id = RequestId::parse(headers);
            }
            metadata.trace = extensions.get().cloned().or_else(|| trace_context(headers)).map(Box::new);
            Ok(metadata)
        }

        /// Limits the deadline to `timeout` after the arrival, and returns it.
        pub(crate) fn limit_timeout(&mut self, timeout: Duration) -> Instant {
            let limit = self.received_at.checked_add(timeout).unwrap_or_else(|| self.received_at + FAR_FUTURE);
            match self.deadline {
                Some(deadline) if deadline < limit => deadline,
                _ => {
                    (self.deadline, self.is_server_timeout) = (Some(limit), true);
                    limit
                }
            }
        }

        fn read_timeouts(&mut self, headers: &HeaderMap, format: HeaderFormat) -> Result<(), InvalidMetadata> {
            if let Some(value) = headers.get(GRPC_TIMEOUT) {
                let reason = "it is not 1 to 8 digits and one of H, M, S, m, u, n";
                let timeout = parse("grpc-timeout", value, reason, parse_grpc_timeout)?;
                // The response must be sent before the timers of tonic's transport and of the client fire, as theirs
                // are less informative.
                let margin = match format {
                    HeaderFormat::Rest => Duration::ZERO,
                    HeaderFormat::Grpc => (timeout / 10).min(Duration::from_millis(10)),
                };
                self.set_timeout(timeout - margin);
            }
            if format == HeaderFormat::Rest
                && let Some(value) = headers.get(CONNECT_TIMEOUT)
            {
                let parse_millis = |text: &str| parse_digits(text, 10).map(Duration::from_millis);
                self.set_timeout(parse("connect-timeout-ms", value, "it is not 1 to 10 digits", parse_millis)?);
            }
            Ok(())
        }
    }

    fn parse(
        field: &'static str,
        value: &HeaderValue,
        reason: &str,
        parse: impl FnOnce(&str) -> Option<Duration>,
    ) -> Result<Duration, InvalidMetadata> {
        value.to_str().ok().and_then(parse).ok_or_else(|| InvalidMetadata::new(field, reason))
    }

    fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
        let header = |name: HeaderName| headers.get(name)?.to_str().ok();
        let context: TraceContext = header(TRACE_PARENT)?.parse().ok()?;
        Some(match header(TRACE_STATE) {
            // The standard allows a participant to drop a state that is too long.
            Some(state) if state.len() <= MAX_TRACE_STATE_BYTES => context.with_state(state),
            _ => context,
        })
    }

    /// `TimeoutValue TimeoutUnit` of the [protocol](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
    fn parse_grpc_timeout(text: &str) -> Option<Duration> {
        let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let value = parse_digits(value, 8)?;
        match unit {
            "H" => Some(Duration::from_secs(value * 3600)),
            "M" => Some(Duration::from_secs(value * 60)),
            "S" => Some(Duration::from_secs(value)),
            "m" => Some(Duration::from_millis(value)),
            "u" => Some(Duration::from_micros(value)),
            "n" => Some(Duration::from_nanos(value)),
            _ => None,
        }
    }

    /// A number of at most `max` digits. `parse` alone would accept a sign.
    fn parse_digits(text: &str, max: usize) -> Option<u64> {
        let is_valid = text.len() <= max && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| is_valid)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::request::Priority;
        use http::HeaderName;

        const HOUR: Duration = Duration::from_secs(3600);

        fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
            let pair = |&(name, value): &(&'static str, &str)| {
                (HeaderName::from_static(name), HeaderValue::try_from(value).unwrap())
            };
            headers.iter().map(pair).collect()
        }

        fn read(of: &[(&'static str, &str)], format: HeaderFormat) -> Result<RequestMetadata, InvalidMetadata> {
            RequestMetadata::from_headers(&headers(of), &Extensions::new(), format)
        }

        fn timeout(of: &[(&'static str, &str)]) -> Option<Duration> {
            let metadata = read(of, HeaderFormat::Rest).unwrap();
            metadata.deadline.map(|deadline| deadline - metadata.received_at)
        }

        #[test]
        fn timeouts_are_parsed_as_the_protocol_says() {
            for (text, timeout) in [
                ("2H", Duration::from_secs(7200)),
                ("99999999H", Duration::from_secs(99_999_999 * 3600)),
                ("3M", Duration::from_secs(180)),
                ("4S", Duration::from_secs(4)),
                ("00000050m", Duration::from_millis(50)),
                ("6u", Duration::from_micros(6)),
                ("0n", Duration::ZERO),
            ] {
                assert_eq!(parse_grpc_timeout(text), Some(timeout), "{text}");
            }
            for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1é", " 1S"] {
                assert_eq!(parse_grpc_timeout(text), None, "{text:?}");
            }
        }

        #[test]
        fn the_shorter_timeout_is_the_deadline() {
            assert_eq!(timeout(&[]), None);
            assert_eq!(timeout(&[("grpc-timeout", "50m")]), Some(Duration::from_millis(50)));
            let both = timeout(&[("grpc-timeout", "99999999H"), ("connect-timeout-ms", "250")]);
            assert_eq!(both, Some(Duration::from_millis(250)));
        }

        #[test]
        fn an_invalid_header_is_named() {
            for (name, text) in [
                ("grpc-timeout", "soon"),
                ("connect-timeout-ms", ""),
                ("connect-timeout-ms", "1.5"),
                ("connect-timeout-ms", "-1"),
                ("connect-timeout-ms", "12345678901"),
            ] {
                assert_eq!(read(&[(name, text)], HeaderFormat::Rest).unwrap_err().field, name, "{text:?}");
            }
            for (name, text) in [("grpc-timeout", "5"), ("priority", "urgent"), ("tenant", "a\tb")] {
                assert_eq!(read(&[(name, text)], HeaderFormat::Grpc).unwrap_err().field, name, "{text:?}");
            }
        }

        #[test]
        fn only_grpc_has_priority_and_tenant_in_headers() {
            let of = [("priority", "high"), ("tenant", "acme")];
            let rest = read(&of, HeaderFormat::Rest).unwrap();
            assert_eq!((rest.priority, rest.tenant), (None, None));
            let grpc = read(&of, HeaderFormat::Grpc).unwrap();
            assert_eq!((grpc.priority, grpc.tenant.as_deref()), (Some(Priority::High), Some("acme")));
            assert_eq!(read(&[("tenant", "")], HeaderFormat::Grpc).unwrap().tenant, None);
        }

        #[test]
        fn extensions_take_precedence() {
            let mut extensions = Extensions::new();
            extensions.insert(Tenant("checked".into()));
            extensions.insert(Priority::Low);
            extensions.insert(TraceContext::new(7, 7, true).unwrap());
            let headers = headers(&[("tenant", "claimed"), ("priority", "high"), ("traceparent", "00-nonsense")]);
            let metadata = RequestMetadata::from_headers(&headers, &extensions, HeaderFormat::Grpc).unwrap();
            assert_eq!((metadata.tenant.as_deref(), metadata.priority), (Some("checked"), Some(Priority::Low)));
            assert_eq!(metadata.trace.unwrap().trace_id(), 7);
        }

        #[test]
        fn the_earliest_deadline_counts_and_a_response_of_grpc_has_time_to_travel() {
            let headers = headers(&[("grpc-timeout", "50m")]);
            let mut extensions = Extensions::new();
            let read = |extensions: &Extensions| {
                RequestMetadata::from_headers(&headers, extensions, HeaderFormat::Grpc).unwrap()
            };
            let metadata = read(&extensions);
            let after = |millis| Some(metadata.received_at + Duration::from_millis(millis));
            assert_eq!(metadata.deadline, after(45));
            extensions.insert(Deadline(metadata.received_at));
            assert_eq!(read(&extensions).deadline, after(0));
        }

        #[test]
        fn the_servers_timeout_limits_the_deadline() {
            let limited = |of: &[(&'static str, &str)], timeout| {
                let mut metadata = read(of, HeaderFormat::Rest).unwrap();
                let deadline = metadata.limit_timeout(timeout);
                assert_eq!(metadata.deadline, Some(deadline));
                (deadline - metadata.received_at, metadata.is_server_timeout)
            };
            assert_eq!(limited(&[], HOUR), (HOUR, true));
            assert_eq!(limited(&[("grpc-timeout", "5S")], HOUR), (Duration::from_secs(5), false));
            assert_eq!(limited(&[("connect-timeout-ms", "9999999999")], HOUR), (HOUR, true));
            assert_eq!(limited(&[], Duration::MAX), (FAR_FUTURE, true));
        }

        #[test]
        fn a_long_trace_state_is_dropped_and_its_trace_kept() {
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            for (length, is_kept) in [(512, true), (513, false)] {
                let state = "x".repeat(length);
                let context = trace_context(&headers(&[("traceparent", parent), ("tracestate", &state)])).unwrap();
                assert_eq!((context.to_string().as_str(), context.state().is_some()), (parent, is_kept), "{length}");
            }
            assert_eq!(trace_context(&headers(&[("traceparent", "00-nonsense")])), None);
        }
    }
}
