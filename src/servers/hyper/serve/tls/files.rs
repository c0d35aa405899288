//! Certificate and key files, which are read again when they change.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{ClientTenant, InvalidTls, Tls, TlsPem};

/// Maximum size of a certificate or key file.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Paths of certificate and key files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    certificates: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_tenant: ClientTenant,
}

impl TlsFiles {
    /// As in [`TlsPem::new`].
    pub fn new(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (certificates, key) = (certificates.into(), key.into());
        Self { certificates, key, client_ca: None, client_tenant: ClientTenant::default() }
    }

    /// As in [`TlsPem::client_ca`].
    #[must_use]
    pub fn client_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.client_ca = Some(path.into());
        self
    }

    /// As in [`TlsPem::client_tenant`].
    #[must_use]
    pub fn client_tenant(mut self, field: ClientTenant) -> Self {
        self.client_tenant = field;
        self
    }

    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// [`InvalidTls::File`] if a file cannot be read.
    pub fn read(&self) -> Result<TlsPem, InvalidTls> {
        let mut pem = TlsPem::new(contents(&self.certificates)?, contents(&self.key)?);
        if let Some(path) = &self.client_ca {
            pem = pem.client_ca(contents(path)?);
        }
        Ok(pem.client_tenant(self.client_tenant))
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, InvalidTls> {
    let failed = |error: String| InvalidTls::File { path: path.to_owned(), error };
    let read = || {
        let mut contents = Vec::new();
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut contents)?;
        Ok(contents)
    };
    let contents: Vec<u8> = read().map_err(|error: io::Error| failed(error.to_string()))?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(format!(
            "the file is larger than {MAX_FILE_BYTES} bytes, the maximum for a certificate or key"
        )));
    }
    Ok(contents)
}

impl Tls {
    /// Reads the files at the interval `every` and replaces the certificates if their contents changed. If the files
    /// cannot be read, are incomplete, or are not valid at this time, the previous certificates are kept, an error is
    /// logged once, and the files are read again at the next interval. Runs until the future is dropped.
    ///
    /// Contents are compared instead of modification times, so files can be replaced in place, by a rename, or by a
    /// symbolic link, as Kubernetes does.
    pub async fn follow(self, files: TlsFiles, every: Duration) {
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = None;
        loop {
            ticks.tick().await;
            let (files, tls) = (files.clone(), self.clone());
            // Blocking, as files may be on a network file system.
            let replaced = tokio::task::spawn_blocking(move || match files.read() {
                Ok(pem) => tls.replace(pem),
                Err(error) => Err(tls.count_failure(error)),
            });
            match replaced.await {
                Ok(Ok(replaced)) => {
                    if replaced {
                        let expires = super::pem::date(self.status().expires);
                        tracing::info!(expires, "the TLS certificate was replaced");
                    } else if reported.is_some() {
                        tracing::info!("the TLS files match the active certificate again");
                    }
                    reported = None;
                }
                Ok(Err(error)) => {
                    if reported.as_ref() != Some(&error) {
                        let expires = super::pem::date(self.status().expires);
                        tracing::error!(
                            %error, expires, "the TLS files cannot be used; the previous certificate is kept"
                        );
                        reported = Some(error);
                    }
                }
                Err(error) => tracing::error!(%error, "reading the TLS files failed"),
            }
        }
    }
}
