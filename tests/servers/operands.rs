//! `/operands` over real sockets: what clients store, see and refer to, and what a bad one cannot do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::grpc::HealthService;
use tower_kernels::service::{
    Bf16, F16, HostMemory, KernelRegistry, KernelService, OperandLimits, Operands, Payload, PutOptions, RunContext,
};

use crate::axum::server::{JSON, Server};
use crate::support::http_client::{HttpResponse, head};
use crate::support::kernels::RowDot;

const GRAPH: &str = "/operands/payments?type=graph";
const ID: &str = "graph/betweenness-centrality";

async fn start(change: impl FnOnce(&mut OperandLimits)) -> (Server, Arc<KernelRegistry>) {
    let mut limits = OperandLimits::default();
    change(&mut limits);
    let registry = KernelRegistry::with_operands(Operands::new(limits));
    tower_kernels::kernels::register_all(&registry).unwrap();
    let registry = Arc::new(registry);
    let router = KernelRouter::new(Arc::clone(&registry), RouterConfig::default());
    (Server::serve(router.max_operand_size(1 << 20).into_router()).await, registry)
}

/// A directory of operands, removed on drop.
struct TempDirectory(PathBuf);

impl TempDirectory {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tower-kernels-{name}-{}", std::process::id())))
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        // It may not have been created.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The catalogue with the operands of a directory, which have yet to be loaded.
fn restarted(directory: &TempDirectory) -> Arc<KernelRegistry> {
    let operands = Operands::open(OperandLimits::default(), &directory.0).unwrap();
    let registry = KernelRegistry::with_operands(operands);
    tower_kernels::kernels::register_all(&registry).unwrap();
    Arc::new(registry)
}

async fn put(server: &Server, path: &str, headers: &[(&str, &str)], value: &Value) -> HttpResponse {
    server.request("PUT", path, &[&[JSON], headers].concat(), value.to_string().as_bytes()).await
}

fn path_of(nodes: u32) -> Value {
    json!({"num_nodes": nodes, "edges": (1..nodes).map(|node| [node - 1, node]).collect::<Vec<_>>()})
}

async fn scores(server: &Server, graph: Value) -> HttpResponse {
    server.post("/execute", &json!({"kernel_id": ID, "input": {"graph": graph, "normalized": false}})).await
}

#[tokio::test]
async fn a_graph_is_put_once_and_asked_often() {
    let (server, registry) = start(|_| ()).await;
    assert_eq!(server.get("/operands").await.json(), json!({"operands": [], "total": 0}));
    let answer = put(&server, GRAPH, &[], &path_of(4)).await;
    assert_eq!((answer.status, answer.header("location")), (201, Some("/operands/payments")), "{answer:?}");
    let stored = answer.json();
    let summary = json!({"nodes": 4, "edges": 3, "directed": false, "weighted": false});
    assert_eq!((&stored["name"], &stored["version"], &stored["summary"]), (&"payments".into(), &1.into(), &summary));
    assert_eq!(
        (stored["bytes"].as_u64(), stored["etag"].as_str()),
        (Some(4 * (5 + 6) + 4 * (4 + 5 + 3)), answer.header("etag"))
    );
    for _ in 0..3 {
        let answer = scores(&server, json!({"operand": "payments"})).await;
        assert_eq!(answer.json()["output"]["scores"], json!([0.0, 2.0, 2.0, 0.0]), "{answer:?}");
    }
    let health = server.get("/health").await.json();
    assert_eq!(
        health["components"]["operands"],
        json!({"status": "healthy", "operands": 1, "versions": 1, "bytes": 92})
    );
    for (line, value) in [
        ("kernel_operands ", 1.0),
        ("kernel_operand_memory_bytes ", 92.0),
        ("kernel_operands_stored_total ", 1.0),
        ("kernel_operand_references_total ", 3.0),
    ] {
        assert_eq!(server.metric(line).await, Some(value), "{line}");
    }
    let described = server.get("/operands/payments").await;
    assert_eq!((described.status, &described.json()["uses"]), (200, &json!(3)));
    let tag = described.header("etag").unwrap();
    let known = server.request("GET", "/operands/payments@1", &[("if-none-match", tag)], b"").await;
    assert_eq!((known.status, known.header("etag"), &*known.body), (304, Some(tag), ""));
    assert_eq!(server.request("GET", "/operands/payments", &[("if-none-match", "\"0-0\"")], b"").await.status, 200);

    assert_eq!(put(&server, GRAPH, &[], &path_of(3)).await.json()["version"], 2);
    assert_eq!(
        scores(&server, json!({"operand": "payments"})).await.json()["output"]["scores"],
        json!([0.0, 1.0, 0.0])
    );
    let old = scores(&server, json!({"operand": "payments@1"})).await;
    assert!(old.problem(400, "invalid_argument").contains("there is no operand `payments@1`"), "{old:?}");
    assert_eq!(old.json()["field"], "graph");
    let page = server.get("/operands?limit=1").await.json();
    assert_eq!((&page["total"], &page["operands"][0]["version"], page.get("next")), (&1.into(), &2.into(), None));

    assert_eq!(server.request("DELETE", "/operands/payments@1", &[], b"").await.status, 404);
    assert_eq!(server.request("DELETE", "/operands/payments", &[], b"").await.json()["version"], 2);
    server.get("/operands/payments").await.problem(404, "not_found");
    assert_eq!((registry.operands().usage().versions, registry.operands().usage().bytes), (0, 0));
}

#[tokio::test]
async fn operands_in_a_directory_are_there_after_a_restart_once_they_are_loaded() {
    let directory = TempDirectory::new("restart");
    let registry = restarted(&directory);
    registry.operands().load();
    let store = |name| {
        let (value, options) = (Payload::json(path_of(4).to_string()), PutOptions::default());
        registry.operands().put_payload(name, "graph", value, &options, &RunContext::detached()).unwrap().info()
    };
    let (stored, _) = (store("payments"), store("other"));
    drop(registry);

    let registry = restarted(&directory);
    let router = KernelRouter::new(Arc::clone(&registry), RouterConfig::default());
    let server = Server::serve(router.into_router()).await;
    let kernels = KernelService::new(Arc::clone(&registry));
    let mut grpc = HealthClient::new(HealthService::of(&kernels));
    let mut grpc_status = async || {
        let request = HealthCheckRequest { service: String::new() };
        grpc.check(request).await.unwrap().into_inner().status()
    };
    assert_eq!(grpc_status().await, ServingStatus::NotServing);
    let loading = "the stored operands are being loaded";
    assert!(server.get("/health/ready").await.problem(503, "unavailable").contains(loading));
    assert_eq!(server.get("/health/live").await.status, 200);
    assert_eq!(server.get("/health").await.json()["components"]["operands"]["directory"]["loading"], true);
    for response in [
        server.get("/operands/payments").await,
        put(&server, GRAPH, &[], &path_of(2)).await,
        server.request("DELETE", "/operands/payments", &[], b"").await,
        scores(&server, json!({"operand": "payments"})).await,
    ] {
        assert!(response.problem(503, "unavailable").contains(loading), "{response:?}");
        assert_eq!(response.header("retry-after"), Some("1"), "{response:?}");
    }
    assert_eq!(scores(&server, path_of(3)).await.status, 200, "what needs no operand runs");

    registry.operands().load();
    assert_eq!((grpc_status().await, server.get("/health/ready").await.status), (ServingStatus::Serving, 200));
    let described = server.get("/operands/payments").await;
    assert_eq!((described.header("etag"), described.json()), (Some(&*stored.etag), json!(stored)));
    let output = scores(&server, json!({"operand": "payments@1"})).await.json();
    assert_eq!(output["output"]["scores"], json!([0.0, 2.0, 2.0, 0.0]), "{output}");
    let bytes = registry.operands().usage().directory.unwrap().bytes;
    let health = server.get("/health").await.json();
    let expected = json!({"loading": false, "bytes": bytes, "skipped": 0});
    assert_eq!(health["components"]["operands"]["directory"], expected);
    assert_eq!(server.metric("kernel_operand_directory_bytes ").await, Some(bytes as f64));
    assert_eq!(server.metric("kernel_operand_files_skipped_total ").await, Some(0.0));
    assert_eq!(server.request("DELETE", "/operands/payments", &[], b"").await.status, 200);
    // Its record is removed before the response; the value is that of the other one as well.
    let files = std::fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
    let extensions: Vec<_> = files.filter_map(|path| Some(path.extension()?.to_str()?.to_owned())).collect();
    let count = |extension| extensions.iter().filter(|one| *one == extension).count();
    assert_eq!((count("version"), count("operand"), count("partial")), (1, 1, 0));
}

#[tokio::test]
async fn tensors_are_stored_as_they_come_and_any_array_can_refer_to_them() {
    let (server, registry) = start(|_| ()).await;
    let data: Vec<u8> = [1.0_f32, 2.5].iter().flat_map(|value| value.to_le_bytes()).collect();
    let input = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2],
        "parameters": {"binary_data_size": 8}}]});
    let input = input.to_string();
    let length = input.len().to_string();
    let headers = [("content-type", "application/octet-stream"), ("inference-header-content-length", &*length)];
    let body = [input.as_bytes(), &data].concat();
    let answer = server.request("PUT", "/operands/v?type=tensors", &headers, &body).await;
    assert_eq!(answer.json()["summary"], json!({"tensors": {"x": {"dtype": "float32", "shape": [2]}}}), "{answer:?}");
    let saxpy = json!({"a": 2.0, "x": {"operand": "v"}, "y": {"operand": "v@1/x"}});
    let answer = server.post("/kernels/linalg/saxpy/execute", &saxpy).await;
    assert_eq!(answer.json()["output"]["y"], json!([3.0, 7.5]), "{answer:?}");
    assert_eq!(registry.operands().usage().bytes, 8);
}

