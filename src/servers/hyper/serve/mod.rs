//! The loop around the connections: who is let in, how long they may take, and how it ends.

mod address;
mod body;
mod body_wait;
mod clock;
mod config;
mod connection;
mod early;
mod hang_up;
mod listener;
mod read_clock;
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

/// How long to wait before the next connection is accepted after one could not be.
const PAUSE: Duration = Duration::from_millis(50);
/// For how long connections are still accepted once the server has been told to stop, and then requests on them: long
/// enough for whatever had been sent by then to be noticed.
const GRACE: Duration = Duration::from_millis(20);
/// How long a server that stops waits for a client that has begun something: a head, a handshake, or a body of which it
/// sends less than 64 KiB in this time.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often a peer of HTTP/2 is asked whether it is there, and how long it has to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// The most that hyper reads ahead of an HTTP/1.1 connection, and so the largest head.
const MAX_HTTP1_BUFFER: usize = 64 << 10;
/// The most streams of an HTTP/2 connection at one time; clients wait with more.
const MAX_STREAMS: u32 = 128;
/// What an HTTP/2 client may send ahead of what the service has read, on a stream and in all. Enough for 500 MB/s over
/// 1 ms and for 5 MB/s over 100 ms.
const RECEIVE_WINDOW: u32 = 512 << 10;
/// A stream's response is given to h2 a piece at a time while less than this waits there for the socket.
const MAX_SEND_BUFFER: usize = 16 << 10;
/// The largest head of an HTTP/2 request.
const MAX_HEADER_LIST: u32 = 16 << 10;
/// How many streams a client may have reset that the server has not looked at yet; with more the connection ends.
const MAX_PENDING_RESETS: usize = 20;
/// The most connections of one address among those that are kept for health probes.
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

/// Serves HTTP/1.1 and HTTP/2 on one port, by any service of hyper's; without TLS unless it is told otherwise.
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
    /// One with these limits.
    pub fn new(config: ServerConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Speaks TLS, with these certificates. A handshake has as long as [`ServerConfig::head_timeout`] says, and counts as
    /// a connection; whoever speaks HTTP without TLS is told so and closed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.security.tls = Some(tls);
        self
    }

    /// Keeps so many connections past [`ServerConfig::max_connections`] for requests of whose path `is_probe` says yes,
    /// such as those of health checks: a server that others have filled is busy, and not dead. All else on them is
    /// rejected with 503, or UNAVAILABLE for gRPC. They are closed after 10 s, and an address has four of them at most.
    /// None are kept by default.
    #[must_use]
    pub fn reserve(mut self, connections: usize, is_probe: fn(&str) -> bool) -> Self {
        self.reserve = Some((connections, Reserve { is_probe }));
        self
    }

    /// Tells clients for this long that the server will stop, before it does: none by default.
    ///
    /// From the moment in which it is told to stop, each response of HTTP/1.1 says `connection: close`, and connections of
    /// HTTP/2 get GOAWAY, those without a request yet after their first. New connections are accepted and served in the
    /// same way. So clients leave between two requests, and none of their requests meets a connection that is being
    /// closed. Let it be longer than the time in which a load balancer finds the server not ready, and than the pauses
    /// between the requests of a connection: those without a request in all that time are closed at its end.
    #[must_use]
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = notice;
        self
    }

    /// Whether scripts on pages of any other origin may read the responses that the server makes itself, such as its
    /// rejections on connections of the [reserve](Self::reserve); no by default. Those of the service are its own affair.
    #[must_use]
    pub fn cors(mut self, enabled: bool) -> Self {
        self.cors = enabled;
        self
    }

    /// What tells, later, how many connections there are.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves on `listener`, a [`Listener`] or one of tokio's, until `stop` completes and the [`notice`](Self::notice) is
    /// over. From then on no connection is accepted, those on which nothing is asked are closed, and requests in flight
    /// are answered, with `connection: close` or before the GOAWAY of their connection; those that take longer than
    /// `drain` are cancelled.
    ///
    /// A client that has begun and does not go on is not waited for that long: half a head, half a handshake, a body of
    /// which less than 64 KiB come in 10 s, or a connection of HTTP/2 whose client does not let it end, is closed after
    /// 10 s. Nothing works on such a request, so it is no error; how many there were is logged.
    ///
    /// Any [`tower::Service`](tower_service::Service) of HTTP, such as an `axum::Router`, becomes a service of hyper's
    /// in a `hyper_util::service::TowerToHyperService`.
    ///
    /// Dropping the future closes every connection.
    ///
    /// # Errors
    /// What `stop` failed with, at once; [`io::ErrorKind::TimedOut`] where `drain` was too short, saying for how many
    /// requests that the service was working on.
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
        let (spare, reserve) = reserve.unzip();
        let no_more_handshakes = CancellationToken::new();
        let mut door = Door::new(listener.into(), &config, spare.unwrap_or(0), connections.clone());
        let builder = Arc::new(builder(&config, &connections));
        let (phase, phases) = watch::channel(Phase::Serving);
        let mut tasks = JoinSet::new();
        let spawn = |tasks: &mut JoinSet<()>, Accepted { socket, peer, permit, is_reserved }: Accepted| {
            let (open, phases, builder) = (connections.begin(), phases.clone(), Arc::clone(&builder));
            let counts = Arc::clone(connections.counts());
            let activity = open.activity();
            let service = Counted::new(service.clone(), activity.clone(), reserve.filter(|_| is_reserved));
            let lifetime = if is_reserved { Lifetime::reserved() } else { Lifetime::new(&config) };
            let (security, config, handshakes) = (security.clone(), config.clone(), no_more_handshakes.clone());
            tasks.spawn(async move {
                let Some(transport) = security.secure(socket, &activity, &config, &handshakes).await else { return };
                let service = WithPeer::new(service, peer.address(), transport.peer());
                let service = ReadBodies::new(service, activity.clone(), cors);
                let stream = Stream::new(transport, activity.clone(), &config);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = supervise(connection, &activity, &counts, lifetime, phases).await {
                    tracing::debug!(%peer, error = &*error as &dyn Error, "a connection broke off");
                }
                drop((open, permit));
            });
        };
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                // First, so that whatever else happens it is not passed over.
                biased;
                stopped = &mut stop => break stopped?,
                Some(ended) = tasks.join_next() => report(ended),
                accepted = door.accept() => spawn(&mut tasks, accepted),
            }
        }
        phase.send_replace(Phase::Notice);
        let mut notice_over = pin!(tokio::time::sleep(notice));
        loop {
            tokio::select! {
                biased;
                () = &mut notice_over => break,
                Some(ended) = tasks.join_next() => report(ended),
                accepted = door.accept() => spawn(&mut tasks, accepted),
            }
        }
        // Whoever has got into the backlog by now is served as well.
        let mut grace = pin!(tokio::time::sleep(GRACE));
        let begun = Instant::now();
        while begun.elapsed() < 10 * GRACE {
            tokio::select! {
                biased;
                accepted = door.accept() => spawn(&mut tasks, accepted),
                () = &mut grace => break,
            }
        }
        drop(door);
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
    // The clocks of HTTP/1.1 are those of `Stream`.
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

