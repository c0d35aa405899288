//! `list`, `describe` and `run`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::process::{PATIENCE, SAXPY, feed, program, run, signal, stderr, stdout, wait};

#[test]
fn list_shows_the_kernels_as_a_table_or_as_json() {
    let all = run(["list"], "");
    assert_eq!(all.status.code(), Some(0));
    for id in ["graph/betweenness-centrality", "linalg/saxpy", "orderbook/matching", "risk/option-pricing"] {
        assert!(stdout(&all).lines().any(|line| line.starts_with(id)), "{}", stdout(&all));
    }
    let ring = run(["list", "--mode=ring"], "");
    assert_eq!(stdout(&ring).lines().count(), 2, "{}", stdout(&ring));
    let graphs = run(["list", "--domain=graph", "--json"], "");
    let graphs: serde_json::Value = serde_json::from_slice(&graphs.stdout).unwrap();
    let ids: Vec<_> = graphs.as_array().unwrap().iter().map(|kernel| &kernel["id"]).collect();
    let registry = tower_kernels::service::KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let domain = registry.domain("graph");
    assert!(ids.contains(&&"graph/betweenness-centrality".into()));
    assert!(ids.into_iter().eq(domain.iter().map(|kernel| &*kernel.info().id)), "{graphs}");
}

#[test]
fn describe_shows_the_input_and_output_of_a_kernel() {
    let text = run(["describe", "linalg/saxpy"], "");
    assert_eq!(text.status.code(), Some(0));
    let row = |name: &str, kind: &str| {
        let is_row = |line: &str| line.split_whitespace().take(2).eq([name, kind]);
        assert!(stdout(&text).lines().any(is_row), "no {name} {kind} in {}", stdout(&text));
    };
    row("mode", "batch");
    row("a", "number");
    row("x", "[number]");

    let json = run(["describe", "linalg/saxpy", "--json"], "");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["input_schema"]["properties"]["x"]["anyOf"][0]["type"], "array");
}

