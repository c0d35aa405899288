//! TLS: the certificates of a server and the handshakes of its connections.

mod client;
mod files;
mod pem;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::{self, ServerConfig as RustlsConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

pub use self::client::ClientTenant;
pub use self::files::TlsFiles;
pub use self::pem::{InvalidTls, TlsPem};
use super::ServerConfig;
use super::listener::Socket;
use super::request_tracker::RequestTracker;
use super::stream::Stream;
use super::transport::Transport;
use crate::request::PeerTenant;

/// The first byte of every TLS connection: the record type `handshake`.
const HANDSHAKE: u8 = 0x16;

/// Response to a client that speaks plain HTTP on a TLS port.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 51\r\n\r\nThis port speaks TLS: use https:// in place of http";

/// Configures TLS for a [`Server`](super::Server) with certificates that can be replaced at run time. Clones share
/// them.
///
/// Supports TLS 1.2 and 1.3 with rustls's default cipher suites. Clients choose HTTP/2 or HTTP/1.1 by ALPN. With a
/// [client CA](TlsPem::client_ca) clients may present a certificate, which names their tenant.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_kernels::hyper::{Server, Tls, TlsFiles};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let files = TlsFiles::new("tls.crt", "tls.key");
/// let tls = Tls::new(files.read()?)?;
/// // Reads the files again every 10 s, and uses a new certificate from then on.
/// tokio::spawn(tls.clone().follow(files, Duration::from_secs(10)));
/// let server = Server::default().tls(tls);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    active: ArcSwap<Active>,
    reloads: AtomicU64,
    reload_failures: AtomicU64,
    failures: [AtomicU64; HandshakeFailure::ALL.len()],
}

/// Configuration of new connections.
struct Active {
    config: Arc<RustlsConfig>,
    begins: SystemTime,
    expires: SystemTime,
    client_tenant: ClientTenant,
    /// Digest of the PEM contents, to detect unchanged contents without keeping the key.
    digest: u128,
}

/// Status and counters of a [`Tls`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStatus {
    /// When the active certificate or one of its chain expires, whichever is first.
    pub expires: SystemTime,
    /// Number of times the certificate was replaced.
    pub reloads: u64,
    /// Number of failed replacements, in which the previous certificate was kept.
    pub reload_failures: u64,
    /// Number of connections that were closed in the handshake, by reason.
    pub handshake_failures: Vec<(HandshakeFailure, u64)>,
}

/// Why a connection was closed in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// It took longer than [`ServerConfig::head_timeout`](super::ServerConfig::head_timeout).
    Timeout,
    /// The client does not speak TLS.
    NotTls,
    /// The client's certificate is not accepted: it has another CA, has expired, or names no tenant.
    ClientCertificate,
    /// Anything else: no common version or cipher suite, a client that does not accept the server's certificate, or a
    /// client that disconnected.
    Other,
}

impl HandshakeFailure {
    const ALL: [Self; 4] = [Self::Timeout, Self::NotTls, Self::ClientCertificate, Self::Other];

    /// Name of the reason in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NotTls => "not_tls",
            Self::ClientCertificate => "client_certificate",
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(_)) => Self::ClientCertificate,
            _ => Self::Other,
        }
    }
}

