//! Flags, environment variables and file: precedence and error messages.

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::process::{program, run, stderr, stdout};

/// A temporary file, removed on drop.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(text: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tower-kernels-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[track_caller]
pub(crate) fn rejected(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} are not all in {message}");
    assert_eq!(stdout(output), "");
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = File::new("timeout = \"1s\"\n[drain]\nnotice = \"1s\"\nlimit = \"1s\"\n[rest]\ncors = true\n");
    let output = program(["serve", "--print-config", "--drain-limit=3s", "--config", file.path()])
        .env("TOWER_KERNELS_DRAIN_NOTICE", "2s")
        .env("TOWER_KERNELS_DRAIN_LIMIT", "2s")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let from_file = format!("# file {}", file.path());
    for line in [
        &format!("timeout = \"1s\"  {from_file}"),
        &format!("cors = true  {from_file}"),
        "notice = \"2s\"  # env TOWER_KERNELS_DRAIN_NOTICE",
        "limit = \"3s\"  # flag --drain-limit",
        "prefix = \"\"  # default",
    ] {
        assert!(stdout(&output).lines().any(|this| this == line), "{line} is not in {}", stdout(&output));
    }
}

#[test]
fn the_file_can_come_from_the_environment() {
    let file = File::new("domains = [\"graph\"]");
    let output = program(["serve", "--print-config"]).env("TOWER_KERNELS_CONFIG", file.path()).output().unwrap();
    assert!(stdout(&output).contains("domains = [\"graph\"]  # file"), "{}", stdout(&output));
}

#[test]
fn the_printed_configuration_can_be_read_again() {
    let flags = ["--rest-prefix=/a", "--rest-cors", "--domains=graph,risk", "--grpc-listen=off", "--timeout=1m 30s"];
    let values = |output: &Output| -> Vec<String> {
        let lines = stdout(output).lines().map(|line| line.split("  #").next().unwrap().to_owned());
        lines.collect()
    };
    let first = run(["serve", "--print-config"].into_iter().chain(flags), "");
    let file = File::new(stdout(&first));
    let second = run(["serve", "--print-config", "--config", file.path()], "");
    assert!(stdout(&first).contains("domains = [\"graph\", \"risk\"]"), "{}", stdout(&first));
    assert_eq!(values(&first), values(&second));
}

#[test]
fn per_tenant_rate_limits_are_printed_and_can_be_read_again() {
    let own = "[rate_limit.tenants.acme]\nper_second = 500\nburst = 50\n[rate_limit.tenants.\"a.b\"]\nper_second = 0\n";
    let file = File::new(own);
    let printed = run(["serve", "--print-config", "--rate-limit-per-second=5", "--config", file.path()], "");
    let tenants = r#"tenants = { acme = { per_second = 500, burst = 50 }, "a.b" = { per_second = 0, burst = 0 } }"#;
    let line = |output: &Output| stdout(output).lines().find(|line| line.starts_with("tenants")).unwrap().to_owned();
    let table = |text: &str| text.parse::<toml::Table>().unwrap();
    assert_eq!(table(&line(&printed)), table(tenants));
    assert!(line(&printed).ends_with(&format!("# file {}", file.path())), "{}", stdout(&printed));
    assert!(stdout(&printed).contains("per_second = 5  # flag --rate-limit-per-second"), "{}", stdout(&printed));

    let again = File::new(stdout(&printed));
    let again = run(["serve", "--print-config", "--config", again.path()], "");
    assert_eq!(table(&line(&again)), table(tenants));
    let none = line(&run(["serve", "--print-config"], ""));
    assert_eq!(table(&none), table("tenants = {}"));
    assert!(none.ends_with("# default"), "{none}");
}

#[test]
fn mistakes_in_the_file_are_reported_with_file_line_and_key() {
    for (text, parts) in [
        ("[rest]\nlisten = \"127.0.0.1:1\"\nprefx = \"/a\"\n", &["line 3", "prefx", "unknown field"][..]),
        ("[drain]\n\nlimit = \"30 parsecs\"\n", &["line 3", "limit", "30 parsecs"]),
        ("[rest]\nlisten = \"here\"\n", &["line 2", "listen", "127.0.0.1:8080"]),
        ("domains = [\"graph\", \"astrology\"]\n", &["line 1", "domains", "astrology", "graph, linalg"]),
        ("[log]\nformat = \"yaml\"\n", &["line 2", "format", "yaml"]),
        ("[log]\nlevel = \"a=b=c\"\n", &["line 2", "level", "a=b=c"]),
        ("[connections]\nmax = 0\n", &["line 2", "connections.max", "0 is not a whole number from 1"]),
        ("[cuda]\ndevices = \"0,-1\"\n", &["line 2", "`0,-1`"]),
        ("[rate_limit.tenants.acme]\nburst = 5\n", &["line 1", "acme", "per_second"]),
        ("[rate_limit.tenants.acme]\nper_second = -1\n", &["line 2", "per_second"]),
        ("[rate_limit.tenants.acme]\nper_second = 1\nrate = 2\n", &["line 3", "rate", "unknown field"]),
        ("[rate_limit]\ntenants = 5\n", &["line 2", "tenants"]),
        ("[grpc]\nmax_request_size = \"much\"\n", &["line 2", "max_request_size", "much"]),
        ("timeout = \n", &["line 1", "timeout"]),
        ("timeout = \"1s\"\ntimeout = \"2s\"\n", &["line 2", "duplicate"]),
    ] {
        let file = File::new(text);
        let output = run(["serve", "--config", file.path()], "");
        rejected(&output, &[parts, &[file.path()]].concat());
    }
    rejected(&run(["serve", "--config", "/nowhere/at.toml"], ""), &["/nowhere/at.toml", "No such file"]);
}

#[test]
fn other_mistakes_are_reported_with_the_flag_or_variable() {
    rejected(&run(["serve", "--drain-limit=soon"], ""), &["--drain-limit", "soon", "30s"]);
    rejected(&run(["serve", "--cpu-workers=many"], ""), &["--cpu-workers", "many"]);
    rejected(&run(["serve", "--rest-cors=perhaps"], ""), &["--rest-cors", "perhaps"]);
    rejected(&run(["serve", "--rest-listen=off", "--grpc-listen=off"], ""), &["nothing to serve"]);
    let mut by_variable = program(["serve"]);
    let output = by_variable.env("TOWER_KERNELS_REST_LISTEN", "localhost").output().unwrap();
    rejected(&output, &["TOWER_KERNELS_REST_LISTEN", "localhost"]);
    let output = program(["serve"]).env("TOWER_KERNELS_GRPC_MAX_REQUEST_SIZE", "-1").output().unwrap();
    rejected(&output, &["TOWER_KERNELS_GRPC_MAX_REQUEST_SIZE"]);
}
