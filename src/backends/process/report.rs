//! Writes a report of each fault, for whoever looks into it later. It has no payloads.

use std::time::SystemTime;

use serde::Serialize;

use super::ProcessConfig;

#[derive(Serialize)]
struct Report<'a> {
    /// Milliseconds since 1970.
    time_ms: u128,
    kernel: &'a str,
    device: &'a str,
    reason: &'a str,
    version: &'static str,
}

/// Writes a report of the end of a process to the folder for them.
pub(super) fn write(config: &ProcessConfig, kernel: &str, device: &str, reason: &str) {
    let Some(folder) = &config.reports else { return };
    let time_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let report = Report { time_ms, kernel, device, reason, version: env!("CARGO_PKG_VERSION") };
    let name = format!("fault-{time_ms}-{}.json", kernel.replace('/', "."));
    let written = serde_json::to_vec_pretty(&report)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(folder.join(name), text));
    if let Err(error) = written {
        tracing::error!(%error, "the report of a fault cannot be written");
    }
}
