//! Checks of settings: every mistake is rejected before anything is served, by the name of its flag, variable or key.

use std::process::Output;

use crate::config::{File, rejected};
use crate::support::process::{SAXPY, Server, program, run, stderr, stdout};

/// Settings with an invalid value, and what the message has besides the name and the value.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("timeout", "0s", "from 1ms to 1year"),
    ("timeout", "1000years", "from 1ms to 1year"),
    ("timeout", "5", "use \"5s\""),
    ("domains", "astrology", "graph, linalg"),
    ("exit_on_device_loss", "maybe", "true"),
    ("rest.listen", "8080", "127.0.0.1:8080"),
    ("rest.listen", "127.0.0.1", "127.0.0.1:8080"),
    ("rest.listen", "/run/a.sock", "unix:/run/a.sock"),
    ("grpc.listen", "http://127.0.0.1:50051", "127.0.0.1:50051"),
    ("grpc.listen", "localhost:99999", "65535"),
    ("grpc.listen", "none", "off"),
    ("rest.prefix", "/*p", "/api/v1"),
    ("rest.prefix", "/:p", "/api/v1"),
    ("rest.prefix", "/{x}", "/api/v1"),
    ("rest.prefix", "/a b", "/api/v1"),
    ("rest.prefix", "/a?b", "/api/v1"),
    ("rest.prefix", "/a#b", "/api/v1"),
    ("rest.prefix", "//", "/api/v1"),
    ("rest.prefix", "/a/../b", "/api/v1"),
    ("rest.cors", "yes", "true"),
    ("rest.max_request_size", "0", "of at least 1"),
    ("rest.max_request_size", "10MB", "10485760"),
    ("rest.max_response_size", "-1", "of at least 1"),
    ("grpc.max_request_size", "99999999999", "from 1 to 4294967295"),
    ("grpc.max_response_size", "0", "from 1"),
    ("grpc.max_concurrent_per_stream", "0", "256"),
    ("inference.shared_memory", "yes", "true"),
    ("inference.model_control", "explicit", "true"),
    ("memory.max", "lots", "256MiB"),
    ("memory.max", "0", "256MiB"),
    ("memory.max", "-5", "256MiB"),
    ("operands.max_bytes", "lots", "256MiB"),
    ("operands.max_bytes", "0", "256MiB"),
    ("operands.max_bytes_per_tenant", "-1", "or 0, which is no limit but operands.max_bytes"),
    ("operands.max_operands", "0", "from 1"),
    ("operands.max_operands_per_tenant", "-1", "or 0, which is no limit but operands.max_operands"),
    ("operands.max_upload", "16GiB", "of at least 1"),
    ("operands.upload_timeout", "0s", "from 1ms to 1year"),
    ("operands.upload_timeout", "600", "use \"600s\""),
    ("connections.max", "0", "10000"),
    ("connections.max_per_address", "-1", "or 0, which is no limit"),
    ("connections.health_reserve", "1.5", "16"),
    ("connections.head_timeout", "0s", "20s"),
    ("connections.idle_timeout", "0s", "75s"),
    ("connections.write_timeout", "0s", "30s"),
    ("connections.max_age", "1ms", "from 1s to 1year, or 0"),
    ("connections.max_age_grace", "soon", "30s"),
    ("tls.client_tenant", "email", "cn"),
    ("tls.reload_interval", "1us", "from 10ms"),
    ("auth.jwt.algorithm", "none", "RS256"),
    ("tenants.max_priority", "urgent", "high"),
    ("rate_limit.per_second", "4294967296", "4294967295"),
    ("rate_limit.burst", "many", "or 0"),
    ("cache.max_bytes", "-5", "or 0, which is no cache"),
    ("cache.ttl", "-1s", "30s"),
    ("load_shed.max_wait", "1ns", "or 0, which rejects none"),
    ("circuit_breaker.enabled", "1", "true"),
    ("circuit_breaker.consecutive_failures", "0", "from 1"),
    ("circuit_breaker.failure_percent", "200", "from 1 to 100"),
    ("circuit_breaker.failure_percent", "0", "from 1 to 100"),
    ("circuit_breaker.agreeing_tenants", "0", "from 1"),
    ("retry.attempts", "0", "from 1 to 100"),
    ("retry.attempts", "101", "from 1 to 100"),
    ("queue.capacity", "-1", "or 0, which is no queue"),
    ("queue.max_bytes", "0", "of at least 1"),
    ("concurrency.limit", "all", "or 0"),
    ("batch.max_requests", "0", "256"),
    ("batch.max_bytes", "0", "16777216"),
    ("batch.max_delay", "a moment", "500ms"),
    ("batch.capacity", "0", "16384"),
    ("drain.notice", "2days", "1day"),
    ("drain.limit", "30", "use \"30s\""),
    ("cpu.workers", "0", "from 1"),
    ("cpu.workers", "1000000", "from 1"),
    ("cpu.queue", "-1", "or 0"),
    ("cpu.inline", "1h", "1s"),
    ("cuda.mode", "auto", "required"),
    ("cuda.devices", "gpu0", "`all`"),
    ("cuda.workers", "0", "from 1"),
    ("cuda.queue", "-1", "or 0"),
    ("cuda.idle_spin", "1m", "1s"),
    ("cuda.copy_threads", "-1", "or 0"),
    ("cuda.busy_poll", "1m", "1s"),
    ("cuda.inline", "1m", "1s"),
    ("cuda.hang_timeout", "0s", "60s"),
    ("cuda.operand_memory", "-1", "`auto`"),
    ("cuda.timing_sample_interval", "-1", "or 0"),
    ("isolation.backends", "process", "none, cpu, cuda, all"),
    ("isolation.standby", "maybe", "true"),
    ("isolation.max_faults", "-1", "or 0, which quarantines none"),
    ("isolation.quarantine", "0s", "from 1ms to 1year"),
    ("isolation.hang_timeout", "soon", "30s"),
    ("isolation.start_timeout", "0s", "60s"),
    ("isolation.shared_memory", "4GiB", "of at least 1"),
    ("log.level", "loud", "warn,tower_kernels=debug"),
    ("log.level", "info,tower_kernels", "warn,tower_kernels=debug"),
    ("log.level", "tower_kernels=loud", "warn,tower_kernels=debug"),
    ("log.level", "tower_kernels=", "warn,tower_kernels=debug"),
    ("log.level", "info,", "warn,tower_kernels=debug"),
    ("log.level", "[span]", "warn,tower_kernels=debug"),
    ("log.level", "hyper[conn{id=1}]=off", "warn,tower_kernels=debug"),
    ("log.level", "=debug", "warn,tower_kernels=debug"),
    ("log.max_repeats", "-1", "or 0, which is no limit"),
    ("log.buffer", "0", "from 4096"),
    ("log.format", "yaml", "text"),
];

