//! `examples/hyper_server.rs` over real sockets: what it answers, what a client that hangs up does, how it ends.

#[allow(dead_code, reason = "the example's `main` and its signals are not used here")]
#[path = "../../../examples/hyper_server.rs"]
mod hyper_server;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::http_client::{HttpResponse, JSON, Wire};
use crate::support::kernels::{Naps, registry};

struct Server {
    wire: Wire,
    naps: Naps,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let (registry, naps) = registry();
        let listener = tower_kernels::hyper::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let wire = Wire { address: listener.local_addr().unwrap() };
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.map_err(std::io::Error::other) };
        let ended = tokio::spawn(hyper_server::serve(listener, registry, stopped));
        Self { wire, naps, stop, ended }
    }
}

#[tokio::test]
async fn the_readmes_request_gets_its_response() {
    let server = Server::start().await;
    let readme = include_str!("../../../README.md");
    let call = readme.split_once("curl -s http://127.0.0.1:8080").unwrap().1;
    let path = call.split_whitespace().next().unwrap();
    let body = call.split_once("-d '").unwrap().1.split_once('\'').unwrap().0;
    let printed: Value =
        serde_json::from_str(readme.split("```json\n").nth(1).unwrap().split("```").next().unwrap()).unwrap();

    let response = server.wire.request("POST", path, &[JSON], body.as_bytes()).await;
    assert_eq!(response.status, 200, "{}", response.body);
    let document = response.json();
    assert_eq!(document["kernel_id"], printed["kernel_id"]);
    assert_eq!(document["output"], printed["output"]);
    let keys = |document: &Value| document.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document), keys(&printed));
    assert!(document["metadata"]["duration_us"].is_u64());
}

#[tokio::test]
async fn every_rejection_has_its_status_and_reason() {
    let server = Server::start().await;
    let saxpy = |input: Value| json!({"kernel_id": "linalg/saxpy", "input": input});
    for (body, status, code, says) in [
        (json!({"kernel_id": "no/such", "input": {}}), 404, "not_found", "no/such"),
        (json!({"kernel_id": "orderbook/matching", "input": {}}), 422, "unsupported", "ring runtime"),
        (json!({"kernel_id": "linalg/saxpy"}), 400, "invalid_argument", "input"),
        (saxpy(json!({"a": 1, "x": [1], "y": []})), 400, "invalid_argument", "y"),
        (saxpy(json!({"a": 1, "x": ["1"], "y": [1]})), 400, "invalid_argument", "x[0]"),
        (
            json!({"kernel_id": "test/nap", "input": {"millis": 60_000}, "metadata": {"timeout_ms": 30}}),
            504,
            "deadline_exceeded",
            "deadline",
        ),
    ] {
        let response = server.wire.post("/execute", &body).await;
        assert!(response.problem(status, code).contains(says), "{body}: {response:?}");
    }
    for (method, path, status) in [("GET", "/execute", 405), ("GET", "/kernels/no/such", 404), ("PUT", "/metrics", 405)]
    {
        assert_eq!(server.wire.request(method, path, &[], b"").await.status, status, "{method} {path}");
    }
    let malformed = server.wire.request("POST", "/execute", &[JSON], b"{\"kernel_id\": ").await;
    assert_eq!((malformed.status, malformed.json()["code"].as_str()), (400, Some("invalid_argument")));
    server.naps.until(0).await;
}

#[tokio::test]
async fn kernels_are_listed_and_described() {
    let server = Server::start().await;
    let list = server.wire.get("/kernels").await.json();
    let ids: Vec<_> = list["kernels"].as_array().unwrap().iter().map(|kernel| kernel["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted() && ids.contains(&"graph/betweenness-centrality"), "{ids:?}");
    let kernel = server.wire.get("/kernels/risk/option-pricing").await.json();
    assert!(kernel["input_schema"]["properties"]["spot"].is_object(), "{kernel}");
}

#[tokio::test]
async fn when_stopped_it_completes_requests_in_flight_and_ends() {
    let server = Server::start().await;
    let stream = server.wire.send("POST", "/kernels/test/nap/execute", &[JSON], br#"{"millis": 200}"#).await;
    server.wire.until("kernel_requests_in_flight{operation=\"test/nap\"}", 1.0).await;
    server.stop.send(()).unwrap();
    let response = HttpResponse::receive(stream).await;
    assert_eq!((response.status, &response.json()["output"]), (200, &json!({"millis": [200]})));
    server.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.wire.address).await.is_err(), "nobody listens any more");
}
