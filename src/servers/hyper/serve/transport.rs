//! Transport of a connection: a plain socket or TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::Request;
use tokio::io::Interest;
use tokio_util::sync::CancellationToken;

use super::ServerConfig;
use super::forward_io::forward_io;
use super::listener::Socket;
use super::request_tracker::RequestTracker;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::request::{PeerAddress, PeerTenant, Tenant};

/// Security of a server's connections: TLS or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Security {
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
}

impl Security {
    /// Makes the TLS handshake, if TLS is enabled. Returns `None` if it failed or did not finish in time, and the
    /// connection is closed. `stopping` cancels handshakes in progress.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "there is no handshake"))]
    pub(super) async fn secure(
        &self,
        socket: Socket,
        tracker: &RequestTracker,
        config: &ServerConfig,
        stopping: &CancellationToken,
    ) -> Option<Transport> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Box::pin(tls.handshake(socket, tracker, config, stopping)).await;
        }
        Some(Transport::Plain(socket))
    }
}

pub(super) enum Transport {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<Socket>>, Option<Arc<PeerTenant>>),
}

impl Transport {
    /// Returns the tenant named in the client's certificate.
    pub(super) fn peer(&self) -> Option<Arc<PeerTenant>> {
        match self {
            Self::Plain(_) => None,
            #[cfg(feature = "tls")]
            Self::Tls(_, peer) => peer.clone(),
        }
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(stream, _) => stream.get_ref().0,
        }
    }

    /// Whether the client has closed the connection or its sending half, even if it sent bytes before that have not
    /// been read.
    pub(super) fn is_read_closed(&self) -> bool {
        // Reads the readiness that tokio has cached, without a system call.
        let ready = pin!(self.socket().ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Whether there is unread input. Makes a system call, which sees input before `poll_read` does.
    pub(super) fn has_unread(&self) -> bool {
        self.socket().has_unread()
    }
}

/// Calls a method of the inner stream.
macro_rules! within {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport {
            Transport::Plain($stream) => $call,
            #[cfg(feature = "tls")]
            Transport::Tls($stream, _) => $call,
        }
    };
}

forward_io!(Transport, within);

/// Adds the peer's address and the tenant of its client certificate to the extensions of each request.
#[derive(Clone, Debug)]
pub(super) struct WithPeer<S> {
    service: S,
    address: Option<PeerAddress>,
    peer: Option<Arc<PeerTenant>>,
}

impl<S> WithPeer<S> {
    pub(super) fn new(service: S, address: Option<SocketAddr>, peer: Option<Arc<PeerTenant>>) -> Self {
        Self { service, address: address.map(PeerAddress), peer }
    }
}

impl<S, R> ::hyper::service::Service<Request<R>> for WithPeer<S>
where
    S: ::hyper::service::Service<Request<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<R>) -> S::Future {
        if let Some(address) = self.address {
            request.extensions_mut().insert(address);
        }
        if let Some(peer) = &self.peer {
            // Checked for each request: a connection may outlive the certificate.
            if peer.is_valid() {
                request.extensions_mut().insert(Tenant(Arc::clone(&peer.tenant)));
            }
            request.extensions_mut().insert(PeerTenant::clone(peer));
        }
        self.service.call(request)
    }
}
