//! The settings that have a flag and a variable, and what was said with them.

use std::ffi::OsString;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, FromArgMatches};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, rules};

/// A setting: its key in the file, and with it its flag and its variable.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    kind: Kind,
    help: &'static str,
}

#[derive(Debug)]
enum Kind {
    /// Told apart from `Choice` for the help alone.
    Text(&'static str),
    Choice(&'static [&'static str]),
    Number,
    Switch,
    /// Texts with commas between them.
    List(&'static str),
    /// Said in the file alone.
    InFile,
}

use Kind::{Choice, InFile, List, Number, Switch, Text};

const fn setting(key: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { key, kind, help }
}

/// In the order in which they are shown. What has no section comes first, as TOML wants it.
pub(super) const SETTINGS: &[Setting] = &[
    setting("timeout", Text("TIME"), "The most that a request may take, its wait for a place to run included"),
    setting("domains", List("DOMAINS"), "The domains whose kernels are served, with commas between them; none is all"),
    setting("exit_on_device_loss", Switch, "Whether to drain and exit with code 7 when a CUDA device is lost"),
    setting("rest.listen", Text("ADDRESS"), "Where REST is served, or off"),
    setting("rest.prefix", Text("PATH"), "What the paths of /kernels and /execute begin with"),
    setting("rest.cors", Switch, "Whether scripts on pages of any other origin may call"),
    setting("rest.health", Switch, "Whether there are /health, /health/live and /health/ready"),
    setting("rest.metrics", Switch, "Whether there is /metrics"),
    setting("rest.max_request_size", Number, "The most bytes of a request's body"),
    setting("rest.max_response_size", Number, "The most bytes of a kernel's output in its encoded form"),
    setting("grpc.listen", Text("ADDRESS"), "Where gRPC is served, or off"),
    setting("grpc.max_request_size", Number, "The most bytes of a request's message, after decompression"),
    setting("grpc.max_response_size", Number, "The most bytes of an answer's message"),
    setting("grpc.max_concurrent_per_stream", Number, "The most requests of one ExecuteStream that run at once"),
    setting(
        "grpc.compressed_requests",
        Switch,
        "Whether requests may be compressed, with gzip; one that is may take 1032 times its size of memory.max",
    ),
    setting("grpc.compress_responses", Switch, "Whether answers are compressed for clients that take it"),
    setting(
        "memory.max",
        Text("BYTES"),
        "The memory that requests may hold together, from their bodies to their responses: a number of bytes such as \
         256MiB, or auto for half of what the process may have",
    ),
    setting("connections.max", Number, "The most connections to a listener; more wait to be accepted"),
    setting(
        "connections.max_per_address",
        Number,
        "The most connections to a listener from one address, or one /64 of IPv6; more are closed at once; 0 is no limit",
    ),
    setting(
        "connections.health_reserve",
        Number,
        "Connections past connections.max to a listener, for /health, /metrics and gRPC health alone",
    ),
    setting("connections.head_timeout", Text("TIME"), "The most that the head of a request may take to come"),
    setting("connections.idle_timeout", Text("TIME"), "How long a connection is kept while nothing is asked on it"),
    setting(
        "connections.write_timeout",
        Text("TIME"),
        "How long a client may leave its response unread; to read less than 64 KiB in that time is not enough",
    ),
    setting(
        "connections.max_age",
        Text("TIME"),
        "How old a connection may become before its client is told to connect anew, give or take a tenth; 0s is any age",
    ),
    setting(
        "connections.max_age_grace",
        Text("TIME"),
        "How long requests on a connection of that age may take before it is closed",
    ),
    setting(
        "tls.cert",
        Text("FILE"),
        "The certificate of REST and gRPC, with its chain, in PEM; TLS is off without one",
    ),
    setting("tls.key", Text("FILE"), "The private key of tls.cert, in PEM"),
    setting(
        "tls.client_ca",
        Text("FILE"),
        "The authorities, in PEM, whose client certificates are accepted and name the tenant",
    ),
    setting(
        "tls.client_tenant",
        Choice(&["cn", "dns", "uri"]),
        "What of a client certificate names the tenant: its common name, or its one DNS name or URI",
    ),
    setting("tls.reload_interval", Text("TIME"), "How often the files of tls are read again; 0s is never"),
    setting("auth.api_keys", InFile, "Who may call: tenants, and the SHA-256 of their keys"),
    setting(
        "auth.api_keys_file",
        Text("FILE"),
        "A TOML file of API keys, [[api_keys]] with tenant and key_sha256, apart from the other settings",
    ),
    setting("auth.open_docs", Switch, "Whether /docs and /openapi.json need no credentials"),
    setting("auth.open_metrics", Switch, "Whether /metrics asks nobody who they are; /health and gRPC health never do"),
    setting("auth.jwt.algorithm", Choice(&["RS256", "ES256", "EdDSA", "HS256"]), "How JSON web tokens are signed"),
    setting(
        "auth.jwt.key_file",
        Text("FILE"),
        "The public key in PEM, or the secret of HS256 (32 bytes or more), that tokens are checked with",
    ),
    setting(
        "auth.jwt.secret_env",
        Text("NAME"),
        "The environment variable that holds the secret of HS256, in place of a file",
    ),
    setting("auth.jwt.issuer", Text("NAME"), "Who must have issued a token (its iss); if not set, any issuer will do"),
    setting(
        "auth.jwt.audience",
        Text("NAME"),
        "Whom a token must be for (its aud); if not set, tokens that name an audience are rejected",
    ),
    setting("auth.jwt.tenant_claim", Text("NAME"), "Which claim names the tenant"),
    setting(
        "tenants.max_priority",
        Choice(&["low", "normal", "high"]),
        "Maximum priority of requests of tenants that are not in tenants.named; higher ones are lowered to it",
    ),
    setting("tenants.named", InFile, "Per-tenant weight and max_priority"),
    setting(
        "rate_limit.per_second",
        Number,
        "Requests per second of each tenant that is not in rate_limit.tenants; 0 is no limit",
    ),
    setting("rate_limit.burst", Number, "Burst size of a tenant; 0 is the requests of one second"),
    setting("rate_limit.tenants", InFile, "Per-tenant overrides of per_second and burst"),
    setting("cache.max_bytes", Number, "Memory for the responses of pure kernels; 0 turns the cache off"),
    setting("cache.ttl", Text("TIME"), "Time to live of a cached response; 0s is unlimited"),
    setting(
        "cache.share_across_tenants",
        Switch,
        "Share cached responses across tenants, who can observe it by timing",
    ),
    setting("coalesce.enabled", Switch, "Run equal requests of pure kernels in flight once"),
    setting("coalesce.share_across_tenants", Switch, "Share runs across tenants, who can observe it by timing"),
    setting(
        "load_shed.max_wait",
        Text("TIME"),
        "Reject requests whose expected wait is longer; 0s turns load shedding off",
    ),
    setting("circuit_breaker.enabled", Switch, "Reject requests of a kernel while too many of them fail"),
    setting("circuit_breaker.consecutive_failures", Number, "Consecutive failures that open the circuit"),
    setting(
        "circuit_breaker.failure_percent",
        Number,
        "Percentage of failures in the last 10 seconds that opens the circuit",
    ),
    setting(
        "circuit_breaker.agreeing_tenants",
        Number,
        "Number of tenants with an open circuit that opens the circuit for all",
    ),
    setting("retry.attempts", Number, "Maximum attempts of a request of a pure kernel; 1 turns retries off"),
    setting("queue.capacity", Number, "Maximum number of queued requests; 0 turns the queue off"),
    setting("queue.max_bytes", Number, "Maximum payload bytes of all queued requests"),
    setting("concurrency.limit", Number, "Maximum number of requests that run at a time; 0 leaves it to the backends"),
    setting(
        "batch.enabled",
        Switch,
        "Batch small requests for one kernel that arrive while a CUDA device's workers are busy",
    ),
    setting("batch.max_requests", Number, "Maximum number of requests in a batch"),
    setting(
        "batch.max_bytes",
        Number,
        "Maximum bytes that a batch moves, or the equivalent in work; larger requests run alone",
    ),
    setting("batch.max_delay", Text("TIME"), "How long a batch waits for more requests while a worker is free"),
    setting("batch.capacity", Number, "Maximum number of requests that wait for a batch; others wait in the queue"),
    setting(
        "batch.on_cpu",
        Switch,
        "Batch requests on a machine without CUDA devices as well: worth it for kernels past cpu.inline",
    ),
    setting("drain.notice", Text("TIME"), "From not being ready any more to refusing connections"),
    setting("drain.limit", Text("TIME"), "How long requests in flight may take from then on"),
    setting("cpu.lanes", Number, "Requests that run on the CPU at one time"),
    setting("cpu.queue", Number, "Requests that wait for the CPU at one time"),
    setting("cpu.inline", Text("TIME"), "What costs no more than this runs where it arrives"),
    setting(
        "cuda.mode",
        Choice(&["off", "on", "required"]),
        "Whether to use CUDA devices, and to start where one is not there",
    ),
    setting("cuda.devices", Text("DEVICES"), "Which CUDA devices: all, or their numbers with commas between them"),
    setting("cuda.lanes", Number, "Requests that run on a device at one time, each on a stream of its own"),
    setting("cuda.queue", Number, "Requests that wait for a device at one time"),
    setting("cuda.spin", Text("TIME"), "How long an idle lane looks for work before it sleeps"),
    setting("cuda.copiers", Number, "Threads that help to copy large arrays to pinned memory and back"),
    setting("cuda.linger", Text("TIME"), "How long a small, lone request is polled for on the thread that brought it"),
    setting("cuda.inline", Text("TIME"), "What takes no longer than this to decode is decoded where it arrives"),
    setting(
        "cuda.hang",
        Text("TIME"),
        "How long a device may go on with what it was told to stop before it counts as lost",
    ),
    setting("cuda.time_one_in", Number, "One request in so many is timed by the device; 0 is none"),
    setting("log.level", Text("FILTER"), "What is logged: a level, or directives such as warn,tower_kernels=debug"),
    setting(
        "log.max_repeats",
        Number,
        "The most events of a kind that are logged in 10 seconds; of more only the number is; 0 logs each",
    ),
    setting(
        "log.buffer",
        Number,
        "The most bytes of log lines that wait for a slow reader; more are dropped and counted",
    ),
    setting("log.format", Choice(&["text", "json"]), "How: lines for people, or a JSON object a line"),
    setting(
        "log.access",
        Switch,
        "Whether each request is logged when it has ended, at any log.level; without it that is at level debug",
    ),
];

impl Setting {
    pub(super) fn flag(&self) -> String {
        format!("--{}", self.long())
    }

