//! `tower-kernels operand`: the real program against a real server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::auth::{KEY, with_keys};
use crate::support::process::{PATIENCE, SAXPY, Server, program, run, signal, stderr, stdout, wait};
use crate::support::unused_address;

const PATH_OF_3: &str = r#"{"num_nodes": 3, "edges": [[0, 1], [1, 2]]}"#;

/// A server whose limits are its flags.
fn serve(flags: &[&str]) -> (Server, String) {
    let server = Server::start(&[&["--cuda-mode=off"], flags].concat());
    let url = format!("http://{}", server.rest);
    (server, url)
}

/// `operand` with these arguments, against the server at a URL.
fn operand(url: &str, args: &[&str], stdin: &str) -> Output {
    run(["operand"].into_iter().chain(args.iter().copied()).chain(["--rest", url]), stdin)
}

#[track_caller]
fn succeeded(output: &Output) -> Value {
    assert_eq!((output.status.code(), stderr(output)), (Some(0), ""), "{}", stdout(output));
    assert_eq!(stdout(output).lines().count(), 1, "{}", stdout(output));
    serde_json::from_str(stdout(output)).unwrap()
}

#[track_caller]
fn failed(output: &Output, code: i32, says: &str) {
    assert_eq!((output.status.code(), stdout(output)), (Some(code), ""), "{}", stderr(output));
    assert!(stderr(output).contains(says), "{says} is not in {}", stderr(output));
}

/// A temporary file, removed on drop.
struct TempFile(PathBuf);

impl TempFile {
    fn new(bytes: &[u8]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("operand-{}-{}.npy", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The bytes of a numpy file of format version 1, as numpy pads it.
fn npy(descr: &str, fortran_order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {fortran_order}, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_graph_is_put_listed_shown_and_removed() {
    let (server, url) = serve(&[]);
    let empty = operand(&url, &["list"], "");
    assert_eq!(stdout(&empty).split_whitespace().next(), Some("NAME"));
    assert_eq!(stdout(&empty).lines().count(), 1);

    let stored = succeeded(&operand(&url, &["put", "payments", "--type", "graph"], PATH_OF_3));
    assert_eq!(
        (&stored["name"], &stored["version"], &stored["type"]),
        (&json!("payments"), &json!(1), &json!("graph"))
    );
    assert_eq!(stored["summary"], json!({"nodes": 3, "edges": 2, "directed": false, "weighted": false}));
    let file = TempFile::new(PATH_OF_3.as_bytes());
    let second = succeeded(&operand(&url, &["put", "payments", "--type", "graph", "--public", file.path()], ""));
    assert_eq!((&second["version"], &second["public"]), (&json!(2), &json!(true)));
    let dash = succeeded(&operand(&url, &["put", "a.second", "--type", "graph", "-"], PATH_OF_3));
    assert_eq!(dash["name"], "a.second");

    let input = r#"{"graph": {"operand": "payments"}, "normalized": false}"#;
    let (status, body) = server.post("/kernels/graph/betweenness-centrality/execute", input);
    assert_eq!(status, 200, "{body}");

    let table = operand(&url, &["list"], "");
    let rows: Vec<Vec<&str>> = stdout(&table).lines().map(|line| line.split_whitespace().collect()).collect();
    let bytes = second["bytes"].to_string();
    assert_eq!(rows[0], ["NAME", "VERSION", "TYPE", "BYTES", "PUBLIC", "USES", "SUMMARY"]);
    assert_eq!(rows[1][..2], ["a.second", "3"], "{rows:?}");
    assert_eq!(rows[2][..6], ["payments", "2", "graph", &bytes, "yes", "1"], "{rows:?}");
    let listed = operand(&url, &["list", "--json"], "");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[1]["etag"], listed.as_array().unwrap().len()), (&second["etag"], 2));

    assert_eq!(succeeded(&operand(&url, &["show", "payments"], ""))["etag"], second["etag"]);
    assert_eq!(succeeded(&operand(&url, &["show", "payments@2"], ""))["uses"], 1);
    failed(&operand(&url, &["show", "payments@1"], ""), 4, "there is no operand `payments@1`");
    assert_eq!(succeeded(&operand(&url, &["rm", "payments"], ""))["version"], 2);
    failed(&operand(&url, &["rm", "payments"], ""), 4, "not_found: there is no operand `payments`");
}

#[test]
fn numpy_files_become_a_set_of_tensors() {
    let (server, url) = serve(&[]);
    let x = TempFile::new(&npy("<f4", "False", "(2,)", &f32s(&[1.0, 2.5])));
    let mut second = npy("<i8", "False", "(2, 3)", &[7; 48]);
    // Format version 2 has a length of four bytes.
    second.splice(6..10, [2, 0, second[8], second[9], 0, 0]);
    let (second, flag) = (TempFile::new(&second), TempFile::new(&npy("|b1", "False", "()", &[1])));
    let tensors =
        [("x", &x), ("rows", &second), ("flag", &flag)].map(|(name, file)| format!("--tensor={name}={}", file.path()));
    let args = [&["put", "v", "--type=tensors"], &tensors.each_ref().map(|text| &**text)[..]].concat();
    let stored = succeeded(&operand(&url, &args, ""));
    let expected = json!({"tensors": {
        "flag": {"dtype": "bool", "shape": []},
        "rows": {"dtype": "int64", "shape": [2, 3]},
        "x": {"dtype": "float32", "shape": [2]},
    }});
    assert_eq!((&stored["summary"], &stored["bytes"]), (&expected, &json!(57)));
    let saxpy = r#"{"a": 2.0, "x": {"operand": "v/x"}, "y": [1.0, 1.0]}"#;
    let (status, body) = server.post("/kernels/linalg/saxpy/execute", saxpy);
    let output: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &output["output"]["y"]), (200, &json!([3.0, 6.0])), "{body}");
    assert!(stdout(&operand(&url, &["list"], "")).contains("3 tensors"));
}

