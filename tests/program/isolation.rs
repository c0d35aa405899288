//! Device processes of `serve`, with the CPU as the device: one that is killed, one that is replaced, and their end.

use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::{Call, PATIENCE, SAXPY, Server, program, signal};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
const BETWEENNESS: &str = "/kernels/graph/betweenness-centrality/execute";
const SERVE: [&str; 3] = ["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"];
const ISOLATED: [&str; 3] = ["--isolation-backends=cpu", "--cuda-mode=off", "--cpu-workers=4"];

/// The process that runs jobs, and the standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pids {
    active: u32,
    standby: u32,
}

/// A server whose CPU kernels run in a device process, with these flags.
fn isolated(flags: &[&str]) -> Server {
    Server::start(&[&ISOLATED, flags].concat())
}

/// The CPU, as `/health` has it.
fn cpu(server: &Server) -> Value {
    let health: Value = serde_json::from_str(&server.get("/health").1).unwrap();
    health["components"]["cpu"].clone()
}

/// Waits until there is a process that runs jobs, and a standby.
fn pids(server: &Server) -> Pids {
    let begun = Instant::now();
    loop {
        let processes = cpu(server)["processes"].clone();
        let pid = |key: &str| processes[key].as_u64().and_then(|pid| u32::try_from(pid).ok());
        if let (Some(active), Some(standby)) = (pid("pid"), pid("standby_pid")) {
            return Pids { active, standby };
        }
        assert!(begun.elapsed() < PATIENCE, "there is no standby: {processes}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until this holds.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it does not come to that: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs. One that has ended may stay as a zombie if nobody waits for it.
fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

/// Sends requests from several clients while `act` runs, and 50 at least before and after it. Returns the responses that are
/// not 200. The server is ready throughout.
fn under_load(server: &Server, act: impl FnOnce()) -> Vec<(u16, String)> {
    let (completed, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Stops the clients if an assertion fails, so that the test ends.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let client = || {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let (status, body) = server.post(EXECUTE, SAXPY);
                if status != 200 {
                    failed.push((status, body));
                }
                completed.fetch_add(1, Ordering::Relaxed);
            }
            failed
        };
        let ready = || {
            while !stop.load(Ordering::Relaxed) {
                let (status, body) = server.get("/health/ready");
                assert_eq!(status, 200, "{body}");
            }
        };
        let guard = Stop(&stop);
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        let probe = scope.spawn(ready);
        let more = |count: usize| {
            let before = completed.load(Ordering::Relaxed);
            until("requests complete", || completed.load(Ordering::Relaxed) >= before + count);
        };
        more(50);
        act();
        more(50);
        drop(guard);
        probe.join().unwrap();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn metric(server: &Server, line: &str) {
    let page = server.get("/metrics").1;
    assert!(page.lines().any(|this| this == line), "{line} is not in\n{page}");
}

#[test]
fn a_process_killed_under_load_costs_at_most_the_request_that_was_its_only_one() {
    let server = isolated(&[]);
    let before = pids(&server);
    let failed = under_load(&server, || {
        signal(before.active, "KILL");
        until("the standby takes over", || pids(&server).active == before.standby);
    });
    assert!(failed.len() <= 1 && failed.iter().all(|(status, _)| *status == 500), "{failed:?}");
    server.stderr.until("a device process has ended, and is replaced");
    pids(&server);
    assert_eq!(server.post(EXECUTE, SAXPY).0, 200);
    assert_eq!(cpu(&server)["processes"]["replaced"], 1);
    metric(&server, r#"kernel_device_process_replacements_total{backend="CPU"} 1"#);
    metric(&server, r#"kernel_device_process_up{backend="CPU"} 1"#);
    metric(&server, r#"kernel_device_process_standby_ready{backend="CPU"} 1"#);
}

#[test]
fn sigusr2_replaces_the_process_under_load_without_a_failure() {
    let server = isolated(&[]);
    for _ in 0..2 {
        let before = pids(&server);
        let failed = under_load(&server, || {
            server.signal("USR2");
            until("the standby takes over", || pids(&server).active == before.standby);
        });
        assert_eq!(failed, []);
        until("the process before it ends", || !runs(before.active));
    }
    server.stderr.until("SIGUSR2: the standby runs all further jobs");
    assert_eq!(cpu(&server)["processes"]["replaced"], 2);
    assert!(!server.stderr.now().contains("has ended"), "what is intended is no warning");
}

#[test]
fn sigusr2_without_a_standby_or_without_isolation_says_so_and_changes_nothing() {
    let server = isolated(&["--isolation-standby=false"]);
    let pid = cpu(&server)["processes"]["pid"].clone();
    assert!(pid.is_u64(), "{pid}");
    server.signal("USR2");
    server.stderr.until("no standby is ready, so the device process is not replaced");
    assert_eq!(cpu(&server)["processes"], serde_json::json!({"pid": pid, "replaced": 0}));

    let server = Server::start(&["--cuda-mode=off"]);
    server.signal("USR2");
    server.stderr.until("SIGUSR2: there are no device processes to replace");
    assert_eq!(server.post(EXECUTE, SAXPY).0, 200);
    assert_eq!(cpu(&server)["processes"], Value::Null);
    assert!(!server.get("/metrics").1.contains("device_process"));
}

#[test]
fn no_process_outlives_the_server_however_it_ends() {
    for (name, code) in [("TERM", Some(0)), ("KILL", None)] {
        let mut server = isolated(&["--drain-notice=0s"]);
        let Pids { active, standby } = pids(&server);
        assert!(runs(active) && runs(standby));
        server.signal(name);
        assert_eq!(server.code(), code);
        until("the processes end", || !runs(active) && !runs(standby));
    }
}

/// As Ctrl-C in a terminal does, and SIGTERM of systemd.
#[test]
fn a_signal_to_the_whole_process_group_drains_as_one_to_the_server_does() {
    for name in ["TERM", "INT"] {
        let mut server =
            Server::spawn(program(SERVE).process_group(0), &[&ISOLATED[..], &["--drain-notice=1s"]].concat());
        pids(&server);
        let in_flight = Call::begin(server.rest, "POST", EXECUTE, &[], SAXPY.len());
        // It is in flight once a later connection has been served.
        assert_eq!(server.get("/health/live").0, 200);
        let group = format!("-{}", server.child.id());
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), "--", &group]).status().unwrap();
        assert!(sent.success());
        server.stderr.until("draining: not ready from now on");
        assert_eq!(in_flight.end(SAXPY.as_bytes()).0, 200);
        assert_eq!(server.code(), Some(0));
        // Neither process has, before its server.
        assert!(!server.stderr.end().contains("has ended"), "{name}");
    }
}

/// A request that takes minutes.
fn endless() -> String {
    let nodes = 40_000_u64;
    let edges = (0..nodes).flat_map(|node| [[node, (node + 1) % nodes], [node, (node * 7 + 3) % nodes]]);
    let edges: Vec<_> = edges.filter(|[from, to]| from != to).collect();
    serde_json::json!({"num_nodes": nodes, "edges": edges}).to_string()
}

#[test]
fn a_kernel_that_ends_its_process_is_quarantined_and_the_others_run() {
    let server = isolated(&["--isolation-max-faults=1", "--isolation-quarantine=1h", "--timeout=30m"]);
    let input = endless();
    let (status, body) = std::thread::scope(|scope| {
        let running = scope.spawn(|| server.post(BETWEENNESS, &input));
        // A process that is killed before it has begun with the request is not charged to it.
        let begun = Instant::now();
        while !running.is_finished() {
            assert!(begun.elapsed() < PATIENCE, "the request outlives all processes");
            if cpu(&server)["pool"]["running"] == 1 {
                signal(pids(&server).active, "KILL");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        running.join().unwrap()
    });
    assert_eq!(status, 500, "{body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["code"], "internal", "{body}");
    assert!(!body.contains("SIGKILL"), "clients see no more than that: {body}");
    server.stderr.until("a kernel ended its device process");

    let (status, body) = server.post(BETWEENNESS, r#"{"num_nodes": 2, "edges": [[0, 1]]}"#);
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &problem["code"]), (503, &"quarantined".into()), "{body}");
    assert_eq!(server.post(EXECUTE, SAXPY).0, 200);

    pids(&server);
    let cpu = cpu(&server);
    let problems = ["the kernel `graph/betweenness-centrality` is quarantined on the CPU for a tenant"];
    assert_eq!((&cpu["status"], &cpu["problems"]), (&"degraded".into(), &serde_json::json!(problems)), "{cpu}");
    let quarantined = &cpu["processes"]["quarantined"];
    assert_eq!(quarantined[0]["kernel"], "graph/betweenness-centrality", "{cpu}");
    assert!(quarantined[0]["remaining_ms"].as_u64().is_some_and(|left| left <= 3_600_000), "{cpu}");
    assert_eq!(quarantined[0].get("tenant"), None, "health checks need no credentials: {cpu}");
    metric(&server, r#"kernel_quarantined{backend="CPU",kernel="graph/betweenness-centrality"} 1"#);
    assert_eq!(server.get("/health/ready").0, 200);
}

#[test]
fn a_device_process_has_the_log_of_the_server_and_not_its_secret() {
    const SECRET: &str = "a-secret-of-more-than-32-bytes-for-this-test";
    let mut command = program(SERVE);
    command.env("SECRET_OF_THIS_TEST", SECRET);
    let jwt = ["--auth-jwt-algorithm=HS256", "--auth-jwt-secret-env=SECRET_OF_THIS_TEST", "--log-format=text"];
    let server = Server::spawn(&mut command, &[&ISOLATED[..], &jwt].concat());
    let Pids { active, standby } = pids(&server);
    let environment =
        |pid: u32| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap()).into_owned();
    assert!(environment(server.child.id()).contains(SECRET));
    for pid in [active, standby] {
        let (environment, arguments) = (environment(pid), std::fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        assert!(environment.contains("TOWER_KERNELS_PARENT_PROCESS"), "{environment}");
        assert!(!environment.contains(SECRET) && !arguments.contains(SECRET), "{environment} {arguments}");
        assert!(arguments.contains("device-process") && arguments.contains(r#""format":"text""#), "{arguments}");
    }
}

#[test]
fn a_device_that_cannot_be_opened_has_the_same_error_as_without_isolation() {
    // No machine has this device, with or without a driver.
    let required = ["--cuda-mode=required", "--cuda-devices=4000"];
    let error = |backends: &str| {
        let output = program(SERVE).args(required).arg(format!("--isolation-backends={backends}")).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        stderr.lines().find(|line| line.starts_with("error: ")).unwrap().to_owned()
    };
    let without = error("none");
    assert!(without.contains("CUDA is not available"), "{without}");
    assert_eq!(error("cuda"), without);
}

#[test]
fn a_directory_for_reports_that_is_missing_is_rejected() {
    let output = program(SERVE).args(ISOLATED).arg("--isolation-reports=/nowhere").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("isolation.reports: /nowhere is not a directory"), "{stderr}");
}
