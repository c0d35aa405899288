//! A log whose reader is gone, full or slow, and clients that try to write to it.

use std::fs::OpenOptions;
use std::io::{PipeReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::size;
use crate::support::process::{Call, PATIENCE, SAXPY, Server, program, run, signal, stderr, wait};
use crate::support::unused_address;

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
/// A request with it is late whenever it comes, which the log was told of each time.
const LATE: &str = "grpc-timeout: 0n";
/// Longer than a line may be: its limit, and the field that reaches it.
const LONGEST_LINE: usize = 16 * 1024 + 8 * 1024;
const LISTEN: [&str; 3] = ["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"];

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// `serve` with a log that goes into a pipe which only the test reads, if anybody.
fn with_pipe(args: &[&str]) -> (Server, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let server = Server::spawn(program(LISTEN).stderr(writer), args);
    (server, reader)
}

/// What the log is told of each request of [`flood`] with.
const TOLD: &str = "--log-level=tower_kernels=debug";

/// Makes requests that the log is told of, on many connections at a time.
fn flood(server: &Server, requests: usize) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..requests / 4 {
                    assert_eq!(server.post("/execute", r#"{"kernel_id": "no/such", "input": 1}"#).0, 404);
                }
            });
        }
    });
}

fn serves_and_drains(mut server: Server) {
    assert_eq!(server.post(EXECUTE, SAXPY).0, 200);
    assert_eq!(server.get("/health/live").0, 200);
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
}

#[test]
fn a_log_whose_reader_is_gone_stops_nothing() {
    let (server, reader) = with_pipe(&["--drain-notice=0s", TOLD]);
    drop(reader);
    flood(&server, 40);
    serves_and_drains(server);
}

