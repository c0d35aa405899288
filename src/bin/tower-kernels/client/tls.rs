//! TLS connections to a server, verified by the authorities in a file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use http::Uri;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::exit::{Exit, Failure};

/// Opens TLS connections to one server.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// For an https URL; `None` for http. `alpn` is the protocol to negotiate.
    pub(crate) fn new(uri: &Uri, authorities: Option<&Path>, alpn: &[u8]) -> Result<Option<Self>, Failure> {
        let wrong = |what: String| Exit::Usage.failure(what);
        let path = match (uri.scheme_str(), authorities) {
            (Some("https"), Some(path)) => path,
            (Some("https"), None) => {
                return Err(wrong(format!("{uri} needs --cacert FILE, the authorities of the server in PEM")));
            }
            (_, None) => return Ok(None),
            (_, Some(_)) => return Err(wrong(format!("--cacert needs an https URL, and {uri} is not one"))),
        };
        let failed = |error: &dyn std::fmt::Display| wrong(format!("--cacert: {}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| failed(&error))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| failed(&error))?;
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
        if roots.is_empty() {
            return Err(failed(&"it contains no PEM certificate"));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| failed(&error))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        // IPv6 addresses are in brackets in a URL.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| wrong(format!("{uri}: {error}")))?;
        Ok(Some(Self { connector: TlsConnector::from(Arc::new(config)), name }))
    }

    pub(crate) async fn connect(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), tcp).await
    }
}