#[test]
fn a_numpy_matrix_becomes_vectors() {
    let (_server, url) = serve(&[]);
    // 1.0, 2.0, 0.5 and -4.0 in half precision.
    let halves = [0x3c00_u16, 0x4000, 0x3800, 0xc400].map(u16::to_le_bytes).concat();
    let file = TempFile::new(&npy("<f2", "False", "(2, 2)", &halves));
    let tensor = format!("--tensor=vectors={}", file.path());
    let stored = succeeded(&operand(&url, &["put", "corpus", "--type=vectors", &tensor], ""));
    let summary = json!({"rows": 2, "dimension": 2, "dtype": "float16"});
    assert_eq!(
        (&stored["type"], &stored["bytes"], &stored["summary"]),
        (&json!("vectors"), &json!(8 + 2 * 4), &summary)
    );
    let text = r#"{"dtype": "float16", "vectors": [[1, 2], [0.5, -4]]}"#;
    let same = succeeded(&operand(&url, &["put", "same", "--type=vectors"], text));
    let hash = |stored: &Value| stored["etag"].as_str().unwrap().split_once('-').unwrap().1.to_owned();
    assert_eq!((hash(&same), &same["summary"]), (hash(&stored), &summary), "the same content");
    assert!(stdout(&operand(&url, &["list"], "")).contains("dimension 2, dtype float16, rows 2"));
    let other = format!("--tensor=x={}", file.path());
    failed(&operand(&url, &["put", "corpus", "--type=vectors", &other], ""), 3, "expected `vectors`");
}