/// The bytes of numbers in a 16- or 32-bit format.
fn encode(datatype: &str, numbers: &[f32]) -> Vec<u8> {
    match datatype {
        "FP32" => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        "FP16" => numbers.iter().flat_map(|&number| F16::from_f32(number).to_bits().to_le_bytes()).collect(),
        "BF16" => numbers.iter().flat_map(|&number| Bf16::from_f32(number).to_bits().to_le_bytes()).collect(),
        other => unreachable!("{other}"),
    }
}

#[tokio::test]
async fn vectors_in_each_precision_are_put_as_json_and_tensors_and_queried_by_name_or_inline() {
    let (server, registry) = start(|_| ()).await;
    registry.register(RowDot).unwrap();
    let numbers = [1.0, 2.0, 0.5, -4.0, 8.0, 0.25];
    let rows = json!([numbers[..2], numbers[2..4], numbers[4..]]);
    let expected = json!([5.0, -7.5, 8.5]);
    let scores = async |corpus: &Value| {
        let input = json!({"corpus": corpus, "query": [1.0, 2.0]});
        server.post("/execute", &json!({"kernel_id": "test/row-dot", "input": input})).await
    };
    scores(&json!({"operand": "corpus"})).await.problem(400, "invalid_argument");
    for (version, (dtype, datatype, size)) in
        [("float32", "FP32", 4), ("float16", "FP16", 2), ("bfloat16", "BF16", 2)].into_iter().enumerate()
    {
        let inline = json!({"vectors": rows, "dtype": dtype});
        let stored = put(&server, "/operands/corpus?type=vectors", &[], &inline).await;
        assert_eq!(stored.status, 201, "{stored:?}");
        let stored = stored.json();
        assert_eq!(stored["summary"], json!({"rows": 3, "dimension": 2, "dtype": dtype}));
        assert_eq!((&stored["type"], &stored["bytes"]), (&json!("vectors"), &json!(6 * size + 3 * 4)));
        for corpus in [inline, json!({"operand": "corpus"}), json!({"operand": format!("corpus@{}", 2 * version + 1)})]
        {
            let answer = scores(&corpus).await;
            assert_eq!(answer.json()["output"]["scores"], expected, "{corpus}: {answer:?}");
        }

        let head = json!({"inputs": [{"name": "vectors", "datatype": datatype, "shape": [3, 2],
            "parameters": {"binary_data_size": 6 * size}}]});
        let head = head.to_string();
        let length = head.len().to_string();
        let headers = [("content-type", "application/octet-stream"), ("inference-header-content-length", &*length)];
        let body = [head.as_bytes(), &encode(datatype, &numbers)].concat();
        let same = server.request("PUT", "/operands/corpus?type=vectors", &headers, &body).await.json();
        let hash = |stored: &Value| stored["etag"].as_str().unwrap().split_once('-').unwrap().1.to_owned();
        assert_eq!((hash(&same), &same["summary"]), (hash(&stored), &stored["summary"]), "the same content");
        assert_eq!(scores(&json!({"operand": "corpus"})).await.json()["output"]["scores"], expected);
    }
    let used = registry.operands().usage();
    assert_eq!((used.operands, used.versions, used.bytes), (1, 1, 12 + 3 * 4));

    for (corpus, field, says) in [
        (json!({"vectors": [[1.0, 2.0], [1.0]]}), "corpus.vectors[1]", "the first has 2"),
        (json!({"vectors": [[1.0, 1e39]]}), "corpus.vectors[0][1]", "out of range"),
        (json!({"vectors": [[1.0]]}), "query", "another dimension"),
        (json!({"operand": "payments"}), "corpus", "is of type graph where vectors is expected"),
    ] {
        put(&server, GRAPH, &[], &path_of(2)).await;
        let answer = scores(&corpus).await;
        assert!(answer.problem(400, "invalid_argument").contains(says), "{answer:?}");
        assert_eq!(answer.json()["field"], field, "{answer:?}");
    }
    let ragged = json!({"vectors": [[1.0], [2.0, 3.0]]});
    let answer = put(&server, "/operands/corpus?type=vectors", &[], &ragged).await;
    assert!(answer.problem(400, "invalid_argument").contains("has 2 numbers, and the first has 1"), "{answer:?}");
    assert_eq!(server.get("/operands/corpus").await.json()["summary"]["dtype"], "bfloat16", "the old version stays");
}

