//! TLS on the REST and gRPC ports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_kernels::hyper::{ClientTenant, TlsFiles};

use super::{InvalidSettings, Span};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// Not set if empty, like every path here.
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: PathBuf,
    pub(crate) client_tenant: TenantField,
    pub(crate) reload_interval: Span,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: PathBuf::new(),
            client_tenant: TenantField::default(),
            reload_interval: Span(Duration::from_secs(10)),
        }
    }
}

/// The field of a client certificate that names the tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TenantField {
    #[default]
    Cn,
    Dns,
    Uri,
}

impl Tls {
    /// The certificate files; `None` without TLS.
    ///
    /// # Errors
    /// A setting that needs another which is not set.
    pub(crate) fn files(&self) -> Result<Option<TlsFiles>, InvalidSettings> {
        let given = |path: &Path| !path.as_os_str().is_empty();
        let missing = |key, message| Err(InvalidSettings::new([key], message));
        match (given(&self.cert), given(&self.key)) {
            (false, false) if given(&self.client_ca) => {
                let message = "tls.client_ca is set without tls.cert and tls.key, which client certificates need";
                return missing("tls.client_ca", message);
            }
            (false, false) => return Ok(None),
            (true, false) => return missing("tls.cert", "tls.cert is set without tls.key; set both"),
            (false, true) => return missing("tls.key", "tls.key is set without tls.cert; set both"),
            (true, true) => {}
        }
        let mut files = TlsFiles::new(&self.cert, &self.key).client_tenant(match self.client_tenant {
            TenantField::Cn => ClientTenant::CommonName,
            TenantField::Dns => ClientTenant::DnsName,
            TenantField::Uri => ClientTenant::Uri,
        });
        if given(&self.client_ca) {
            files = files.client_ca(&self.client_ca);
        }
        Ok(Some(files))
    }

    /// Whether clients may authenticate with a certificate.
    pub(crate) fn has_client_ca(&self) -> bool {
        !self.client_ca.as_os_str().is_empty()
    }
}
