//! TLS of the listeners, from the files that the configuration names.

use tower_kernels::hyper::Tls;

use crate::config::{self, InvalidInput};

/// What of these is wrong its message says.
const TLS_FILES: [&str; 3] = ["tls.cert", "tls.key", "tls.client_ca"];

/// Reads the certificates, and follows the files from then on; `None` without TLS.
pub(super) fn open(config: &config::Tls) -> Result<Option<Tls>, InvalidInput> {
    let Some(files) = config.files()? else { return Ok(None) };
    let failed = |error| InvalidInput::new(TLS_FILES, format!("tls: {error}"));
    let tls = files.read().and_then(Tls::new).map_err(failed)?;
    let every = config.reload_interval.0;
    if !every.is_zero() {
        tokio::spawn(tls.clone().follow(files, every));
    }
    Ok(Some(tls))
}
