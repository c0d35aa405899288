//! PEM certificates and keys, and the rustls configuration made from them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};
use xxhash_rust::xxh3::Xxh3;

use super::Active;
use super::client::{ClientTenant, NamedClients, expiry};

/// A certificate with its private key, and optionally a CA for client certificates, all as PEM.
#[derive(Clone)]
pub struct TlsPem {
    certificates: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_tenant: ClientTenant,
}

impl TlsPem {
    /// Creates it from the server's certificate, followed by intermediate certificates, and its private key (PKCS #8,
    /// PKCS #1 or SEC1).
    pub fn new(certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let (certificates, key) = (certificates.into(), key.into());
        Self { certificates, key, client_ca: None, client_tenant: ClientTenant::default() }
    }

    /// Accepts client certificates issued by one of these authorities. The certificate names the tenant of every
    /// request on the connection ([`PeerTenant`](crate::request::PeerTenant)). Clients without a certificate can still
    /// connect, as health probes must; use an [`AuthenticateLayer`](crate::layers) to require a credential. A
    /// certificate that is not accepted ends the handshake. TLS sessions are not resumed in this mode, so that the
    /// certificate of every connection is verified. There are no revocation lists: issue client certificates with a
    /// short validity, or replace the authority.
    #[must_use]
    pub fn client_ca(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.client_ca = Some(certificates.into());
        self
    }

    /// Sets which field of a client certificate names the tenant. Default: the common name.
    #[must_use]
    pub fn client_tenant(mut self, field: ClientTenant) -> Self {
        self.client_tenant = field;
        self
    }

    /// Returns a digest of the contents.
    pub(super) fn digest(&self) -> u128 {
        let Self { certificates, key, client_ca, client_tenant } = self;
        let mut digest = Xxh3::new();
        for part in [Some(certificates), Some(key), client_ca.as_ref()] {
            digest.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            digest.update(part.map_or(&[], Vec::as_slice));
        }
        digest.update(&[*client_tenant as u8]);
        digest.digest128()
    }

    pub(super) fn activate(&self) -> Result<Active, InvalidTls> {
        let chain = certificates(&self.certificates).map_err(InvalidTls::Certificate)?;
        let expires = chain.iter().map(read).map(|read| read.map(|certificate| expiry(&certificate)));
        let expires = expires.collect::<Result<Vec<_>, _>>().map_err(InvalidTls::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| InvalidTls::Key(format!("there is no private key in PEM: {error}")))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| InvalidTls::Certificate(error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(authorities).map_err(InvalidTls::ClientCa)? {
                    roots.add(certificate).map_err(|error| InvalidTls::ClientCa(error.to_string()))?;
                }
                let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| InvalidTls::ClientCa(error.to_string()))?;
                builder.with_client_cert_verifier(Arc::new(NamedClients { chains, field: self.client_tenant }))
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => InvalidTls::Mismatch,
            rustls::Error::InvalidCertificate(error) => InvalidTls::Certificate(error.to_string()),
            error => InvalidTls::Key(error.to_string()),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.client_ca.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let leaf =
            certificates(&self.certificates).and_then(|chain| read(&chain[0])).map_err(InvalidTls::Certificate)?;
        Ok(Active {
            config: Arc::new(config),
            begins: leaf.tbs_certificate.validity.not_before.to_system_time(),
            expires: expires.into_iter().min().unwrap_or(SystemTime::UNIX_EPOCH),
            client_tenant: self.client_tenant,
            digest: self.digest(),
        })
    }
}

impl Active {
    /// Checks that the certificates are valid at this time.
    pub(super) fn check_dates(&self, now: SystemTime) -> Result<(), InvalidTls> {
        if now >= self.expires {
            return Err(InvalidTls::Expired { at: date(self.expires) });
        }
        if now < self.begins {
            return Err(InvalidTls::NotYetValid { from: date(self.begins) });
        }
        Ok(())
    }
}

/// Parses a chain of at least one certificate.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("there is no certificate in PEM".to_owned()) } else { Ok(chain) }
}

fn read(certificate: &CertificateDer<'_>) -> Result<Certificate, String> {
    Certificate::from_der(certificate).map_err(|error| format!("a certificate cannot be read: {error}"))
}

/// Formats a time as in RFC 3339.
pub(super) fn date(time: SystemTime) -> String {
    DateTime::from_system_time(time).map_or_else(|_| format!("{time:?}"), |time| time.to_string())
}

/// Why certificates and keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTls {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        error: String,
    },
    /// The server's certificate or one of its chain is invalid.
    #[error("the certificate: {0}")]
    Certificate(String),
    /// The server's private key is invalid.
    #[error("the private key: {0}")]
    Key(String),
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The certificates of the client CA are invalid.
    #[error("the client CA: {0}")]
    ClientCa(String),
    /// The certificate has expired.
    #[error("the certificate, or one of its chain, expired at {at}")]
    Expired {
        /// Time of expiry.
        at: String,
    },
    /// The certificate is not valid yet.
    #[error("the certificate is not valid before {from}")]
    NotYetValid {
        /// Start of the validity.
        from: String,
    },
}

impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPem")
            .field("client_ca", &self.client_ca.is_some())
            .field("client_tenant", &self.client_tenant)
            .finish_non_exhaustive()
    }
}