#[test]
fn conditions_are_checked_by_the_server() {
    let (_server, url) = serve(&[]);
    let put = |more: &[&str]| operand(&url, &[&["put", "g", "--type=graph"], more].concat(), PATH_OF_3);
    failed(&put(&["--if-match", "*"]), 10, "precondition_failed: there is no such operand now");
    let first = succeeded(&put(&["--if-absent"]))["etag"].as_str().unwrap().to_owned();
    failed(&put(&["--if-absent"]), 10, &first);
    // As the JSON has it, and as a shell leaves it.
    let second = succeeded(&put(&["--if-match", &first]))["etag"].as_str().unwrap().to_owned();
    let bare = second.trim_matches('"');
    let third = succeeded(&put(&["--if-match", bare]))["etag"].as_str().unwrap().to_owned();
    failed(&put(&["--if-match", &first]), 10, &third);
    failed(&operand(&url, &["rm", "g", "--if-match", &first], ""), 10, &third);
    assert_eq!(succeeded(&operand(&url, &["rm", "g", "--if-match", &third], ""))["version"], 3);
}

#[test]
fn files_that_are_no_arrays_are_rejected_by_name_before_anything_is_sent() {
    // Nothing is connected: nobody listens there.
    let url = "http://127.0.0.1:1";
    let good = npy("<f4", "False", "(2,)", &[0; 8]);
    let huge = [b"\x93NUMPY\x02\x00", &u32::MAX.to_le_bytes()[..], b"{'descr': '<f4'"].concat();
    for (bytes, says) in [
        (&good[..good.len() - 1], "truncated: its shape [2] of float32 needs 8 bytes, and it has 7"),
        (&[&good[..], b"\0"].concat(), "too long"),
        (&good[..40], "ends within its header"),
        (&good[..7], "ends within its header"),
        (b"", "not a numpy file"),
        (&npy("<f4", "True", "(2, 1)", &[0; 8]), "Fortran order"),
        (&npy(">f4", "False", "(2,)", &[0; 8]), "big-endian"),
        (&npy("<i2", "False", "(4,)", &[0; 8]), "\"<i2\" is not one of"),
        (&npy("<c8", "False", "(1,)", &[0; 8]), "\"<c8\" is not one of"),
        (&npy("<f4", "False", "(4294967296, 4294967296, 4)", &[0; 8]), "more than 2^64 bytes"),
        (&npy("<f4", "False", "(2", &[0; 8]), "malformed"),
        (&huge, "its header has 4294967295 bytes, more than 10000"),
    ] {
        let file = TempFile::new(bytes);
        let output = operand(url, &["put", "v", "--type=tensors", &format!("--tensor=x={}", file.path())], "");
        failed(&output, 3, &format!("error: {}: ", file.path()));
        assert!(stderr(&output).contains(says), "{says} is not in {}", stderr(&output));
    }
    let tmp = env!("CARGO_TARGET_TMPDIR");
    failed(&operand(url, &["put", "v", "--type=tensors", &format!("--tensor=x={tmp}")], ""), 3, "not a regular file");
    failed(&operand(url, &["put", "v", "--type=graph", tmp], ""), 3, "it is a directory");
    failed(&operand(url, &["put", "v", "--type=graph", "/no/such.json"], ""), 3, "/no/such.json: No such file");
    let file = TempFile::new(&good);
    let tensor = format!("--tensor=x={}", file.path());
    failed(&operand(url, &["put", "v", "--type=tensors", &tensor, &tensor], ""), 3, "two tensors are named `x`");
}

