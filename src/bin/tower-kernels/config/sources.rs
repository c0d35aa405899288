//! The file, the environment and the flags, made one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::file::File;
use super::relations::{self, InvalidInput};
use super::settings::Setting;
use super::variables::{CONFIG, Variables};
use super::{Config, Overrides};
use crate::exit::{Exit, Failure};

/// The configuration that holds, and where each value came from.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) config: Config,
    pub(super) sources: Sources,
}

/// Who said each setting. What nobody said is a default.
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

    /// What a setting is called where it was said.
    fn name(&self, key: &str) -> String {
        match self.get(key) {
            Some(Source::Flag(name) | Source::Variable(name)) => name.clone(),
            Some(Source::File { path, line }) => format!("{key} in {} (line {line})", path.display()),
            None => format!("{key} (not set)"),
        }
    }

    /// What cannot work, by the names under which it was said.
    fn refuse(&self, InvalidInput { keys, message }: InvalidInput) -> Failure {
        // What was set is to blame, and not a default, unless nothing was.
        let said: Vec<_> = keys.iter().filter(|key| self.get(key).is_some()).collect();
        let names = if said.is_empty() { keys.iter().collect() } else { said };
        let names: Vec<_> = names.into_iter().map(|key| self.name(key)).collect();
        if names.is_empty() { wrong(&message) } else { wrong(&format!("{}: {message}", names.join(" and "))) }
    }
}

impl Effective {
    /// The settings of the file, of the environment and of flags. `config` is the file that a flag names.
    ///
    /// # Errors
    /// The first thing wrong, with the file, line and key, or the flag or variable, that says it.
    pub(crate) fn read(config: Option<&Path>, flags: &Overrides) -> Result<Self, Failure> {
        let variables = Variables::of(std::env::vars_os()).map_err(|error| wrong(&error))?;
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
        // Each part has been read on its own: this is for what they say together.
        let config = Config::deserialize(Value::Table(table)).map_err(|error| wrong(error.message()))?;
        relations::check(&config).map_err(|invalid| sources.refuse(invalid))?;
        Ok(Self { config, sources })
    }

    /// The failure with the setting that it is due to, by the name under which it was said.
    pub(crate) fn due_to(&self, key: &str, failure: &Failure) -> Failure {
        failure.exit.because(format!("{failure}; the setting is {}", self.sources.name(key)))
    }

    /// The failure of a setting that turned out not to work.
    pub(crate) fn refuse(&self, invalid: InvalidInput) -> Failure {
        self.sources.refuse(invalid)
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
    Exit::Usage.because(format!("the configuration is wrong: {message}"))
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

/// Sections are joined, and what is in both is as in `stronger`.
fn merge(table: &mut Table, stronger: Table) {
    for (key, value) in stronger {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(section)), Value::Table(stronger)) => merge(section, stronger),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}