impl Tls {
    /// Creates a configuration with these certificates.
    ///
    /// # Errors
    /// The certificates cannot be used: see [`InvalidTls`]. An expired certificate is not an error here, but is logged.
    pub fn new(pem: TlsPem) -> Result<Self, InvalidTls> {
        let active = pem.activate()?;
        if active.expires <= SystemTime::now() {
            tracing::error!("the TLS certificate expired at {}: clients will not accept it", pem::date(active.expires));
        }
        let shared = Shared {
            active: ArcSwap::from_pointee(active),
            reloads: AtomicU64::default(),
            reload_failures: AtomicU64::default(),
            failures: Default::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Replaces the certificates for new connections. Existing connections keep theirs. Returns whether the
    /// certificates differ from the previous ones.
    ///
    /// # Errors
    /// The certificates cannot be used or are not valid at this time. The previous ones are kept.
    pub fn replace(&self, pem: TlsPem) -> Result<bool, InvalidTls> {
        let replaced = self.try_replace(pem);
        match replaced {
            Ok(true) => self.shared.reloads.fetch_add(1, Ordering::Relaxed),
            Ok(false) => 0,
            Err(_) => self.shared.reload_failures.fetch_add(1, Ordering::Relaxed),
        };
        replaced
    }

    fn try_replace(&self, pem: TlsPem) -> Result<bool, InvalidTls> {
        if pem.digest() == self.shared.active.load().digest {
            return Ok(false);
        }
        let active = pem.activate()?;
        active.check_dates(SystemTime::now())?;
        self.shared.active.store(Arc::new(active));
        Ok(true)
    }

    /// Counts a replacement that could not be read.
    fn count_failure(&self, error: InvalidTls) -> InvalidTls {
        self.shared.reload_failures.fetch_add(1, Ordering::Relaxed);
        error
    }

    /// Returns the status and counters.
    pub fn status(&self) -> TlsStatus {
        let Shared { active, reloads, reload_failures, failures } = &*self.shared;
        let failures = HandshakeFailure::ALL.into_iter().zip(failures);
        TlsStatus {
            expires: active.load().expires,
            reloads: reloads.load(Ordering::Relaxed),
            reload_failures: reload_failures.load(Ordering::Relaxed),
            handshake_failures: failures.map(|(why, count)| (why, count.load(Ordering::Relaxed))).collect(),
        }
    }

    fn failed(&self, why: HandshakeFailure) {
        self.shared.failures[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the handshake of a connection, within the head timeout. If it fails, the client gets an alert.
    pub(super) async fn handshake(
        &self,
        socket: Socket,
        tracker: &RequestTracker,
        limits: &ServerConfig,
        stopping: &CancellationToken,
    ) -> Option<Transport> {
        let limited = tokio::time::timeout(limits.head_timeout, self.accept(socket));
        let accepted = tokio::select! {
            accepted = limited => accepted,
            () = stopping.cancelled() => return None,
        };
        match accepted {
            Ok(Ok((stream, peer))) => return Some(Transport::Tls(Box::new(stream), peer.map(Arc::new))),
            Ok(Err(FailedHandshake { why, error, socket, reply })) => {
                self.failed(why);
                tracing::debug!(%error, why = why.as_str(), "a TLS handshake failed");
                let mut stream = Stream::new(Transport::Plain(socket), tracker.clone(), limits);
                // The client may have disconnected. `Stream` reads for a moment before it closes, so that the client
                // receives the reply instead of a connection reset.
                let _ = stream.write_all(reply).await;
                let _ = stream.shutdown().await;
            }
            Err(_) => {
                self.failed(HandshakeFailure::Timeout);
                tracing::debug!("a TLS handshake timed out");
            }
        }
        None
    }

    async fn accept(&self, socket: Socket) -> Result<(TlsStream<Socket>, Option<PeerTenant>), FailedHandshake> {
        let failure = |why, error: io::Error, socket, reply| FailedHandshake { why, error, socket, reply };
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) => {
                let reply = if first[0].is_ascii_uppercase() { SPEAK_TLS } else { b"" };
                return Err(failure(HandshakeFailure::NotTls, io::Error::other("not TLS"), socket, reply));
            }
            Ok(_) => {
                let closed = io::Error::other("the client closed the connection");
                return Err(failure(HandshakeFailure::Other, closed, socket, b""));
            }
            Err(error) => return Err(failure(HandshakeFailure::Other, error, socket, b"")),
        }
        let active = self.shared.active.load_full();
        let stream = match TlsAcceptor::from(Arc::clone(&active.config)).accept(socket).into_fallible().await {
            Ok(stream) => stream,
            Err((error, socket)) => return Err(failure(HandshakeFailure::of(&error), error, socket, b"")),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match certificate.map(|certificate| client::tenant(certificate, active.client_tenant)).transpose() {
            Ok(peer) => Ok((stream, peer)),
            // Cannot fail in practice: the verifier parsed it in the handshake.
            Err(error) => {
                let (socket, _) = stream.into_inner();
                Err(failure(HandshakeFailure::ClientCertificate, io::Error::other(error), socket, b""))
            }
        }
    }
}

/// A failed handshake.
struct FailedHandshake {
    why: HandshakeFailure,
    error: io::Error,
    socket: Socket,
    reply: &'static [u8],
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("status", &self.status()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::super::Connections;
    use super::*;

    #[test]
    fn the_reply_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(SPEAK_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head} {}", body.len());
    }

    /// The rest of a response can be in the TLS buffer, so that flushing waits and no write.
    #[tokio::test]
    async fn a_client_that_does_not_read_times_out_while_the_rest_is_flushed() {
        let limits = ServerConfig { write_timeout: Duration::from_millis(200), ..ServerConfig::default() };
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let tls = Tls::new(TlsPem::new(certified.cert.pem(), certified.signing_key.serialize_pem())).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let tracker = Connections::default().begin().tracker();
        let stopping = CancellationToken::new();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (client, server) = tokio::join!(
            connector.connect("localhost".try_into().unwrap(), connected.unwrap()),
            tls.handshake(accepted.unwrap().0.into(), &tracker, &limits, &stopping),
        );
        let _reads_nothing = client.unwrap();
        let mut stream = Stream::new(server.unwrap(), tracker, &limits);
        let timed_out = async {
            loop {
                stream.write_all(&[0; 4096]).await.expect("the TLS buffer takes the write");
                if let Err(error) = stream.flush().await {
                    return error;
                }
            }
        };
        let timed_out =
            tokio::time::timeout(Duration::from_secs(60), timed_out).await.expect("the flush waits for ever");
        assert_eq!(timed_out.kind(), io::ErrorKind::TimedOut, "{timed_out}");
        let closed = tokio::time::timeout(Duration::from_secs(60), stream.shutdown()).await;
        assert!(closed.expect("closing waits for ever").is_err());
    }

    #[test]
    fn each_failure_has_a_count_of_its_own() {
        for (index, why) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
        }
    }
}
