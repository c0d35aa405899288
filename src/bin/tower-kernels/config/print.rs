//! The configuration that holds, as a file that could be read again.

use std::fmt;

use toml::Value;

use super::Effective;
use super::settings::{SETTINGS, lookup};

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
    /// For the log.
    pub(crate) fn on_one_line(&self) -> String {
        let values = self.values().into_iter().flatten();
        values.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    fn values(&self) -> Result<Vec<(&'static str, Value)>, fmt::Error> {
        let config = Value::try_from(&self.config).map_err(|_| fmt::Error)?;
        let value = |key| lookup(&config, key).cloned();
        SETTINGS.iter().map(|setting| Ok((setting.key, value(setting.key).ok_or(fmt::Error)?))).collect()
    }
}
