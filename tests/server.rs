//! `examples/hyper_server.rs` over real sockets: what it answers, what a client that hangs up does, how it ends.

#[allow(dead_code, reason = "the example's `main` and its signals are not used here")]
#[path = "../examples/hyper_server.rs"]
mod hyper_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tower_kernels::service::{Buffer, Context, Cost, Invalid, Kernel, KernelError, KernelInfo, KernelRegistry};

/// Runs for as long as it is told to, or until its caller has left.
struct Nap;

#[derive(Deserialize, JsonSchema)]
struct Millis {
    millis: u64,
}

#[derive(Serialize, JsonSchema)]
struct Slept {
    millis: Buffer<u64>,
}

impl Kernel for Nap {
    type Input = Millis;
    type Output = Slept;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/nap", "1.0.0", "Sleeps.")
    }

    fn validate(&self, _: &Millis) -> Result<(), Invalid> {
        Ok(())
    }

    fn cost(&self, input: &Millis) -> Cost {
        Cost { operations: input.millis.saturating_mul(2_000_000), ..Cost::default() }
    }

    fn run_cpu(&self, input: &Millis, context: &Context<'_>) -> Result<Slept, KernelError> {
        let end = Instant::now() + Duration::from_millis(input.millis);
        while Instant::now() < end {
            context.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Slept { millis: vec![input.millis].into() })
    }
}

struct Server {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let registry = Arc::new(KernelRegistry::new());
        tower_kernels::kernels::register_all(&registry).unwrap();
        registry.register(Nap).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.map_err(std::io::Error::other) };
        let ended = tokio::spawn(hyper_server::serve(listener, registry, stopped));
        Self { address, stop, ended }
    }

    /// Sends a request on a connection of its own.
    async fn send(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused an over-long body need not read the rest of it.
        let _ = stream.write_all(body).await;
        stream
    }

    async fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        receive(self.send(method, path, body).await).await
    }

    async fn execute(&self, body: Value) -> Answer {
        self.request("POST", "/execute", body.to_string().as_bytes()).await
    }

    async fn metric(&self, line: &str) -> Option<u64> {
        let answer = self.request("GET", "/metrics", b"").await;
        let value = answer.body.lines().find_map(|this| this.strip_prefix(line).map(|rest| rest.trim().parse()));
        value.map(Result::unwrap)
    }

    async fn until(&self, line: &str, value: u64) {
        let begun = Instant::now();
        while self.metric(line).await != Some(value) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{line} is {:?}", self.metric(line).await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // The server may reset a connection whose body it did not read; what it said before that counts.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP response");
    Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() }
}

#[tokio::test]
async fn the_readmes_request_is_answered() {
    let server = Server::start().await;
    let readme = include_str!("../README.md");
    let body = readme.split_once("-d '").unwrap().1.split_once('\'').unwrap().0;
    let printed: Value =
        serde_json::from_str(readme.split("```json\n").nth(1).unwrap().split("```").next().unwrap()).unwrap();

    let answer = server.request("POST", "/execute", body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let document = answer.json();
    assert_eq!(document["kernel_id"], printed["kernel_id"]);
    assert_eq!(document["output"], printed["output"]);
    let keys = |document: &Value| document.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document), keys(&printed));
    assert!(document["metadata"]["duration_us"].is_u64());
}

#[tokio::test]
async fn every_refusal_has_its_status_and_says_why() {
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
        let answer = server.execute(body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
        let problem = answer.json();
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()));
        assert!(problem["detail"].as_str().unwrap().contains(says), "{body}: {problem}");
    }
    for (method, path, status) in [("GET", "/execute", 405), ("GET", "/kernels/no/such", 404), ("PUT", "/metrics", 405)]
    {
        assert_eq!(server.request(method, path, b"").await.status, status, "{method} {path}");
    }
    let malformed = server.request("POST", "/execute", b"{\"kernel_id\": ").await;
    assert_eq!((malformed.status, malformed.json()["code"].as_str()), (400, Some("invalid_argument")));
    server.until("kernel_requests_in_flight{operation=\"test/nap\"}", 0).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let server = Server::start().await;
    let answer = server.request("POST", "/execute", &vec![b' '; (64 << 20) + 1]).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (413, Some("too_large")));
}

#[tokio::test]
async fn kernels_are_listed_and_described() {
    let server = Server::start().await;
    let list = server.request("GET", "/kernels", b"").await.json();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|kernel| kernel["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted() && ids.contains(&"graph/betweenness-centrality"), "{ids:?}");
    let kernel = server.request("GET", "/kernels/risk/option-pricing", b"").await.json();
    assert!(kernel["input_schema"]["properties"]["spot"].is_object(), "{kernel}");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_kernel() {
    let server = Server::start().await;
    let body = json!({"kernel_id": "test/nap", "input": {"millis": 600_000}}).to_string();
    let stream = server.send("POST", "/execute", body.as_bytes()).await;
    server.until("kernel_requests_in_flight{operation=\"test/nap\"}", 1).await;
    drop(stream);
    server.until("kernel_requests_in_flight{operation=\"test/nap\"}", 0).await;
    let cancelled = r#"kernel_requests_total{operation="test/nap",backend="none",outcome="cancelled"}"#;
    assert_eq!(server.metric(cancelled).await, Some(1));
}

#[tokio::test]
async fn told_to_stop_it_answers_what_is_in_flight_and_ends() {
    let server = Server::start().await;
    let body = json!({"kernel_id": "test/nap", "input": {"millis": 200}}).to_string();
    let stream = server.send("POST", "/execute", body.as_bytes()).await;
    server.until("kernel_requests_in_flight{operation=\"test/nap\"}", 1).await;
    server.stop.send(()).unwrap();
    let answer = receive(stream).await;
    assert_eq!((answer.status, &answer.json()["output"]), (200, &json!({"millis": [200]})));
    server.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}