    pub(super) fn variable(&self) -> String {
        format!("TOWER_KERNELS_{}", self.key.replace('.', "_").to_uppercase())
    }

    fn long(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// The flag. Its variable is only named here: an empty one is not set, which clap would not know.
    fn arg(&self, defaults: &Value) -> Arg {
        let default = lookup(defaults, self.key).map(|value| format!(" [default: {value}]")).unwrap_or_default();
        let help = format!("{}{default} [env: {}]", self.help, self.variable());
        let arg = Arg::new(self.key).long(self.long()).help(help);
        match self.kind {
            Text(name) | List(name) => arg.value_name(name).value_parser(NonEmptyStringValueParser::new()),
            InFile => arg.hide(true),
            Number => arg.value_name("NUMBER").value_parser(NonEmptyStringValueParser::new()),
            Choice(names) => arg.value_name("NAME").value_parser(PossibleValuesParser::new(names)),
            // `--rest-cors` is as good as `--rest-cors=true`.
            Switch => arg
                .value_name("BOOL")
                .value_parser(PossibleValuesParser::new(["true", "false"]))
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    }

    pub(super) fn is_in_file_alone(&self) -> bool {
        matches!(self.kind, InFile)
    }

    #[cfg(test)]
    pub(super) fn is_number(&self) -> bool {
        matches!(self.kind, Number)
    }

    pub(super) fn is_time(&self) -> bool {
        matches!(self.kind, Text("TIME"))
    }

    /// The value that a flag's or a variable's text stands for in the file. A text where it should be something else is
    /// left to [`check`](Self::check).
    pub(super) fn value(&self, text: &str) -> Value {
        let as_text = || Value::String(text.to_owned());
        match self.kind {
            Text(_) | Choice(_) | InFile => as_text(),
            Number => text.parse().map_or_else(|_| as_text(), Value::Integer),
            Switch => text.parse().map_or_else(|_| as_text(), Value::Boolean),
            List(_) => Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()),
        }
    }

    /// Whether the setting can have this value, wherever it was said.
    ///
    /// # Errors
    /// The value, and what is allowed.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        self.check_kind(value)?;
        rules::check(self.key, value)?;
        let config = Config::deserialize(Value::Table(self.table(value.clone())));
        config.map(drop).map_err(|error| error.message().to_owned())
    }