#[test]
fn an_alias_names_the_same_kernel() {
    let [by_id, by_alias] = ["graph/density", "graph/graph-density"].map(|name| run(["describe", name], ""));
    assert_eq!(by_alias.status.code(), Some(0), "{}", stderr(&by_alias));
    assert_eq!(stdout(&by_alias), stdout(&by_id));
    assert!(stdout(&by_id).contains("graph/graph-density"), "{}", stdout(&by_id));
    let density = run(["run", "graph/graph-density"], r#"{"num_nodes": 3, "edges": [[0, 1], [1, 2], [2, 0]]}"#);
    assert_eq!(stdout(&density), "{\"density\":1.0,\"num_nodes\":3,\"num_edges\":3}\n", "{}", stderr(&density));
}

#[test]
fn describe_shows_values_and_examples_that_run() {
    for (kernel, shown) in [
        ("risk/option-pricing", &["\"f32\" | \"f64\"", "\"call\" | \"put\""][..]),
        ("graph/betweenness-centrality", &["[[integer, integer]]", "row_offsets", "Examples"]),
    ] {
        let text = run(["describe", kernel], "");
        for shown in shown {
            assert!(stdout(&text).contains(shown), "no {shown} in {}", stdout(&text));
        }
        let examples = stdout(&text).lines().filter_map(|line| line.trim().strip_prefix("echo '"));
        let examples: Vec<_> = examples.map(|line| line.split_once("' | tower-kernels run ").unwrap()).collect();
        assert!(!examples.is_empty(), "{}", stdout(&text));
        for (input, id) in examples {
            let output = run(["run", id], input);
            assert_eq!((output.status.code(), id), (Some(0), kernel), "{input}: {}", stderr(&output));
        }
    }
}

#[test]
fn run_reads_its_input_from_stdin_or_a_file_and_writes_json() {
    let piped = run(["run", "linalg/saxpy"], SAXPY);
    assert_eq!((piped.status.code(), stdout(&piped), stderr(&piped)), (Some(0), "{\"y\":[12.0,24.0]}\n", ""));
    let dash = run(["run", "linalg/saxpy", "--input=-", "--backend=cpu"], SAXPY);
    assert_eq!(stdout(&dash), stdout(&piped));

    let path = std::env::temp_dir().join(format!("tower-kernels-{}-saxpy.json", std::process::id()));
    std::fs::write(&path, SAXPY).unwrap();
    let file = run(["run", "linalg/saxpy", "--input", path.to_str().unwrap()], "");
    std::fs::remove_file(&path).unwrap();
    assert_eq!((file.status.code(), stdout(&file)), (Some(0), stdout(&piped)));
}

#[test]
fn errors_have_an_exit_code_and_name_the_field_on_stderr() {
    let matching = r#"{"a": 1}"#;
    for (args, input, code, said) in [
        (&["run", "linalg/saxpy"][..], r#"{"a": 2.0, "x": [1.0, "b"], "y": [1.0, 2.0]}"#, 3, "x[1]"),
        (&["run", "linalg/saxpy"], r#"{"a": 2.0, "x": [1.0], "y": [1.0, 2.0]}"#, 3, "error: the input is invalid: y"),
        (&["run", "linalg/saxpy"], "{", 3, "input"),
        (&["run", "linalg/saxpy", "--input=/nowhere.json"], "", 3, "/nowhere.json: No such file"),
        (&["run", "linalg/nothing"], SAXPY, 4, "no kernel has the id `linalg/nothing`"),
        (&["run", "linalg/saxpi"], SAXPY, 4, "did you mean `linalg/saxpy`?"),
        (&["describe", "betweenness-centrality"], "", 4, "did you mean `graph/betweenness-centrality`?"),
        (&["describe", "zzz"], "", 4, "`tower-kernels list` lists the kernels"),
        (&["list", "--domain=nope"], "", 2, "no kernel has the domain `nope`; the domains are compliance, core, graph"),
        (&["run", "linalg/saxpy", "--timeout=5"], SAXPY, 2, "\"5\" is not a duration; use \"5s\""),
        (&["run", "linalg/saxpy", "--timeout=soon"], SAXPY, 2, "\"soon\" is not a duration"),
        (&["describe", "linalg/nothing"], "", 4, "no kernel has the id `linalg/nothing`"),
        (&["run", "orderbook/matching"], matching, 5, "ring kernel"),
        (&["run", "linalg/saxpy", "--timeout=0s"], SAXPY, 6, "deadline"),
        (&["run"], "", 2, "Usage"),
        (&["list", "--mode=fast"], "", 2, "batch"),
    ] {
        let output = run(args.iter().copied(), input);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?}: {said} is not in {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let mut child = program(["run", "linalg/saxpy"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    feed(child.stdin.take().unwrap(), SAXPY);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

/// A ring of nodes, which takes minutes.
fn large_graph() -> String {
    let nodes = 200_000;
    let edges: Vec<_> = (0..nodes).map(|node| format!("[{node},{}]", (node + 1) % nodes)).collect();
    format!(r#"{{"num_nodes": {nodes}, "edges": [{}]}}"#, edges.join(","))
}

const LONG: [&str; 4] = ["run", "graph/betweenness-centrality", "--backend=cpu", "--timeout=1h"];

#[test]
fn a_long_run_shows_no_progress_in_a_pipe() {
    let output = run([LONG[0], LONG[1], LONG[2], "--timeout=3s"], &large_graph());
    assert_eq!(output.status.code(), Some(6));
    let error = "error: the deadline passed while the kernel ran\n";
    assert_eq!((stdout(&output), stderr(&output)), ("", error));
}

/// `script`, of util-linux, gives the program a terminal.
#[cfg(target_os = "linux")]
#[test]
fn a_long_run_shows_progress_on_a_terminal() {
    let path = std::env::temp_dir().join(format!("tower-kernels-{}-ring.json", std::process::id()));
    std::fs::write(&path, large_graph()).unwrap();
    let program = env!("CARGO_BIN_EXE_tower-kernels");
    let command = format!("'{program}' {} {} {} --timeout=5s --input '{}'", LONG[0], LONG[1], LONG[2], path.display());
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    let output = script.output().expect("util-linux is installed");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", stdout(&output));
    assert!(stdout(&output).contains("/200000"), "{}", stdout(&output));
    assert!(stdout(&output).contains("the deadline passed"), "{}", stdout(&output));
}

/// Only Linux reports whether a process handles a signal.
#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_cancels_the_run_and_reports_it() {
    let mut child = program(LONG).stdin(Stdio::piped()).spawn().unwrap();
    feed(child.stdin.take().unwrap(), &large_graph());
    let begun = Instant::now();
    while !catches_interrupts(child.id()) {
        assert!(begun.elapsed() < PATIENCE, "it never waits for Ctrl-C");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child).code(), Some(130));
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "error: interrupted: the run was cancelled\n");
}

#[cfg(target_os = "linux")]
fn catches_interrupts(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (2 - 1)) != 0
}
