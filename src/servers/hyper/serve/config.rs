use std::time::Duration;

/// What a [`Server`](super::Server) allows its clients.
///
/// The head of a request may have 100 headers and 64 KiB in HTTP/1.1, and 16 KiB in HTTP/2; the response to more is 431.
/// How large a body may be and how long it may take is the service's.
///
/// # Memory
///
/// What a connection can hold at most, beside what the service holds for its requests and the rest of the responses that
/// are not sent:
///
/// | connection | of requests | of responses, until [`write_timeout`](Self::write_timeout) |
/// |---|---|---|
/// | HTTP/1.1 | 80 KiB that came and was not asked for | nothing more than the one response |
/// | HTTP/2 | 512 KiB of bodies that the service has not read, and 16 KiB of a head | 32 KiB for each of 128 streams, 4 MiB in all |
///
/// So the connections of one address, [`max_per_address`](Self::max_per_address), hold 4.7 GB at their very worst, and
/// 10 000 of many addresses 46 GB: where that many hostile ones are to be expected, have fewer.
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The most time that the head of a request may take from its first byte, and the first byte of a connection from
    /// its beginning: 20 s. A client that sends a byte now and then holds a connection no longer than this.
    pub head_timeout: Duration,
    /// How long an HTTP/1.1 connection is kept while nothing is asked on it: 75 s. Let it be longer than that of a load
    /// balancer in front, which otherwise may send a request on a connection in the moment in which it is closed.
    /// An HTTP/2 connection without a stream is told to end after this time, or up to a quarter more, and closed 5 s
    /// later; to answer pings does not keep it.
    pub idle_timeout: Duration,
    /// How long a client may not read what it is sent: 30 s, in which it must take all that there is, or 64 KiB. After
    /// that an HTTP/1.1 connection is closed, and an HTTP/2 stream is reset. Responses to one that has stopped reading
    /// hold memory. The time in which there is nothing to send is not counted.
    pub write_timeout: Duration,
    /// The most connections at a time: 10 000. Where there are as many no more are accepted, and clients wait in the
    /// listener's backlog: to accept and refuse them would cost what the limit is there to save. Keep it under the
    /// process's limit on open files (`ulimit -n`), past which nobody can be accepted either. A few more can be let in for
    /// health probes: [`Server::reserve`](super::Server::reserve).
    pub max_connections: usize,
    /// The most connections at a time from one peer address, or from one /64 of IPv6: 1 024. More are closed at once. 0
    /// is no limit, for a server whose clients all come through one load balancer.
    pub max_per_address: usize,
    /// How old a connection may become, give or take a tenth; not limited by default (zero). After that HTTP/2 is told to
    /// go away, and the next response of HTTP/1.1 says `connection: close`. Set it where clients find new replicas
    /// only when they connect anew, as gRPC clients that balance over DNS do.
    pub max_age: Duration,
    /// How long requests on a connection that has reached its age may take before it is closed: 60 s. Longer than any
    /// request's timeout, none is lost.
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
