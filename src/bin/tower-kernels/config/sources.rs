//! Merges the file, the environment variables and the flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::conflicts::{self, InvalidSettings};
use super::file::File;
use super::settings::Setting;
use super::variables::{CONFIG, Variables};
use super::{Config, Overrides};
use crate::exit::{Exit, Failure};

/// The merged configuration, and the source of each value.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) config: Config,
    pub(super) sources: Sources,
}

/// The source of each setting. Those without one have their default.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<&'static str, Source>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl Sources {
    pub(super) fn get(&self, key: &str) -> Option<&Source> {
        self.0.get(key)
    }

    /// The name of a setting at its source: its flag, variable, or key and line.
    fn name(&self, key: &str) -> String {
        match self.get(key) {
            Some(Source::Flag(name) | Source::Variable(name)) => name.clone(),
            Some(Source::File { path, line }) => format!("{key} in {} (line {line})", path.display()),
            None => format!("{key} (not set)"),
        }
    }

    /// The failure for invalid settings, by their names at their sources.
    fn reject(&self, InvalidSettings { keys, message }: InvalidSettings) -> Failure {
        // Blames settings that were set rather than defaults, unless none was set.
        let set: Vec<_> = keys.iter().filter(|key| self.get(key).is_some()).collect();
        let names = if set.is_empty() { keys.iter().collect() } else { set };
        let names: Vec<_> = names.into_iter().map(|key| self.name(key)).collect();
        if names.is_empty() { wrong(&message) } else { wrong(&format!("{}: {message}", names.join(" and "))) }
    }
}

impl Effective {
    /// Reads the file, the environment and the flags. `config` is the value of `--config`.
    ///
    /// # Errors
    /// The first mistake, with its file, line and key, or its flag or variable.
    pub(crate) fn read(config: Option<&Path>, flags: &Overrides) -> Result<Self, Failure> {
        let variables = Variables::from_env(std::env::vars_os()).map_err(|error| wrong(&error))?;
        let mut sources = Sources::default();
        let mut table = match (config, &variables.config) {
            (Some(path), _) => read_file(path, None, &mut sources)?,
            (None, Some(path)) => read_file(path, Some(CONFIG), &mut sources)?,
            (None, None) => Table::new(),
        };
        for (setting, text) in &variables.settings {
            let source = Source::Variable(setting.variable());
            override_one(&mut table, &mut sources, setting, text, source)?;
        }
        for (setting, text) in &flags.0 {
            override_one(&mut table, &mut sources, setting, text, Source::Flag(setting.flag()))?;
        }
        // Each value has been checked alone; this checks the whole.
        let config = Config::deserialize(Value::Table(table)).map_err(|error| wrong(error.message()))?;
        conflicts::check(&config).map_err(|invalid| sources.reject(invalid))?;
        Ok(Self { config, sources })
    }

    /// Adds the setting that caused a failure to its message.
    pub(crate) fn blame(&self, key: &str, failure: &Failure) -> Failure {
        failure.exit.failure(format!("{failure}; the setting is {}", self.sources.name(key)))
    }

    /// The failure for settings found invalid after they were read.
    pub(crate) fn reject(&self, invalid: InvalidSettings) -> Failure {
        self.sources.reject(invalid)
    }
}

fn override_one(
    table: &mut Table,
    sources: &mut Sources,
    setting: &'static Setting,
    text: &str,
    source: Source,
) -> Result<(), Failure> {
    let value = setting.value(text);
    sources.0.insert(setting.key, source);
    setting.check(&value).map_err(|error| wrong(&format!("{}: {error}", sources.name(setting.key))))?;
    merge(table, setting.table(value));
    Ok(())
}

fn wrong(message: &str) -> Failure {
    Exit::Usage.failure(format!("invalid configuration: {message}"))
}

fn read_file(path: &Path, variable: Option<&str>, sources: &mut Sources) -> Result<Table, Failure> {
    let File { table, lines } = File::read(path).map_err(|error| match variable {
        Some(name) => wrong(&format!("{name}: {error}")),
        None => wrong(&error),
    })?;
    let source = |line| Source::File { path: path.to_owned(), line };
    sources.0.extend(lines.into_iter().map(|(key, line)| (key, source(line))));
    Ok(table)
}

/// Merges sections; `overrides` wins.
fn merge(table: &mut Table, overrides: Table) {
    for (key, value) in overrides {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(section)), Value::Table(overrides)) => merge(section, overrides),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}