#[test]
fn arguments_that_contradict_or_are_malformed_are_rejected() {
    for (args, says) in [
        (&["put", "v"][..], "--type"),
        (&["put", "a/b", "--type=graph"], "a character other than"),
        (&["put", "a@1", "--type=graph"], "a character other than"),
        (&["show", "a/b"], "without one of its tensors"),
        (&["rm", ".."], "starts with a dot"),
        (&["put", "v", "--type=graph", "--if-absent", "--if-match=*"], "cannot be used with"),
        (&["put", "v", "--type=graph", "--if-match=a,b"], "must be an entity tag"),
        (&["put", "v", "--type=tensors", "--tensor=x"], "must be NAME=FILE.npy"),
        (&["put", "v", "--type=tensors", "file", "--tensor=x=y"], "cannot be used with"),
        (&["list", "--header=x"], "must be NAME: VALUE"),
        (&["list", "--timeout=5"], "use \"5s\""),
        (&["list", "--cacert=ca.crt"], "needs an https URL"),
    ] {
        failed(&operand("http://127.0.0.1:1", args, ""), 2, says);
    }
    failed(&operand("127.0.0.1:1", &["list"], ""), 2, "not of the form http://HOST");
    failed(&operand("https://localhost", &["list"], ""), 2, "needs --cacert");
    for (args, says) in [
        (&["operand"][..], "\n  rm "),
        (&["operand"], "Examples:"),
        (&["operand", "put"], "Examples:"),
        (&["operand", "put"], "NAME=FILE.npy"),
        (&["operand", "list"], "10  the operand was changed"),
        (&["operand", "show"], "--rest <URL>"),
        (&["operand", "rm"], "--if-match <TAG>"),
    ] {
        let help = run(args.iter().copied().chain(["--help"]), "");
        assert!(stdout(&help).contains(says), "{says} is not in {}", stdout(&help));
    }
}

#[test]
fn the_servers_errors_have_exit_codes() {
    let (_server, url) =
        serve(&["--operands-max-bytes=1000", "--operands-max-upload=100000", "--operands-max-operands=1"]);
    let put = |name: &str, kind: &str, stdin: &str| operand(&url, &["put", name, &format!("--type={kind}")], stdin);
    failed(&put("g", "graph", r#"{"num_nodes": 1, "edges": [[0, 1]]}"#), 3, "invalid_argument: edges[0][1]");
    failed(&put("g", "graph", "{"), 3, "invalid_argument");
    failed(&put("g", "matrix", PATH_OF_3), 3, "not one of the types of operands");
    let edges: Vec<_> = (0..500).map(|node| json!([node, node + 1])).collect();
    let large = json!({"num_nodes": 501, "edges": edges}).to_string();
    failed(&put("g", "graph", &large), 11, "insufficient_storage: the operand needs");
    succeeded(&put("g", "graph", PATH_OF_3));
    failed(&put("h", "graph", PATH_OF_3), 11, "1 is the most");
    // Rejected by its length, before the body, and one of unknown length while it is sent.
    let file = TempFile::new(&vec![b' '; 64 << 20]);
    failed(&operand(&url, &["put", "g", "--type=graph", file.path()], ""), 3, "too_large");
    failed(&put("g", "graph", &" ".repeat(200_000)), 3, "too_large");
    assert_eq!(succeeded(&operand(&url, &["show", "g"], ""))["version"], 1);
}

#[test]
fn a_server_that_is_away_or_another_is_reported() {
    let closed = unused_address();
    failed(&operand(&format!("http://{closed}"), &["list"], ""), 7, &format!("connection: {closed}"));
    let (server, _) = serve(&[]);
    failed(&operand(&format!("http://{}/no/such/prefix", server.rest), &["list"], ""), 4, "not_found");

    // One that responds with a page, then with another document, and then not at all.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        for (kind, body) in [("text/html", "<html>"), ("application/json", "{}")] {
            let (mut stream, _) = other.accept().unwrap();
            receive_head(&mut stream);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
        }
        let (stream, _) = other.accept().unwrap();
        (other, stream)
    });
    failed(&operand(&url, &["show", "g"], ""), 1, "not_an_operand: the response, 200 OK, is not a JSON document");
    failed(&operand(&url, &["show", "g"], ""), 1, "not_an_operand: the response has no etag");
    failed(&operand(&url, &["show", "g", "--timeout=1s"], ""), 6, "no response within --timeout, 1s");
    drop(serving.join().unwrap());
}

