//! Reads and checks the configuration file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table};

use super::Config;
use super::settings::{SETTINGS, Setting, lookup};
use crate::suggest::{did_you_mean, for_serde_error};

/// A configuration file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) table: Table,
    /// Its settings, each with its line.
    pub(super) lines: BTreeMap<&'static str, usize>,
}

impl File {
    /// # Errors
    /// The first mistake, with file, line and key.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| named(&error))?;
        // Some editors on Windows write a byte order mark.
        Self::parse(text.strip_prefix('\u{feff}').unwrap_or(&text)).map_err(|error| named(&error))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let spanned = DeTable::parse(text).map_err(|error| error.to_string())?;
        let mut lines = BTreeMap::new();
        Keys { text, lines: &mut lines }.collect("", spanned.get_ref())?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let values = toml::Value::Table(table.clone());
        // In the order of the file, so that the first mistake is reported first.
        let mut in_order: Vec<_> = lines.iter().collect();
        in_order.sort_by_key(|(_, line)| **line);
        for (key, line) in in_order {
            let (Some(setting), Some(value)) = (setting(key), lookup(&values, key)) else { continue };
            if !setting.is_only_in_file() {
                setting.check(value).map_err(|error| format!("line {line}: {key}: {error}"))?;
            }
        }
        // The tables of tenants and keys, whose errors of `toml` have a line.
        toml::from_str::<Config>(text).map_err(|error| {
            let hint = for_serde_error(error.message()).map(|hint| format!("{hint}\n")).unwrap_or_default();
            format!("{error}{hint}")
        })?;
        Ok(Self { table, lines })
    }
}

fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Collects the settings of a file and rejects unknown keys.
struct Keys<'a> {
    text: &'a str,
    lines: &'a mut BTreeMap<&'static str, usize>,
}

impl Keys<'_> {
    fn collect(&mut self, section: &str, table: &DeTable<'_>) -> Result<(), String> {
        for (name, value) in table {
            let key =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            let line = self.line(name);
            let is_section =
                SETTINGS.iter().any(|one| one.key.strip_prefix(&*key).is_some_and(|rest| rest.starts_with('.')));
            match (setting(&key), value.get_ref()) {
                (Some(setting), _) => drop(self.lines.insert(setting.key, line)),
                (None, DeValue::Table(table)) if is_section => self.collect(&key, table)?,
                (None, _) if is_section => {
                    return Err(format!("line {line}: {key} is a section, [{key}], not a value"));
                }
                (None, _) => {
                    let hint = did_you_mean(&key, SETTINGS.iter().map(|setting| setting.key));
                    let hint =
                        hint.unwrap_or_else(|| "`tower-kernels serve --print-config` prints all settings".to_owned());
                    return Err(format!("line {line}: unknown field `{key}`: {hint}"));
                }
            }
        }
        Ok(())
    }

    fn line<T>(&self, spanned: &Spanned<T>) -> usize {
        self.text.get(..spanned.span().start).unwrap_or_default().matches('\n').count() + 1
    }
}
