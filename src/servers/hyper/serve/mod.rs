//! Accepts connections, enforces their limits, and shuts down gracefully.

mod address;
mod body;
mod body_wait;
mod clock;
mod config;
mod connection;
mod early;
mod forward_io;
mod hang_up;
mod listener;
mod read_timer;
mod request_body;
mod request_tracker;
mod reserve;
mod slow_streams;
mod stop;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod transport;

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::hyper::service::Service;
use http::{Request, Response};
use http_body::Body;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::address::{AddressLimit, AddressPermit};
use self::clock::Lifetime;
pub use self::config::ServerConfig;
use self::connection::{Phase, supervise};
use self::early::ReadBodies;
#[cfg(unix)]
pub use self::listener::SocketFile;
pub use self::listener::{InvalidListenAddress, ListenAddress, Listener, listen};
use self::listener::{Peer, Socket};
pub use self::request_body::RequestBody;
pub use self::request_tracker::Connections;
use self::request_tracker::Counted;
use self::reserve::Reserve;
use self::slow_streams::StreamExecutor;
use self::stop::Stop;
use self::stream::Stream;
#[cfg(feature = "tls")]
pub use self::tls::{ClientTenant, HandshakeFailure, InvalidTls, Tls, TlsFiles, TlsPem, TlsStatus};
use self::transport::{Security, WithPeer};
use crate::panics::{LogLimit, Panicked};

/// Delay after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);
/// How long connections, and then requests on them, are still accepted after the server starts to stop: long enough
/// to notice whatever was sent before that.
const GRACE: Duration = Duration::from_millis(20);
/// How long a stopping server waits for a client that makes no progress: one with an incomplete head or handshake, or
/// that sends less than 64 KiB of a body in this time.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// HTTP/2 keep-alive: interval between pings, and timeout of the response.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Maximum read-ahead of hyper on an HTTP/1.1 connection, and so the maximum size of a head.
const MAX_HTTP1_BUFFER: usize = 64 << 10;
/// Maximum number of concurrent streams of an HTTP/2 connection; clients wait with more.
const MAX_STREAMS: u32 = 128;
/// HTTP/2 receive window of a stream and of a connection: how much a client may send before the service reads it.
/// Enough for 500 MB/s at a round trip of 1 ms, and for 5 MB/s at 100 ms.
const RECEIVE_WINDOW: u32 = 512 << 10;
/// Maximum number of bytes of a stream's response that are buffered in h2 before the socket takes them.
const MAX_SEND_BUFFER: usize = 16 << 10;
/// Maximum size of an HTTP/2 request head.
const MAX_HEADER_LIST: u32 = 16 << 10;
/// Maximum number of streams that a client has reset and that the server has not processed; with more the connection is
/// closed.
const MAX_PENDING_RESETS: usize = 20;
/// Maximum number of reserved connections of one address.
const MAX_RESERVED_PER_ADDRESS: usize = 4;

/// Serves with the default [`ServerConfig`]; see [`Server::serve`].
///
/// # Errors
/// As [`Server::serve`].
pub async fn serve<S, B>(
    listener: impl Into<Listener>,
    service: S,
    stop: impl Future<Output = io::Result<()>>,
    drain: Duration,
) -> io::Result<()>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    Server::default().serve(listener, service, stop, drain).await
}

/// Serves a hyper service over HTTP/1.1 and HTTP/2 on one port, with TLS if [`tls`](Self::tls) is set.
#[derive(Debug, Default)]
pub struct Server {
    config: ServerConfig,
    connections: Connections,
    security: Security,
    reserve: Option<(usize, Reserve)>,
    notice: Duration,
    cors: bool,
}

impl Server {
    /// Creates a server with these limits.
    pub fn new(config: ServerConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Enables TLS with these certificates. A handshake must finish within [`ServerConfig::head_timeout`] and counts as
    /// a connection. A client that speaks plain HTTP gets an error response and is closed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.security.tls = Some(tls);
        self
    }

    /// Reserves `connections` above [`ServerConfig::max_connections`] for requests whose path `is_probe` accepts, such
    /// as health checks, so that a full server is reported as busy and not as dead. Other requests on reserved
    /// connections are rejected with 503, or UNAVAILABLE for gRPC. Reserved connections are closed after 10 s, and an
    /// address may have four. Default: none.
    #[must_use]
    pub fn reserve(mut self, connections: usize, is_probe: fn(&str) -> bool) -> Self {
        self.reserve = Some((connections, Reserve { is_probe }));
        self
    }