#[test]
fn operands_belong_to_the_tenant_of_the_query_or_the_credentials() {
    let (_server, url) = serve(&[]);
    succeeded(&operand(&url, &["put", "g", "--type=graph", "--tenant=a & b"], PATH_OF_3));
    assert_eq!(succeeded(&operand(&url, &["show", "g", "--tenant", "a & b"], ""))["version"], 1);
    failed(&operand(&url, &["show", "g", "--tenant=globex"], ""), 4, "not_found");
    failed(&operand(&url, &["show", "g"], ""), 4, "not_found");

    let server = with_keys(&["--cuda-mode=off", "--rest-prefix=/api/v1"]);
    let url = format!("http://{}/api/v1/", server.rest);
    let header = format!("--header=authorization: Bearer {KEY}");
    failed(&operand(&url, &["put", "g", "--type=graph"], PATH_OF_3), 1, "unauthenticated");
    succeeded(&operand(&url, &["put", "g", "--type=graph", &header], PATH_OF_3));
    assert_eq!(succeeded(&operand(&url, &["show", "g", "--tenant=other", &header], ""))["version"], 1);
}

#[test]
fn an_upload_over_tls_is_verified() {
    let (certificate, key) = certificate();
    let (certificate, key) = (TempFile::new(certificate.as_bytes()), TempFile::new(key.as_bytes()));
    let flags = [format!("--tls-cert={}", certificate.path()), format!("--tls-key={}", key.path())];
    let (server, _) = serve(&[&flags[0], &flags[1]]);
    let url = format!("https://localhost:{}", server.rest.port());
    let cacert = format!("--cacert={}", certificate.path());
    succeeded(&operand(&url, &["put", "g", "--type=graph", &cacert], PATH_OF_3));
    let other = TempFile::new(self::certificate().0.as_bytes());
    failed(&operand(&url, &["list", &format!("--cacert={}", other.path())], ""), 7, "connection");
}

fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The most memory that a process has used, in KiB.
#[cfg(target_os = "linux")]
fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_file_is_not_held_in_memory() {
    let (_server, url) = serve(&["--memory-max=8MiB", "--operands-max-bytes=128MiB"]);
    let file = TempFile::new(&npy("|u1", "False", "(67108864,)", &vec![7; 64 << 20]));
    let tensor = format!("--tensor=x={}", file.path());
    let mut child = program(["operand", "put", "big", "--type=tensors", &tensor, "--rest", &url]).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak_memory(child.id()).unwrap_or(0).max(peak);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(succeeded(&child.wait_with_output().unwrap())["bytes"], 64 << 20);
    assert!((1..40 << 10).contains(&peak), "{peak} KiB");
}

/// Receives the head of a request.
fn receive_head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Receives the body of a request up to its end, which is this.
fn receive_body(stream: &mut TcpStream, end: &[u8]) {
    let mut body = Vec::new();
    while !body.ends_with(end) {
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&body));
        body.extend_from_slice(&bytes[..read]);
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_fails() {
    let file = TempFile::new(PATH_OF_3.as_bytes());
    // A sparse file, far larger than what the connection buffers.
    std::fs::OpenOptions::new().write(true).open(&file.0).unwrap().set_len(64 << 20).unwrap();
    let stalled = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = format!("http://{}", stalled.local_addr().unwrap());
    let child = program(["operand", "put", "g", "--type=graph", file.path(), "--rest", &slow]).spawn().unwrap();
    let (mut stream, _) = stalled.accept().unwrap();
    let head = receive_head(&mut stream);
    assert!(head.contains("content-length: 67108864\r\n") && head.contains("expect: 100-continue\r\n"), "{head}");
    std::fs::OpenOptions::new().write(true).open(&file.0).unwrap().set_len(1 << 20).unwrap();
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    let mut sent = Vec::new();
    // The client breaks the connection off, which may reset it.
    let _ = stream.read_to_end(&mut sent);
    assert!(sent.len() < 64 << 20, "{}", sent.len());
    failed(&child.wait_with_output().unwrap(), 3, "became shorter while it was sent");
}