#[test]
fn a_log_on_a_full_disk_stops_nothing_and_lost_lines_are_counted() {
    let server = Server::spawn(program(LISTEN).stderr(full()), &["--drain-notice=0s", TOLD]);
    flood(&server, 40);
    let lost = until_metric(&server, r#"kernel_log_lines_dropped_total{reason="write_error"}"#);
    assert!(lost > 0.0, "{lost}");
    serves_and_drains(server);
}

/// A metric once it is more than nothing.
fn until_metric(server: &Server, series: &str) -> f64 {
    let begun = Instant::now();
    loop {
        let (_, page) = server.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(series)).and_then(|rest| rest.trim().parse().ok());
        match value {
            Some(value) if value > 0.0 => return value,
            _ if begun.elapsed() > PATIENCE => panic!("no {series} in {page}"),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The program with streams closed or full by a shell, on a port of the test's choice, as its greeting is not to be had.
fn by_shell(redirections: &str, args: &[&str]) -> (Child, SocketAddr) {
    let rest = unused_address();
    let listen = format!("--rest-listen={rest}");
    let plain =
        program(["serve", "--grpc-listen=off", &listen, "--drain-notice=0s"].into_iter().chain(args.iter().copied()));
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirections}")).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(rest).is_err() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{redirections}: it does not listen: {ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    (child, rest)
}

#[test]
fn streams_that_are_closed_or_full_stop_nothing() {
    std::thread::scope(|scope| {
        for redirections in ["2>&-", ">&-", ">&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"] {
            scope.spawn(move || {
                let (mut child, rest) = by_shell(redirections, &[]);
                for _ in 0..3 {
                    let (status, _) = Call::begin(rest, "POST", EXECUTE, &[LATE], SAXPY.len()).end(SAXPY.as_bytes());
                    // 408 where the deadline has passed before the body is read.
                    assert!([408, 504].contains(&status), "{redirections}: {status}");
                }
                signal(child.id(), "TERM");
                assert_eq!(wait(&mut child).code(), Some(0), "{redirections}");
            });
        }
    });
}

#[test]
fn a_greeting_that_nobody_reads_holds_up_nothing() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // Others have filled the pipe before.
    fill(&mut writer);
    let rest = unused_address();
    let listen = format!("--rest-listen={rest}");
    let arguments = ["serve", "--grpc-listen=off", &listen, "--drain-notice=0s"];
    let both = writer.try_clone().unwrap();
    let mut child = program(arguments).stdout(writer).stderr(both).spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(rest).is_err() {
        assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, _) = Call::begin(rest, "POST", EXECUTE, &[], SAXPY.len()).end(SAXPY.as_bytes());
    assert_eq!(status, 200);
    signal(child.id(), "TERM");
    assert_eq!(wait(&mut child).code(), Some(0));
    drop(reader);
}

/// Writes into a pipe until it takes no more.
fn fill(writer: &mut std::io::PipeWriter) {
    use std::io::Write;
    // Only the capacity that Linux gives a pipe by default is certain to fit; the program finds no room for what is left.
    writer.write_all(&[b'.'; 64 * 1024]).unwrap();
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_says_later_what_it_has_dropped() {
    let flags = ["--drain-notice=0s", TOLD, "--log-max-repeats=0", "--log-buffer=32768"];
    let (mut server, mut reader) = with_pipe(&flags);
    flood(&server, size(800, 8000));
    let dropped = until_metric(&server, r#"kernel_log_lines_dropped_total{reason="slow_reader"}"#);
    assert!(dropped > 0.0, "{dropped}");
    assert_eq!(server.post(EXECUTE, SAXPY).0, 200);

    let log = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    // There is room again, and with it what has been lost is said.
    std::thread::sleep(Duration::from_millis(200));
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
    let log = log.join().unwrap();
    assert!(log.contains("log lines were dropped"), "{}", &log[log.len().saturating_sub(2000)..]);
    assert!(log.contains("draining"), "{}", &log[log.len().saturating_sub(2000)..]);
}

#[test]
fn a_server_whose_log_nobody_reads_drains_and_ends_within_its_limits() {
    let (mut server, reader) = with_pipe(&["--drain-notice=0s", "--log-level=trace", "--log-max-repeats=0"]);
    flood(&server, 400);
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
    drop(reader);
}

/// Counts the events of a kind in a log: its own lines, and those in summaries.
fn told(log: &str, line: &str) -> (u64, u64) {
    let lines = log.lines().filter(|one| one.contains(line) && !one.contains("similar events")).count() as u64;
    let summed = log.lines().filter(|one| one.contains(line) && one.contains("similar events"));
    let more = summed.map(|one| {
        let count =
            one.split("repeats=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{one}"));
        count.parse::<u64>().unwrap_or_else(|_| panic!("{one}"))
    });
    (lines, more.sum())
}

#[test]
fn clients_cannot_write_lines_at_will() {
    let (mut server, mut reader) = with_pipe(&["--drain-notice=0s", TOLD]);
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    let requests = size(400, 4000);
    let begun = Instant::now();
    flood(&server, requests);
    let windows = begun.elapsed().as_secs() / 10 + 1;
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
    let log = log.join().unwrap();
    let (lines, more) = told(&log, "request failed");
    // 20 in 10 s, and a window may begin before the first of these.
    assert!(lines <= 20 * (windows + 1), "{lines} lines in {windows} windows:\n{}", &log[..log.len().min(4000)]);
    assert!(more > 0 && lines + more == requests as u64, "{lines} lines and {more} more of {requests}");
}

#[test]
fn what_clients_send_is_cut_and_escaped_in_either_format() {
    let length = size(1_000_000, 9_000_000);
    for format in ["text", "json"] {
        let (mut server, mut reader) = with_pipe(&["--drain-notice=0s", "--log-format=text", "--log-level=debug"]);
        if format == "json" {
            // Whose greeting is a line of the log.
            drop((server, reader));
            let (listener, log) = json_server();
            (server, reader) = (listener, log);
        }
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            reader.read_to_string(&mut log).unwrap();
            log
        });
        let evil = r"evil\n\u001b[31mred\u0007\u009b\u202e";
        for name in ["x".repeat(length), evil.to_owned(), format!("{evil}{}", "\\u001b".repeat(1000))] {
            for body in [
                format!(
                    r#"{{"kernel_id": "linalg/saxpy", "input": {SAXPY}, "metadata": {{"tenant": "{name}", "timeout_ms": 0}}}}"#
                ),
                format!(r#"{{"kernel_id": "{name}", "input": {SAXPY}, "metadata": {{"tenant": "{name}"}}}}"#),
                format!(r#"{{"kernel_id": "linalg/saxpy", "input": {{"a": 1.0, "x": [1.0], "y": [], "{name}": 1}}}}"#),
            ] {
                let (status, _) = server.post("/execute", &body);
                assert!((400..=504).contains(&status), "{status}");
            }
        }
        server.post_as(&format!("/kernels/{}/execute", "k".repeat(4000)), SAXPY, &[LATE]);
        server.signal("TERM");
        assert_eq!(server.code(), Some(0));
        let log = log.join().unwrap();
        assert!(log.contains("request failed"), "{}", &log[..log.len().min(4000)]);
        for line in log.lines() {
            assert!(line.len() <= LONGEST_LINE, "{format}: a line of {} bytes: {}", line.len(), &line[..500]);
            let unsafe_for_terminals = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!line.contains(unsafe_for_terminals), "{format}: {line:?}");
            assert!(!line.contains(&"x".repeat(600)), "{format}: {line}");
            if format == "json" {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            }
            // A line of its own would begin with what the client wrote.
            assert!(!line.starts_with("\u{1b}") && !line.starts_with("red"), "{line}");
        }
    }
}

/// A server that logs JSON, which says nothing on stdout.
fn json_server() -> (Server, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let rest = unused_address();
    let listen = format!("--rest-listen={rest}");
    let arguments =
        ["serve", "--grpc-listen=off", &listen, "--drain-notice=0s", "--log-format=json", "--log-level=debug"];
    let child = program(arguments).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(rest).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (Server { child, stdout: Default::default(), stderr: Default::default(), rest, grpc: rest }, reader)
}

#[test]
fn no_command_ends_by_a_panic_where_it_cannot_write() {
    let saxpy = ["run", "linalg/saxpy", "--backend", "cpu"];
    // What it prints is all that it is for, so that a full disk is a failure.
    for args in [&["list"][..], &["describe", "linalg/saxpy"], &saxpy, &["serve", "--print-config"]] {
        for error in [Stdio::null as fn() -> Stdio, full] {
            let mut child = program(args.iter().copied());
            let mut child = child.stdin(Stdio::piped()).stdout(full()).stderr(error()).spawn().unwrap();
            crate::support::process::feed(child.stdin.take().unwrap(), SAXPY);
            assert_eq!(wait(&mut child).code(), Some(1), "{args:?}");
        }
        // A reader that has gone has read what it wanted.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = program(args.iter().copied());
        let mut child = child.stdin(Stdio::piped()).stdout(writer).stderr(full()).spawn().unwrap();
        crate::support::process::feed(child.stdin.take().unwrap(), SAXPY);
        assert_eq!(wait(&mut child).code(), Some(0), "{args:?}");
    }
    for (args, code) in [
        (&["describe", "no/such"][..], 4),
        (&["serve", "--config=/nowhere.toml"], 2),
        (&["serve", "--nonsense"], 2),
        (&["bench", "linalg/saxpy", "--input=/nowhere.json"], 3),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for error in [full(), writer.into()] {
            let mut child = program(args.iter().copied()).stdout(full()).stderr(error).spawn().unwrap();
            assert_eq!(wait(&mut child).code(), Some(code), "{args:?}");
        }
    }
    let plain = run(["describe", "no/such"], "");
    assert!(stderr(&plain).starts_with("error: "), "{}", stderr(&plain));
}