    /// Whether the value is of the right kind, in plainer words than those of the types.
    fn check_kind(&self, value: &Value) -> Result<(), String> {
        let is_text = value.as_str().is_some();
        match self.kind {
            Text(_) if value.as_str() == Some("") => match self.default().as_str() {
                Some(default) if !default.is_empty() => {
                    Err(format!("it is empty; leave it out for the default, {default}"))
                }
                _ => Ok(()),
            },
            // A number of bytes need not be in quotes, and of times the rules say more.
            Text("BYTES") if value.is_integer() => Ok(()),
            Text(_) if !is_text && !self.is_time() => Err(format!("{value} is not a text in quotes")),
            Choice(names) if !names.iter().any(|name| value.as_str() == Some(name)) => {
                Err(format!("{value} is not one of {}", names.join(", ")))
            }
            Switch if !value.is_bool() => Err(format!("{value} is neither true nor false")),
            List(_) if !value.as_array().is_some_and(|items| items.iter().all(Value::is_str)) => {
                Err(format!("{value} is not a list of texts in quotes, such as [\"graph\", \"linalg\"]"))
            }
            List(_) if value.as_array().is_some_and(|items| items.iter().any(|item| item.as_str() == Some(""))) => {
                Err(format!("{value} has an empty item; use for example graph,linalg"))
            }
            _ => Ok(()),
        }
    }