/// A server that reads the head and the first part of a body, and then nothing.
fn stalled_upload() -> (TcpListener, Child, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut child =
        program(["operand", "put", "g", "--type=graph", "-", "--rest", &url]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"{").unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let head = receive_head(&mut stream);
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    // The chunk of one byte comes although stdin is still open.
    receive_body(&mut stream, b"{\r\n");
    (listener, child, stream)
}

#[test]
fn ctrl_c_cancels_an_upload_whose_stdin_is_still_open() {
    let (_listener, mut child, mut stream) = stalled_upload();
    let stdin = child.stdin.take();
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child).code(), Some(130));
    drop(stdin);
    let mut rest = Vec::new();
    // A reset ends it too.
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the body is not complete, so it is not stored");
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "error: interrupted: the upload was cancelled, and the operand is as it was\n");
}

/// `script`, of util-linux, gives the program a terminal.
#[cfg(target_os = "linux")]
#[test]
fn an_upload_shows_its_progress_and_that_the_server_is_building_on_a_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let file = TempFile::new(SAXPY.as_bytes());
    let command =
        format!("'{}' operand put g --type graph '{}' --rest {url}", env!("CARGO_BIN_EXE_tower-kernels"), file.path());
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("util-linux is installed");
    let (mut stream, _) = listener.accept().unwrap();
    receive_head(&mut stream);
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    receive_body(&mut stream, SAXPY.as_bytes());
    let mut terminal = child.stdout.take().unwrap();
    let mut shown = String::new();
    while !shown.contains("sent, building") {
        let mut bytes = [0; 1024];
        let read = terminal.read(&mut bytes).unwrap();
        assert!(read > 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    let body = r#"{"etag":"\"1-0a\"","name":"g","version":1}"#;
    let head = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: ";
    stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    // The end of a terminal is an error.
    let _ = terminal.read_to_string(&mut shown);
    assert_eq!(wait(&mut child).code(), Some(0), "{shown}");
    assert!(shown.contains(body), "{shown}");
}

/// A directory of operands that does not exist yet, removed on drop.
struct TempDirectory(PathBuf);

impl TempDirectory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("operands-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn flag(&self) -> String {
        format!("--operands-dir={}", self.0.display())
    }

    /// The files with this extension.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let paths = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|this| this == extension)).collect();
        paths.sort();
        paths
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        // It may not have been created.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a server on a directory and waits until it is ready.
fn serve_from(directory: &TempDirectory) -> (Server, String) {
    let (server, url) = serve(&[&directory.flag()]);
    server.stderr.until("loaded the stored operands");
    assert_eq!(server.get("/health/ready").0, 200);
    (server, url)
}

/// Kills a server without a chance to write anything.
fn kill(mut server: Server) {
    server.signal("KILL");
    assert_eq!(server.code(), None, "killed");
}

fn scores(server: &Server, graph: &str) -> (u16, Value) {
    let input = json!({"graph": {"operand": graph}, "normalized": false}).to_string();
    let (status, body) = server.post("/kernels/graph/betweenness-centrality/execute", &input);
    let mut body: Value = serde_json::from_str(&body).unwrap();
    (status, body["output"].take())
}

#[test]
fn operands_in_a_directory_survive_a_killed_process() {
    let directory = TempDirectory::new();
    let (server, url) = serve_from(&directory);
    succeeded(&operand(&url, &["put", "payments", "--type=graph"], PATH_OF_3));
    let stored = succeeded(&operand(&url, &["put", "payments", "--type=graph"], PATH_OF_3));
    succeeded(&operand(&url, &["put", "g", "--type=graph", "--tenant=acme", "--public"], PATH_OF_3));
    succeeded(&operand(&url, &["put", "gone", "--type=graph"], PATH_OF_3));
    succeeded(&operand(&url, &["rm", "gone"], ""));
    let before = scores(&server, "payments@2");
    assert_eq!(before, (200, json!({"scores": [0.0, 1.0, 0.0]})));
    kill(server);

    let (server, url) = serve_from(&directory);
    assert_eq!(succeeded(&operand(&url, &["show", "payments"], "")), stored);
    assert_eq!(scores(&server, "payments@2"), before);
    assert_eq!(scores(&server, "g").0, 200, "public");
    failed(&operand(&url, &["show", "gone"], ""), 4, "not_found");
    assert_eq!(succeeded(&operand(&url, &["put", "gone", "--type=graph"], PATH_OF_3))["version"], 4, "3 was removed");
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains("\nkernel_operand_files_skipped_total 0\n"), "{metrics}");
    // Equal graphs have one file.
    let size = std::fs::metadata(&directory.files("operand")[0]).unwrap().len();
    assert!(metrics.contains(&format!("\nkernel_operand_directory_bytes {size}\n")), "{metrics}");
}

