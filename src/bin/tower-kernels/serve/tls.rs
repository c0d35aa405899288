//! Opens the certificates of the TLS settings.

use tower_kernels::hyper::Tls;

use crate::config::{self, InvalidSettings};

const TLS_FILES: [&str; 3] = ["tls.cert", "tls.key", "tls.client_ca"];

/// Reads the certificates and starts reloading them; `None` without TLS.
pub(super) fn open(config: &config::Tls) -> Result<Option<Tls>, InvalidSettings> {
    let Some(files) = config.files()? else { return Ok(None) };
    let failed = |error| InvalidSettings::new(TLS_FILES, format!("tls: {error}"));
    let tls = files.read().and_then(Tls::new).map_err(failed)?;
    let every = config.reload_interval.0;
    if !every.is_zero() {
        tokio::spawn(tls.clone().follow(files, every));
    }
    Ok(Some(tls))
}
