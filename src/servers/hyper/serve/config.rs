use std::time::Duration;

/// Limits of a [`Server`](super::Server).
///
/// A request head may have 100 headers and 64 KiB in HTTP/1.1, and 16 KiB in HTTP/2; larger heads get a 431. The size
/// and duration of a body are limited by the service.
///
/// # Memory
///
/// The maximum memory of a connection, not counting what the service holds for its requests and the rest of unsent
/// responses:
///
/// | connection | requests | responses, until [`write_timeout`](Self::write_timeout) |
/// |---|---|---|
/// | HTTP/1.1 | 80 KiB received and not yet read | the one response |
/// | HTTP/2 | 512 KiB of unread bodies, and a head of 16 KiB | 32 KiB for each of 128 streams, 4 MiB in total |
///
/// In the worst case the connections of one address ([`max_per_address`](Self::max_per_address)) hold 4.7 GB, and
/// 10 000 connections of many addresses 46 GB. Lower the limits if you expect that many hostile clients.
///
/// Fields may be added in a minor version: end a struct literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Maximum time for a request head from its first byte, and for the first byte of a connection. Default: 20 s. A
    /// client that sends a byte now and then cannot hold a connection for longer than this.
    pub head_timeout: Duration,
    /// Idle timeout of a connection. Default: 75 s. Set it higher than the idle timeout of a load balancer in front,
    /// which otherwise may send a request on a connection that is being closed. An HTTP/2 connection without a stream
    /// gets GOAWAY after this time (or up to a quarter more), and is closed 5 s later; answering pings does not keep it
    /// open.
    pub idle_timeout: Duration,
    /// Maximum time for which a client may not read a response. Default: 30 s. Within it, the client must read 64 KiB
    /// or everything available; otherwise an HTTP/1.1 connection is closed and an HTTP/2 stream is reset, to free the
    /// memory of the response. Time in which there is nothing to send is not counted.
    pub write_timeout: Duration,
    /// Maximum number of concurrent connections. Default: 10 000. Further clients wait in the listener's backlog,
    /// because accepting and rejecting them would cost the resources that the limit protects. Keep it below the
    /// process's limit on open files (`ulimit -n`), above which no connection can be accepted.
    /// [`Server::reserve`](super::Server::reserve) adds a few connections for health probes.
    pub max_connections: usize,
    /// Maximum number of concurrent connections from one peer address, or from one IPv6 /64. Default: 1 024. Further
    /// connections are closed at once. 0 disables the limit, for a server whose clients all come through one load
    /// balancer.
    pub max_per_address: usize,
    /// Maximum age of a connection, with 10 % jitter. Default: unlimited (zero). After that HTTP/2 connections get
    /// GOAWAY, and the next HTTP/1.1 response says `connection: close`. Set it if clients find new replicas only when
    /// they reconnect, as gRPC clients that balance over DNS do.
    pub max_age: Duration,
    /// How long requests may continue on a connection that has reached its maximum age before it is closed. Default:
    /// 60 s. If it is longer than every request timeout, no request is lost.
    pub max_age_grace: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            max_per_address: 1024,
            max_age: Duration::ZERO,
            max_age_grace: Duration::from_secs(60),
        }
    }
}
