use std::time::Duration;

/// What a [`Server`](super::Server) allows its clients.
///
/// How large the head of a request may be is hyper's to say: 100 headers and some 400 KiB in HTTP/1.1, 16 KiB in HTTP/2,
/// and 431 for more. How large a body may be and how long it may take is the service's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The most time that the head of a request may take from its first byte, and the first byte of a connection from
    /// its beginning: 20 s. A client that sends a byte now and then holds a connection no longer than this.
    pub head_timeout: Duration,
    /// How long an HTTP/1.1 connection is kept while nothing is asked on it: 75 s. Let it be longer than that of a load
    /// balancer in front, which otherwise may send a request on a connection in the moment in which it is closed.
    /// HTTP/2 connections are kept for as long as the peer answers a ping every 30 s.
    pub idle_timeout: Duration,
    /// How long a client may read nothing of what it is sent: 30 s. Answers to one that has stopped reading hold memory.
    pub write_timeout: Duration,
    /// The most connections at a time: 10 000. Where there are as many no more are accepted, and clients wait in the
    /// listener's backlog: to accept and refuse them would cost what the limit is there to save. Keep it under the
    /// process's limit on open files (`ulimit -n`), past which nobody can be accepted either.
    pub max_connections: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            max_connections: 10_000,
        }
    }
}
