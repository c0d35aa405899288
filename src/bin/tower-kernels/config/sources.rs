//! The file, the environment and the flags, made one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::settings::{Override, SETTINGS};
use super::{Config, Overrides};
use crate::exit::{Exit, Failure};

/// The configuration that holds, and where each value came from.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) config: Config,
    pub(super) sources: BTreeMap<String, Source>,
}

/// Who said it. What nobody said is a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl Effective {
    /// # Errors
    /// The first thing wrong, with the file, line and key, or the flag or variable, that says it.
    pub(crate) fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Failure> {
        let mut sources = BTreeMap::new();
        let mut table = match file {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        if let Some(path) = file {
            sources.extend(keys(&table).into_iter().map(|key| (key, Source::File(path.to_owned()))));
        }
        for one in &overrides.0 {
            let source = one.source();
            let alone = one.setting.table(&one.text).and_then(|alone| match check(&alone) {
                Ok(_) => Ok(alone),
                Err(error) => Err(error.message().to_owned()),
            });
            merge(&mut table, alone.map_err(|error| wrong(&format!("{}: {error}", one.name())))?);
            sources.insert(one.setting.key.to_owned(), source);
        }
        // Each part has been read on its own, so this is for what the parts could say together.
        let config = check(&table).map_err(|error| wrong(error.message()))?;
        if config.rest.listen.0.is_none() && config.grpc.listen.0.is_none() {
            return Err(wrong("rest.listen and grpc.listen are both off, so there is nothing to serve"));
        }
        config.tls.files().map_err(wrong)?;
        Ok(Self { config, sources })
    }
}

impl Override {
    fn name(&self) -> String {
        if self.by_flag { self.setting.flag() } else { self.setting.variable() }
    }

    fn source(&self) -> Source {
        if self.by_flag { Source::Flag(self.name()) } else { Source::Variable(self.name()) }
    }
}

fn wrong(message: &str) -> Failure {
    Exit::Usage.because(format!("the configuration is wrong: {message}"))
}

fn read_file(path: &Path) -> Result<Table, Failure> {
    let named = |error: &dyn fmt::Display| wrong(&format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    // Into its types first, for the line and the key of what is wrong.
    toml::from_str::<Config>(&text).map_err(|error| named(&error))?;
    text.parse().map_err(|error: toml::de::Error| named(&error))
}

fn check(table: &Table) -> Result<Config, toml::de::Error> {
    Config::deserialize(Value::Table(table.clone()))
}

/// Sections are joined, and what is in both is as in `stronger`.
fn merge(table: &mut Table, stronger: Table) {
    for (key, value) in stronger {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(section)), Value::Table(stronger)) => merge(section, stronger),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// The keys of a table and its sections: `key`, `section.key`.
pub(super) fn keys(table: &Table) -> Vec<String> {
    below("", table)
}

fn below(path: &str, table: &Table) -> Vec<String> {
    let of = |(name, value): (&String, &Value)| {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            // A setting may be a table itself, whose names are the user's.
            Value::Table(section) if SETTINGS.iter().all(|setting| setting.key != key) => below(&key, section),
            _ => vec![key],
        }
    };
    table.iter().flat_map(of).collect()
}