/// A limit past the end of time is as good as a year.
fn later(now: Instant, limit: Duration) -> Instant {
    now.checked_add(limit).unwrap_or(now + Duration::from_secs(365 * 86_400))
}

/// A service that panics takes its connection with it and nothing else.
fn report(ended: Result<(), JoinError>) {
    static LIMIT: LogLimit = LogLimit::new();
    // What a panic carries must not be dropped here, where its own panic would end the server.
    if let Some(panicked) = ended.err().and_then(|error| error.try_into_panic().ok()).map(Panicked::new)
        && let Some(left_out) = LIMIT.next()
    {
        tracing::error!(panic = %panicked, left_out, "the service panicked, and its connection is closed");
    }
}

/// A connection that is let in.
struct Accepted {
    socket: Socket,
    peer: Peer,
    /// Given back when the connection has ended.
    permit: (OwnedSemaphorePermit, AddressPermit),
    /// There are as many as there may be, and it is let in for health probes alone.
    is_reserved: bool,
}

/// Lets connections in, as many as there may be.
struct Door {
    listener: Listener,
    permits: Arc<Semaphore>,
    of_address: AddressLimit,
    /// Past those, for health probes.
    reserved: Arc<Semaphore>,
    reserved_of_address: AddressLimit,
    connections: Connections,
    /// When something was last said of trouble: there is much to say of it, and all is the same.
    complained: Option<Instant>,
}

impl Door {
    fn new(listener: Listener, config: &ServerConfig, reserve: usize, connections: Connections) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            listener,
            permits: semaphore(config.max_connections),
            of_address: AddressLimit::new(config.max_per_address),
            reserved: semaphore(reserve),
            reserved_of_address: AddressLimit::new(MAX_RESERVED_PER_ADDRESS),
            connections,
            complained: None,
        }
    }

    /// The next connection. Cancel safe.
    async fn accept(&mut self) -> Accepted {
        loop {
            if self.permits.available_permits() == 0 && self.may_complain() {
                let open = self.connections.open();
                tracing::warn!(open, "as many connections as there may be: others wait until one ends");
            }
            let (permits, reserved) = (Arc::clone(&self.permits), Arc::clone(&self.reserved));
            let permit = tokio::select! {
                biased;
                permit = permits.acquire_owned() => permit,
                permit = reserved.acquire_owned() => permit,
            };
            let permit = permit.expect("nobody closes it");
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    if let Some(accepted) = self.admit(socket, peer, permit) {
                        return accepted;
                    }
                }
                // The peer is gone already; the next one need not be.
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    self.connections.counts().count_failed();
                    if self.may_complain() {
                        tracing::warn!(%error, failed = self.connections.failed(), "no connection can be accepted");
                    }
                    // Out of file descriptors, most likely: some may be closed in the meantime.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Lets a connection in unless its address has as many as it may; then it is closed.
    fn admit(&mut self, socket: Socket, peer: Peer, permit: OwnedSemaphorePermit) -> Option<Accepted> {
        let counts = Arc::clone(self.connections.counts());
        let Some(mut of_address) = self.of_address.admit(peer.ip()) else {
            counts.count_over_max_per_address();
            if self.may_complain() {
                tracing::warn!(%peer, "as many connections as one address may have: more are closed");
            }
            return None;
        };
        let mut permit = permit;
        let mut is_reserved = Arc::ptr_eq(permit.semaphore(), &self.reserved);
        // It may have waited for the connection while another one ended.
        if is_reserved && let Ok(free) = Arc::clone(&self.permits).try_acquire_owned() {
            (permit, is_reserved) = (free, false);
        }
        if is_reserved {
            counts.count_over_max();
            of_address = self.reserved_of_address.admit(peer.ip())?;
        }
        Some(Accepted { socket, peer, permit: (permit, of_address), is_reserved })
    }

    fn may_complain(&mut self) -> bool {
        let now = Instant::now();
        let due = self.complained.is_none_or(|last| now - last >= Duration::from_secs(10));
        if due {
            self.complained = Some(now);
        }
        due
    }
}

fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}
