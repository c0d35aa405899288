//! Logs the settings that differ from the defaults, at startup.

use std::fmt::Write;

use crate::config::{Changed, Effective, LogFormat};

/// Logs the settings: as one text with a line each, or as one JSON object each.
pub(super) fn log(effective: &Effective) {
    let changed = effective.changed();
    let version = env!("CARGO_PKG_VERSION");
    match effective.config.log.format {
        LogFormat::Json => {
            tracing::info!(version, changed_settings = changed.len(), "starting");
            for setting in &changed {
                let Changed { key, value, .. } = setting;
                tracing::info!(key, value, source = %setting.source(), "setting");
            }
        }
        LogFormat::Text if changed.is_empty() => {
            tracing::info!("starting tower-kernels {version}; all settings have their defaults");
        }
        LogFormat::Text => {
            let lines = lines(&changed);
            tracing::info!("starting tower-kernels {version}; settings that differ from the defaults:{lines}");
        }
    }
}

/// Formats settings as in the file, with the source of each.
fn lines(changed: &[Changed<'_>]) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in changed {
        let (this, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if this != section {
            text.push_str(&format!("\n  [{this}]"));
            section = this;
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "\n    {name} = {}  # {}", setting.value, setting.source());
    }
    text
}
