//! Types of values other than plain numbers and texts, checked when they are parsed.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tower_kernels::axum::RouterConfig;
use tower_kernels::hyper::ListenAddress;
use tower_kernels::service::KernelRegistry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;

/// A duration such as `30s`, `500ms` or `1m 30s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!(
                "\"{text}\" is not a duration; use \"{text}s\" for seconds or \"{text}ms\" for milliseconds"
            ));
        }
        let span = humantime::parse_duration(text);
        span.map(Self).map_err(|error| format!("\"{text}\" is not a duration, such as 30s or 500ms: {error}"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// An address to listen on, or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Listen(pub(crate) Option<ListenAddress>);

impl Listen {
    pub(crate) fn at(address: impl Into<SocketAddr>) -> Self {
        Self(Some(address.into().into()))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            address => address.parse().map(|address| Self(Some(address))).map_err(|error| format!("{error}, or off")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

/// Parses and checks the path prefix of REST.
pub(super) fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let config = RouterConfig { prefix: String::deserialize(deserializer)?, ..RouterConfig::default() };
    config.check().map_err(D::Error::custom)?;
    Ok(config.prefix)
}

/// A domain of kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Domain(pub(crate) String);

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).map_err(|error| error.to_string())?;
        let kernels = registry.list();
        let mut domains: Vec<_> = kernels.iter().map(|kernel| kernel.info().domain()).collect();
        domains.dedup();
        if domains.contains(&text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("no kernel has the domain `{text}`; the domains are {}", domains.join(", ")))
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// CUDA devices: `all`, or ordinals separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Devices {
    #[default]
    All,
    These(Vec<u32>),
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let ordinals: Result<Vec<u32>, _> = text.split(',').map(|ordinal| ordinal.trim().parse()).collect();
        ordinals.map(Self::These).map_err(|_| format!("`{text}` is neither `all` nor device ordinals such as 0,1"))
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::These(ordinals) => f.write_str(&ordinals.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

/// A log filter in the syntax of `tracing-subscriber`: `info`, or `warn,tower_kernels=debug`.
///
/// Each directive must have a level: a misspelt level alone would be taken for a target, of which nothing is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Filter(String);

impl Filter {
    pub(crate) fn directives(&self) -> &str {
        &self.0
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "use a level (off, error, warn, info, debug or trace), or directives of a target and a level such as \
                            warn,tower_kernels=debug";
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        for part in &parts {
            let (target, level) = part.rsplit_once('=').map_or((None, *part), |(target, level)| (Some(target), level));
            if target.is_some_and(|target| target.is_empty() || target.contains(['[', ']', '{', '}', '='])) {
                return Err(format!("\"{text}\" is not a log filter: \"{part}\" has no target; {FORM}"));
            }
            if level.is_empty() || level.parse::<LevelFilter>().is_err() {
                return Err(format!("\"{text}\" is not a log filter: \"{part}\" has no level; {FORM}"));
            }
        }
        // Without spaces, which would be taken for a part of a target.
        let filter = parts.join(",");
        match filter.parse::<Targets>() {
            Ok(_) => Ok(Self(filter)),
            Err(error) => Err(format!("\"{text}\" is not a log filter: {error}; {FORM}")),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A memory limit: `auto`, or bytes such as `268435456` or `256MiB`, of which 0 are allowed where `ZERO` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "String")]
pub(crate) enum MemoryLimit<const ZERO: bool> {
    #[default]
    Auto,
    Bytes(u64),
}

/// A limit on memory without which nothing works.
pub(crate) type MemoryMax = MemoryLimit<false>;

impl<const ZERO: bool> FromStr for MemoryLimit<ZERO> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let above = if ZERO { "" } else { " above 0" };
        let wrong = || format!("`{text}` is neither `auto` nor a number of bytes{above}, such as 268435456 or 256MiB");
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        bytes.filter(|bytes| ZERO || *bytes > 0).map(Self::Bytes).ok_or_else(wrong)
    }
}

impl<const ZERO: bool> fmt::Display for MemoryLimit<ZERO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

/// A number, as the other sizes are in the file, or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl<const ZERO: bool> TryFrom<NumberOrText> for MemoryLimit<ZERO> {
    type Error = String;

    fn try_from(value: NumberOrText) -> Result<Self, String> {
        match value {
            NumberOrText::Number(bytes) => bytes.to_string().parse(),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

impl<const ZERO: bool> From<MemoryLimit<ZERO>> for String {
    fn from(value: MemoryLimit<ZERO>) -> Self {
        value.to_string()
    }
}

/// Lets serde read and write these as texts.
macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_text!(Span Listen Domain Devices Filter);
