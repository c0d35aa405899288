//! TLS of the listeners, from the files that the configuration names.

use tower_kernels::hyper::Tls;

use crate::config;
use crate::exit::{Exit, Failure};

/// Reads the certificates, and follows the files from then on; `None` without TLS.
pub(super) fn open(config: &config::Tls) -> Result<Option<Tls>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Exit::Usage.because(format!("tls: {error}"));
    let Some(files) = config.files().map_err(|error| failed(&error))? else { return Ok(None) };
    let tls = files.read().and_then(Tls::new).map_err(|error| failed(&error))?;
    let every = config.reload_interval.0;
    if !every.is_zero() {
        tokio::spawn(tls.clone().follow(files, every));
    }
    Ok(Some(tls))
}
