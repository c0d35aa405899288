//! The configuration that holds, as a file that could be read again.

use std::fmt;

use toml::Value;

use super::settings::{SETTINGS, Setting, lookup};
use super::sources::Source;
use super::{Config, Effective};

/// Each value with where it came from, beside it.
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
    /// The settings whose values are not the defaults, in the order in which all are shown.
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

/// A setting whose value is not the default.
#[derive(Debug)]
pub(crate) struct Changed<'a> {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    source: &'a Source,
}

impl Changed<'_> {
    /// The flag, the variable or the file that says it.
    pub(crate) fn source(&self) -> &dyn fmt::Display {
        self.source
    }
}

/// The most bytes of a list or a table that are shown: those of keys and tenants can be long.
const MAX_SHOWN: usize = 256;

/// A value for the log. Of a long list or table it is the length.
fn shown(setting: &Setting, value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::Array(entries) if setting.is_in_file() && text.len() > MAX_SHOWN => {
            format!("({} entries)", entries.len())
        }
        Value::Table(entries) if setting.is_in_file() && text.len() > MAX_SHOWN => {
            format!("({} entries)", entries.len())
        }
        _ => text,
    }
}
