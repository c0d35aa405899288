//! Requests that share runs, over both protocols.

use std::thread;

use serde_json::Value;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::process::{SAXPY, Server};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";

/// Every kernel goes to the one lane, and a run waits for eight requests.
const EIGHT: [&str; 7] = [
    "--cuda-mode=off",
    "--batch-on-cpu",
    "--cpu-lanes=1",
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
async fn requests_of_both_protocols_share_a_run_and_what_is_wrong_fails_alone() {
    let server = Server::start(&EIGHT);
    let channel = server.channel().await;
    let over_grpc = [6, 7].map(|x| {
        let mut client = KernelClient::new(channel.clone());
        let request = ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input: saxpy(x) };
        tokio::spawn(async move { client.execute(request).await.unwrap().into_inner() })
    });
    thread::scope(|scope| {
        let wrong = r#"{"a": 2.0, "x": [1.0], "y": [1.0, 2.0]}"#;
        assert_eq!(server.post(EXECUTE, wrong).0, 400, "while others wait");
        let server = &server;
        let calls: Vec<_> = (0..6).map(|x| (x, scope.spawn(move || server.post(EXECUTE, &saxpy(x))))).collect();
        for (x, call) in calls {
            let (status, body) = call.join().unwrap();
            assert_eq!(status, 200, "{body}");
            let answer: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(answer["output"].to_string(), output(x));
            assert_eq!(answer["metadata"]["batch_size"], 8, "{body}");
        }
    });
    for (x, call) in [6, 7].into_iter().zip(over_grpc) {
        let answer = call.await.unwrap();
        assert_eq!((answer.output, answer.execution.unwrap().batch_size), (output(x), 8));
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
fn who_is_late_or_has_left_is_not_in_the_run_and_is_counted() {
    let server = Server::start(&EIGHT);
    let body = saxpy(1);
    let (status, answer) = server.post_as(EXECUTE, &body, &["grpc-timeout: 50m"]);
    assert_eq!(status, 504, "{answer}");
    thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| server.post(EXECUTE, &body))).collect();
        for call in calls {
            let (status, answer) = call.join().unwrap();
            assert_eq!(status, 200, "{answer}");
            assert!(answer.contains(r#""batch_size":8"#), "{answer}");
        }
    });
    let (_, page) = server.get("/metrics");
    // Its timeout dropped it before the run was sent.
    assert_eq!(figure(&page, "kernel_batch_cancelled_total"), Some(1.0), "{page}");
    assert_eq!(figure(&page, "kernel_batch_requests_total"), Some(8.0), "{page}");
}

#[test]
fn what_the_cpu_runs_inside_the_call_waits_for_nobody_and_neither_does_the_rest_unless_it_is_said() {
    let on = "\nbatch            up to 256 requests or 16777216 bytes, delay 20s, on CUDA devices";
    for (flags, order) in [
        (&["--cuda-mode=off", "--batch-max-delay=20s", "--batch-on-cpu"][..], format!("{on} and the CPU\nkernels")),
        (&["--cuda-mode=off", "--batch-max-delay=20s", "--cpu-inline=0s"], format!("{on}\nkernels")),
    ] {
        let server = Server::start(flags);
        for _ in 0..3 {
            let (status, answer) = server.post(EXECUTE, SAXPY);
            assert_eq!(status, 200, "{answer}");
            assert!(!answer.contains("batch_size"), "{answer}");
        }
        let (_, page) = server.get("/metrics");
        assert_eq!(figure(&page, "kernel_batch_requests_total"), Some(0.0), "{page}");
        server.stderr.until(&order);
    }
}

#[test]
fn it_can_be_turned_off() {
    let flags =
        ["--cuda-mode=off", "--cpu-inline=0s", "--batch-enabled=false", "--batch-on-cpu", "--batch-max-delay=20s"];
    let server = Server::start(&flags);
    let (status, answer) = server.post(EXECUTE, SAXPY);
    assert_eq!(status, 200, "{answer}");
    assert!(!server.get("/metrics").1.contains("kernel_batch_runs"));
    assert!(server.stderr.until("\nkernels").contains("\nbatch            off\n"));
}
