use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;

use super::{Problem, deadline};
use crate::request::{Deadline, Priority, Tenant, TraceContext};
use crate::servers::headers::trace_context;
use crate::service::KernelRequest;

/// What the head of a request says of how to run it.
///
/// Extensions come from layers in front, which have checked what the client says: a [`Tenant`] or [`Priority`] there is
/// stronger than the document's. A `traceparent` is weaker than the document's `trace_id`. Of all deadlines the earliest
/// holds.
#[derive(Debug)]
pub(crate) struct RequestHead {
    deadline: Instant,
    /// Whether that is the server's own timeout, and not what the client asked for.
    is_server_timeout: bool,
    priority: Option<Priority>,
    tenant: Option<Arc<str>>,
    trace: Option<Box<TraceContext>>,
}

impl RequestHead {
    /// Reads it on arrival; the request gets no longer than `longest` from now.
    ///
    /// # Errors
    /// 400 where a header for the deadline is not in its form. A `traceparent` that is in none is passed over, as the
    /// standard wants.
    pub(crate) fn read(parts: &Parts, longest: Duration) -> Result<Self, Problem> {
        let asked = deadline::timeout(&parts.headers)?.filter(|&timeout| timeout < longest);
        let mut is_server_timeout = asked.is_none();
        let timeout = asked.unwrap_or(longest);
        // tokio's clock, as everywhere that deadlines are made.
        let now = tokio::time::Instant::now().into_std();
        // A timeout past the end of time is as good as a year.
        let mut deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 86_400));
        let extensions = &parts.extensions;
        if let Some(&Deadline(earlier)) = extensions.get()
            && earlier < deadline
        {
            (deadline, is_server_timeout) = (earlier, false);
        }
        Ok(Self {
            deadline,
            is_server_timeout,
            priority: extensions.get::<Priority>().copied(),
            tenant: extensions.get().map(|Tenant(tenant)| Arc::clone(tenant)),
            trace: extensions.get::<TraceContext>().cloned().or_else(|| trace_context(&parts.headers)).map(Box::new),
        })
    }

    /// When the answer stops being of use.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Tells a request that has been read from the body.
    pub(crate) fn apply(self, request: &mut KernelRequest) {
        if request.deadline.is_none_or(|theirs| self.deadline <= theirs) {
            request.deadline = Some(self.deadline);
            request.set_deadline_is_server_timeout(self.is_server_timeout);
        }
        request.priority = self.priority.unwrap_or(request.priority);
        request.tenant = self.tenant.or(request.tenant.take());
        request.trace = request.trace.take().or(self.trace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestContext;
    use crate::service::Payload;

    const HOUR: Duration = Duration::from_secs(3600);
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let builder = http::Request::builder();
        headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(*name, *value))
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn request() -> KernelRequest {
        KernelRequest::new("a", Payload::json("1"))
    }

    #[test]
    fn the_earliest_deadline_holds() {
        let now = Instant::now();
        let apply = |parts: Parts, mut request: KernelRequest| {
            RequestHead::read(&parts, HOUR).unwrap().apply(&mut request);
            request.deadline.unwrap().saturating_duration_since(now)
        };
        assert!(apply(parts(&[]), request()) >= HOUR);
        assert!(apply(parts(&[("grpc-timeout", "5S")]), request()) < 2 * Duration::from_secs(5));
        assert!(apply(parts(&[("connect-timeout-ms", "9999999999")]), request()) < 2 * HOUR);
        assert!(
            apply(parts(&[("grpc-timeout", "5S")]), request().with_timeout(Duration::ZERO)) < Duration::from_secs(2)
        );
        let mut known = parts(&[]);
        known.extensions.insert(Deadline(now));
        assert_eq!(apply(known, request()), Duration::ZERO);
        assert!(RequestHead::read(&parts(&[]), Duration::MAX).is_ok());
        assert!(RequestHead::read(&parts(&[("grpc-timeout", "5")]), HOUR).is_err());
    }

    #[test]
    fn the_trace_is_the_headers_unless_the_document_names_one() {
        let read = |headers: &[(&str, &str)]| RequestHead::read(&parts(headers), HOUR).unwrap();
        let mut plain = request();
        read(&[("traceparent", PARENT), ("tracestate", "a=b")]).apply(&mut plain);
        let trace = plain.trace_context().unwrap();
        assert_eq!((trace.to_string().as_str(), trace.state()), (PARENT, Some("a=b")));

        let mut named = request();
        let own = TraceContext::new(7, 7, true).unwrap();
        named.trace = Some(Box::new(own.clone()));
        read(&[("traceparent", PARENT)]).apply(&mut named);
        assert_eq!(named.trace_context(), Some(&own));

        let mut none = request();
        read(&[("traceparent", "00-nonsense")]).apply(&mut none);
        assert_eq!(none.trace_context(), None);
    }

    #[test]
    fn a_tenant_that_a_layer_found_is_stronger_than_the_documents() {
        let mut parts = parts(&[]);
        parts.extensions.insert(Tenant("checked".into()));
        parts.extensions.insert(Priority::Low);
        let mut request = request();
        request.tenant = Some("claimed".into());
        request.priority = Priority::High;
        RequestHead::read(&parts, HOUR).unwrap().apply(&mut request);
        assert_eq!((request.tenant.as_deref(), request.priority), (Some("checked"), Priority::Low));
    }
}