    /// Sets for how long clients are notified before the server stops. Default: zero.
    ///
    /// During the notice every HTTP/1.1 response says `connection: close`, and HTTP/2 connections get GOAWAY, after
    /// their first request if they have had none. New connections are accepted and treated the same way. So clients
    /// reconnect elsewhere between two requests, and no request is sent on a connection that is being closed. Make the
    /// notice longer than a load balancer takes to find the server not ready, and longer than the pauses between the
    /// requests of a connection: connections without a request during the notice are closed at its end.
    #[must_use]
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = notice;
        self
    }

    /// Sets whether scripts of any origin may read the responses that the server makes itself, such as its rejections
    /// on [reserved](Self::reserve) connections. Default: no. CORS of the service's own responses is configured in the
    /// service.
    #[must_use]
    pub fn cors(mut self, enabled: bool) -> Self {
        self.cors = enabled;
        self
    }

    /// Returns the connection counters of this server.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves on `listener`, a [`Listener`] or a tokio listener, until `stop` completes and the
    /// [`notice`](Self::notice) is over. From then on no connection is accepted, idle connections are closed, and
    /// requests in flight are completed, with `connection: close` or before their connection's GOAWAY. Requests that
    /// take longer than `drain` are cancelled.
    ///
    /// A client that makes no progress is closed after 10 s instead: one with an incomplete head or handshake, one that
    /// sends less than 64 KiB of a body in 10 s, or an HTTP/2 client that does not let its connection end. The service
    /// has not started work on such a request, so it is no error; their number is logged.
    ///
    /// To serve an HTTP [`tower::Service`](tower_service::Service), such as an `axum::Router`, wrap it in a
    /// `hyper_util::service::TowerToHyperService`.
    ///
    /// Dropping the future closes every connection.
    ///
    /// # Errors
    /// The error of `stop`, at once; [`io::ErrorKind::TimedOut`] if `drain` was too short, with the number of running
    /// requests that were cancelled.
    pub async fn serve<S, B>(
        self,
        listener: impl Into<Listener>,
        service: S,
        stop: impl Future<Output = io::Result<()>>,
        drain: Duration,
    ) -> io::Result<()>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let Self { config, connections, security, reserve, notice, cors } = self;
        let (reserved, reserve) = reserve.unzip();
        let no_more_handshakes = CancellationToken::new();
        let mut acceptor = Acceptor::new(listener.into(), &config, reserved.unwrap_or(0), connections.clone());
        let builder = Arc::new(builder(&config, &connections));
        let (phase, phases) = watch::channel(Phase::Serving);
        let mut tasks = JoinSet::new();
        let spawn = |tasks: &mut JoinSet<()>, Accepted { socket, peer, permit, is_reserved }: Accepted| {
            let (open, phases, builder) = (connections.begin(), phases.clone(), Arc::clone(&builder));
            let counts = Arc::clone(connections.counts());
            let tracker = open.tracker();
            let service = Counted::new(service.clone(), tracker.clone(), reserve.filter(|_| is_reserved));
            let lifetime = if is_reserved { Lifetime::reserved() } else { Lifetime::new(&config) };
            let (security, config, handshakes) = (security.clone(), config.clone(), no_more_handshakes.clone());
            tasks.spawn(async move {
                let Some(transport) = security.secure(socket, &tracker, &config, &handshakes).await else { return };
                let service = WithPeer::new(service, peer.address(), transport.peer());
                let service = ReadBodies::new(service, tracker.clone(), cors);
                let stream = Stream::new(transport, tracker.clone(), &config);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = supervise(connection, &tracker, &counts, lifetime, phases).await {
                    tracing::debug!(%peer, error = &*error as &dyn Error, "connection failed");
                }
                drop((open, permit));
            });
        };
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                // First, so that a stop is never delayed by other events.
                biased;
                stopped = &mut stop => break stopped?,
                Some(ended) = tasks.join_next() => report(ended),
                accepted = acceptor.accept() => spawn(&mut tasks, accepted),
            }
        }
        phase.send_replace(Phase::Notice);
        let mut notice_over = pin!(tokio::time::sleep(notice));
        loop {
            tokio::select! {
                biased;
                () = &mut notice_over => break,
                Some(ended) = tasks.join_next() => report(ended),
                accepted = acceptor.accept() => spawn(&mut tasks, accepted),
            }
        }
        // Serve the connections that are already in the backlog.
        let mut grace = pin!(tokio::time::sleep(GRACE));
        let begun = Instant::now();
        while begun.elapsed() < 10 * GRACE {
            tokio::select! {
                biased;
                accepted = acceptor.accept() => spawn(&mut tasks, accepted),
                () = &mut grace => break,
            }
        }
        drop(acceptor);
        tracing::info!(
            connections = connections.open(),
            requests_in_flight = connections.requests_in_flight(),
            "stopping"
        );
        Stop { connections, tasks, phase, no_more_handshakes }.within(drain).await
    }
}