#[tokio::test]
async fn a_bad_upload_leaves_the_old_version() {
    let (server, registry) = start(|limits| limits.max_bytes = 1000).await;
    assert_eq!(put(&server, GRAPH, &[], &path_of(4)).await.status, 201);
    for (path, value, status, code, says) in [
        (GRAPH, json!({"num_nodes": 2, "edges": [[0, 2]]}), 400, "invalid_argument", "edges[0][1]"),
        (GRAPH, json!([1]), 400, "invalid_argument", "input"),
        ("/operands/payments?type=matrix", path_of(4), 400, "invalid_argument", "tensors"),
        ("/operands/payments", path_of(4), 400, "invalid_argument", "type"),
        ("/operands/payments?type=graph&no=1", path_of(4), 400, "invalid_argument", "no"),
        (GRAPH, path_of(100), 507, "insufficient_storage", "2396 bytes, and 908"),
        (GRAPH, json!({"num_nodes": 2, "edges": [], "x": "y".repeat(2 << 20)}), 413, "too_large", "1048576"),
        ("/operands/.hidden?type=graph", path_of(4), 400, "invalid_argument", "starts with a dot"),
        ("/operands/a%2Fb?type=graph", path_of(4), 400, "invalid_argument", "a character other than"),
        ("/operands/na%C3%AFve?type=graph", path_of(4), 400, "invalid_argument", "a character other than"),
        ("/operands/payments@1?type=graph", path_of(4), 400, "invalid_argument", "a character other than"),
    ] {
        let answer = put(&server, path, &[], &value).await;
        assert!(answer.problem(status, code).contains(says), "{path}: {answer:?}");
    }
    let long = format!("/operands/{}?type=graph", "x".repeat(10_000));
    assert!(put(&server, &long, &[], &path_of(4)).await.problem(400, "invalid_argument").contains("128 bytes"));
    let text = server.request("PUT", GRAPH, &[("content-type", "text/csv")], b"0,1").await;
    text.problem(415, "unsupported_media_type");
    for (method, path) in [("POST", "/operands/payments"), ("PUT", "/operands")] {
        let answer = server.request(method, path, &[JSON], b"{}").await;
        answer.problem(405, "method_not_allowed");
        assert!(answer.header("allow").unwrap().contains("GET"), "{answer:?}");
    }
    // The client goes away in the middle of a body, and after one that takes long.
    for sent in [20, 200] {
        let body = path_of(60).to_string();
        let mut stream = server.say(head("PUT", GRAPH, &[JSON], Some(body.len()), true)).await;
        stream.write_all(&body.as_bytes()[..sent]).await.unwrap();
        drop(stream);
    }
    let described = server.get("/operands/payments").await.json();
    assert_eq!((&described["version"], &described["summary"]["nodes"]), (&1.into(), &4.into()));
    until(|| registry.operands().usage().versions == 1).await;
    assert_eq!(registry.operands().usage().bytes, 92);
}

async fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The headers and the head of the upload of a set with one tensor of `bytes` bytes.
fn upload_of(bytes: usize) -> (String, [(&'static str, String); 2]) {
    let head = json!({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [bytes],
        "parameters": {"binary_data_size": bytes}}]});
    let head = head.to_string();
    let length = head.len().to_string();
    let headers =
        [("content-type", "application/octet-stream".to_owned()), ("inference-header-content-length", length)];
    (head, headers)
}

/// The bytes that uploads have.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Begins an upload of one tensor of `bytes` bytes, of which `sent` are sent, with these headers as well.
async fn begin_upload(server: &Server, path: &str, bytes: usize, sent: usize, more: &[(&str, &str)]) -> TcpStream {
    let (tensors, headers) = upload_of(bytes);
    let headers = headers.each_ref().map(|(name, value)| (*name, &**value));
    let headers = [&headers, more].concat();
    let mut stream = server.say(head("PUT", path, &headers, Some(tensors.len() + bytes), false)).await;
    // An upload that is rejected need not be read.
    let _ = stream.write_all(&[tensors.as_bytes(), &pattern(sent)].concat()).await;
    stream
}

const SET: &str = "/operands/x?type=tensors";

#[tokio::test]
async fn tensors_that_exceed_a_budget_are_rejected_before_they_are_sent() {
    let limit = |limits: &mut OperandLimits| (limits.max_bytes, limits.max_bytes_per_tenant) = (1000, 600);
    let (server, registry) = start(limit).await;
    assert_eq!(HttpResponse::receive(begin_upload(&server, SET, 500, 500, &[]).await).await.status, 201);
    for (path, need, free, of) in [
        (SET, 101, 100, "the tenant's memory for operands"),
        ("/operands/x?type=tensors&tenant=acme", 501, 500, "the memory of all operands"),
    ] {
        let says = format!("the operand needs {need} bytes, and {free} of {of} are free");
        let over = HttpResponse::receive(begin_upload(&server, path, need, 0, &[]).await).await;
        assert_eq!(over.problem(507, "insufficient_storage"), says, "{over:?}");
        assert_eq!(over.header("connection"), Some("close"));
        // Without a length, as soon as the head says what there is to come.
        let (tensors, headers) = upload_of(need);
        let headers = headers.each_ref().map(|(name, value)| (*name, &**value));
        let headers = [&headers[..], &[("transfer-encoding", "chunked")]].concat();
        let chunk = format!("{:x}\r\n{tensors}\r\n", tensors.len());
        let stream = server.say(head("PUT", path, &headers, None, false) + &chunk).await;
        let over = HttpResponse::receive(stream).await;
        assert_eq!(over.problem(507, "insufficient_storage"), says, "{over:?}");
    }
    let usage = registry.operands().usage();
    assert_eq!((usage.bytes, usage.rejected, usage.failed, usage.stored), (500, 4, 0, 1));
    assert_eq!(server.metric("kernel_operands_rejected_total ").await, Some(4.0));
}

