//! The settings that the environment says.
//!
//! An empty variable is not set: scripts and manifests pass on what they do not have as nothing. A variable that begins as
//! ours do and is no setting is a mistake in its name, except for those that others make.

use std::ffi::OsString;
use std::path::PathBuf;

use super::settings::{SETTINGS, Setting};
use super::suggest::did_you_mean;

const PREFIX: &str = "TOWER_KERNELS_";
/// Names the file.
pub(super) const CONFIG: &str = "TOWER_KERNELS_CONFIG";
/// The cache of compiled CUDA code, which any program that uses the library has.
const CACHE: &str = "TOWER_KERNELS_CACHE";
/// What tests and benches are told, which may start the program.
const TESTS: [&str; 7] = [
    "TOWER_KERNELS_BENCH_GRAPHS",
    "TOWER_KERNELS_BLESS",
    "TOWER_KERNELS_CHAOS_SECONDS",
    "TOWER_KERNELS_CHAOS_SEED",
    "TOWER_KERNELS_HOSTILE",
    "TOWER_KERNELS_HOSTILE_PROGRAM",
    "TOWER_KERNELS_TEST_FILES",
];

/// What the variables say.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub(super) config: Option<PathBuf>,
    pub(super) settings: Vec<(&'static Setting, String)>,
}

impl Variables {
    /// # Errors
    /// The variables that are no settings, or no text.
    pub(super) fn of(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, String> {
        let mut this = Self::default();
        let mut wrong = Vec::new();
        for (name, value) in environment {
            // A name that is no text is none of ours.
            let Some(name) = name.to_str().filter(|name| name.to_ascii_uppercase().starts_with(PREFIX)) else {
                continue;
            };
            if value.to_str().is_some_and(|value| value.trim().is_empty()) {
                // An empty variable changes nothing, whatever its name.
            } else if name == CONFIG {
                this.config = Some(value.into());
            } else if let Some(setting) = SETTINGS.iter().find(|one| !one.is_in_file_alone() && one.variable() == name)
            {
                match value.into_string() {
                    Ok(text) => this.settings.push((setting, text)),
                    Err(value) => wrong.push(format!("{name}: {value:?} is not valid UTF-8")),
                }
            } else if name != CACHE && !TESTS.contains(&name) && !is_of_a_service(name, &value.to_string_lossy()) {
                wrong.push(unknown(name));
            }
        }
        wrong.sort();
        if wrong.is_empty() { Ok(this) } else { Err(wrong.join("; ")) }
    }
}

fn unknown(name: &str) -> String {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.is_in_file_alone() && setting.variable() == name) {
        return format!("{name}: {} can be set in the file alone", setting.key);
    }
    let settings = SETTINGS.iter().filter(|setting| !setting.is_in_file_alone()).map(Setting::variable);
    let names: Vec<String> = settings.chain([CONFIG, CACHE].map(str::to_owned)).collect();
    // Without what all have in common, or everything would be alike.
    let own = |name: &str| name.get(PREFIX.len()..).unwrap_or_default().to_owned();
    let hint = did_you_mean(&own(name), names.iter().filter_map(|name| name.strip_prefix(PREFIX)));
    let hint = hint.map(|hint| hint.replacen('`', &format!("`{PREFIX}"), 1));
    let hint = hint.unwrap_or_else(|| "`tower-kernels serve --help` lists the variables".to_owned());
    format!("{name} is not a setting: {hint}")
}

/// Whether Kubernetes has made it for a service of that name, or one whose name begins so: `TOWER_KERNELS_PORT` is
/// `tcp://10.0.0.1:80` for a service `tower-kernels`, and `TOWER_KERNELS_CANARY_SERVICE_HOST` is an address of
/// `tower-kernels-canary`.
fn is_of_a_service(name: &str, value: &str) -> bool {
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
        Variables::of(variables.iter().map(|(name, value)| (name.into(), value.into())))
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
    fn a_misspelt_variable_is_refused_with_the_nearest_one() {
        for (name, hint) in [
            ("TOWER_KERNELS_REST_LISTN", "did you mean `TOWER_KERNELS_REST_LISTEN`?"),
            ("TOWER_KERNELS_TIMOUT", "did you mean `TOWER_KERNELS_TIMEOUT`?"),
            ("TOWER_KERNELS_CONFIGURATION", "did you mean `TOWER_KERNELS_CONFIG`?"),
            ("tower_kernels_timeout", "did you mean `TOWER_KERNELS_TIMEOUT`?"),
            ("TOWER_KERNELS_REST_PORT", "TOWER_KERNELS_REST_PORT is not a setting"),
            ("TOWER_KERNELS_XYZZY", "serve --help"),
            ("TOWER_KERNELS_AUTH_API_KEYS", "auth.api_keys can be set in the file alone"),
        ] {
            let error = read(&[(name, "8080")]).expect_err(name);
            assert!(error.starts_with(name) && error.contains(hint), "{name}: {error}");
        }
    }

    #[test]
    fn what_kubernetes_makes_for_services_is_ignored() {
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
            "no service has it, but somebody who means a listener"
        );
        assert!(read(&[("TOWER_KERNELS_PORT_80_HTTP", "80")]).is_err());
    }

    #[test]
    fn what_the_library_and_its_tests_are_told_is_ignored() {
        let read = read(&[("TOWER_KERNELS_CACHE", "/tmp"), ("TOWER_KERNELS_HOSTILE", "1")]).unwrap();
        assert!(read.settings.is_empty());
    }
}