    fn default(&self) -> Value {
        let defaults = Value::try_from(Config::default()).unwrap_or(Value::Table(Table::new()));
        lookup(&defaults, self.key).cloned().unwrap_or(Value::Boolean(false))
    }

    /// Whether its value is a list or a table that is written in the file alone.
    pub(super) fn is_in_file(&self) -> bool {
        matches!(self.kind, InFile)
    }

    /// A configuration of this setting alone.
    pub(super) fn table(&self, value: Value) -> Table {
        let mut sections = self.key.rsplit('.');
        let name = sections.next().unwrap_or(self.key);
        let innermost: Table = [(name.to_owned(), value)].into_iter().collect();
        sections.fold(innermost, |table, section| [(section.to_owned(), Value::Table(table))].into_iter().collect())
    }
}

/// What a configuration has under a key.
pub(super) fn lookup<'a>(config: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(config, |section, name| section.get(name))
}

/// What flags say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides(pub(super) Vec<(&'static Setting, String)>);

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let said = SETTINGS.iter().filter(|setting| !setting.is_in_file_alone());
        let defaults = Value::try_from(Config::default()).unwrap_or(Value::Table(Table::new()));
        said.fold(command, |command, setting| command.arg(setting.arg(&defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Self::default();
        overrides.update_from_arg_matches(matches)?;
        Ok(overrides)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            // `None` for what is said in the file alone as well.
            let Ok(Some(mut raw)) = matches.try_get_raw(setting.key) else { continue };
            let text = raw.next().map_or_else(OsString::new, ToOwned::to_owned).into_string();
            let text = text.map_err(|text| {
                clap::Error::raw(ErrorKind::InvalidUtf8, format!("{}: {} is no text\n", setting.flag(), text.display()))
            })?;
            self.0.push((setting, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a table and its sections: `key`, `section.key`.
    fn keys(path: &str, table: &Table) -> Vec<String> {
        let of = |(name, value): (&String, &Value)| {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match value {
                // A setting may be a table itself, whose names are the user's.
                Value::Table(section) if SETTINGS.iter().all(|setting| setting.key != key) => keys(&key, section),
                _ => vec![key],
            }
        };
        table.iter().flat_map(of).collect()
    }

    #[test]
    fn every_key_of_the_file_has_a_flag_and_every_flag_a_key() {
        let mut flags: Vec<_> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        let mut keys: Vec<_> = keys("", &Table::try_from(Config::default()).unwrap());
        keys.sort();
        flags.sort();
        assert_eq!(flags, keys);
    }

    #[test]
    fn one_name_makes_key_flag_and_variable() {
        let limit = SETTINGS.iter().find(|setting| setting.key == "rest.max_request_size").unwrap();
        assert_eq!(limit.flag(), "--rest-max-request-size");
        assert_eq!(limit.variable(), "TOWER_KERNELS_REST_MAX_REQUEST_SIZE");
    }
}