fn flag(key: &str) -> String {
    format!("--{}", key.replace(['.', '_'], "-"))
}

fn variable(key: &str) -> String {
    format!("TOWER_KERNELS_{}", key.replace('.', "_").to_uppercase())
}

/// Prints the configuration with one variable set.
fn with_variable(name: &str, value: &str) -> Output {
    program(["serve", "--print-config"]).env(name, value).output().unwrap()
}

#[track_caller]
fn printed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

#[test]
fn a_mistake_in_a_flag_is_rejected_by_its_name() {
    for (key, value, allowed) in MISTAKES {
        let flag = flag(key);
        rejected(&run(["serve", "--print-config", &format!("{flag}={value}")], ""), &[&flag, value, allowed]);
    }
}

#[test]
fn a_mistake_in_a_variable_is_rejected_by_its_name() {
    for (key, value, allowed) in MISTAKES {
        let variable = variable(key);
        rejected(&with_variable(&variable, value), &[&variable, value, allowed]);
    }
}

#[test]
fn a_mistake_in_the_file_is_rejected_by_key_and_line() {
    for (key, value, allowed) in MISTAKES {
        let value_of = |value: &str| match value.parse::<f64>() {
            Ok(_) if !["drain.limit", "operands.upload_timeout", "timeout", "rest.listen"].contains(key) => {
                value.to_owned()
            }
            _ if *key == "domains" => {
                format!("[{}]", value.split(',').map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", "))
            }
            _ => format!("{value:?}"),
        };
        let file = File::new(&format!("# A comment.\n{key} = {}\n", value_of(value)));
        // A list is shown as a list.
        let shown = if *key == "domains" { "line 2" } else { value };
        rejected(
            &run(["serve", "--print-config", "--config", file.path()], ""),
            &[file.path(), "line 2", key, shown, allowed],
        );
    }
}

