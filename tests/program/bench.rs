//! `tower-kernels bench`: the real program, in process and against servers on sockets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::grpc::KernelGrpcServer;
use tower_kernels::service::{Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext};

use crate::support::unused_address;

const SAXPY: &str = r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#;

/// A kernel that takes no time, except for one call that stalls, and that fails every n-th call, as its input says.
#[derive(Clone, Default)]
struct Moody(Arc<AtomicU64>);

#[derive(Serialize, Deserialize, JsonSchema)]
struct Mood {
    #[serde(default)]
    stall_at: u64,
    #[serde(default)]
    stall_ms: u64,
    #[serde(default)]
    fail_every: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Calls {
    calls: Buffer<u64>,
}

impl Kernel for Moody {
    type Input = Mood;
    type Output = Calls;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/moody", "1.0.0", "Stalls once.")
    }

    fn validate(&self, _: &Mood) -> Result<(), InvalidInput> {
        Ok(())
    }

    /// None: it runs inline, so that a stall blocks a single-threaded server.
    fn cost(&self, _: &Mood) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &Mood, _: &RunContext<'_>) -> Result<Calls, KernelError> {
        let call = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        if call == input.stall_at {
            std::thread::sleep(Duration::from_millis(input.stall_ms));
        }
        if input.fail_every > 0 && call > 1 && call.is_multiple_of(input.fail_every) {
            return Err(KernelError::kernel("not in the mood"));
        }
        Ok(Calls { calls: vec![call].into() })
    }
}

/// REST and gRPC servers in this process, each on its own thread.
struct Servers {
    rest: SocketAddr,
    grpc: SocketAddr,
    moody: Moody,
}

fn servers() -> Servers {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let moody = Moody::default();
    registry.register(moody.clone()).unwrap();
    let router = KernelRouter::new(Arc::clone(&registry), RouterConfig::default()).into_router();
    let rest = on_thread(|listener| async move { axum::serve(listener, router).await.unwrap() });
    let grpc = KernelGrpcServer::new(registry);
    let (service, inference) = (grpc.clone().into_service(), grpc.into_inference_service());
    let grpc = on_thread(|listener| async move {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder().add_service(service).add_service(inference).serve_with_incoming(incoming).await.unwrap();
    });
    Servers { rest, grpc, moody }
}

fn on_thread<F: Future<Output = ()>>(serve: impl FnOnce(TcpListener) -> F + Send + 'static) -> SocketAddr {
    let (says, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            says.send(listener.local_addr().unwrap()).unwrap();
            serve(listener).await;
        });
    });
    hears.recv().unwrap()
}

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-kernels"));
    command.arg("bench").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

/// Runs `bench` with `--json`, and reads that file.
fn measure(folder: &Folder, arguments: &[&str]) -> (Value, Output) {
    let file = folder.path("run.json");
    let output = run(&[arguments, &["--json", &file]].concat());
    let run = std::fs::read(&file).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    (serde_json::from_slice(&run).unwrap(), output)
}

#[test]
fn a_kernel_is_measured_in_process_over_rest_and_over_grpc_in_every_form() {
    let (folder, servers) = (Folder::new("forms"), servers());
    let input = folder.file("input.json", SAXPY);
    let (rest, grpc) = (format!("http://{}", servers.rest), format!("http://{}", servers.grpc));
    for place in [
        &[][..],
        &["--payload", "tensors"],
        &["--payload", "typed"],
        &["--rest", &rest],
        &["--rest", &rest, "--tensors"],
        &["--grpc", &grpc],
        &["--grpc", &grpc, "--payload", "tensors"],
        &["--rest", &rest, "--protocol", "v2"],
        &["--rest", &rest, "--protocol", "v2", "--tensors"],
        &["--grpc", &grpc, "--protocol", "v2", "--tensors"],
    ] {
        let arguments = [&["linalg/saxpy", "-i", &input, "-n", "500", "--warmup", "50ms", "-c", "4"], place].concat();
        let (run, output) = measure(&folder, &arguments);
        assert!(output.status.success(), "{place:?}: {}", text(&output.stderr));
        assert_eq!((&run["requests"], &run["errors"]), (&500.into(), &serde_json::json!({})), "{place:?}");
        let latency = &run["latency_ns"];
        let quantiles = ["p50", "p90", "p99", "p999", "max"].map(|name| latency[name].as_u64().unwrap());
        assert!(quantiles[0] > 0 && quantiles.is_sorted(), "{place:?}: {quantiles:?}");
        assert!(text(&output.stdout).contains("succeeded 500"), "{}", text(&output.stdout));
        assert_eq!(
            run["payload"] == "tensors",
            place.contains(&"tensors") || place.contains(&"--tensors"),
            "{place:?}"
        );
        let target = run["target"].as_str().unwrap();
        assert_eq!(target.starts_with("Open Inference Protocol over "), place.contains(&"v2"), "{target}");
        assert_eq!(run["bytes_received"].as_u64().unwrap() > 0, !place.contains(&"typed"), "{place:?}");
        assert_eq!(text(&output.stderr), "", "there is no progress line without a terminal");
    }
}

