//! Certificates and keys in files, which are read again when they change.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{ClientTenant, InvalidTls, Tls, TlsPem};

/// A file larger than this is no certificate, and is not read to its end.
const LARGEST_FILE: u64 = 4 << 20;

/// Where certificates and keys are.
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
    /// [`InvalidTls::File`] where one cannot be read.
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
        File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut contents)?;
        Ok(contents)
    };
    let contents: Vec<u8> = read().map_err(|error: io::Error| failed(error.to_string()))?;
    if contents.len() as u64 > LARGEST_FILE {
        return Err(failed(format!("it has more than {LARGEST_FILE} bytes, which no certificate and no key has")));
    }
    Ok(contents)
}

impl Tls {
    /// Reads the files `every` so often and presents what is in them from then on. Where that cannot be used, because it
    /// cannot be read, is not valid at this time or is half written, what was presented before still is, an error is
    /// logged once, and the files are looked at again the next time. Goes on until it is dropped.
    ///
    /// Contents are compared and not times, so it does not matter how files are replaced: in place, by a rename, or by a
    /// link, as Kubernetes does.
    pub async fn follow(self, files: TlsFiles, every: Duration) {
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = None;
        loop {
            ticks.tick().await;
            let (files, tls) = (files.clone(), self.clone());
            // Files may be on a network.
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
                        tracing::info!("the TLS files are again those whose certificate is presented");
                    }
                    reported = None;
                }
                Ok(Err(error)) => {
                    if reported.as_ref() != Some(&error) {
                        let expires = super::pem::date(self.status().expires);
                        tracing::error!(
                            %error, expires, "the TLS files cannot be used, so the certificate from before is kept"
                        );
                        reported = Some(error);
                    }
                }
                Err(error) => tracing::error!(%error, "the TLS files were not read"),
            }
        }
    }
}
