//! Whether what happened to each request is counted as what its client was told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_types::StatusExt;
use tower_kernels::grpc::proto::{ExecuteStreamRequest, execute_stream_request, execute_stream_response};
use tower_kernels::grpc::{ExecuteRequest, ExecuteTensorsRequest, KernelClient, Tensor};

use crate::size;
use crate::support::process::{Call, PATIENCE, SAXPY, Server};

const KEY: &str = "of-this-test-alone-and-long-enough";
const KEY_HEADER: &str = "x-api-key: of-this-test-alone-and-long-enough";
const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
const SLOW: &str = "/kernels/graph/betweenness-centrality/execute";

/// A client without timers: those of tonic's own tell it of its deadline before the server can.
type Plain = Client<HttpConnector, Body>;

/// How many requests ended so, by transport and outcome.
type Tally = BTreeMap<(String, String), u64>;

fn add(tally: &mut Tally, transport: &str, outcome: &str) {
    *tally.entry((transport.to_owned(), outcome.to_owned())).or_default() += 1;
}

/// The values of a metric, with the values of its labels in the order in which the page has them.
fn series(page: &str, name: &str) -> Vec<(Vec<String>, u64)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
    lines
        .map(|(labels, value)| {
            let values =
                labels.split("\",").map(|label| label.split_once("=\"").unwrap().1.trim_matches('"').to_owned());
            (values.collect(), value.parse::<f64>().unwrap() as u64)
        })
        .collect()
}

fn outcomes(page: &str) -> Tally {
    let read = series(page, "kernel_server_requests_total");
    read.into_iter().map(|(labels, count)| ((labels[0].clone(), labels[1].clone()), count)).collect()
}

