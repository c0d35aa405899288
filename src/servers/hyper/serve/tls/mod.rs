//! TLS: the certificates of a server, and the handshake of its connections.

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
use super::request_tracker::Activity;
use super::stream::Stream;
use super::transport::Transport;
use crate::request::PeerTenant;

/// The first byte of every TLS connection: a record of the type `handshake`.
const HANDSHAKE: u8 = 0x16;

/// What a client that speaks HTTP where TLS is spoken is told.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 51\r\n\r\nThis port speaks TLS: use https:// in place of http";

/// The certificates of a [`Server`](super::Server), which can be replaced while it runs. Clones share them.
///
/// TLS 1.2 and 1.3 are spoken, with the cipher suites that rustls considers safe; clients choose HTTP/2 or HTTP/1.1 by
/// ALPN. With a [client CA](TlsPem::client_ca) clients may present a certificate, which names their tenant.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_kernels::hyper::{Server, Tls, TlsFiles};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let files = TlsFiles::new("tls.crt", "tls.key");
/// let tls = Tls::new(files.read()?)?;
/// // Reads the files again every 10 s, and presents a new certificate from then on.
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

/// What new connections get.
struct Active {
    config: Arc<RustlsConfig>,
    begins: SystemTime,
    expires: SystemTime,
    client_tenant: ClientTenant,
    /// Tells whether the same is given again, without the key having to be kept.
    digest: u128,
}

/// What a [`Tls`] has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStatus {
    /// When the certificate that is presented expires, or one of its chain, whichever is first.
    pub expires: SystemTime,
    /// How often the certificate was replaced.
    pub reloads: u64,
    /// How often it was to be replaced by something that cannot be used, and was kept.
    pub reload_failures: u64,
    /// Connections that were closed in the handshake, by reason.
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
    /// The client's certificate is not accepted: another CA's, expired, or without the name of a tenant.
    ClientCertificate,
    /// Anything else: no version or cipher suite in common, a client that does not accept the server's certificate, or
    /// one that has gone.
    Other,
}

impl HandshakeFailure {
    const ALL: [Self; 4] = [Self::Timeout, Self::NotTls, Self::ClientCertificate, Self::Other];

    /// Its name in metrics.
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
    /// Presents these certificates.
    ///
    /// # Errors
    /// Where they cannot be used: see [`InvalidTls`]. A certificate that has expired is no error here, but is logged.
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

    /// Presents these certificates to new connections; those that there are keep theirs. Says whether they differ from
    /// what was presented before.
    ///
    /// # Errors
    /// Where they cannot be used, or are not valid at this time; what was presented before still is.
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

    /// Counts what was to replace the certificate and could not even be read.
    fn count_failure(&self, error: InvalidTls) -> InvalidTls {
        self.shared.reload_failures.fetch_add(1, Ordering::Relaxed);
        error
    }

    /// What it has done so far.
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

    /// Makes the handshake of a connection, in the time that the head of a request has. Where it fails the client is
    /// told by an alert.
    pub(super) async fn handshake(
        &self,
        socket: Socket,
        activity: &Activity,
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
            Ok(Err(Refused { why, error, socket, reply })) => {
                self.failed(why);
                tracing::debug!(%error, why = why.as_str(), "a TLS handshake failed");
                let mut stream = Stream::new(Transport::Plain(socket), activity.clone(), limits);
                // The client need not be there any more. Closed as other connections are: it is read from for a
                // moment, so that it finds the reply and not a connection that was reset.
                let _ = stream.write_all(reply).await;
                let _ = stream.shutdown().await;
            }
            Err(_) => {
                self.failed(HandshakeFailure::Timeout);
                tracing::debug!("a TLS handshake did not end in time");
            }
        }
        None
    }

    async fn accept(&self, socket: Socket) -> Result<(TlsStream<Socket>, Option<PeerTenant>), Refused> {
        let refused = |why, error: io::Error, socket, reply| Refused { why, error, socket, reply };
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) => {
                let reply = if first[0].is_ascii_uppercase() { SPEAK_TLS } else { b"" };
                return Err(refused(HandshakeFailure::NotTls, io::Error::other("not TLS"), socket, reply));
            }
            Ok(_) => {
                let gone = io::Error::other("the client closed the connection");
                return Err(refused(HandshakeFailure::Other, gone, socket, b""));
            }
            Err(error) => return Err(refused(HandshakeFailure::Other, error, socket, b"")),
        }
        let active = self.shared.active.load_full();
        let stream = match TlsAcceptor::from(Arc::clone(&active.config)).accept(socket).into_fallible().await {
            Ok(stream) => stream,
            Err((error, socket)) => return Err(refused(HandshakeFailure::of(&error), error, socket, b"")),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match certificate.map(|certificate| client::tenant(certificate, active.client_tenant)).transpose() {
            Ok(peer) => Ok((stream, peer)),
            // It was read in the handshake already, with the same result.
            Err(error) => {
                let (socket, _) = stream.into_inner();
                Err(refused(HandshakeFailure::ClientCertificate, io::Error::other(error), socket, b""))
            }
        }
    }
}

/// A connection that gets no further.
struct Refused {
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

    /// What is left of a response can lie in the buffer of TLS, where it is flushing, and no write, that waits.
    #[tokio::test]
    async fn who_does_not_read_is_given_up_while_the_rest_is_flushed() {
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
        let activity = Connections::default().begin().activity();
        let stopping = CancellationToken::new();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (client, server) = tokio::join!(
            connector.connect("localhost".try_into().unwrap(), connected.unwrap()),
            tls.handshake(accepted.unwrap().0.into(), &activity, &limits, &stopping),
        );
        let _reads_nothing = client.unwrap();
        let mut stream = Stream::new(server.unwrap(), activity, &limits);
        let given_up = async {
            loop {
                stream.write_all(&[0; 4096]).await.expect("a write has room in the buffer of TLS");
                if let Err(error) = stream.flush().await {
                    return error;
                }
            }
        };
        let given_up =
            tokio::time::timeout(Duration::from_secs(60), given_up).await.expect("it is waited for for ever");
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut, "{given_up}");
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
