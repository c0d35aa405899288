//! Reads settings from environment variables.
//!
//! An empty variable counts as not set, as scripts and manifests pass on unset variables so. An unknown variable with our
//! prefix is rejected as misspelt, except for those that Kubernetes makes.

use std::ffi::OsString;
use std::path::PathBuf;

use super::settings::{SETTINGS, Setting};
use crate::suggest::did_you_mean;

const PREFIX: &str = "TOWER_KERNELS_";
/// The path of the configuration file.
pub(super) const CONFIG: &str = "TOWER_KERNELS_CONFIG";
/// The cache of compiled CUDA code, read by the library.
const CACHE: &str = "TOWER_KERNELS_CACHE";
/// Variables of tests and benches, which may start the program.
const TESTS: [&str; 7] = [
    "TOWER_KERNELS_BENCH_GRAPHS",
    "TOWER_KERNELS_BLESS",
    "TOWER_KERNELS_CHAOS_SECONDS",
    "TOWER_KERNELS_CHAOS_SEED",
    "TOWER_KERNELS_HOSTILE",
    "TOWER_KERNELS_HOSTILE_PROGRAM",
    "TOWER_KERNELS_TEST_FILES",
];

/// The settings given as variables, with their text.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub(super) config: Option<PathBuf>,
    pub(super) settings: Vec<(&'static Setting, String)>,
}

impl Variables {
    /// # Errors
    /// The variables that are not settings, or not valid UTF-8.
    pub(super) fn from_env(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, String> {
        let mut this = Self::default();
        let mut wrong = Vec::new();
        for (name, value) in environment {
            // Our names are valid UTF-8.
            let Some(name) = name.to_str().filter(|name| name.to_ascii_uppercase().starts_with(PREFIX)) else {
                continue;
            };
            if value.to_str().is_some_and(|value| value.trim().is_empty()) {
                // Not set.
            } else if name == CONFIG {
                this.config = Some(value.into());
            } else if let Some(setting) = SETTINGS.iter().find(|one| !one.is_only_in_file() && one.variable() == name) {
                match value.into_string() {
                    Ok(text) => this.settings.push((setting, text)),
                    Err(value) => wrong.push(format!("{name}: {value:?} is not valid UTF-8")),
                }
            } else if name != CACHE && !TESTS.contains(&name) && !is_kubernetes_service(name, &value.to_string_lossy())
            {
                wrong.push(unknown(name));
            }
        }
        wrong.sort();
        if wrong.is_empty() { Ok(this) } else { Err(wrong.join("; ")) }
    }
}

fn unknown(name: &str) -> String {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.is_only_in_file() && setting.variable() == name) {
        return format!("{name}: {} can only be set in the file", setting.key);
    }
    let settings = SETTINGS.iter().filter(|setting| !setting.is_only_in_file()).map(Setting::variable);
    let names: Vec<String> = settings.chain([CONFIG, CACHE].map(str::to_owned)).collect();
    // Compared without the common prefix, which would make all names alike.
    let own = |name: &str| name.get(PREFIX.len()..).unwrap_or_default().to_owned();
    let hint = did_you_mean(&own(name), names.iter().filter_map(|name| name.strip_prefix(PREFIX)));
    let hint = hint.map(|hint| hint.replacen('`', &format!("`{PREFIX}"), 1));
    let hint = hint.unwrap_or_else(|| "`tower-kernels serve --help` lists the variables".to_owned());
    format!("{name} is not a setting: {hint}")
}

