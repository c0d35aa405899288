//! The settings that differ from the defaults, in the log at the start.

use std::fmt::Write;

use crate::config::{Changed, Effective, LogFormat};

/// Logs them: as one text with a line each, or as JSON with an object each.
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

/// As in the file, section by section, with where each comes from.
fn lines(changed: &[Changed<'_>]) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in changed {
        let (this, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if this != section {
            text.push_str(&format!("\n  [{this}]"));
            section = this;
        }
        // A string takes all that is written to it.
        let _ = write!(text, "\n    {name} = {}  # {}", setting.value, setting.source());
    }
    text
}
