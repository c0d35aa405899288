//! `serve` while it runs.

use std::net::TcpListener;
use std::time::Instant;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::support::process::{Call, PATIENCE, SAXPY, Server, Text, program, run, signal, stderr, wait};

fn saxpy() -> ExecuteRequest {
    ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input: SAXPY.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_and_grpc_serve_and_share_one_metrics_page() {
    let server = Server::start(&[]);
    let (status, body) = server.post("/kernels/linalg/saxpy/execute", SAXPY);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""output":{"y":[12.0,24.0]}"#), "{body}");

    let mut client = KernelClient::new(server.channel().await);
    let response = client.execute(saxpy()).await.unwrap().into_inner();
    assert_eq!(response.output, r#"{"y":[12.0,24.0]}"#);

    let (_, page) = server.get("/metrics");
    let ended = |line: &&str| line.starts_with(r#"kernel_requests_total{operation="linalg/saxpy""#);
    let counts: Vec<_> = page.lines().filter(ended).collect();
    assert!(matches!(counts.as_slice(), [both] if both.ends_with(r#"outcome="ok"} 2"#)), "{counts:?}");
}

#[test]
fn the_metrics_page_has_the_requested_format() {
    let server = Server::start(&[]);
    assert_eq!(server.post("/kernels/linalg/saxpy/execute", SAXPY).0, 200);
    let rejected = server.post("/kernels/linalg/saxpy/execute", "{}");
    assert_eq!(rejected.0, 400, "{}", rejected.1);

    let (_, text) = server.get("/metrics");
    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let (status, open_metrics) = Call::begin(server.rest, "GET", "/metrics", &[accept], 0).end(b"");
    assert_eq!(status, 200);
    assert!(open_metrics.ends_with("\n# EOF\n") && open_metrics.contains("# UNIT "), "{open_metrics}");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT "), "{text}");
    assert!(text.contains("# TYPE kernel_requests_total counter\n"), "{text}");
    assert!(open_metrics.contains("# TYPE kernel_requests counter\n"), "{open_metrics}");
    let rejected = r#"kernel_requests_total{operation="linalg/saxpy",outcome="invalid_argument"} 1"#;
    assert!([&text, &open_metrics].iter().all(|page| page.lines().any(|line| line == rejected)), "{text}");
    // Nothing panicked, and rejected requests have no backend.
    for absent in ["kernel_panics", "backend=\"none\""] {
        assert!(!text.contains(absent) && !open_metrics.contains(absent), "{absent} is in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_both_reflection_versions_respond() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/health/ready").0, 200);
    let channel = server.channel().await;
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1, "serving");

    let question = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut responses = client.server_reflection_info(one(request)).await.unwrap().into_inner();
    let response = format!("{:?}", responses.message().await.unwrap());
    assert!(response.contains("tower_kernels.v1.Kernel"), "{response}");

    let question = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut responses = client.server_reflection_info(one(request)).await.unwrap().into_inner();
    let response = format!("{:?}", responses.message().await.unwrap());
    assert!(response.contains("tower_kernels.v1.Kernel"), "{response}");
}

fn one<T: Send + 'static>(item: T) -> impl futures::Stream<Item = T> + Send + 'static {
    futures::stream::once(std::future::ready(item))
}

#[test]
fn the_served_kernels_and_prefix_are_those_configured() {
    let server =
        Server::start(&["--domains=linalg", "--rest-prefix=/api/v1", "--rest-max-request-size=64", "--cuda-mode=off"]);
    let (status, kernels) = server.get("/api/v1/kernels");
    assert_eq!(status, 200);
    assert!(kernels.contains("linalg/saxpy") && !kernels.contains("graph/"), "{kernels}");
    assert_eq!(server.get("/kernels").0, 404);
    assert_eq!(server.post("/api/v1/kernels/linalg/saxpy/execute", SAXPY).0, 200);
    let large = format!("{SAXPY}{:100}", "");
    assert_eq!(server.post("/api/v1/kernels/linalg/saxpy/execute", &large).0, 413);
    assert!(server.stdout.until("Try it").contains("/api/v1/kernels/linalg/saxpy/execute"));
    assert!(server.stdout.now().contains("CUDA is off (it was turned off)"));
}

#[test]
fn one_of_the_two_servers_can_be_off() {
    let mut child = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=off"]).spawn().unwrap();
    let stdout = Text::of(child.stdout.take().unwrap());
    let startup_message = stdout.until("auth ");
    signal(child.id(), "KILL");
    wait(&mut child);
    assert!(startup_message.contains("gRPC     off"), "{startup_message}");
}

#[test]
fn a_tenant_over_its_rate_limit_is_rejected_and_others_are_not() {
    let server = Server::start(&["--rate-limit-per-second=1", "--rate-limit-burst=2"]);
    let call = |tenant: &str| {
        let body =
            format!(r#"{{"kernel_id": "linalg/saxpy", "input": {SAXPY}, "metadata": {{"tenant": "{tenant}"}}}}"#);
        server.post("/execute", &body).0
    };
    server.stderr.until("without authentication a request can name any tenant");
    let begun = Instant::now();
    let mut rejected = 0;
    // On a slow machine the quota is refilled as fast as it is used.
    while rejected == 0 && begun.elapsed() < PATIENCE {
        rejected += usize::from(call("acme") == 429);
    }
    assert_eq!((rejected, call("other")), (1, 200));
}

#[test]
fn an_address_in_use_is_reported_with_the_cause() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen", &address], "");
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    let expected = format!("error: gRPC cannot listen on {address}: Address");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
fn a_missing_required_device_is_reported() {
    let output = run(["serve", "--cuda-mode=required", "--cuda-devices=4000000"], "");
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(stderr(&output).contains("cuda.mode is `required`"), "{}", stderr(&output));
}

#[test]
fn listening_publicly_without_authentication_logs_a_warning() {
    let warning = "without authentication: set";
    let open = Server::spawn(&mut program(["serve", "--rest-listen=0.0.0.0:0", "--grpc-listen=127.0.0.1:0"]), &[]);
    let log = open.stderr.until(warning);
    assert!(log.contains("REST listens on 0.0.0.0:") && !log.contains("gRPC listens on"), "{log}");

    let closed = Server::start(&[]);
    closed.stdout.until("Try it");
    assert!(!closed.stderr.until("serving").contains(warning));
}

#[test]
fn with_json_logs_all_output_is_json() {
    let mut child = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--log-format=json"])
        .spawn()
        .unwrap();
    let stdout = Text::of(child.stdout.take().unwrap());
    let stderr = Text::of(child.stderr.take().unwrap());
    let log = stderr.until("\"serving\"");
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if event["message"] == "serving" {
            assert!(event["rest"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{line}");
        }
    }
    signal(child.id(), "KILL");
    wait(&mut child);
    assert_eq!(stdout.now(), "");
}

#[test]
fn a_request_whose_response_may_fit_runs_and_one_whose_response_does_not_is_rejected() {
    let server = Server::start(&["--cuda-mode=off", "--rest-max-response-size=2000"]);
    let aggregate = |keys: Vec<u32>| {
        let input = serde_json::json!({ "keys": keys, "values": vec![1.0; 2_000], "aggregates": ["sum"] });
        server.post("/kernels/core/segmented-aggregate/execute", &input.to_string())
    };
    // 2 000 values could have as many keys, of which none could be told before the run.
    let (status, body) = aggregate(vec![7; 2_000]);
    assert!(status == 200 && body.contains(r#""sum":[2000.0]"#), "{status} {body}");
    let (status, body) = aggregate((0..2_000).collect());
    assert!(status == 413 && body.contains("2000 bytes"), "{status} {body}");
    // The outputs of saxpy are as many as its inputs.
    let numbers = vec![1.0; 5_000];
    let saxpy = serde_json::json!({ "a": 1.0, "x": numbers, "y": numbers }).to_string();
    let (status, body) = server.post("/kernels/linalg/saxpy/execute", &saxpy);
    assert!(status == 413 && body.contains("2000 bytes"), "{status} {body}");
}
