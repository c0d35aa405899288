//! The table of settings: key, flag, environment variable, kind of value and description.

use std::ffi::OsString;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, FromArgMatches};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, ranges};

/// One setting. Its flag and its environment variable are derived from its key in the file.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    kind: Kind,
    help: &'static str,
}

#[derive(Debug)]
enum Kind {
    /// Any text; the name is that of the value in the help.
    Text(&'static str),
    Choice(&'static [&'static str]),
    Number,
    Switch,
    /// Texts separated by commas.
    List(&'static str),
    /// A list or table that only the file can hold.
    InFile,
}

use Kind::{Choice, InFile, List, Number, Switch, Text};

const fn setting(key: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { key, kind, help }
}

/// All settings, in the order of the help page. Those without a section come first, as TOML requires.
pub(super) const SETTINGS: &[Setting] = &[
    setting("timeout", Text("TIME"), "Time limit of a request, from its arrival to its response, waiting included"),
    setting("domains", List("DOMAINS"), "Domains of the kernels to serve, separated by commas; all if not set"),
    setting("exit_on_device_loss", Switch, "Drain and exit with code 7 when a CUDA device is lost"),
    setting("rest.listen", Text("ADDRESS"), "Address on which REST listens, or off"),
    setting("rest.prefix", Text("PATH"), "Path prefix of the /kernels and /execute routes"),
    setting("rest.cors", Switch, "Allow cross-origin requests from any origin"),
    setting("rest.health", Switch, "Serve /health, /health/live and /health/ready"),
    setting("rest.metrics", Switch, "Serve /metrics"),
    setting("rest.max_request_size", Number, "Maximum size of a request body, in bytes"),
    setting("rest.max_response_size", Number, "Maximum size of an encoded kernel output, in bytes"),
    setting("grpc.listen", Text("ADDRESS"), "Address on which gRPC listens, or off"),
    setting("grpc.max_request_size", Number, "Maximum size of a request message after decompression, in bytes"),
    setting("grpc.max_response_size", Number, "Maximum size of a response message, in bytes"),
    setting(
        "grpc.max_concurrent_per_stream",
        Number,
        "Maximum number of requests of one ExecuteStream that run at the same time",
    ),
    setting(
        "grpc.compressed_requests",
        Switch,
        "Accept gzip-compressed requests; each reserves 1032 times its size of memory.max",
    ),
    setting("grpc.compress_responses", Switch, "Compress responses for clients that accept it"),
    setting(
        "inference.shared_memory",
        Switch,
        "Accept tensors in POSIX shared memory over the Open Inference Protocol, from clients on a loopback address; they can  read and write every object in /dev/shm that the server's user can; not for a server behind a proxy on the same machine",
    ),
    setting(
        "inference.model_control",
        Switch,
        "Let clients of the Open Inference Protocol unload models, for that protocol alone, and load them again",
    ),
    setting(
        "memory.max",
        Text("BYTES"),
        "Memory that all requests may hold together, from body to response: a number of bytes such as 256MiB, or auto for \
 half of the memory available to the process",
    ),
    setting(
        "operands.dir",
        Text("DIR"),
        "Directory in which operands survive a restart; one process at a time can use it; not set: they are lost",
    ),
    setting(
        "operands.max_bytes",
        Text("BYTES"),
        "Memory of all operands together, beside memory.max; the tensors of an upload count from when they arrive: a number of \
 bytes such as 256MiB, or auto for a quarter of the memory available to the process",
    ),
    setting(
        "operands.max_bytes_per_tenant",
        Number,
        "Memory of the operands of a tenant and of its uploads, in bytes; 0 is no limit but operands.max_bytes",
    ),
    setting("operands.max_operands", Number, "Maximum number of operands"),
    setting(
        "operands.max_operands_per_tenant",
        Number,
        "Maximum number of operands of a tenant; 0 is no limit but operands.max_operands",
    ),
    setting(
        "operands.max_upload",
        Number,
        "Maximum size of the body that uploads an operand, in bytes; tensors count to operands.max_bytes, and JSON to memory.max \
 until the operand is stored",
    ),
    setting(
        "operands.upload_timeout",
        Text("TIME"),
        "Time limit of the upload of an operand, from its arrival to its response",
    ),
    setting("connections.max", Number, "Maximum number of connections to a listener; further ones wait to be accepted"),
    setting(
        "connections.max_per_address",
        Number,
        "Maximum number of connections to a listener from one IPv4 address or IPv6 /64; further ones are closed; 0 is no \
 limit",
    ),
    setting(
        "connections.health_reserve",
        Number,
        "Connections to a listener beyond connections.max, for /health, /metrics and gRPC health only",
    ),
    setting("connections.head_timeout", Text("TIME"), "Time limit for receiving the head of a request"),
    setting("connections.idle_timeout", Text("TIME"), "Time after which a connection without requests is closed"),
    setting(
        "connections.write_timeout",
        Text("TIME"),
        "Time in which a client must read 64 KiB of its response, or all of it",
    ),
    setting(
        "connections.max_age",
        Text("TIME"),
        "Age at which the client of a connection is told to reconnect, randomized by 10 %; 0s is no limit",
    ),
    setting(
        "connections.max_age_grace",
        Text("TIME"),
        "Time limit of the requests on a connection that has reached connections.max_age",
    ),
    setting(
        "tls.cert",
        Text("FILE"),
        "PEM file of the server certificate with its chain, for REST and gRPC; TLS is off if not set",
    ),
    setting("tls.key", Text("FILE"), "PEM file of the private key of tls.cert"),
    setting(
        "tls.client_ca",
        Text("FILE"),
        "PEM file of the authorities whose client certificates are accepted; these name the tenant",
    ),
    setting(
        "tls.client_tenant",
        Choice(&["cn", "dns", "uri"]),
        "Field of a client certificate that names the tenant: its common name, or its only DNS name or URI",
    ),
    setting("tls.reload_interval", Text("TIME"), "Interval at which the files of tls are read again; 0s is never"),
    setting("auth.api_keys", InFile, "API keys: tenants, and the SHA-256 of their keys"),
    setting(
        "auth.api_keys_file",
        Text("FILE"),
        "TOML file of further API keys: [[api_keys]] with tenant and key_sha256",
    ),
    setting("auth.open_docs", Switch, "Serve /docs and /openapi.json without authentication"),
    setting(
        "auth.open_metrics",
        Switch,
        "Serve /metrics without authentication; /health and gRPC health never need it",
    ),
    setting(
        "auth.jwt.algorithm",
        Choice(&["RS256", "ES256", "EdDSA", "HS256"]),
        "Signature algorithm of JSON web tokens",
    ),
    setting(
        "auth.jwt.key_file",
        Text("FILE"),
        "File of the key that verifies tokens: a public key in PEM, or an HS256 secret of at least 32 bytes",
    ),
    setting("auth.jwt.secret_env", Text("NAME"), "Environment variable that holds the HS256 secret, instead of a file"),
    setting("auth.jwt.issuer", Text("NAME"), "Required issuer (iss) of a token; any if not set"),
    setting(
        "auth.jwt.audience",
        Text("NAME"),
        "Required audience (aud) of a token; if not set, tokens that have one are rejected",
    ),
    setting("auth.jwt.tenant_claim", Text("NAME"), "Claim of a token that names the tenant"),
    setting(
        "tenants.max_priority",
        Choice(&["low", "normal", "high"]),
        "Highest priority of a request, except for tenants.named; a higher one is lowered to this",
    ),
    setting("tenants.named", InFile, "Per-tenant overrides of weight and max_priority"),
    setting(
        "rate_limit.per_second",
        Number,
        "Requests per second of each tenant, except for rate_limit.tenants; 0 is no limit",
    ),
    setting("rate_limit.burst", Number, "Burst size of each tenant; 0 is the number of requests of one second"),
    setting("rate_limit.tenants", InFile, "Per-tenant overrides of per_second and burst"),
    setting("cache.max_bytes", Number, "Memory for cached responses of pure kernels, in bytes; 0 is no cache"),
    setting("cache.ttl", Text("TIME"), "Time to live of a cached response; 0s is no limit"),
    setting(
        "cache.share_across_tenants",
        Switch,
        "Share cached responses between tenants; response times then reveal what others have requested",
    ),
    setting("coalesce.enabled", Switch, "Run equal concurrent requests for pure kernels once"),
    setting(
        "coalesce.share_across_tenants",
        Switch,
        "Coalesce requests of different tenants; response times then reveal what others request",
    ),
    setting(
        "load_shed.max_wait",
        Text("TIME"),
        "Maximum expected wait of a request; requests expected to wait longer are rejected; 0s rejects none",
    ),
    setting("circuit_breaker.enabled", Switch, "Reject requests for a kernel while too many of them fail"),
    setting("circuit_breaker.consecutive_failures", Number, "Consecutive failures that open the circuit"),
    setting(
        "circuit_breaker.failure_percent",
        Number,
        "Percentage of failures within 10 seconds that opens the circuit",
    ),
    setting(
        "circuit_breaker.agreeing_tenants",
        Number,
        "Number of tenants with an open circuit that opens the circuit of a kernel for all tenants",
    ),
    setting(
        "retry.attempts",
        Number,
        "Maximum number of attempts of a request for a pure kernel that fails transiently; 1 is no retry",
    ),
    setting(
        "queue.capacity",
        Number,
        "Maximum number of requests that wait until the kernels are ready; 0 is no queue",
    ),
    setting("queue.max_bytes", Number, "Maximum total size of the payloads in the queue, in bytes"),
    setting(
        "concurrency.limit",
        Number,
        "Maximum number of requests that run at the same time; 0 is the limit of the backends",
    ),
    setting(
        "batch.enabled",
        Switch,
        "Merge small requests for the same kernel that wait for a CUDA device into batches",
    ),
    setting("batch.max_requests", Number, "Maximum number of requests in a batch"),
    setting(
        "batch.max_bytes",
        Number,
        "Maximum size of a batch in bytes moved, or their equivalent in work; larger requests run alone",
    ),
    setting("batch.max_delay", Text("TIME"), "Time that a batch waits for more requests while a worker is idle"),
    setting(
        "batch.capacity",
        Number,
        "Maximum number of requests that wait for a batch; further ones wait in the queue",
    ),
    setting(
        "batch.on_cpu",
        Switch,
        "Batch on machines without CUDA devices too; pays for kernels slower than cpu.inline",
    ),
    setting("drain.notice", Text("TIME"), "Time between reporting not ready and closing the listeners"),
    setting("drain.limit", Text("TIME"), "Time limit of the requests in flight once the listeners are closed"),
    setting("cpu.workers", Number, "Number of CPU workers: requests that run on the CPU at the same time"),
    setting("cpu.queue", Number, "Maximum number of requests that wait for a CPU worker"),
    setting(
        "cpu.inline",
        Text("TIME"),
        "Estimated run time up to which a kernel runs on the calling thread, without a worker",
    ),
    setting(
        "cuda.mode",
        Choice(&["off", "on", "required"]),
        "Whether to use CUDA devices: off, on if there are any, or required to start",
    ),
    setting("cuda.devices", Text("DEVICES"), "CUDA devices to use: all, or their ordinals separated by commas"),
    setting(
        "cuda.workers",
        Number,
        "Worker threads of each device, each with CUDA streams of its own and one request at a time",
    ),
    setting("cuda.queue", Number, "Requests that may wait for a worker of each device"),
    setting("cuda.idle_spin", Text("TIME"), "Time for which an idle worker polls its queue before it sleeps"),
    setting("cuda.copy_threads", Number, "Threads that help to copy large arrays between pageable and pinned memory"),
    setting(
        "cuda.busy_poll",
        Text("TIME"),
        "Longest time for which the calling thread busy-polls for the result of a small request on an idle device",
    ),
    setting(
        "cuda.inline",
        Text("TIME"),
        "Requests that take no longer than this to decode are decoded on the calling thread",
    ),
    setting(
        "cuda.hang_timeout",
        Text("TIME"),
        "Time after which a device that does not stop a cancelled request counts as lost",
    ),
    setting(
        "cuda.operand_memory",
        Text("BYTES"),
        "Device memory for copies of operands, on each device; auto is a quarter of its memory, 0 keeps none",
    ),
    setting(
        "cuda.timing_sample_interval",
        Number,
        "One in this many requests is timed with CUDA events; 0 turns timing off",
    ),
    setting(
        "isolation.backends",
        Choice(&["none", "cpu", "cuda", "all"]),
        "Backends whose kernels run in processes of their own, so that a kernel that faults costs one request; each request \
 then takes longer, by a call to the process and copies of its arrays; Linux only",
    ),
    setting(
        "isolation.standby",
        Switch,
        "Keep a second process with an open device, which takes over at once when the first one ends; it takes device memory",
    ),
    setting(
        "isolation.max_faults",
        Number,
        "Faults of a kernel for one tenant, within isolation.quarantine, that quarantine it for the tenant; twice as many in \
 all quarantine it for everybody; 0 quarantines none",
    ),
    setting(
        "isolation.quarantine",
        Text("TIME"),
        "Time for which a quarantined kernel is rejected, and within which faults count",
    ),
    setting(
        "isolation.hang_timeout",
        Text("TIME"),
        "Time after which a process that does not stop a cancelled request is killed",
    ),
    setting("isolation.start_timeout", Text("TIME"), "Time limit for the start of a process, until its device is open"),
    setting(
        "isolation.shared_memory",
        Number,
        "Maximum memory shared with each process for inputs, and as much again for outputs, in bytes",
    ),
    setting(
        "isolation.reports",
        Text("DIR"),
        "Directory in which each fault leaves a report; not set: they leave none",
    ),
    setting("log.level", Text("FILTER"), "Log filter: a level, or directives such as warn,tower_kernels=debug"),
    setting(
        "log.max_repeats",
        Number,
        "Maximum number of events of one kind logged in 10 seconds; further ones are counted; 0 is no limit",
    ),
    setting(
        "log.buffer",
        Number,
        "Size of the log buffer in bytes; lines that do not fit failure the reader is slow are dropped and counted",
    ),
    setting("log.format", Choice(&["text", "json"]), "Log format: text, or one JSON object per line"),
    setting(
        "log.access",
        Switch,
        "Log every finished request at any log.level; otherwise they are logged at level debug",
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

    /// The flag. The environment variable is only mentioned in the help: clap would not ignore an empty one.
    fn arg(&self, defaults: &Value) -> Arg {
        let default = lookup(defaults, self.key).map(|value| format!(" [default: {value}]")).unwrap_or_default();
        let help = format!("{}{default} [env: {}]", self.help, self.variable());
        let arg = Arg::new(self.key).long(self.long()).help(help);
        match self.kind {
            Text(name) | List(name) => arg.value_name(name).value_parser(NonEmptyStringValueParser::new()),
            InFile => arg.hide(true),
            Number => arg.value_name("NUMBER").value_parser(NonEmptyStringValueParser::new()),
            Choice(names) => arg.value_name("NAME").value_parser(PossibleValuesParser::new(names)),
            // `--rest-cors` means `--rest-cors=true`.
            Switch => arg
                .value_name("BOOL")
                .value_parser(PossibleValuesParser::new(["true", "false"]))
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    }

    /// Whether only the file can hold it.
    pub(super) fn is_only_in_file(&self) -> bool {
        matches!(self.kind, InFile)
    }

    #[cfg(test)]
    pub(super) fn is_number(&self) -> bool {
        matches!(self.kind, Number)
    }

    pub(super) fn is_time(&self) -> bool {
        matches!(self.kind, Text("TIME"))
    }

    /// Parses the text of a flag or variable as a TOML value. Text that does not parse stays text and is rejected by
    /// [`check`](Self::check).
    pub(super) fn value(&self, text: &str) -> Value {
        let as_text = || Value::String(text.to_owned());
        match self.kind {
            Text(_) | Choice(_) | InFile => as_text(),
            Number => text.parse().map_or_else(|_| as_text(), Value::Integer),
            Switch => text.parse().map_or_else(|_| as_text(), Value::Boolean),
            List(_) => Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()),
        }
    }

    /// Checks a value, whether from a flag, a variable or the file.
    ///
    /// # Errors
    /// The value and what is allowed, if it is not valid.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        self.check_kind(value)?;
        ranges::check(self.key, value)?;
        let config = Config::deserialize(Value::Table(self.table(value.clone())));
        config.map(drop).map_err(|error| error.message().to_owned())
    }

    /// Checks the kind of the value, with plainer messages than serde's.
    fn check_kind(&self, value: &Value) -> Result<(), String> {
        let is_text = value.as_str().is_some();
        match self.kind {
            Text(_) if value.as_str() == Some("") => match self.default().as_str() {
                Some(default) if !default.is_empty() => {
                    Err(format!("it is empty; omit it to use the default, {default}"))
                }
                _ => Ok(()),
            },
            // Bytes may be an integer, and `ranges` has a better message for times.
            Text("BYTES") if value.is_integer() => Ok(()),
            Text(_) if !is_text && !self.is_time() => Err(format!("{value} is not a string in quotes")),
            Choice(names) if !names.iter().any(|name| value.as_str() == Some(name)) => {
                Err(format!("{value} is not one of {}", names.join(", ")))
            }
            Switch if !value.is_bool() => Err(format!("{value} is neither true nor false")),
            List(_) if !value.as_array().is_some_and(|items| items.iter().all(Value::is_str)) => {
                Err(format!("{value} is not a list of strings in quotes, such as [\"graph\", \"linalg\"]"))
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

    /// A configuration that holds only this setting.
    pub(super) fn table(&self, value: Value) -> Table {
        let mut sections = self.key.rsplit('.');
        let name = sections.next().unwrap_or(self.key);
        let innermost: Table = [(name.to_owned(), value)].into_iter().collect();
        sections.fold(innermost, |table, section| [(section.to_owned(), Value::Table(table))].into_iter().collect())
    }
}

/// Looks up a dotted key in a configuration.
pub(super) fn lookup<'a>(config: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(config, |section, name| section.get(name))
}

/// The settings given as flags, with their text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides(pub(super) Vec<(&'static Setting, String)>);

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let settings = SETTINGS.iter().filter(|setting| !setting.is_only_in_file());
        let defaults = Value::try_from(Config::default()).unwrap_or(Value::Table(Table::new()));
        settings.fold(command, |command, setting| command.arg(setting.arg(&defaults)))
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
            // `None` also for settings that only the file can hold.
            let Ok(Some(mut raw)) = matches.try_get_raw(setting.key) else { continue };
            let text = raw.next().map_or_else(OsString::new, ToOwned::to_owned).into_string();
            let text = text.map_err(|text| {
                clap::Error::raw(
                    ErrorKind::InvalidUtf8,
                    format!("{}: {} is not valid UTF-8\n", setting.flag(), text.display()),
                )
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