#[test]
fn an_open_loop_keeps_the_requested_rate() {
    let (folder, servers) = (Folder::new("rate"), servers());
    let input = folder.file("input.json", SAXPY);
    let rest = format!("http://{}", servers.rest);
    for arrivals in ["constant", "poisson"] {
        let arguments = ["linalg/saxpy", "-i", &input, "--rest", &rest, "--rate", "400", "--arrivals", arrivals];
        let (run, output) = measure(&folder, &[&arguments[..], &["-d", "3s", "--warmup", "200ms"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        // 1 200 are due; with Poisson arrivals the standard deviation is 35.
        let requests = run["requests"].as_u64().unwrap();
        let due = requests + run["unsent"].as_u64().unwrap();
        assert!(due.abs_diff(1200) <= if arrivals == "constant" { 1 } else { 150 }, "{arrivals}: {due}");
        // A busy machine may not send all of them in time, but the reported rate is that of the sent ones.
        let (rate, elapsed) = (run["requests_per_s"].as_f64().unwrap(), run["elapsed_s"].as_f64().unwrap());
        assert!(requests > 0 && elapsed >= 3.0, "{arrivals}: {requests} in {elapsed} s");
        assert!(
            (rate * elapsed - requests as f64).abs() < 0.01,
            "{arrivals}: {rate} for {elapsed} s is not {requests}"
        );
    }
}

#[test]
fn an_open_loop_shows_a_stall_in_the_latency_of_every_delayed_request() {
    let folder = Folder::new("stall");
    let input = folder.file("input.json", r#"{"stall_at": 300, "stall_ms": 1000}"#);
    let common = ["test/moody", "-i", &input, "--warmup", "0s"];
    let millis = |run: &Value, name: &str| run["latency_ns"][name].as_u64().unwrap() as f64 / 1e6;

    let rest = format!("http://{}", servers().rest);
    let (open, _) = measure(&folder, &[&common[..], &["--rest", &rest, "--rate", "200", "-n", "800"]].concat());
    // A quarter of the requests was due within the stall and waited half of it on average.
    assert!(millis(&open, "p90") > 400.0, "{}", open["latency_ns"]);
    assert!(millis(&open, "max") > 900.0, "{}", open["latency_ns"]);

    let rest = format!("http://{}", servers().rest);
    let (closed, _) = measure(&folder, &[&common[..], &["--rest", &rest, "-c", "1", "-n", "2000"]].concat());
    // The only client waited: one slow request among thousands.
    assert!(millis(&closed, "p99") < 400.0, "{}", closed["latency_ns"]);
    assert!(millis(&closed, "max") > 900.0, "{}", closed["latency_ns"]);
}

#[test]
fn errors_are_counted_by_code_and_fail_the_program_unless_allowed() {
    let (folder, servers) = (Folder::new("errors"), servers());
    let input = folder.file("input.json", r#"{"fail_every": 10}"#);
    let (rest, grpc) = (format!("http://{}", servers.rest), format!("http://{}", servers.grpc));
    for place in [["--rest", &rest], ["--grpc", &grpc]] {
        let arguments = ["test/moody", "-i", &input, place[0], place[1], "-n", "200", "--warmup", "0s"];
        let (run, output) = measure(&folder, &arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let internal = &run["errors"]["internal"];
        let failed = internal["count"].as_u64().unwrap();
        assert!((15..=25).contains(&failed), "{failed}");
        assert_eq!(run["requests"].as_u64().unwrap() + failed, 200);
        assert!(internal["example"].as_str().unwrap().contains("an internal error"), "{internal}");
        let allowed = self::run(&[&arguments[..], &["--allow-errors"]].concat());
        assert_eq!(allowed.status.code(), Some(0), "{}", text(&allowed.stderr));
    }
}

#[test]
fn requests_that_cannot_succeed_fail_at_once_and_nothing_is_measured() {
    let folder = Folder::new("never");
    let input = folder.file("input.json", r#"{"a": 2.0, "x": [1.0], "y": []}"#);
    let closed = unused_address();
    let nobody = format!("http://{closed}");
    let (broken, servers) = (folder.file("broken.json", "{"), servers());
    let (rest, grpc) = (format!("http://{}", servers.rest), format!("http://{}", servers.grpc));
    for (arguments, code, says) in [
        (&["linalg/saxpy", "-i", &input][..], 3, "invalid_argument"),
        (&["linalg/saxpy", "-i", &input, "--rest", &rest], 3, "invalid_argument"),
        (&["linalg/saxpy", "-i", &input, "--grpc", &grpc], 3, "invalid_argument"),
        (&["linalg/saxpy", "-i", &broken], 3, "invalid_argument"),
        (&["linalg/saxpy", "-i", &broken, "--payload", "tensors"], 3, "not a JSON object"),
        (&["linalg/saxpy", "-i", &broken, "--rest", &rest], 3, "not JSON"),
        (&["linalg/saxpy", "-i", "/no/such/file"], 3, "/no/such/file"),
        (&["linalg/none", "-i", &input], 4, "no kernel has the id"),
        (&["linalg/none", "-i", &input, "--rest", &rest], 4, "not_found"),
        (&["linalg/none", "-i", &input, "--grpc", &grpc, "--payload", "tensors"], 4, "not_found"),
        (&["linalg/none", "-i", &input, "--rest", &rest, "--tensors"], 4, "not_found"),
        (&["linalg.none", "-i", &input, "--rest", &rest, "--protocol", "v2"], 4, "not_found"),
        (&["linalg.none", "-i", &input, "--grpc", &grpc, "--protocol", "v2", "--tensors"], 4, "not_found"),
        (&["linalg.saxpy", "-i", &input, "--rest", &rest, "--protocol", "v2"], 3, "invalid_argument"),
        (&["linalg.saxpy", "-i", &input, "--grpc", &grpc, "--protocol", "v2", "--tensors"], 3, "invalid_argument"),
        (&["linalg.saxpy", "-i", &broken, "--rest", &rest, "--protocol", "v2"], 3, "not a JSON object"),
        (&["linalg.dot", "-i", &input, "--rest", &rest, "--protocol", "v2"], 3, "a: the model has no such input"),
        (&["linalg.saxpy", "-i", &input, "--grpc", &grpc, "--protocol", "v2"], 2, "has no JSON"),
        (&["orderbook/matching", "-i", &input], 5, "ring kernel"),
        (&["linalg/saxpy", "-i", &input, "--rest", &nobody], 7, "connection"),
        (&["linalg/saxpy", "-i", &input, "--grpc", &nobody], 7, "connection"),
        (&["linalg/saxpy", "-i", &input, "--rest", "https://localhost"], 2, "needs --cacert"),
        (&["linalg/saxpy", "-i", &input, "--grpc", "localhost:1"], 2, "not of the form"),
        (&["linalg/saxpy", "-i", &input, "--header", "a: b"], 2, "--header needs"),
    ] {
        let begun = Instant::now();
        let output = run(&[arguments, &["-d", "600s"]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(says) && output.stdout.is_empty(), "{arguments:?}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(300), "{arguments:?}: it was measured");
    }
}

/// An HTTP/1.1 server that responds to every request with these bytes.
fn answering(response: String) -> SocketAddr {
    on_thread(|listener| async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let response = response.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 64 << 10];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            });
        }
    })
}

#[test]
fn a_success_that_is_not_the_output_of_the_kernel_is_a_failure() {
    let folder = Folder::new("success");
    let input = folder.file("input.json", SAXPY);
    let response = |kind: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    for (address, says) in [
        // The response of the gRPC port of `serve` to an unknown path.
        (answering(response("application/grpc", "")), "content-type is application/grpc"),
        (answering(response("application/json", "")), "0 bytes"),
        (answering(response("application/json", "{}")), "begin with \"{}\""),
        (answering(response("application/json", r#"{"output": tru}"#)), "its body does not parse"),
        (answering(response("application/json", r#"{"kernel_id":"a/b","output":{}}"#)), "it is the output of `a/b`"),
        (answering(response("text/html", "<html></html>")), "content-type is text/html"),
        (answering("HTTP/1.1 204 No Content\r\n\r\n".to_owned()), "no content-type"),
    ] {
        let rest = format!("http://{address}");
        let output = run(&["linalg/saxpy", "-i", &input, "--rest", &rest, "-n", "10"]);
        let error = text(&output.stderr);
        assert!(error.contains("not_an_output") && error.contains(says), "{says}: {error}");
        assert_eq!(output.status.code(), Some(1), "{says}");
        // With --allow-errors none of them counts as a successful request.
        let arguments = ["linalg/saxpy", "-i", &input, "--rest", &rest, "-n", "10", "--warmup", "0s", "--allow-errors"];
        let (run, _) = measure(&folder, &arguments);
        assert_eq!(run["errors"]["not_an_output"]["count"], 10, "{says}: {run}");
        assert_eq!(run["requests"], 0, "{says}: {run}");
    }
}

#[test]
fn a_response_that_is_not_of_the_model_is_a_failure() {
    let folder = Folder::new("model");
    let input = folder.file("input.json", r#"{"x": [1.0]}"#);
    // The server responds with the same to the request for the model's inputs.
    let inputs = r#""inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]"#;
    for (fields, says) in [
        (r#""outputs":[], "model_name": "other""#, "it is the output of `other`"),
        (r#""outputs":[]"#, "it is the output of ``"),
        (r#""model_name": "mine""#, "begin with"),
    ] {
        let body = format!("{{{fields}, {inputs}}}");
        let length = body.len();
        let response =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
        let rest = format!("http://{}", answering(response));
        let output = run(&["mine", "-i", &input, "--rest", &rest, "--protocol", "v2", "-n", "10"]);
        let error = text(&output.stderr);
        assert!(error.contains("not_an_output") && error.contains(says), "{says}: {error}");
        assert_eq!(output.status.code(), Some(1), "{says}");
    }
}

#[test]
fn two_runs_are_compared_with_their_ratios_and_their_noise() {
    let folder = Folder::new("compare");
    let input = folder.file("input.json", SAXPY);
    let (run, output) = measure(&folder, &["linalg/saxpy", "-i", &input, "-n", "1000", "--warmup", "0s"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Files with figures that do not depend on the machine: nine windows of about this many requests.
    let file = |name: &str, requests: u64| {
        let mut run = run.clone();
        run["requests_per_s"] = (requests * 2).into();
        let windows = [1, 0, 2, 1, 3, 0, 2, 1, 2].map(|more| {
            serde_json::json!({ "requests": requests + more, "p50": 1000 + more, "p90": 2000 + more, "p99": 3000 + more })
        });
        run["windows"] = windows.to_vec().into();
        folder.file(name, &run.to_string())
    };
    let (one, two) = (file("one.json", 50), file("two.json", 100));
    let output = self::run(&["--compare", &one, &two]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let row = |name: &str| -> Vec<&str> {
        table.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect()
    };
    assert_eq!(row("requests/s"), ["requests/s", "100.0", "200.0", "2.00", "yes"], "{table}");
    assert_eq!(row("p90").last(), Some(&"no"), "the windows of both have the same latencies: {table}");

    let broken = folder.file("broken.json", "{}");
    let output = self::run(&["--compare", &one, &broken]);
    assert!(output.status.code() == Some(3) && text(&output.stderr).contains("broken.json"), "{output:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_run_and_still_prints_it() {
    let (folder, servers) = (Folder::new("interrupt"), servers());
    // One request hangs: it must not delay the exit.
    let input = folder.file("input.json", r#"{"stall_at": 500, "stall_ms": 600000}"#);
    let (rest, file) = (format!("http://{}", servers.rest), folder.path("run.json"));
    let arguments = ["test/moody", "-i", &input, "--rest", &rest, "-d", "600s", "--warmup", "0s", "--json", &file];
    let child = program(&arguments).spawn().unwrap();
    let started = Instant::now();
    while servers.moody.0.load(Ordering::SeqCst) < 500 {
        assert!(started.elapsed() < Duration::from_secs(300), "the request that hangs has not been sent");
        std::thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    // The exit does not wait for the ten minutes of the request or of the run.
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ended by Ctrl-C"), "{}", text(&output.stdout));
    let run: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&run["interrupted"], run["requests"].as_u64().unwrap() > 400), (&true.into(), true));
}