/// Whether Kubernetes makes this variable for a service of that name or with that prefix: `TOWER_KERNELS_PORT` is
/// `tcp://10.0.0.1:80` for a service `tower-kernels`, and `TOWER_KERNELS_CANARY_SERVICE_HOST` is an address of
/// `tower-kernels-canary`.
fn is_kubernetes_service(name: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    // `PORT_8080_TCP`, and with `_PROTO`, `_PORT` or `_ADDR` after that.
    let is_link = |rest: &str| {
        let mut parts = rest.split('_');
        let (port, protocol, of) = (parts.next(), parts.next(), parts.next());
        port.is_some_and(is_port)
            && matches!(protocol, Some("TCP" | "UDP" | "SCTP"))
            && matches!(of, None | Some("PROTO" | "PORT" | "ADDR"))
            && parts.next().is_none()
    };
    let service = &name[PREFIX.len() - 1..];
    service.ends_with("_SERVICE_HOST")
        || service.ends_with("_SERVICE_PORT")
        || service.contains("_SERVICE_PORT_")
        || service.match_indices("_PORT_").any(|(at, port)| is_link(&service[at + port.len()..]))
        || (service.ends_with("_PORT")
            && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Variables, String> {
        Variables::from_env(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn settings_are_read_and_empty_variables_are_not_set() {
        let read = read(&[
            ("TOWER_KERNELS_DRAIN_LIMIT", "2s"),
            ("TOWER_KERNELS_CONFIG", ""),
            ("TOWER_KERNELS_DOMAINS", ""),
            ("TOWER_KERNELS_REST_CORS", " "),
            ("TOWER_KERNELS_NO_SUCH_THING", ""),
            ("PATH", "/bin"),
        ])
        .unwrap();
        let settings: Vec<_> = read.settings.iter().map(|(setting, text)| (setting.key, text.as_str())).collect();
        assert_eq!((settings, read.config), (vec![("drain.limit", "2s")], None));
    }

    #[test]
    fn a_misspelt_variable_is_rejected_with_the_nearest_name() {
        for (name, hint) in [
            ("TOWER_KERNELS_REST_LISTN", "did you mean `TOWER_KERNELS_REST_LISTEN`?"),
            ("TOWER_KERNELS_TIMOUT", "did you mean `TOWER_KERNELS_TIMEOUT`?"),
            ("TOWER_KERNELS_CONFIGURATION", "did you mean `TOWER_KERNELS_CONFIG`?"),
            ("tower_kernels_timeout", "did you mean `TOWER_KERNELS_TIMEOUT`?"),
            ("TOWER_KERNELS_REST_PORT", "TOWER_KERNELS_REST_PORT is not a setting"),
            ("TOWER_KERNELS_XYZZY", "serve --help"),
            ("TOWER_KERNELS_AUTH_API_KEYS", "auth.api_keys can only be set in the file"),
        ] {
            let error = read(&[(name, "8080")]).expect_err(name);
            assert!(error.starts_with(name) && error.contains(hint), "{name}: {error}");
        }
    }

    #[test]
    fn variables_of_kubernetes_services_are_ignored() {
        for service in ["TOWER_KERNELS", "TOWER_KERNELS_CANARY", "TOWER_KERNELS_GPU_EU_1"] {
            for (name, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_PORT", "8080"),
                ("SERVICE_PORT_HTTP", "8080"),
                ("SERVICE_PORT_GRPC_WEB", "50051"),
                ("PORT", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP_PROTO", "tcp"),
                ("PORT_8080_TCP_PORT", "8080"),
                ("PORT_8080_TCP_ADDR", "10.0.0.1"),
                ("PORT_53_UDP_ADDR", "fd00::1"),
            ] {
                let name = format!("{service}_{name}");
                let read = read(&[(&name, value)]).unwrap_or_else(|error| panic!("{error}"));
                assert!(read.settings.is_empty(), "{name}");
            }
        }
        assert!(
            read(&[("TOWER_KERNELS_PORT", "8080")]).is_err(),
            "not the form of a service: probably meant for a listener"
        );
        assert!(read(&[("TOWER_KERNELS_PORT_80_HTTP", "80")]).is_err());
    }

    #[test]
    fn variables_of_the_library_and_its_tests_are_ignored() {
        let read = read(&[("TOWER_KERNELS_CACHE", "/tmp"), ("TOWER_KERNELS_HOSTILE", "1")]).unwrap();
        assert!(read.settings.is_empty());
    }
}