/// A cycle, whose betweenness takes far longer than anybody here waits.
fn cycle() -> String {
    let nodes = 20_000;
    let edges: Vec<String> = (0..nodes).map(|node| format!("[{node},{}]", (node + 1) % nodes)).collect();
    format!(r#"{{"num_nodes": {nodes}, "edges": [{}]}}"#, edges.join(","))
}

struct Clients {
    server: Server,
    tally: Tally,
    /// How many requests were made.
    made: BTreeMap<&'static str, u64>,
    failures: BTreeMap<(&'static str, &'static str), u64>,
}

impl Clients {
    fn made(&mut self, transport: &'static str) {
        *self.made.entry(transport).or_default() += 1;
    }

    /// A request of REST, counted as what its client is told.
    fn rest(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> u16 {
        self.rest_of_length(method, path, headers, body, body.len())
    }

    fn rest_of_length(&mut self, method: &str, path: &str, headers: &[&str], body: &str, length: usize) -> u16 {
        self.made("rest");
        let (status, response) = Call::begin(self.server.rest, method, path, headers, length).end(body.as_bytes());
        let response: serde_json::Value = serde_json::from_str(&response).unwrap_or_default();
        let code = if status == 200 {
            "ok"
        } else {
            response["code"].as_str().unwrap_or_else(|| panic!("{status}: {response}"))
        };
        add(&mut self.tally, "rest", code);
        status
    }

    fn grpc<T>(&mut self, result: Result<T, Status>) {
        self.made("grpc");
        add(&mut self.tally, "grpc", &told(&result));
    }

    /// Asks for the page until nothing is in flight but the request for it, and gives the page.
    fn settled(&mut self) -> String {
        let begun = Instant::now();
        loop {
            self.made("rest");
            let (_, page) = self.server.get("/metrics");
            let in_flight = series(&page, "kernel_server_requests_in_flight");
            let total: u64 = in_flight.iter().map(|(_, count)| count).sum();
            if total == 1 && series(&page, "kernel_requests_in_flight").iter().all(|(_, count)| *count == 0) {
                return page;
            }
            assert!(begun.elapsed() < PATIENCE, "requests are left in flight: {in_flight:?}");
            add(&mut self.tally, "rest", "ok");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What a client of gRPC is told.
fn told<T>(result: &Result<T, Status>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(status) => match (status.get_details_error_info(), status.code()) {
            (Some(info), _) => info.reason,
            (None, tonic::Code::Unimplemented) => "unsupported".to_owned(),
            (None, tonic::Code::Internal) => "internal".to_owned(),
            (None, tonic::Code::Unauthenticated) => "unauthenticated".to_owned(),
            (None, _) => panic!("{status:?}"),
        },
    }
}

fn with_key(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("x-api-key", KEY.parse().unwrap());
    Ok(request)
}

fn execute(kernel_id: &str, input: &str) -> ExecuteRequest {
    ExecuteRequest { kernel_id: kernel_id.to_owned(), input: input.to_owned() }
}

fn rest(clients: &mut Clients) {
    let with = |more: &'static str| [KEY_HEADER, more];
    assert_eq!(clients.rest("POST", EXECUTE, &[KEY_HEADER], SAXPY), 200);
    assert_eq!(clients.rest("POST", EXECUTE, &[KEY_HEADER], "{"), 400);
    assert_eq!(clients.rest("POST", EXECUTE, &with("grpc-timeout: soon"), SAXPY), 400);
    assert_eq!(clients.rest("POST", "/kernels/no/such/execute", &[KEY_HEADER], SAXPY), 404);
    assert_eq!(clients.rest("POST", "/execute", &[KEY_HEADER], r#"{"kernel_id": "no/such", "input": 1}"#), 404);
    assert_eq!(clients.rest("GET", "/nowhere", &[KEY_HEADER], ""), 404);
    assert_eq!(clients.rest("GET", "/execute", &[KEY_HEADER], ""), 405);
    assert_eq!(clients.rest("POST", EXECUTE, &with("content-encoding: gzip"), SAXPY), 415);
    assert_eq!(clients.rest_of_length("POST", EXECUTE, &[KEY_HEADER], "", 1 << 40), 413);
    // Late when it comes, while its body is read, and while its kernel runs; 408 where the body has not come by then.
    let late = clients.rest("POST", EXECUTE, &with("grpc-timeout: 0n"), SAXPY);
    assert!(matches!(late, 408 | 504), "{late}");
    assert_eq!(clients.rest_of_length("POST", EXECUTE, &with("grpc-timeout: 50m"), "{", 100), 408);
    let late = clients.rest("POST", SLOW, &with("grpc-timeout: 300m"), &cycle());
    assert!(matches!(late, 408 | 504), "{late}");
    assert_eq!(clients.rest("POST", EXECUTE, &[], SAXPY), 401);
    assert_eq!(clients.rest("POST", EXECUTE, &["x-api-key: of-nobody"], SAXPY), 401);
    assert_eq!(clients.rest("POST", EXECUTE, &with("authorization: Bearer another"), SAXPY), 401);
    for reason in ["missing_credential", "unknown_key", "malformed_credential"] {
        *clients.failures.entry(("rest", reason)).or_default() += 1;
    }
    // Hangs up while its kernel runs.
    clients.made("rest");
    let input = cycle();
    let mut call = Call::begin(clients.server.rest, "POST", SLOW, &[KEY_HEADER], input.len());
    call.send(input.as_bytes());
    std::thread::sleep(Duration::from_millis(300));
    drop(call);
    add(&mut clients.tally, "rest", "cancelled");
}

async fn grpc(clients: &mut Clients) {
    type WithKey = InterceptedService<Plain, fn(Request<()>) -> Result<Request<()>, Status>>;
    let plain: Plain = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let origin: http::Uri = format!("http://{}", clients.server.grpc).parse().unwrap();
    let service: WithKey = InterceptedService::new(plain.clone(), with_key);
    let mut client = KernelClient::with_origin(service, origin.clone());
    let mut stranger = KernelClient::with_origin(plain.clone(), origin.clone());
    clients.grpc(client.execute(execute("linalg/saxpy", SAXPY)).await);
    clients.grpc(client.execute(execute("linalg/saxpy", "{")).await);
    clients.grpc(client.execute(execute("no/such", SAXPY)).await);
    for (name, value) in [("grpc-timeout", "0n"), ("grpc-timeout", "soon"), ("priority", "urgent")] {
        let mut request = Request::new(execute("linalg/saxpy", SAXPY));
        request.metadata_mut().insert(name, value.parse().unwrap());
        clients.grpc(client.execute(request).await);
    }
    let mut late = Request::new(execute("graph/betweenness-centrality", &cycle()));
    late.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    clients.grpc(client.execute(late).await);
    clients.grpc(stranger.execute(execute("linalg/saxpy", SAXPY)).await);
    *clients.failures.entry(("grpc", "missing_credential")).or_default() += 1;

    // What tonic refuses before there is a handler: a method that there is not, and a message of something else.
    let data = Tensor { name: "x".to_owned(), data: vec![0xff; 9].into(), ..Tensor::default() };
    let other = ExecuteTensorsRequest { kernel_id: "linalg/saxpy".to_owned(), inputs: vec![data] };
    for path in ["/tower_kernels.v1.Kernel/NoSuchMethod", "/tower_kernels.v1.Kernel/Execute"] {
        let mut raw = tonic::client::Grpc::with_origin(plain.clone(), origin.clone());
        raw.ready().await.unwrap();
        let mut request = Request::new(other.clone());
        request.metadata_mut().insert("x-api-key", KEY.parse().unwrap());
        let codec = tonic_prost::ProstCodec::<ExecuteTensorsRequest, ExecuteRequest>::default();
        let result = raw.unary(request, path.parse().unwrap(), codec).await;
        assert!(result.is_err(), "{path}: {result:?}");
        clients.grpc(result);
    }

    // Hangs up while its kernel runs.
    clients.made("grpc");
    let call = client.execute(execute("graph/betweenness-centrality", &cycle()));
    assert!(tokio::time::timeout(Duration::from_millis(500), call).await.is_err());
    add(&mut clients.tally, "grpc", "cancelled");

    // A stream is a call, and its requests are counted besides.
    let inputs = [("linalg/saxpy", SAXPY), ("linalg/saxpy", "{"), ("no/such", "1"), ("linalg/saxpy", SAXPY)];
    let requests = inputs.map(|(kernel, input)| ExecuteStreamRequest {
        tag: 1,
        timeout_ms: 0,
        call: Some(execute_stream_request::Call::Json(execute(kernel, input))),
    });
    let neither = ExecuteStreamRequest { tag: 2, timeout_ms: 0, call: None };
    let requests: Vec<_> = requests.into_iter().chain([neither]).collect();
    let result = client.execute_stream(futures::stream::iter(requests)).await;
    let mut responses = result.unwrap().into_inner();
    while let Some(response) = responses.message().await.unwrap() {
        clients.made("grpc_stream");
        let outcome = match response.outcome.unwrap() {
            execute_stream_response::Outcome::Error(error) => match error.code {
                3 => "invalid_argument",
                5 => "not_found",
                other => panic!("{other}"),
            },
            _ => "ok",
        };
        add(&mut clients.tally, "grpc_stream", outcome);
    }
    clients.grpc(Ok(()));

    // The deadline of a stream is that of its requests.
    let slow = execute_stream_request::Call::Json(execute("graph/betweenness-centrality", &cycle()));
    let slow = ExecuteStreamRequest { tag: 3, timeout_ms: 0, call: Some(slow) };
    let mut request = Request::new(futures::StreamExt::chain(
        futures::stream::iter([slow]),
        futures::stream::pending::<ExecuteStreamRequest>(),
    ));
    request.metadata_mut().insert("grpc-timeout", "400m".parse().unwrap());
    let mut responses = client.execute_stream(request).await.unwrap().into_inner();
    let mut ended = Ok(());
    while let Some(response) = responses.message().await.unwrap_or_else(|status| {
        ended = Err(status);
        None
    }) {
        // Its own deadline is the stream's, and either may be looked at first.
        assert!(matches!(response.outcome, Some(execute_stream_response::Outcome::Error(error)) if error.code == 4));
    }
    clients.made("grpc_stream");
    add(&mut clients.tally, "grpc_stream", "deadline_exceeded");
    clients.grpc(ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_counts_once_by_the_outcome_of_its_response() {
    use sha2::Digest;
    let digest: String = sha2::Sha256::digest(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = std::env::temp_dir().join(format!("tower-kernels-seen-{}.toml", std::process::id()));
    let keys =
        format!("[auth]\nopen_metrics = true\napi_keys = [{{ tenant = \"acme\", key_sha256 = \"{digest}\" }}]\n");
    std::fs::write(&config, keys).unwrap();
    // What a client's deadline does to the kernel's circuit is another matter.
    let server = Server::start(&["--config", config.to_str().unwrap(), "--circuit-breaker-enabled=false"]);
    std::fs::remove_file(&config).unwrap();
    let mut clients = Clients { server, tally: Tally::new(), made: BTreeMap::new(), failures: BTreeMap::new() };
    for _ in 0..size(1, 20) {
        tokio::task::block_in_place(|| rest(&mut clients));
        grpc(&mut clients).await;
    }
    let page = tokio::task::block_in_place(|| clients.settled());
    assert_eq!(outcomes(&page), clients.tally, "{page}");
    // The request for the page is the one that has begun and not ended.
    let begun = series(&page, "kernel_server_requests_begun_total");
    for (labels, count) in &begun {
        assert_eq!(Some(count), clients.made.get(labels[0].as_str()), "{labels:?}");
    }
    let (begun, ended): (u64, u64) = (begun.iter().map(|(_, count)| count).sum(), clients.tally.values().sum());
    assert_eq!(begun, ended + 1);
    let failures = series(&page, "kernel_authentication_failures_total").into_iter();
    let failures: Vec<_> = failures.map(|(labels, count)| ((labels[0].clone(), labels[1].clone()), count)).collect();
    let expected = clients
        .failures
        .iter()
        .map(|((transport, reason), count)| (((*transport).to_owned(), (*reason).to_owned()), *count));
    assert_eq!(failures, expected.collect::<Vec<_>>(), "{page}");
    let log = clients.server.stderr.until("no credential");
    assert!(log.contains("credential denied") && !log.contains(KEY), "{log}");
}