#[test]
fn an_empty_item_of_a_list_is_rejected() {
    for list in [",", "graph,,linalg", "graph,"] {
        let flag = format!("--domains={list}");
        rejected(&run(["serve", "--print-config", &flag], ""), &["--domains", "has an empty item", "graph,linalg"]);
    }
    let file = File::new("domains = [\"\"]\n");
    rejected(
        &run(["serve", "--print-config", "--config", file.path()], ""),
        &["line 1", "domains", "has an empty item"],
    );
}

#[test]
fn settings_that_print_config_rejects_are_rejected_at_startup_too() {
    let listen = ["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=off", "--cuda-mode=off"];
    for mistake in ["--timeout=0s", "--retry-attempts=0", "--rest-prefix=/*p", "--log-level=loud"] {
        rejected(&run(listen.into_iter().chain([mistake]), ""), &[mistake.split('=').next().unwrap()]);
    }
}

#[test]
fn values_at_the_bounds_are_accepted() {
    for (flags, lines) in [
        (&["--timeout=1ms", "--batch-enabled=false"][..], &["timeout = \"1ms\""][..]),
        (&["--retry-attempts=1", "--circuit-breaker-failure-percent=100"], &["attempts = 1", "failure_percent = 100"]),
        (&["--connections-max-age=0s", "--cache-ttl=0s", "--drain-notice=0s"], &["max_age = \"0s\"", "ttl = \"0s\""]),
        (&["--queue-capacity=0", "--concurrency-limit=0", "--cpu-queue=0"], &["capacity = 0", "limit = 0"]),
        (&["--log-level= warn , tower_kernels=DEBUG,hyper=off"], &["level = \"warn,tower_kernels=DEBUG,hyper=off\""]),
        (&["--rest-prefix=/v1/@me/a%20b"], &["prefix = \"/v1/@me/a%20b\""]),
        (&["--memory-max=8MiB"], &["max = \"8388608\""]),
        (&["--operands-max-bytes=8MiB", "--operands-max-bytes-per-tenant=0"], &["max_bytes = \"8388608\""]),
        (&["--rest-listen=localhost:0", "--grpc-listen=:0"], &["listen = \"localhost:0\"", "listen = \":0\""]),
        (&["--grpc-listen=unix:///run/a.sock"], &["listen = \"unix:/run/a.sock\""]),
    ] {
        let output = run(["serve", "--print-config"].into_iter().chain(flags.iter().copied()), "");
        let printed = printed(&output);
        for line in lines {
            assert!(printed.lines().any(|this| this.starts_with(&format!("{line}  #"))), "{line} is not in {printed}");
        }
    }
}