#[test]
fn an_upload_that_is_killed_leaves_the_old_version() {
    let directory = TempDirectory::new();
    let (server, url) = serve_from(&directory);
    let stored = succeeded(&operand(&url, &["put", "g", "--type=graph"], PATH_OF_3));
    let mut upload = program(["operand", "put", "g", "--type=graph", "-", "--rest", &url]);
    let mut upload = upload.stdin(Stdio::piped()).spawn().unwrap();
    upload.stdin.as_mut().unwrap().write_all(b"{\"num_nodes\": 2, ").unwrap();
    kill(server);
    drop(upload.stdin.take());
    assert_ne!(wait(&mut upload).code(), Some(0));
    let (server, url) = serve_from(&directory);
    assert_eq!(succeeded(&operand(&url, &["show", "g"], "")), stored);
    kill(server);

    // Killed at any time while values are written: the version is the old one, or the new one.
    let tensor = TempFile::new(&npy("|u1", "False", "(4194304,)", &vec![7; 4 << 20]));
    let tensor = format!("--tensor=x={}", tensor.path());
    let mut version = 0;
    for milliseconds in [0, 20, 40, 80, 160, 320, 640] {
        let (server, url) = serve_from(&directory);
        let health: Value = serde_json::from_str(&server.get("/health").1).unwrap();
        assert_eq!(health["components"]["operands"]["directory"]["skipped"], 0, "{health}");
        let shown = operand(&url, &["show", "v"], "");
        let found = if shown.status.success() { succeeded(&shown)["version"].as_u64().unwrap() } else { 0 };
        assert!(found >= version, "version {version} was stored, and {found} is there");
        version = found;
        assert_eq!(directory.files("partial"), [] as [PathBuf; 0]);
        let mut upload = program(["operand", "put", "v", "--type=tensors", &tensor, "--rest", &url]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        kill(server);
        if wait(&mut upload).success() {
            let mut text = String::new();
            upload.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            version = serde_json::from_str::<Value>(&text).unwrap()["version"].as_u64().unwrap();
        }
    }
}

#[test]
fn damaged_files_are_reported_and_skipped() {
    let directory = TempDirectory::new();
    let (server, url) = serve_from(&directory);
    for (name, nodes) in [("flipped", 3), ("truncated", 100), ("whole", 200)] {
        let edges: Vec<_> = (1..nodes).map(|node| [node - 1, node]).collect();
        let graph = json!({"num_nodes": nodes, "edges": edges}).to_string();
        succeeded(&operand(&url, &["put", name, "--type=graph"], &graph));
    }
    kill(server);
    // The larger the graph, the larger the file.
    let mut files = directory.files("operand");
    files.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    let mut flipped = std::fs::read(&files[0]).unwrap();
    let place = flipped.iter().rposition(|byte| *byte == 2).unwrap();
    flipped[place] = 1;
    std::fs::write(&files[0], &flipped).unwrap();
    let truncated = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &truncated[..truncated.len() - 4]).unwrap();

    let (server, url) = serve_from(&directory);
    let log = server.stderr.until("loaded the stored operands");
    for (name, reason) in [("flipped", "checksum"), ("truncated", "bytes where")] {
        let line = log.lines().find(|line| line.contains(&format!("operand=\"{name}\""))).unwrap();
        assert!(line.contains("WARN") && line.contains(reason), "{line}");
        failed(&operand(&url, &["show", name], ""), 4, "not_found");
        assert_eq!(scores(&server, name).0, 400);
    }
    assert_eq!(scores(&server, "whole").0, 200);
    let health: Value = serde_json::from_str(&server.get("/health").1).unwrap();
    let operands = &health["components"]["operands"];
    assert_eq!((&operands["status"], &operands["directory"]["skipped"]), (&json!("degraded"), &json!(2)), "{health}");
    assert!(server.get("/metrics").1.contains("\nkernel_operand_files_skipped_total 2\n"));
    assert_eq!(std::fs::read(&files[0]).unwrap(), flipped, "it stays for the administrator");
}

