//! The log: lines about requests, the access log, and the settings at startup.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use futures::stream;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::Request;
use tower_kernels::grpc::inference::proto::ModelInferRequest;
use tower_kernels::grpc::inference::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tower_kernels::grpc::inference::proto::model_infer_request::InferInputTensor;
use tower_kernels::grpc::proto::{ExecuteStreamRequest, execute_stream_request};
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::config::File;
use crate::support::process::{Call, PATIENCE, SAXPY, Server, Text, program};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
const BAD_INPUT: &str = r#"{"a": 1.0, "x": [1.0], "y": []}"#;
const LISTEN: [&str; 4] = ["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--drain-notice=0s"];

/// A cycle whose betweenness takes longer than any timeout here.
fn cycle() -> String {
    let nodes = 20_000;
    let edges: Vec<String> = (0..nodes).map(|node| format!("[{node},{}]", (node + 1) % nodes)).collect();
    format!(r#"{{"num_nodes": {nodes}, "edges": [{}]}}"#, edges.join(","))
}

/// The body of `/execute` for a tenant.
fn document(kernel: &str, input: &str, tenant: &str) -> String {
    format!(r#"{{"kernel_id": "{kernel}", "input": {input}, "metadata": {{"tenant": "{tenant}"}}}}"#)
}

fn execute(kernel: &str, input: &str) -> ExecuteRequest {
    ExecuteRequest { kernel_id: kernel.to_owned(), input: input.to_owned() }
}

/// A request of the Open Inference Protocol for saxpy of one element.
fn inference(model: &str) -> ModelInferRequest {
    let input = |name: &str| InferInputTensor {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1],
        ..Default::default()
    };
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: ["a", "x", "y"].map(input).into(),
        raw_input_contents: vec![Bytes::copy_from_slice(&1_f32.to_le_bytes()); 3],
        ..Default::default()
    }
}

/// A gRPC call with a request id and a tenant.
fn call<T>(message: T, id: &str, tenant: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", id.parse().unwrap());
    request.metadata_mut().insert("tenant", tenant.parse().unwrap());
    request
}

fn streamed(tag: u64, kernel: &str, input: &str) -> ExecuteStreamRequest {
    let call = Some(execute_stream_request::Call::Json(execute(kernel, input)));
    ExecuteStreamRequest { tag, timeout_ms: 0, call }
}

/// A server with JSON logs, which reports its addresses only in the log, at level info.
fn json_server(args: &[&str]) -> Server {
    let mut child = program(LISTEN).arg("--log-format=json").args(args).spawn().unwrap();
    let (stdout, stderr) = (Text::of(child.stdout.take().unwrap()), Text::of(child.stderr.take().unwrap()));
    let text = stderr.until("\"serving\"");
    let line = lines(&text).into_iter().find(|line| line["message"] == "serving").unwrap();
    let address =
        |name: &str| -> SocketAddr { line[name].as_str().unwrap().split_once("://").unwrap().1.parse().unwrap() };
    let (rest, grpc) = (address("rest"), address("grpc"));
    Server { child, stdout, stderr, rest, grpc }
}

/// Parses the complete lines of a JSON log.
fn lines(text: &str) -> Vec<Value> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Stops the server and returns its whole log.
fn ended(mut server: Server) -> String {
    server.signal("TERM");
    assert_eq!(server.code(), Some(0), "{}", server.stderr.now());
    server.stderr.end()
}

/// The lines with this message about this request.
fn of<'a>(lines: &'a [Value], message: &str, id: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message && line["request_id"] == id).collect()
}