#[test]
fn contradicting_settings_are_rejected_by_both_names() {
    for (flags, parts) in [
        (
            &["--rest-listen=127.0.0.1:7000", "--grpc-listen=127.0.0.1:7000"][..],
            &["--rest-listen and --grpc-listen"][..],
        ),
        (&["--rest-listen=:7000", "--grpc-listen=localhost:7000"], &["--rest-listen and --grpc-listen"]),
        (&["--rest-listen=unix:/run/a", "--grpc-listen=unix:/run/a"], &["--rest-listen and --grpc-listen"]),
        (&["--rest-listen=127.0.0.1:50051"], &["--rest-listen: ", "50051"]),
        (&["--memory-max=8MiB", "--rest-max-request-size=9000000"], &["--rest-max-request-size and --memory-max"]),
        (&["--memory-max=8MiB", "--grpc-max-response-size=9000000"], &["--grpc-max-response-size and --memory-max"]),
        (&["--batch-max-delay=1s", "--timeout=500ms"], &["--batch-max-delay and --timeout"]),
        (&["--rate-limit-burst=5"], &["--rate-limit-burst", "rate_limit.per_second"]),
        (
            &["--rate-limit-burst=4294967295", "--rate-limit-per-second=1"],
            &["--rate-limit-per-second and --rate-limit-burst"],
        ),
        (&["--tls-cert=a.crt"], &["--tls-cert", "without tls.key"]),
        (&["--tls-client-ca=a.crt"], &["--tls-client-ca", "without tls.cert"]),
        (&["--auth-jwt-key-file=a.pem", "--auth-jwt-secret-env=A"], &["--auth-jwt-key-file and --auth-jwt-secret-env"]),
        (&["--auth-jwt-secret-env=A"], &["--auth-jwt-secret-env", "HS256"]),
        (&["--auth-jwt-issuer=me"], &["--auth-jwt-issuer", "no token would be checked"]),
        (&["--auth-jwt-audience=me"], &["--auth-jwt-audience", "no token would be checked"]),
    ] {
        rejected(&run(["serve", "--print-config"].into_iter().chain(flags.iter().copied()), ""), parts);
    }
    let file = File::new("[rate_limit.tenants.\"\"]\nper_second = 5\n");
    rejected(&run(["serve", "--print-config", "--config", file.path()], ""), &["rate_limit.tenants", "without a name"]);
}

#[test]
fn an_empty_variable_is_not_set_whatever_the_setting() {
    let mut all = program(["serve", "--print-config"]);
    let help = run(["serve", "--help"], "");
    let names: Vec<_> = stdout(&help).split("[env: ").skip(1).map(|rest| rest.split(']').next().unwrap()).collect();
    assert!(names.len() > 60 && names.contains(&"TOWER_KERNELS_CONFIG"), "{names:?}");
    for name in names {
        all.env(name, "");
    }
    let empty = all.output().unwrap();
    assert_eq!(printed(&empty), printed(&run(["serve", "--print-config"], "")));

    // It does not override the file either.
    let file = File::new("grpc.listen = \"off\"\ndomains = [\"graph\"]\n");
    let output = program(["serve", "--print-config", "--config", file.path()])
        .env("TOWER_KERNELS_GRPC_LISTEN", "")
        .env("TOWER_KERNELS_DOMAINS", "")
        .output()
        .unwrap();
    assert!(printed(&output).contains("listen = \"off\"  # file") && printed(&output).contains("[\"graph\"]  # file"));
}

#[test]
fn an_empty_flag_and_an_empty_value_in_the_file_are_rejected_by_name() {
    for flag in [
        "--config",
        "--timeout",
        "--domains",
        "--rest-listen",
        "--rest-prefix",
        "--rest-cors",
        "--rest-max-request-size",
        "--memory-max",
        "--operands-max-bytes",
        "--operands-upload-timeout",
        "--tls-cert",
        "--auth-jwt-issuer",
        "--cuda-mode",
        "--cuda-devices",
        "--log-level",
        "--log-format",
    ] {
        rejected(&run(["serve", "--print-config", &format!("{flag}=")], ""), &[flag]);
    }
    for key in [
        "rest.listen",
        "timeout",
        "log.level",
        "cuda.devices",
        "memory.max",
        "operands.max_bytes",
        "auth.jwt.tenant_claim",
    ] {
        let file = File::new(&format!("{key} = \"\"\n"));
        rejected(&run(["serve", "--print-config", "--config", file.path()], ""), &["line 1", key, "empty"]);
    }
}