fn builder(config: &ServerConfig, connections: &Connections) -> Builder<StreamExecutor> {
    let executor = StreamExecutor::new(config.write_timeout, Arc::clone(connections.counts()));
    let mut builder = Builder::new(executor);
    // The timeouts of HTTP/1.1 are in `Stream`.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HTTP1_BUFFER);
    let (interval, timeout) = PING;
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    builder
}

/// Adds a limit to an instant. A sum that overflows is replaced by one year.
fn later(now: Instant, limit: Duration) -> Instant {
    now.checked_add(limit).unwrap_or(now + Duration::from_secs(365 * 86_400))
}

/// Logs the panic of a connection's task. It closes that connection only.
fn report(ended: Result<(), JoinError>) {
    static LIMIT: LogLimit = LogLimit::new();
    // The payload of the panic must not be dropped here: a panic in its own `drop` would end the server.
    if let Some(panicked) = ended.err().and_then(|error| error.try_into_panic().ok()).map(Panicked::new)
        && let Some(left_out) = LIMIT.next()
    {
        tracing::error!(panic = %panicked, left_out, "the service panicked, and its connection is closed");
    }
}

/// An accepted connection.
struct Accepted {
    socket: Socket,
    peer: Peer,
    /// Released when the connection ends.
    permit: (OwnedSemaphorePermit, AddressPermit),
    /// Whether all regular permits are taken, so that it serves health probes only.
    is_reserved: bool,
}

/// Accepts connections within the limits.
struct Acceptor {
    listener: Listener,
    permits: Arc<Semaphore>,
    of_address: AddressLimit,
    /// Additional permits, for health probes.
    reserved: Arc<Semaphore>,
    reserved_of_address: AddressLimit,
    connections: Connections,
    /// When a warning was last logged. Warnings are rate limited.
    last_warning: Option<Instant>,
}

impl Acceptor {
    fn new(listener: Listener, config: &ServerConfig, reserve: usize, connections: Connections) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            listener,
            permits: semaphore(config.max_connections),
            of_address: AddressLimit::new(config.max_per_address),
            reserved: semaphore(reserve),
            reserved_of_address: AddressLimit::new(MAX_RESERVED_PER_ADDRESS),
            connections,
            last_warning: None,
        }
    }

    /// Accepts the next connection. Cancel safe.
    async fn accept(&mut self) -> Accepted {
        loop {
            if self.permits.available_permits() == 0 && self.may_warn() {
                let open = self.connections.open();
                tracing::warn!(open, "connection limit reached: further connections wait in the backlog");
            }
            let (permits, reserved) = (Arc::clone(&self.permits), Arc::clone(&self.reserved));
            let permit = tokio::select! {
                biased;
                permit = permits.acquire_owned() => permit,
                permit = reserved.acquire_owned() => permit,
            };
            let permit = permit.expect("the semaphores are never closed");
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    if let Some(accepted) = self.admit(socket, peer, permit) {
                        return accepted;
                    }
                }
                // The peer has already disconnected: accept the next one.
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    self.connections.counts().count_failed();
                    if self.may_warn() {
                        tracing::warn!(%error, failed = self.connections.failed(), "accepting a connection failed");
                    }
                    // Most likely there are no file descriptors left: wait for some to be closed.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Admits a connection, or closes it if its address is at its limit.
    fn admit(&mut self, socket: Socket, peer: Peer, permit: OwnedSemaphorePermit) -> Option<Accepted> {
        let counts = Arc::clone(self.connections.counts());
        let Some(mut of_address) = self.of_address.admit(peer.ip()) else {
            counts.count_over_max_per_address();
            if self.may_warn() {
                tracing::warn!(%peer, "connection limit of one address reached: closing the connection");
            }
            return None;
        };
        let mut permit = permit;
        let mut is_reserved = Arc::ptr_eq(permit.semaphore(), &self.reserved);
        // A regular permit may have been released while this waited for a connection.
        if is_reserved && let Ok(free) = Arc::clone(&self.permits).try_acquire_owned() {
            (permit, is_reserved) = (free, false);
        }
        if is_reserved {
            counts.count_over_max();
            of_address = self.reserved_of_address.admit(peer.ip())?;
        }
        Some(Accepted { socket, peer, permit: (permit, of_address), is_reserved })
    }

    fn may_warn(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last_warning.is_none_or(|last| now - last >= Duration::from_secs(10));
        if due {
            self.last_warning = Some(now);
        }
        due
    }
}

fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}
