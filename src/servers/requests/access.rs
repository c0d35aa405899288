//! The access log: one event for each request that has ended.

use std::net::SocketAddr;
use std::time::Instant;

use http::{HeaderMap, Method, Request, StatusCode, Uri};
use tracing::Level;

use super::Transport;
use super::outcome::GRPC_STATUS;
use crate::middleware::tracing::RequestScope;
use crate::request::PeerAddress;
use crate::request::request_id::RequestId;

/// Target of the events.
pub(super) const TARGET: &str = "tower_kernels::access";

/// Whether a subscriber is interested in events of level INFO or else DEBUG.
pub(super) fn is_read(at_info: bool) -> bool {
    if at_info {
        tracing::enabled!(target: TARGET, Level::INFO)
    } else {
        tracing::enabled!(target: TARGET, Level::DEBUG)
    }
}

/// Source of a request: peer, method and path.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(super) at_info: bool,
    peer: Option<SocketAddr>,
    method: Method,
    uri: Uri,
}

impl Source {
    pub(super) fn of<B>(request: &Request<B>, at_info: bool) -> Self {
        let peer = request.extensions().get().map(|PeerAddress(address)| *address);
        Self { at_info, peer, method: request.method().clone(), uri: request.uri().clone() }
    }
}

/// Log entry of a request in flight.
#[derive(Debug)]
pub(super) struct Entry {
    source: Source,
    request_id: RequestId,
    scope: RequestScope,
    begun: Instant,
    /// Bytes sent of the response's body.
    pub(super) sent: u64,
    status: Option<Status>,
}

#[derive(Clone, Copy, Debug)]
enum Status {
    Http(StatusCode),
    Grpc(Option<i32>),
}

impl Entry {
    pub(super) fn new(source: Source, request_id: RequestId, scope: RequestScope) -> Self {
        Self { source, request_id, scope, begun: Instant::now(), sent: 0, status: None }
    }

    /// Records the head of the response. The status of gRPC is in the head or in the trailers.
    pub(super) fn head(&mut self, transport: Transport, status: StatusCode, headers: &HeaderMap) {
        let is_grpc = transport != Transport::Rest && status == StatusCode::OK;
        self.status = Some(if is_grpc { Status::Grpc(grpc_status(headers)) } else { Status::Http(status) });
    }

    /// Records the trailers of the response.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if let (Some(Status::Grpc(status)), Some(number)) = (&mut self.status, grpc_status(trailers)) {
            *status = Some(number);
        }
    }

    /// Records the status of a request of a stream, which has no head.
    #[cfg(feature = "grpc")]
    pub(super) fn set_grpc_status(&mut self, number: i32) {
        self.status = Some(Status::Grpc(Some(number)));
    }

    /// Logs the end. `cut` is why the response was not sent completely, if it was not.
    pub(super) fn log(self, transport: Transport, outcome: &'static str, cut: Option<Cut>) {
        let Self { source: Source { at_info, peer, method, uri }, request_id, scope, begun, sent, status } = self;
        let (http, grpc) = match status {
            Some(Status::Http(status)) => (Some(status.as_u16()), None),
            Some(Status::Grpc(number)) => (None, number),
            None => (None, None),
        };
        let incomplete = cut.map(|cut| cut.reason(status.is_some()));
        let duration_ms = begun.elapsed().as_micros() as f64 / 1e3;
        // The level of a tracing callsite is constant. The event has no parent, so that it has no fields of the span.
        macro_rules! at {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    parent: None,
                    $level,
                    transport = transport.as_str(),
                    peer = peer.map(tracing::field::display),
                    method = method.as_str(),
                    path = uri.path(),
                    kernel = scope.kernel(),
                    tenant = scope.tenant(),
                    request_id = request_id.as_str(),
                    status = http,
                    grpc_status = grpc,
                    outcome,
                    incomplete,
                    bytes_in = scope.received(),
                    bytes_out = sent,
                    duration_ms,
                    "request ended"
                )
            };
        }
        if at_info { at!(Level::INFO) } else { at!(Level::DEBUG) }
    }
}

/// Why a response was not sent completely.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// Request cancelled: the client closed the connection or reset the stream, or the server closed the connection.
    Closed,
    Panicked,
    /// The body or the service failed.
    Failed,
}

impl Cut {
    fn reason(self, has_head: bool) -> &'static str {
        match (self, has_head) {
            (Self::Closed, false) => "the connection or stream was closed before the response",
            (Self::Closed, true) => "the connection or stream was closed within the response",
            (Self::Panicked, _) => "the service panicked",
            (Self::Failed, _) => "the response failed",
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<i32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
