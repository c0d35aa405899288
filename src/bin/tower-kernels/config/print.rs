//! Prints the effective configuration as a file that can be read again.

use std::fmt;

use toml::Value;

use super::settings::{SETTINGS, Setting, lookup};
use super::sources::Source;
use super::{Config, Effective};

/// Each value with its source in a comment.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for (key, value) in self.values()? {
            let (this, name) = key.rsplit_once('.').unwrap_or(("", key));
            if this != section {
                write!(f, "\n[{this}]\n")?;
                section = this;
            }
            match self.sources.get(key) {
                Some(source) => writeln!(f, "{name} = {value}  # {source}")?,
                None => writeln!(f, "{name} = {value}  # default")?,
            }
        }
        Ok(())
    }
}

impl Effective {
    /// The settings whose values differ from the defaults, in the order of the help page.
    pub(crate) fn changed(&self) -> Vec<Changed<'_>> {
        let (Ok(config), Ok(defaults)) = (Value::try_from(&self.config), Value::try_from(Config::default())) else {
            return Vec::new();
        };
        let changed = |setting: &'static Setting| {
            let (key, value) = (setting.key, lookup(&config, setting.key)?);
            let source = self.sources.get(key)?;
            (lookup(&defaults, key) != Some(value)).then(|| Changed { key, value: shown(setting, value), source })
        };
        SETTINGS.iter().filter_map(changed).collect()
    }

    fn values(&self) -> Result<Vec<(&'static str, Value)>, fmt::Error> {
        let config = Value::try_from(&self.config).map_err(|_| fmt::Error)?;
        let value = |key| lookup(&config, key).cloned();
        SETTINGS.iter().map(|setting| Ok((setting.key, value(setting.key).ok_or(fmt::Error)?))).collect()
    }
}

/// A setting whose value differs from the default.
#[derive(Debug)]
pub(crate) struct Changed<'a> {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    source: &'a Source,
}

impl Changed<'_> {
    /// The flag, variable or file that sets it.
    pub(crate) fn source(&self) -> &dyn fmt::Display {
        self.source
    }
}

/// The largest list or table that is logged, in bytes: those of keys and tenants can be long.
const MAX_SHOWN: usize = 256;

/// Formats a value for the log: a long list or table as its length.
fn shown(setting: &Setting, value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::Array(entries) if setting.is_only_in_file() && text.len() > MAX_SHOWN => {
            format!("({} entries)", entries.len())
        }
        Value::Table(entries) if setting.is_only_in_file() && text.len() > MAX_SHOWN => {
            format!("({} entries)", entries.len())
        }
        _ => text,
    }
}
