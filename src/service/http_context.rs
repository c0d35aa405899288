//! [`RequestContext`] and [`ResponseContext`] for plain HTTP messages, through their extensions.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::context::{Priority, RequestContext, ResponseContext, TraceContext};
use crate::error::ErrorKind;

/// An extension of an [`http::Request`]: when its answer stops being of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// An extension of an [`http::Request`]: on whose behalf it is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant(pub Arc<str>);

/// An extension of an [`http::Request`]: the tenant that its connection has proven to be, by the certificate of a TLS
/// client. Servers set it beside [`Tenant`]; an [`AuthenticateLayer`](crate::layers) can take it for a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTenant {
    /// The tenant.
    pub tenant: Arc<str>,
    /// When the certificate expires, which a connection can outlive.
    pub expires: SystemTime,
}

impl PeerTenant {
    /// This tenant, until then.
    pub fn new(tenant: impl Into<Arc<str>>, expires: SystemTime) -> Self {
        Self { tenant: tenant.into(), expires }
    }

    /// Whether the certificate has not expired.
    pub fn is_valid(&self) -> bool {
        SystemTime::now() < self.expires
    }
}

/// An extension of an [`http::Request`]: the name of its route, for spans and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation(pub &'static str);

/// The deadline, tenant, priority, operation and trace context are the extensions [`Deadline`], [`Tenant`],
/// [`Priority`], [`Operation`] and [`TraceContext`]. Without an [`Operation`] the method stands for it: a path has no
/// bound on its distinct values.
impl<B> RequestContext for http::Request<B> {
    fn operation(&self) -> &str {
        match self.extensions().get::<Operation>() {
            Some(Operation(name)) => name,
            None => self.method().as_str(),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.extensions().get::<Deadline>().map(|deadline| deadline.0)
    }

    fn set_deadline(&mut self, deadline: Instant) {
        // In place where there is one, as an insertion allocates.
        match self.extensions_mut().get_mut::<Deadline>() {
            Some(known) => known.0 = deadline,
            None => drop(self.extensions_mut().insert(Deadline(deadline))),
        }
    }

    fn priority(&self) -> Priority {
        self.extensions().get::<Priority>().copied().unwrap_or_default()
    }

    fn tenant(&self) -> Option<&Arc<str>> {
        self.extensions().get::<Tenant>().map(|tenant| &tenant.0)
    }

    fn trace_context(&self) -> Option<&TraceContext> {
        self.extensions().get::<TraceContext>()
    }
}

/// A status of 400 and above is a refusal, and so is a `grpc-status` other than 0 in the headers. One in the trailers
/// comes too late to be seen here.
impl<B> ResponseContext for http::Response<B> {
    #[inline]
    fn failure(&self) -> Option<ErrorKind> {
        let status = self.status().as_u16();
        if status >= 400 {
            return Some(of_http(status));
        }
        of_grpc(self.headers().get("grpc-status")?.to_str().ok()?)
    }
}

#[cold]
fn of_http(status: u16) -> ErrorKind {
    let same = ErrorKind::ALL.into_iter().find(|kind| kind.http_status() == status);
    same.unwrap_or(if status < 500 { ErrorKind::InvalidArgument } else { ErrorKind::Internal })
}

#[cold]
fn of_grpc(status: &str) -> Option<ErrorKind> {
    let code: i32 = status.parse().unwrap_or(2);
    (code != 0).then(|| of_grpc_code(code))
}

/// The kind of a gRPC status other than `OK`.
pub(crate) fn of_grpc_code(code: i32) -> ErrorKind {
    let same = ErrorKind::ALL.into_iter().find(|kind| kind.grpc_code() == code);
    // Those without a kind: it exists, may not, is not in a state to, or was aborted; all others are the server's.
    let other = if matches!(code, 6 | 7 | 9 | 10) { ErrorKind::InvalidArgument } else { ErrorKind::Internal };
    same.unwrap_or(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_either_status() {
        let of = |http: u16, grpc: Option<&str>| {
            let mut response = http::Response::builder().status(http);
            if let Some(status) = grpc {
                response = response.header("grpc-status", status);
            }
            response.body(()).unwrap().failure()
        };
        for (http, grpc, failure) in [
            (200, None, None),
            (302, None, None),
            (200, Some("0"), None),
            (429, None, Some(ErrorKind::RateLimited)),
            (418, None, Some(ErrorKind::InvalidArgument)),
            (502, None, Some(ErrorKind::Internal)),
            (200, Some("8"), Some(ErrorKind::RateLimited)),
            (200, Some("14"), Some(ErrorKind::Overloaded)),
            (200, Some("7"), Some(ErrorKind::InvalidArgument)),
            (200, Some("2"), Some(ErrorKind::Internal)),
            (200, Some("none"), Some(ErrorKind::Internal)),
            (503, Some("0"), Some(ErrorKind::Overloaded)),
        ] {
            assert_eq!(of(http, grpc), failure, "{http} {grpc:?}");
        }
    }
}