#[track_caller]
fn only<'a>(lines: &'a [Value], message: &str, id: &str) -> &'a Value {
    match of(lines, message, id)[..] {
        [line] => line,
        ref other => panic!("{} lines `{message}` of {id}: {lines:#?}", other.len()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_about_a_request_have_its_id_kernel_and_tenant_at_any_level() {
    for level in ["warn", "debug"] {
        let level_flag = format!("--log-level={level},tower_kernels::serve=info");
        let server = json_server(&[&level_flag, "--circuit-breaker-enabled=false"]);
        let mut client = KernelClient::new(server.channel().await);
        tokio::task::block_in_place(|| {
            // A missed deadline, which is logged at level WARN.
            let late = document("graph/betweenness-centrality", &cycle(), "acme");
            let late = late.replace(r#""tenant""#, r#""timeout_ms": 300, "tenant""#);
            assert_eq!(server.post_as("/execute", &late, &["x-request-id: rest-late"]).0, 504);
            let bad = document("linalg/saxpy", BAD_INPUT, "acme");
            assert_eq!(server.post_as("/execute", &bad, &["x-request-id: rest-bad"]).0, 400);
            // An invalid request id, which is replaced.
            assert_eq!(server.post_as("/execute", &bad, &["x-request-id: a b"]).0, 400);
        });
        let mut late = call(execute("graph/betweenness-centrality", &cycle()), "grpc-late", "globex");
        late.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
        assert!(client.execute(late).await.is_err());
        assert!(client.execute(call(execute("linalg/saxpy", BAD_INPUT), "grpc-bad", "globex")).await.is_err());
        let mut late = streamed(3, "graph/betweenness-centrality", &cycle());
        late.timeout_ms = 300;
        let requests = [streamed(1, "linalg/saxpy", BAD_INPUT), streamed(2, "no/such", "1"), late];
        let responses = client.execute_stream(call(stream::iter(requests), "stream", "initech")).await;
        let mut responses = responses.unwrap().into_inner();
        while responses.message().await.unwrap().is_some() {}

        let log = tokio::task::block_in_place(|| ended(server));
        let lines = lines(&log);
        let slow = "graph/betweenness-centrality";
        let mut expected =
            vec![("rest-late", slow, "acme"), ("grpc-late", slow, "globex"), ("stream/3", slow, "initech")];
        if level == "debug" {
            expected.extend([
                ("rest-bad", "linalg/saxpy", "acme"),
                ("grpc-bad", "linalg/saxpy", "globex"),
                ("stream/1", "linalg/saxpy", "initech"),
                ("stream/2", "no/such", "initech"),
            ]);
        }
        for (id, kernel, tenant) in expected {
            let line = only(&lines, "request failed", id);
            assert_eq!((&line["kernel"], &line["tenant"]), (&kernel.into(), &tenant.into()), "{line}");
            assert_eq!(line["span"]["request_id"], id, "{line}");
        }
        for line in lines.iter().filter(|line| line["message"] == "request failed") {
            for name in ["request_id", "kernel", "tenant"] {
                assert!(line[name].is_string(), "{name}: {line}");
            }
            assert_ne!(line["request_id"], "a b");
        }
    }
}

#[test]
fn text_lines_have_the_request_id_too() {
    let server = Server::spawn(&mut program(LISTEN), &["--log-level=debug"]);
    let bad = document("linalg/saxpy", BAD_INPUT, "acme");
    assert_eq!(server.post_as("/execute", &bad, &["x-request-id: job-7"]).0, 400);
    let log = ended(server);
    let line = log.lines().find(|line| line.contains("request failed")).unwrap();
    let span = r#"request{request_id="job-7" kernel="linalg/saxpy" tenant="acme""#;
    assert!(line.contains(span) && !line.contains("otel."), "{line}");
}

/// A configuration with one key.
fn keys(key: &str) -> File {
    File::new(&format!("[auth]\napi_keys = [{{ tenant = \"acme\", key_sha256 = \"{}\" }}]\n", digest(key)))
}

fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_one_line_for_each_request() {
    const KEY: &str = "of-this-test-alone-and-long-enough";
    const SERVE_ALONE: &str = "--log-level=off,tower_kernels::serve=info";
    let config = keys(KEY);
    // More requests than the test sends before it exceeds the rate.
    let limits = ["--rate-limit-per-second=1", "--rate-limit-burst=10", "--rest-max-request-size=100000"];
    let server = json_server(&[&["--config", config.path(), SERVE_ALONE, "--log-access"][..], &limits].concat());
    let rest = |method: &str, path: &str, id: &str, key: &str, body: &str| {
        let headers = [format!("x-request-id: {id}"), format!("x-api-key: {key}")];
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        Call::begin(server.rest, method, path, &headers, body.len()).end(body.as_bytes())
    };
    let sent = tokio::task::block_in_place(|| {
        let (status, body) = rest("POST", &format!("{EXECUTE}?secret=1"), "ok", KEY, SAXPY);
        assert_eq!(status, 200, "{body}");
        assert_eq!(rest("POST", EXECUTE, "denied", "of-nobody", SAXPY).0, 401);
        assert_eq!(rest("POST", "/kernels/no/such/execute", "unknown", KEY, SAXPY).0, 404);
        assert_eq!(rest("GET", "/nowhere/%1b[31m", "nowhere", KEY, "").0, 404);
        assert_eq!(rest("GET", "/execute", "method", KEY, "").0, 405);
        assert_eq!(rest("GET", "/health/live", "probe", "", "").0, 200);
        let large = format!("[{}1]", "1,".repeat(60_000));
        assert_eq!(rest("POST", EXECUTE, "large", KEY, &large).0, 413);
        body.len()
    });
    let mut client = KernelClient::new(server.channel().await);
    let with_key = |id: &str, message: ExecuteRequest| {
        let mut request = call(message, id, "acme");
        request.metadata_mut().insert("x-api-key", KEY.parse().unwrap());
        request
    };
    client.execute(with_key("grpc-ok", execute("linalg/saxpy", SAXPY))).await.unwrap();
    client.execute(call(execute("linalg/saxpy", SAXPY), "grpc-denied", "acme")).await.unwrap_err();
    let requests = [streamed(1, "linalg/saxpy", SAXPY), streamed(2, "linalg/saxpy", BAD_INPUT)];
    let mut stream = Request::new(stream::iter(requests));
    stream.metadata_mut().insert("x-request-id", "stream".parse().unwrap());
    stream.metadata_mut().insert("x-api-key", KEY.parse().unwrap());
    let mut responses = client.execute_stream(stream).await.unwrap().into_inner();
    while responses.message().await.unwrap().is_some() {}
    let mut models = GrpcInferenceServiceClient::new(server.channel().await);
    let mut stream = Request::new(stream::iter([inference("linalg.saxpy"), inference("no.such")]));
    stream.metadata_mut().insert("x-request-id", "models".parse().unwrap());
    stream.metadata_mut().insert("x-api-key", KEY.parse().unwrap());
    let mut responses = models.model_stream_infer(stream).await.unwrap().into_inner();
    while responses.message().await.unwrap().is_some() {}
    drop((client, models));
    tokio::task::block_in_place(|| {
        // Until the rate is exceeded.
        let begun = Instant::now();
        while rest("POST", EXECUTE, "limited", KEY, SAXPY).0 != 429 {
            assert!(begun.elapsed() < PATIENCE, "the rate is not limited");
        }
    });

    let log = tokio::task::block_in_place(|| ended(server));
    let all: Vec<_> = lines(&log).into_iter().filter(|line| line["target"] != "tower_kernels::serve").collect();
    assert!(!log.contains("secret") && !log.contains(KEY) && !log.contains("of-nobody"), "{log}");
    let told = |id: &str, transport: &str, path: &str, status: i32, outcome: &str| {
        let line = only(&all, "request ended", id);
        assert_eq!((&line["transport"], &line["path"]), (&transport.into(), &path.into()), "{line}");
        let (this, other) = if transport == "rest" { ("status", "grpc_status") } else { ("grpc_status", "status") };
        assert_eq!((&line[this], &line[other]), (&status.into(), &Value::Null), "{line}");
        assert_eq!((&line["outcome"], &line["incomplete"]), (&outcome.into(), &Value::Null), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
        line.clone()
    };
    let ok = told("ok", "rest", EXECUTE, 200, "ok");
    assert_eq!((&ok["kernel"], &ok["tenant"], &ok["method"]), (&"linalg/saxpy".into(), &"acme".into(), &"POST".into()));
    assert_eq!((&ok["bytes_in"], &ok["bytes_out"]), (&SAXPY.len().into(), &sent.into()));
    let denied = told("denied", "rest", EXECUTE, 401, "unauthenticated");
    assert_eq!((&denied["tenant"], &denied["bytes_in"]), (&Value::Null, &0.into()));
    let unknown = told("unknown", "rest", "/kernels/no/such/execute", 404, "not_found");
    assert_eq!((&unknown["kernel"], &unknown["tenant"]), (&"no/such".into(), &"acme".into()));
    told("nowhere", "rest", "/nowhere/%1b[31m", 404, "not_found");
    told("method", "rest", "/execute", 405, "method_not_allowed");
    told("probe", "rest", "/health/live", 200, "ok");
    assert_eq!(told("large", "rest", EXECUTE, 413, "too_large")["kernel"], "linalg/saxpy");
    let limited = all.iter().rfind(|line| line["request_id"] == "limited").unwrap();
    assert_eq!((&limited["status"], &limited["outcome"]), (&429.into(), &"rate_limited".into()));
    let method = |name: &str| format!("/tower_kernels.v1.Kernel/{name}");
    let ok = told("grpc-ok", "grpc", &method("Execute"), 0, "ok");
    assert_eq!((&ok["kernel"], &ok["tenant"]), (&"linalg/saxpy".into(), &"acme".into()));
    assert!(ok["bytes_in"].as_u64() > Some(5) && ok["bytes_out"].as_u64() > Some(5), "{ok}");
    told("grpc-denied", "grpc", &method("Execute"), 16, "unauthenticated");
    told("stream", "grpc", &method("ExecuteStream"), 0, "ok");
    let first = told("stream/1", "grpc_stream", &method("ExecuteStream"), 0, "ok");
    assert_eq!((&first["kernel"], &first["tenant"]), (&"linalg/saxpy".into(), &"acme".into()));
    assert!(first["bytes_in"].as_u64() > Some(0) && first["bytes_out"].as_u64() > Some(0), "{first}");
    told("stream/2", "grpc_stream", &method("ExecuteStream"), 3, "invalid_argument");
    let models = "/inference.GRPCInferenceService/ModelStreamInfer";
    told("models", "grpc", models, 0, "ok");
    let first = told("models/1", "grpc_stream", models, 0, "ok");
    assert_eq!((&first["kernel"], &first["tenant"]), (&"linalg/saxpy".into(), &"acme".into()));
    assert!(first["bytes_in"].as_u64() > Some(0) && first["bytes_out"].as_u64() > Some(0), "{first}");
    told("models/2", "grpc_stream", models, 5, "not_found");
}

#[test]
fn paths_in_the_access_log_are_escaped_and_truncated() {
    use std::io::{Read, Write};

    let server = Server::spawn(&mut program(LISTEN), &["--log-access"]);
    let mut stream = std::net::TcpStream::connect(server.rest).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let path = format!("/evil\u{9b}31m\u{202e}/{}", "x".repeat(4000));
    write!(stream, "GET {path}?token=secret HTTP/1.1\r\nhost: test\r\nx-request-id: evil\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 404"), "{response}");
    let log = ended(server);
    let line = log.lines().find(|line| line.contains("request ended")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(r#"path="/evil\u{9b}31m\u{202e}/xxx"#) && line.contains(r#"request_id="evil""#), "{line}");
    assert!(line.len() < 2000 && !line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_client_is_logged_as_cancelled() {
    let server = json_server(&["--log-access"]);
    let waits = |count: f64| {
        let begun = Instant::now();
        let running = |page: &str| {
            let values = page.lines().filter_map(|line| line.strip_prefix("kernel_requests_in_flight{"));
            values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
        };
        while running(&server.get("/metrics").1) != count {
            assert!(begun.elapsed() < PATIENCE, "{count} requests do not run");
        }
    };
    let path = "/kernels/graph/betweenness-centrality/execute";
    tokio::task::block_in_place(|| {
        let input = cycle();
        let mut call = Call::begin(server.rest, "POST", path, &["x-request-id: rest-left"], input.len());
        call.send(input.as_bytes());
        waits(1.0);
        drop(call);
        waits(0.0);
    });
    let mut client = KernelClient::new(server.channel().await);
    let slow = call(execute("graph/betweenness-centrality", &cycle()), "grpc-left", "acme");
    let left = tokio::spawn(async move { client.execute(slow).await });
    tokio::task::block_in_place(|| waits(1.0));
    left.abort();
    tokio::task::block_in_place(|| waits(0.0));
    let log = tokio::task::block_in_place(|| ended(server));
    for id in ["rest-left", "grpc-left"] {
        let all = lines(&log);
        let line = only(&all, "request ended", id);
        assert_eq!((&line["outcome"], &line["status"]), (&"cancelled".into(), &Value::Null), "{line}");
        assert_eq!(line["incomplete"], "the connection or stream was closed before the response", "{line}");
        assert_eq!(line["kernel"], "graph/betweenness-centrality", "{line}");
    }
}

#[test]
fn successes_and_unknown_kernels_are_logged_at_debug_and_not_at_info() {
    for (level, logged) in [("info", 0), ("debug", 1)] {
        let server = json_server(&[&format!("--log-level={level}")]);
        assert_eq!(server.post_as(EXECUTE, SAXPY, &["x-request-id: fine"]).0, 200);
        assert_eq!(server.post_as("/kernels/no/such/execute", SAXPY, &["x-request-id: unknown"]).0, 404);
        let unknown = document("no/such", "1", "acme");
        assert_eq!(server.post_as("/execute", &unknown, &["x-request-id: unknown-too"]).0, 404);
        let log = ended(server);
        let all = lines(&log);
        for (id, outcome) in [("fine", "ok"), ("unknown", "not_found"), ("unknown-too", "not_found")] {
            let lines = of(&all, "request ended", id);
            assert_eq!(lines.len(), logged, "{level}, {id}: {log}");
            assert!(lines.iter().all(|line| line["outcome"] == outcome && line["level"] == "DEBUG"), "{lines:?}");
        }
    }
}

#[test]
fn startup_logs_the_settings_that_differ_from_the_defaults_with_their_source() {
    const KEY: &str = "of-this-test-alone-and-long-enough";
    let config = keys(KEY);
    let args = ["--config", config.path(), "--drain-limit=3s", "--rest-cors=false"];
    let mut command = program(LISTEN);
    let server = Server::spawn(command.env("TOWER_KERNELS_TIMEOUT", "7s"), &args);
    let log = ended(server);
    let from = log.find("settings that differ from the defaults").unwrap_or_else(|| panic!("{log}"));
    let settings: Vec<_> = log[from..].lines().skip(1).take_while(|line| line.starts_with("  ")).collect();
    let keys = r#"[{ key_sha256 = "(redacted)", tenant = "acme" }]"#;
    let file = format!("    api_keys = {keys}  # file {}", config.path());
    for line in [
        "    timeout = \"7s\"  # env TOWER_KERNELS_TIMEOUT",
        "  [rest]",
        "    listen = \"127.0.0.1:0\"  # flag --rest-listen",
        "  [auth]",
        &file,
        "  [drain]",
        "    notice = \"0s\"  # flag --drain-notice",
        "    limit = \"3s\"  # flag --drain-limit",
    ] {
        assert!(settings.contains(&line), "{line} is not in {settings:#?}");
    }
    // Set to its default.
    assert!(!settings.iter().any(|line| line.contains("cors")), "{settings:#?}");
    assert!(!log.contains(&digest(KEY)), "{log}");

    let log = ended(json_server(&["--drain-limit=3s"]));
    let all = lines(&log);
    let limit = all.iter().find(|line| line["key"] == "drain.limit").unwrap_or_else(|| panic!("{log}"));
    assert_eq!((&limit["value"], &limit["source"]), (&"\"3s\"".into(), &"flag --drain-limit".into()), "{limit}");
}

#[test]
fn the_startup_message_has_the_docs_url_and_matches_the_readme() {
    let server = Server::spawn(&mut program(LISTEN), &[]);
    let startup_message = server.stdout.until("Try it:\n  curl");
    let docs = format!("  docs     http://{}/docs", server.rest);
    assert!(startup_message.lines().any(|line| line == docs), "{startup_message}");
    assert!(matches!(server.get("/docs").0, 200 | 303 | 307 | 308));
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with("tower-kernels ")).skip(1);
        let lines = lines.take_while(|line| *line != "Try it:");
        lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    };
    let readme = include_str!("../../README.md");
    assert_eq!(
        names(&startup_message),
        names(&readme[readme.find("```text\ntower-kernels ").unwrap()..]),
        "{startup_message}"
    );
    // Without REST there is no documentation page.
    let mut without_rest = program(["serve", "--rest-listen=off", "--grpc-listen=127.0.0.1:0"]).spawn().unwrap();
    let startup_message = Text::of(without_rest.stdout.take().unwrap()).until("auth ");
    without_rest.kill().unwrap();
    without_rest.wait().unwrap();
    assert!(!startup_message.contains("docs"), "{startup_message}");
}

#[test]
fn a_client_of_rest_sets_its_deadline_by_a_header_or_in_the_document() {
    let server = Server::spawn(&mut program(LISTEN), &["--circuit-breaker-enabled=false"]);
    let path = "/kernels/graph/betweenness-centrality/execute";
    for header in ["grpc-timeout: 200m", "connect-timeout-ms: 200"] {
        let (status, body) = server.post_as(path, &cycle(), &[header]);
        // 408 if the deadline passes while the body is read.
        assert!(matches!(status, 408 | 504), "{header}: {status} {body}");
    }
    let input = cycle();
    let document = format!(
        r#"{{"kernel_id": "graph/betweenness-centrality", "input": {input}, "metadata": {{"timeout_ms": 200}}}}"#
    );
    let (status, body) = server.post("/execute", &document);
    assert_eq!(status, 504, "{body}");
    assert!(body.contains("deadline_exceeded"), "{body}");

    let (_, document) = server.get("/openapi.json");
    let document: Value = serde_json::from_str(&document).unwrap();
    for path in ["/execute", EXECUTE] {
        let parameters = &document["paths"][path]["post"]["parameters"];
        let named: Vec<_> = parameters.as_array().unwrap_or_else(|| panic!("{path}: {document:#}")).iter().collect();
        let text = serde_json::to_string(&named).unwrap();
        assert!(text.contains("grpc-timeout") && text.contains("connect-timeout-ms"), "{path}: {text}");
    }
    assert!(document.to_string().contains("timeout_ms"), "{document}");
}
