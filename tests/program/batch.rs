//! Batching of requests, over both protocols.

use std::thread;

use serde_json::Value;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::support::process::{SAXPY, Server};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";

/// All kernels run on one worker, and a batch waits for eight requests.
const EIGHT: [&str; 7] = [
    "--cuda-mode=off",
    "--batch-on-cpu",
    "--cpu-workers=1",
    "--cpu-inline=0s",
    "--batch-max-requests=8",
    "--batch-max-delay=20s",
    "--batch-capacity=64",
];

fn saxpy(x: usize) -> String {
    format!(r#"{{"a": 2.0, "x": [{x}.0, 1.0], "y": [0.5, 0.25]}}"#)
}

fn output(x: usize) -> String {
    format!(r#"{{"y":[{:?},2.25]}}"#, 2.0 * x as f64 + 0.5)
}

fn figure(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_both_protocols_share_a_batch_and_invalid_ones_fail_alone() {
    let server = Server::start(&EIGHT);
    let channel = server.channel().await;
    let over_grpc = [6, 7].map(|x| {
        let mut client = KernelClient::new(channel.clone());
        let request = ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input: saxpy(x) };
        tokio::spawn(async move { client.execute(request).await.unwrap().into_inner() })
    });
    thread::scope(|scope| {
        let wrong = r#"{"a": 2.0, "x": [1.0], "y": [1.0, 2.0]}"#;
        assert_eq!(server.post(EXECUTE, wrong).0, 400, "while other requests wait");
        let server = &server;
        let calls: Vec<_> = (0..6).map(|x| (x, scope.spawn(move || server.post(EXECUTE, &saxpy(x))))).collect();
        for (x, call) in calls {
            let (status, body) = call.join().unwrap();
            assert_eq!(status, 200, "{body}");
            let response: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(response["output"].to_string(), output(x));
            assert_eq!(response["metadata"]["batch_size"], 8, "{body}");
        }
    });
    for (x, call) in [6, 7].into_iter().zip(over_grpc) {
        let response = call.await.unwrap();
        assert_eq!((response.output, response.execution.unwrap().batch_size), (output(x), 8));
    }

    let (_, page) = server.get("/metrics");
    for (name, value) in [
        ("kernel_batch_runs_total", 1.0),
        ("kernel_batch_requests_total", 8.0),
        ("kernel_batch_expired_total", 0.0),
        ("kernel_batch_cancelled_total", 0.0),
        ("kernel_batch_waiting", 0.0),
        ("kernel_batch_capacity", 64.0),
        (r#"kernel_batch_size_sum{operation="linalg/saxpy",backend="CPU"}"#, 64.0),
    ] {
        assert_eq!(figure(&page, name), Some(value), "{name} in\n{page}");
    }
}

#[test]
fn expired_and_cancelled_requests_are_not_in_the_batch_and_are_counted() {
    let server = Server::start(&EIGHT);
    let body = saxpy(1);
    let (status, response) = server.post_as(EXECUTE, &body, &["grpc-timeout: 50m"]);
    assert_eq!(status, 504, "{response}");
    thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| server.post(EXECUTE, &body))).collect();
        for call in calls {
            let (status, response) = call.join().unwrap();
            assert_eq!(status, 200, "{response}");
            assert!(response.contains(r#""batch_size":8"#), "{response}");
        }
    });
    let (_, page) = server.get("/metrics");
    // Its timeout dropped it before the batch was dispatched.
    assert_eq!(figure(&page, "kernel_batch_cancelled_total"), Some(1.0), "{page}");
    assert_eq!(figure(&page, "kernel_batch_requests_total"), Some(8.0), "{page}");
}

#[test]
fn on_the_cpu_requests_are_batched_only_if_enabled_and_inline_runs_never() {
    let on = "\nbatch            up to 256 requests or 16777216 bytes, delay 20s, on CUDA devices";
    for (flags, order) in [
        (&["--cuda-mode=off", "--batch-max-delay=20s", "--batch-on-cpu"][..], format!("{on} and the CPU\nkernels")),
        (&["--cuda-mode=off", "--batch-max-delay=20s", "--cpu-inline=0s"], format!("{on}\nkernels")),
    ] {
        let server = Server::start(flags);
        for _ in 0..3 {
            let (status, response) = server.post(EXECUTE, SAXPY);
            assert_eq!(status, 200, "{response}");
            assert!(!response.contains("batch_size"), "{response}");
        }
        let (_, page) = server.get("/metrics");
        assert_eq!(figure(&page, "kernel_batch_requests_total"), Some(0.0), "{page}");
        server.stderr.until(&order);
    }
}

#[test]
fn batching_can_be_turned_off() {
    let flags =
        ["--cuda-mode=off", "--cpu-inline=0s", "--batch-enabled=false", "--batch-on-cpu", "--batch-max-delay=20s"];
    let server = Server::start(&flags);
    let (status, response) = server.post(EXECUTE, SAXPY);
    assert_eq!(status, 200, "{response}");
    assert!(!server.get("/metrics").1.contains("kernel_batch_runs"));
    assert!(server.stderr.until("\nkernels").contains("\nbatch            off\n"));
}