#[tokio::test]
async fn uploads_reserve_their_memory_while_they_are_received_and_release_it_if_they_fail() {
    let (server, registry) = start(|limits| limits.max_bytes = 1000).await;
    let bytes = || registry.operands().usage().bytes;
    let stalled = begin_upload(&server, SET, 600, 1, &[]).await;
    until(|| bytes() == 600).await;
    let over = HttpResponse::receive(begin_upload(&server, SET, 401, 401, &[]).await).await;
    assert!(over.problem(507, "insufficient_storage").contains("401 bytes, and 400"), "{over:?}");
    assert_eq!(HttpResponse::receive(begin_upload(&server, SET, 400, 400, &[]).await).await.status, 201);
    drop(stalled);
    until(|| bytes() == 400).await;
    // Its time is over.
    let late = begin_upload(&server, SET, 600, 1, &[("connect-timeout-ms", "100")]).await;
    HttpResponse::receive(late).await.problem(408, "request_timeout");
    assert_eq!(bytes(), 400);
    // It is no graph.
    let invalid = begin_upload(&server, "/operands/g?type=graph", 600, 600, &[]).await;
    HttpResponse::receive(invalid).await.problem(400, "invalid_argument");
    assert_eq!(bytes(), 400);
    // There is one.
    let one = HttpResponse::receive(begin_upload(&server, SET, 300, 300, &[("if-none-match", "*")]).await).await;
    one.problem(412, "precondition_failed");
    assert_eq!((bytes(), registry.operands().usage().versions), (400, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_at_the_same_time_stay_within_the_budgets() {
    let limit = |limits: &mut OperandLimits| (limits.max_bytes, limits.max_bytes_per_tenant) = (1000, 650);
    let (server, registry) = start(limit).await;
    let upload = async |tenant: &str, number: usize| {
        let path = format!("/operands/x{number}?type=tensors&tenant={tenant}");
        HttpResponse::receive(begin_upload(&server, &path, 300, 300, &[]).await).await.status
    };
    for _ in 0..10 {
        let uploads = (0..12).map(|number| upload(["acme", "globex"][number % 2], number));
        let watched = async {
            let uploads = futures::future::join_all(uploads);
            let mut uploads = std::pin::pin!(uploads);
            loop {
                tokio::select! {
                    statuses = &mut uploads => return statuses,
                    () = tokio::task::yield_now() => assert!(registry.operands().usage().bytes <= 1000),
                }
            }
        };
        let mut statuses = watched.await;
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![201; 3], vec![507; 9]].concat());
        assert_eq!(registry.operands().usage().bytes, 900);
        for number in 0..12 {
            let tenant = ["acme", "globex"][number % 2];
            server.request("DELETE", &format!("/operands/x{number}?tenant={tenant}"), &[], b"").await;
        }
        assert_eq!((registry.operands().usage().bytes, registry.operands().usage().versions), (0, 0));
    }
}

#[tokio::test]
async fn an_operand_can_be_larger_than_the_memory_of_requests() {
    let memory = HostMemory::new(1 << 20);
    let registry = Arc::new(KernelRegistry::new());
    let router = KernelRouter::new(Arc::clone(&registry), RouterConfig::default()).memory(memory.clone());
    let server = Server::serve(router.into_router()).await;
    // One that is copied while it is received.
    let bytes = 65 << 20;
    let stored = HttpResponse::receive(begin_upload(&server, SET, bytes, bytes, &[]).await).await;
    assert_eq!((stored.status, &stored.json()["bytes"]), (201, &json!(bytes)), "{stored:?}");
    assert!(registry.operands().get(None, "x").unwrap().arrays()[0].bytes == pattern(bytes));
    assert!(memory.peak() <= 1 << 19, "{}", memory.peak());
    // JSON is not the operand, and counts to the memory of requests.
    let large = put(&server, "/operands/y?type=tensors", &[], &json!({"x": vec![1; 400_000]})).await;
    large.problem(413, "too_large");
    assert_eq!((registry.operands().usage().bytes, memory.used()), (bytes as u64, 0));
}

#[tokio::test]
async fn of_several_writers_of_one_condition_one_succeeds() {
    let (server, _) = start(|_| ()).await;
    let round = async |condition: (&'static str, String)| {
        let writers = (2..10).map(|nodes| {
            let headers = [(condition.0, condition.1.clone())];
            let server = &server;
            async move {
                let headers = headers.each_ref().map(|(name, value)| (*name, &**value));
                put(server, GRAPH, &headers, &path_of(nodes)).await.status
            }
        });
        let mut statuses = futures::future::join_all(writers).await;
        statuses.sort_unstable();
        statuses
    };
    let one = [vec![201], vec![412; 7]].concat();
    assert_eq!(round(("if-none-match", "*".to_owned())).await, one);
    let tag = server.get("/operands/payments").await.header("etag").unwrap().to_owned();
    assert_eq!(round(("if-match", tag.clone())).await, one);
    assert_eq!(server.request("DELETE", "/operands/payments", &[("if-match", &tag)], b"").await.status, 412);
    let answer = put(&server, GRAPH, &[("if-match", "7")], &path_of(2)).await;
    assert_eq!((answer.status, &answer.json()["field"]), (400, &"if-match".into()));
    assert_eq!(server.get("/operands/payments").await.json()["version"], 2);
}

#[tokio::test]
async fn tenants_do_not_learn_of_each_others_operands() {
    let (server, _) = start(|limits| limits.max_bytes_per_tenant = 180).await;
    let path = |rest: &str, tenant: &str| {
        format!("/operands{rest}{}tenant={tenant}", if rest.contains('?') { '&' } else { '?' })
    };
    let graph = |name: &str, more: &str, tenant| path(&format!("/{name}?type=graph{more}"), tenant);
    assert_eq!(put(&server, &graph("payments", "", "acme"), &[], &path_of(4)).await.status, 201);
    let over = put(&server, &graph("more", "", "acme"), &[], &path_of(8)).await;
    assert!(over.problem(507, "insufficient_storage").contains("the tenant's memory"), "{over:?}");
    for (path, total) in [(path("", "acme"), 1), (path("", "globex"), 0), ("/operands".to_owned(), 0)] {
        assert_eq!(server.get(&path).await.json()["total"], total, "{path}");
    }
    let seen = server.get(&path("/payments", "globex")).await.problem(404, "not_found");
    let never = server.get(&path("/nobodys", "globex")).await.problem(404, "not_found");
    assert_eq!(seen.replace("payments", "nobodys"), never);
    server.request("DELETE", &path("/payments", "globex"), &[], b"").await.problem(404, "not_found");
    let input = json!({"graph": {"operand": "payments"}});
    for (tenant, status) in [("acme", 200), ("globex", 400)] {
        let document = json!({"kernel_id": ID, "input": input, "metadata": {"tenant": tenant}});
        assert_eq!(server.post("/execute", &document).await.status, status, "{tenant}");
    }
    let public = |tenant| graph("open", "&public=true", tenant);
    assert_eq!(put(&server, &public("acme"), &[], &path_of(3)).await.status, 201);
    assert_eq!(server.get(&path("/open", "globex")).await.json()["public"], true);
    put(&server, &public("globex"), &[], &path_of(3)).await.problem(409, "already_exists");
    put(&server, &graph("a", "", "%00"), &[], &path_of(3)).await.problem(400, "invalid_argument");
}

#[tokio::test]
async fn the_openapi_document_says_what_names_types_and_placements_there_are() {
    let (server, _) = start(|_| ()).await;
    let document = server.get("/openapi.json").await.json();
    let parameter = |method: &str, name: &str| {
        let parameters = document["paths"]["/operands/{name}"][method]["parameters"].as_array().unwrap();
        let mut found = parameters.iter().filter(|parameter| parameter["name"] == name);
        let schema = found.next().expect(name)["schema"].clone();
        assert_eq!(found.count(), 0, "{name} is there once");
        schema
    };
    let name = parameter("put", "name");
    let pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$";
    assert_eq!((&name["pattern"], &name["maxLength"]), (&json!(pattern), &json!(128)));
    for method in ["get", "delete"] {
        let name = parameter(method, "name");
        assert_eq!((&name["pattern"].as_str().unwrap()[35..], &name["maxLength"]), ("(@[0-9]{1,20})?$", &json!(149)));
    }
    let types = parameter("put", "type")["enum"].clone();
    assert!(
        ["graph", "vectors", "tensors"].iter().all(|name| types.as_array().unwrap().contains(&json!(name))),
        "{types}"
    );
    assert!(document["components"]["schemas"]["Operand.vectors"]["properties"]["vectors"].is_object());
    assert_eq!(parameter("put", "placement")["$ref"], "#/components/schemas/Placement");
    let placement = document["components"]["schemas"]["Placement"].to_string();
    assert!(["on_demand", "all", "one", "host_only"].iter().all(|value| placement.contains(value)), "{placement}");
}