#[test]
fn a_misspelt_variable_is_rejected_and_those_of_kubernetes_are_not() {
    let output = with_variable("TOWER_KERNELS_REST_LISTN", "127.0.0.1:1");
    rejected(&output, &["TOWER_KERNELS_REST_LISTN", "did you mean `TOWER_KERNELS_REST_LISTEN`?"]);
    let output = program(["serve", "--print-config"])
        .env("TOWER_KERNELS_TIMOUT", "1s")
        .env("TOWER_KERNELS_DRAIN_LIMITS", "1s")
        .output()
        .unwrap();
    rejected(
        &output,
        &["TOWER_KERNELS_TIMOUT", "TOWER_KERNELS_DRAIN_LIMITS", "did you mean `TOWER_KERNELS_DRAIN_LIMIT`?"],
    );

    let mut in_kubernetes = program(["serve", "--print-config"]);
    for service in ["TOWER_KERNELS", "TOWER_KERNELS_CANARY"] {
        for (name, value) in [
            ("PORT", "tcp://10.0.0.1:8080"),
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_ADDR", "10.0.0.1"),
        ] {
            in_kubernetes.env(format!("{service}_{name}"), value);
        }
    }
    printed(&in_kubernetes.output().unwrap());
}

#[test]
fn an_unknown_key_is_rejected_with_its_line_and_the_nearest_name() {
    for (text, parts) in [
        ("[rest]\nprefx = \"/a\"\n", &["line 2", "rest.prefx", "did you mean `rest.prefix`?"][..]),
        ("\nprefix = \"/a\"\n", &["line 2", "did you mean `rest.prefix`?"]),
        ("rest.listn = \"off\"\n", &["line 1", "rest.listn", "did you mean `rest.listen`?"]),
        ("[auth.jwt]\nisuer = \"me\"\n", &["line 2", "did you mean `auth.jwt.issuer`?"]),
        ("[drian]\nlimit = \"1s\"\n", &["line 1", "unknown field `drian`"]),
        ("rest = 5\n", &["line 1", "rest is a section, [rest]"]),
        ("[tenants.named.acme]\nwieght = 2\n", &["line 2", "wieght", "did you mean `weight`?"]),
        ("[tenants.named.acme]\nweight = 0\n", &["line 2", "weight"]),
        ("timeout = 5\n[retry]\nattempts = 0\n", &["line 1", "timeout"]),
    ] {
        let file = File::new(text);
        rejected(&run(["serve", "--print-config", "--config", file.path()], ""), &[parts, &[file.path()]].concat());
    }
    let by_variable = File::new("prefx = 1");
    rejected(&with_variable("TOWER_KERNELS_CONFIG", by_variable.path()), &["TOWER_KERNELS_CONFIG", by_variable.path()]);
    rejected(&with_variable("TOWER_KERNELS_CONFIG", "/nowhere/at.toml"), &["TOWER_KERNELS_CONFIG", "/nowhere/at.toml"]);
}

#[test]
fn a_prefix_of_any_allowed_form_is_reachable() {
    for prefix in ["/api/v1", "api/v1/", "/@me/v1:beta", "/a%20b"] {
        let server = Server::start(&[&format!("--rest-prefix={prefix}"), "--cuda-mode=off"]);
        let path = format!("/{}/kernels/linalg/saxpy/execute", prefix.trim_matches('/'));
        let (status, body) = server.post(&path, SAXPY);
        assert_eq!(status, 200, "{prefix}: {body}");
    }
}
