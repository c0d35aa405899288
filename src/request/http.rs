//! [`RequestContext`] and [`ResponseContext`] for plain HTTP messages, through their extensions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::context::{Priority, RequestContext, ResponseContext, TraceContext};
use super::http_operation;
use crate::error::ErrorKind;

/// Extension of an [`http::Request`]: its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// Extension of an [`http::Request`]: the tenant that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant(pub Arc<str>);

/// Extension of an [`http::Request`]: the tenant that was authenticated by the TLS client certificate of its
/// connection. Servers insert it in addition to [`Tenant`]; an [`AuthenticateLayer`](crate::layers) can accept it as a
/// credential.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTenant {
    /// The tenant.
    pub tenant: Arc<str>,
    /// When the certificate expires. A connection can outlive it.
    pub expires: SystemTime,
}

impl PeerTenant {
    /// Creates a tenant that is valid until `expires`.
    pub fn new(tenant: impl Into<Arc<str>>, expires: SystemTime) -> Self {
        Self { tenant: tenant.into(), expires }
    }

    /// Whether the certificate has not expired.
    pub fn is_valid(&self) -> bool {
        SystemTime::now() < self.expires
    }
}

/// Extension of an [`http::Request`]: the peer address of its connection. The servers of the feature `hyper` insert it,
/// except for Unix domain sockets, which have no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress(pub SocketAddr);

/// The deadline, tenant, priority and trace context are the extensions [`Deadline`], [`Tenant`], [`Priority`] and
/// [`TraceContext`].
///
/// The operation is the first of these that applies:
///
/// | request | operation | example |
/// |---|---|---|
/// | with an [`Operation`](super::Operation) extension | its name | `thumbnail` |
/// | `POST` whose content type begins with `application/grpc` | the path without its first slash | `helloworld.Greeter/SayHello` |
/// | with a route matched by an axum `Router` (feature `axum`) | method and route, as in OpenTelemetry's `http.route` | `GET /users/{id}` |
/// | any other request | the method | `GET` |
///
/// The path is not used, because clients can send any number of distinct paths. For the same reason methods other than
/// the nine of HTTP are reported as `HTTP`. axum matches the route before it calls layers added with
/// [`Router::layer`](https://docs.rs/axum/0.8/axum/struct.Router.html#method.layer) and `route_layer`, so these see the
/// route. A layer around the whole router (`layer.layer(router)`) or around a service nested with `nest_service` sees
/// the method only.
impl<B> RequestContext for http::Request<B> {
    fn operation(&self) -> &str {
        http_operation::of(self)
    }

    fn deadline(&self) -> Option<Instant> {
        self.extensions().get::<Deadline>().map(|deadline| deadline.0)
    }

    fn set_deadline(&mut self, deadline: Instant) {
        // Replaced in place if there is one, because inserting an extension allocates.
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

/// A status of 400 or above is a failure, and so is a `grpc-status` other than 0 in the headers. A status in the
/// trailers is not seen here.
impl<B> ResponseContext for http::Response<B> {
    #[inline]
    fn failure(&self) -> Option<ErrorKind> {
        let status = self.status().as_u16();
        if status >= 400 {
            return Some(kind_of_http_status(status));
        }
        kind_of_grpc_status(self.headers().get("grpc-status")?.to_str().ok()?)
    }
}

fn kind_of_http_status(status: u16) -> ErrorKind {
    let same = ErrorKind::ALL.into_iter().find(|kind| kind.http_status() == status);
    same.unwrap_or(if status < 500 { ErrorKind::InvalidArgument } else { ErrorKind::Internal })
}

fn kind_of_grpc_status(status: &str) -> Option<ErrorKind> {
    let code: i32 = status.parse().unwrap_or(2);
    (code != 0).then(|| kind_of_grpc_code(code))
}

/// Returns the error kind of a gRPC status other than `OK`.
pub(crate) fn kind_of_grpc_code(code: i32) -> ErrorKind {
    let same = ErrorKind::ALL.into_iter().find(|kind| kind.grpc_code() == code);
    // ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION and ABORTED are the client's errors, all others the
    // server's.
    let other = if matches!(code, 6 | 7 | 9 | 10) { ErrorKind::InvalidArgument } else { ErrorKind::Internal };
    same.unwrap_or(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_known_by_either_status() {
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