#[test]
fn two_processes_cannot_use_one_directory() {
    let directory = TempDirectory::new();
    let (_server, _) = serve_from(&directory);
    let second =
        run(["serve", "--cuda-mode=off", "--rest-listen=127.0.0.1:0", "--grpc-listen=off", &directory.flag()], "");
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    let says =
        format!("error: operands.dir: the operands in {} are in use by another process\n", directory.0.display());
    assert!(stderr(&second).ends_with(&says), "{}", stderr(&second));
    let file = TempFile::new(b"");
    let flag = format!("--operands-dir={}", file.path());
    let third = run(["serve", "--cuda-mode=off", "--rest-listen=127.0.0.1:0", "--grpc-listen=off", &flag], "");
    assert_eq!(third.status.code(), Some(1));
    assert!(stderr(&third).contains(&format!("operands.dir: the operands in {} cannot be opened: ", file.path())));
}

/// The limit on the size of a file stands for a full disk: the system reports both when the file is written.
#[test]
fn a_full_disk_rejects_the_operand_and_keeps_the_old_version() {
    let directory = TempDirectory::new();
    let mut command = std::process::Command::new("sh");
    // In blocks of 512 bytes. The signal would end the program.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_tower-kernels"), "serve", "--cuda-mode=off"]);
    command.args(["--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"]).stdin(Stdio::null());
    let server = Server::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()), &[&directory.flag()]);
    server.stderr.until("loaded the stored operands");
    let url = format!("http://{}", server.rest);
    let stored = succeeded(&operand(&url, &["put", "g", "--type=graph"], PATH_OF_3));
    let edges: Vec<_> = (0..10_000).map(|node| json!([node, node + 1])).collect();
    let large = json!({"num_nodes": 10_001, "edges": edges}).to_string();
    let rejected = operand(&url, &["put", "g", "--type=graph"], &large);
    failed(&rejected, 11, "insufficient_storage: the operand needs a file of ");
    assert!(stderr(&rejected).contains(" bytes, and the disk is full"), "{}", stderr(&rejected));
    assert_eq!(succeeded(&operand(&url, &["show", "g"], "")), stored);
    assert_eq!(scores(&server, "g@1").0, 200);
    let counts = ["operand", "version", "partial"].map(|extension| directory.files(extension).len());
    assert_eq!(counts, [1, 1, 0], "nothing of it is left");
    assert_eq!(succeeded(&operand(&url, &["put", "h", "--type=graph"], PATH_OF_3))["version"], 2);
    kill(server);
    let (server, url) = serve_from(&directory);
    assert_eq!(succeeded(&operand(&url, &["show", "g"], ""))["etag"], stored["etag"]);
    assert_eq!(scores(&server, "h@2").0, 200);
}
