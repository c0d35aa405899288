//! Kernels that panic, and what is left of the workers and told to the client.
//!
//! The program has no kernel that panics, so the servers are those of the library in this process, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hyper_util::service::TowerToHyperService;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::backends::cuda::CudaBackend;
use tower_kernels::cuda::Unavailable;
use tower_kernels::grpc::proto::execute_stream_request::Call;
use tower_kernels::grpc::proto::execute_stream_response::Outcome;
use tower_kernels::grpc::proto::{Dtype, GetKernelRequest, Tensor};
use tower_kernels::grpc::{
    ExecuteRequest, ExecuteStreamRequest, ExecuteTensorsRequest, GrpcConfig, KernelClient, KernelGrpcServer,
};
use tower_kernels::hyper::{KernelHttpService, serve};
use tower_kernels::pipeline::RegistryOnly;
use tower_kernels::pipeline::{BatchConfig, PipelineConfig, PipelineLayer};
use tower_kernels::service::{
    BatchKey, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelService, RunContext,
};

use crate::support::process::PATIENCE;

/// What no client may be told.
const SECRET: &str = "the-secret-of-the-kernel";
const WORKERS: usize = 2;
/// More than a backend has workers, so that each would have died.
const OFTEN: usize = 3 * WORKERS;

/// Where the kernel panics: a number, because tensors have no other scalars.
mod place {
    pub(super) const NOWHERE: u32 = 0;
    pub(super) const DECODE: u32 = 1;
    pub(super) const COST: u32 = 2;
    pub(super) const VALIDATE: u32 = 3;
    pub(super) const BATCH_KEY: u32 = 4;
    pub(super) const SHARES_RUN: u32 = 5;
    pub(super) const RUN: u32 = 6;
    pub(super) const RUN_BATCH: u32 = 7;
    pub(super) const ENCODE: u32 = 8;
    pub(super) const DROP_INPUT: u32 = 9;
    pub(super) const DROP_OUTPUT: u32 = 10;
    /// It does not panic, and fails with an error of its own.
    pub(super) const FAIL: u32 = 11;

    /// Those in which a request cannot be answered.
    pub(super) const FATAL: [u32; 6] = [DECODE, COST, VALIDATE, RUN, ENCODE, FAIL];
    /// Those of which the answer is not affected.
    pub(super) const HARMLESS: [u32; 5] = [BATCH_KEY, SHARES_RUN, RUN_BATCH, DROP_INPUT, DROP_OUTPUT];
}

/// A payload of a panic that panics when it is dropped, with another one.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Self(self.0 - 1));
        }
    }
}

/// Panics with a text, or with a payload whose drop panics, whose payload's drop panics too.
fn explode(bomb: u32) -> ! {
    if bomb == 1 { std::panic::panic_any(Bomb(3)) } else { panic!("{SECRET}") }
}

#[derive(Clone, Copy, Serialize)]
struct Place(u32);

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let place = u32::deserialize(deserializer)?;
        if place == place::DECODE {
            explode(0);
        }
        Ok(Self(place))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Input {
    #[schemars(with = "u32")]
    place: Place,
    bomb: u32,
}

impl Input {
    fn at(&self, place: u32) {
        if self.place.0 == place {
            explode(self.bomb);
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.at(place::DROP_INPUT);
    }
}

#[derive(Deserialize, JsonSchema)]
struct Output {
    place: u32,
    bomb: u32,
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Plain {
            place: u32,
        }
        if self.place == place::ENCODE {
            explode(self.bomb);
        }
        Plain { place: self.place }.serialize(serializer)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.place == place::DROP_OUTPUT {
            explode(self.bomb);
        }
    }
}

/// Panics where its input says.
struct Panics {
    id: &'static str,
    cost: Cost,
}

/// More than is run inside the call.
const ON_A_WORKER: Cost = Cost { bytes: 1 << 24, operations: 0, device_memory: 0 };

impl Kernel for Panics {
    type Input = Input;
    type Output = Output;

    fn info(&self) -> KernelInfo {
        KernelInfo::new(self.id, "1.0.0", "Panics.")
    }

    fn validate(&self, input: &Input) -> Result<(), InvalidInput> {
        input.at(place::VALIDATE);
        Ok(())
    }

    fn cost(&self, input: &Input) -> Cost {
        input.at(place::COST);
        self.cost
    }

    fn batch_key(&self, input: &Input) -> Option<BatchKey> {
        input.at(place::BATCH_KEY);
        Some(BatchKey::hash(input.place.0))
    }

    fn shares_run(&self, first: &Input, _: &Input) -> bool {
        first.at(place::SHARES_RUN);
        true
    }

    fn run_cpu(&self, input: &Input, _: &RunContext<'_>) -> Result<Output, KernelError> {
        if self.cost == ON_A_WORKER {
            // As runs that turn out to be short are run inside of the call after a while.
            std::thread::sleep(Duration::from_micros(200));
        }
        input.at(place::RUN);
        if input.place.0 == place::FAIL {
            return Err(KernelError::kernel(SECRET));
        }
        Ok(Output { place: input.place.0, bomb: input.bomb })
    }

    fn run_cpu_batch(&self, inputs: &[&Input], context: &RunContext<'_>) -> Result<Vec<Output>, KernelError> {
        inputs.iter().for_each(|input| input.at(place::RUN_BATCH));
        inputs.iter().map(|input| self.run_cpu(input, context)).collect()
    }
}

/// A kernel of whose input no schema can be made.
struct NoSchema;

#[derive(Serialize, Deserialize)]
struct WithoutSchema {}

impl JsonSchema for WithoutSchema {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WithoutSchema".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        explode(1)
    }
}

impl Kernel for NoSchema {
    type Input = WithoutSchema;
    type Output = u32;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/no-schema", "1.0.0", "Has no schema.")
    }

    fn validate(&self, _: &WithoutSchema) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &WithoutSchema) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, _: &WithoutSchema, _: &RunContext<'_>) -> Result<u32, KernelError> {
        Ok(1)
    }
}

const INLINE: &str = "test/inline";
const WORKER: &str = "test/worker";

fn registry() -> Arc<KernelRegistry> {
    let registry = KernelRegistry::new();
    registry.register(Panics { id: INLINE, cost: Cost::default() }).unwrap();
    registry.register(Panics { id: WORKER, cost: ON_A_WORKER }).unwrap();
    registry.register(NoSchema).unwrap();
    Arc::new(registry)
}

/// REST over axum with and without shared runs, REST over hyper, and gRPC over the first pipeline.
struct Servers {
    runtime: Runtime,
    axum: SocketAddr,
    batched: SocketAddr,
    hyper: SocketAddr,
    grpc: SocketAddr,
}

impl Servers {
    fn start() -> Self {
        log();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let registry = registry();
        let plain = pipeline(&registry, None);
        let router = KernelRouter::with_service(plain.clone(), &plain, RouterConfig::default());
        let axum = listen(&runtime, TowerToHyperService::new(router.into_router()));

        let mut batch = BatchConfig::default();
        (batch.max_delay, batch.on_cpu) = (Duration::from_millis(20), true);
        let shared = pipeline(&registry, Some(batch));
        let router = KernelRouter::with_service(shared.clone(), &shared, RouterConfig::default());
        let batched = listen(&runtime, TowerToHyperService::new(router.into_router()));

        let bare = KernelService::with_backend(Arc::clone(&registry), cpu());
        let hyper = listen(&runtime, KernelHttpService::with_service(bare, &RegistryOnly::new(Arc::clone(&registry))));

        let service = KernelGrpcServer::with_service(plain.clone(), &plain, GrpcConfig::default()).into_service();
        let routes = tonic::service::Routes::new(service).prepare().into_axum_router();
        let grpc = listen(&runtime, TowerToHyperService::new(routes));
        Self { runtime, axum, batched, hyper, grpc }
    }

    fn client(&self) -> KernelClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        KernelClient::new(self.runtime.block_on(endpoint.connect()).unwrap())
    }

    /// Every server answers as it did before, and every worker is there.
    fn are_well(&self, after: &str) {
        let body = document(place::NOWHERE, 0);
        for address in [self.axum, self.batched, self.hyper] {
            for kernel in [INLINE, WORKER] {
                // As many at a time as there are workers, so that each of them has one.
                let calls: Vec<_> = (0..WORKERS)
                    .map(|_| {
                        let body = body.clone();
                        std::thread::spawn(move || post(address, kernel, &body))
                    })
                    .collect();
                for call in calls {
                    assert_eq!(call.join().unwrap().status, 200, "{kernel} at {address} after {after}");
                }
            }
        }
        for address in [self.axum, self.batched] {
            until(&format!("all workers after {after}"), || {
                let pool = get(address, "/health").json()["components"]["cpu"]["pool"].clone();
                (pool["alive"] == WORKERS && pool["up"] == true).then_some(()).ok_or(pool.to_string())
            });
        }
    }
}

fn cpu() -> CpuBackend {
    let mut config = CpuConfig::default();
    (config.workers, config.queue) = (WORKERS, 64);
    CpuBackend::with_config(config).unwrap()
}

fn pipeline(registry: &Arc<KernelRegistry>, batch: Option<BatchConfig>) -> tower_kernels::pipeline::LocalPipeline {
    let local = Local::with_backends(cpu(), Err::<CudaBackend, _>(Unavailable::TurnedOff));
    let mut config = PipelineConfig::default();
    // What it does about kernels that fail is not the question here.
    (config.circuit_breaker, config.load_shed, config.batch) = (None, None, batch);
    PipelineLayer::new(Arc::clone(registry), config).unwrap().over(local)
}

fn listen<S, B>(runtime: &Runtime, service: S) -> SocketAddr
where
    S: hyper::service::Service<http::Request<tower_kernels::hyper::RequestBody>, Response = http::Response<B>>,
    S: Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        serve(listener, service, std::future::pending(), Duration::ZERO).await
    });
    address
}

/// An answer of HTTP/1.1.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn says(&self, text: &str) -> bool {
        self.head.contains(text) || self.body.contains(text)
    }

    /// It is what a client is told of any internal error: its kind and the request's id.
    fn is_internal(&self, request_id: &str, what: &str) {
        assert_eq!(self.status, 500, "{what}: {}", self.body);
        assert!(!self.says(SECRET), "{what}: {}", self.body);
        let problem = self.json();
        assert_eq!((&problem["code"], &problem["request_id"]), (&json!("internal"), &json!(request_id)), "{what}");
    }
}

fn send(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{head}\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Answer { status: 0, head: text.into_owned(), body: "the connection was closed".into() };
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1"), b"")
}

fn document(place: u32, bomb: u32) -> String {
    json!({"place": place, "bomb": bomb}).to_string()
}

fn post(address: SocketAddr, kernel: &str, body: &str) -> Answer {
    post_as(address, kernel, body, "r-1")
}

fn post_as(address: SocketAddr, kernel: &str, body: &str, id: &str) -> Answer {
    let head =
        format!("POST /kernels/{kernel}/execute HTTP/1.1\r\nx-request-id: {id}\r\ncontent-type: application/json");
    send(address, &head, body.as_bytes())
}

fn post_tensors(address: SocketAddr, kernel: &str, place: u32, bomb: u32) -> Answer {
    let scalar = |name| json!({"name": name, "datatype": "UINT32", "shape": [], "parameters": {"binary_data_size": 4}});
    let head = json!({"inputs": [scalar("place"), scalar("bomb")]}).to_string();
    let line = format!(
        "POST /kernels/{kernel}/execute HTTP/1.1\r\nx-request-id: r-1\r\ncontent-type: application/octet-stream\r\n\
         inference-header-content-length: {}",
        head.len()
    );
    send(address, &line, &[head.as_bytes(), &place.to_le_bytes(), &bomb.to_le_bytes()].concat())
}

#[track_caller]
fn until(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(why) = check() {
        assert!(begun.elapsed() < PATIENCE, "{what}: {why}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What this process has logged.
fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    LOG.get_or_init(|| {
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let writer = Arc::clone(&log);
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Log(Arc::clone(&writer))).finish();
        tracing::subscriber::set_global_default(lines).unwrap();
        log
    })
}

fn status_is_internal(status: &Status, what: &str) {
    assert_eq!(status.code(), Code::Internal, "{what}: {status}");
    assert!(!format!("{status:?}").contains(SECRET), "{what}: {status:?}");
    assert!(!status.details().windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{what}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "internal", "{what}");
    assert_eq!(details.request_info().unwrap().request_id, "r-1", "{what}");
}

fn of_request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", "r-1".parse().unwrap());
    request
}

#[test]
fn a_panic_is_an_internal_error_of_its_own_request_wherever_the_kernel_panics() {
    let servers = Servers::start();
    for bomb in [0, 1] {
        for place in place::FATAL {
            let what = format!("place {place}, payload {bomb}");
            for kernel in [INLINE, WORKER] {
                for address in [servers.axum, servers.batched, servers.hyper] {
                    post(address, kernel, &document(place, bomb)).is_internal("r-1", &what);
                    post_tensors(address, kernel, place, bomb).is_internal("r-1", &what);
                }
            }
        }
        for place in place::HARMLESS {
            for kernel in [INLINE, WORKER] {
                for address in [servers.axum, servers.batched, servers.hyper] {
                    let response = post(address, kernel, &document(place, bomb));
                    assert_eq!(response.status, 200, "place {place}, payload {bomb}, {kernel}: {}", response.body);
                }
            }
        }
    }
    servers.are_well("panics in every place");
}

#[test]
fn requests_that_share_a_run_get_their_responses_whatever_the_others_do() {
    let servers = Servers::start();
    for place in [place::BATCH_KEY, place::SHARES_RUN, place::RUN_BATCH, place::DROP_INPUT, place::RUN] {
        for bomb in [0, 1] {
            let bodies = [document(place, bomb), document(place, bomb), document(place::NOWHERE, 0)];
            let calls = bodies.map(|body| {
                let address = servers.batched;
                std::thread::spawn(move || post(address, WORKER, &body).status)
            });
            let [first, second, other] = calls.map(|call| call.join().unwrap());
            let of_panics = if place == place::RUN { 500 } else { 200 };
            assert_eq!((first, second, other), (of_panics, of_panics, 200), "place {place}, payload {bomb}");
        }
    }
    servers.are_well("runs that panic while they are shared");
}

#[test]
fn over_grpc_a_panic_is_a_status_without_its_text() {
    let servers = Servers::start();
    let mut client = servers.client();
    for bomb in [0, 1] {
        for place in place::FATAL {
            for kernel in [INLINE, WORKER] {
                let what = format!("place {place}, payload {bomb}, {kernel}");
                let json = ExecuteRequest { kernel_id: kernel.into(), input: document(place, bomb) };
                let scalar = |name: &str, value: u32| Tensor {
                    name: name.into(),
                    dtype: Dtype::Uint32.into(),
                    shape: Vec::new(),
                    data: value.to_le_bytes().to_vec().into(),
                };
                let inputs = vec![scalar("place", place), scalar("bomb", bomb)];
                let tensors = ExecuteTensorsRequest { kernel_id: kernel.into(), inputs };
                let status = servers.runtime.block_on(client.execute(of_request(json.clone()))).unwrap_err();
                status_is_internal(&status, &what);
                let status = servers.runtime.block_on(client.execute_tensors(of_request(tensors.clone()))).unwrap_err();
                status_is_internal(&status, &what);

                let calls = [Call::Json(json), Call::Tensors(tensors)];
                let calls = calls.map(|call| ExecuteStreamRequest { tag: 1, timeout_ms: 0, call: Some(call) });
                let responses = servers.runtime.block_on(async {
                    let mut responses =
                        client.execute_stream(of_request(futures::stream::iter(calls))).await?.into_inner();
                    let mut all = Vec::new();
                    while let Some(response) = responses.message().await? {
                        all.push(response);
                    }
                    Ok::<_, Status>(all)
                });
                let responses = responses.unwrap();
                assert_eq!(responses.len(), 2, "{what}");
                for response in responses {
                    let Some(Outcome::Error(error)) = response.outcome else { panic!("{what}: it is answered") };
                    assert_eq!(error.code, Code::Internal as i32, "{what}");
                    assert!(!format!("{error:?}").contains(SECRET), "{what}: {error:?}");
                }
            }
        }
    }
    let schema = GetKernelRequest { kernel_id: "test/no-schema".into() };
    let status = servers.runtime.block_on(client.get_kernel(of_request(schema))).unwrap_err();
    status_is_internal(&status, "a schema that cannot be made");
    servers.are_well("panics over gRPC");
}

#[test]
fn more_panics_than_workers_leave_all_workers_and_are_counted() {
    let servers = Servers::start();
    for address in [servers.axum, servers.hyper] {
        for _ in 0..OFTEN {
            post(address, WORKER, &document(place::RUN, 1)).is_internal("r-1", "a bomb");
        }
    }
    servers.are_well("bombs");
    let ready = get(servers.axum, "/health/ready");
    assert_eq!(ready.status, 200, "{}", ready.body);
    let page = get(servers.axum, "/metrics").body;
    let panics = format!("kernel_panics_total{{kernel=\"{WORKER}\"}} {}", 2 * OFTEN);
    let alive = format!("kernel_backend_workers_alive{{backend=\"CPU\"}} {WORKERS}");
    for line in [panics, alive, "kernel_backend_worker_restarts_total{backend=\"CPU\"} 0".into()] {
        assert!(page.lines().any(|this| this == line), "{line} is not in\n{page}");
    }
}

#[test]
fn a_panic_in_a_schema_is_an_internal_error_without_its_text() {
    let servers = Servers::start();
    for _ in 0..2 {
        for (address, path) in [
            (servers.axum, "/kernels/test/no-schema"),
            (servers.axum, "/openapi.json"),
            (servers.hyper, "/kernels/test/no-schema"),
        ] {
            let response = get(address, path);
            assert_eq!(response.status, 500, "{path}: {}", response.body);
            assert_eq!(response.json()["code"], "internal", "{path}");
        }
    }
    assert_eq!(get(servers.axum, "/kernels").status, 200);
    servers.are_well("schemas that cannot be made");
}

#[test]
fn the_log_has_the_internal_error_and_the_request_id() {
    let servers = Servers::start();
    let mut client = servers.client();
    let head = format!(
        "POST /kernels/{INLINE}/execute HTTP/1.1\r\nx-request-id: rest-log-id\r\ncontent-type: application/json"
    );
    let body = document(place::RUN, 0);
    let mut request = Request::new(ExecuteRequest { kernel_id: INLINE.into(), input: body.clone() });
    request.metadata_mut().insert("x-request-id", "grpc-log-id".parse().unwrap());
    // What is said often is not said each time, and the other tests here panic often.
    until("the log names the requests", || {
        send(servers.axum, &head, body.as_bytes()).is_internal("rest-log-id", "it panics");
        let request = {
            let mut again = Request::new(request.get_ref().clone());
            *again.metadata_mut() = request.metadata().clone();
            again
        };
        servers.runtime.block_on(client.execute(request)).unwrap_err();
        let log = String::from_utf8_lossy(&log().lock().unwrap()).into_owned();
        let names =
            |id: &str| log.lines().any(|line| line.contains(id) && line.contains(SECRET) && line.contains(INLINE));
        if names("rest-log-id") && names("grpc-log-id") { Ok(()) } else { Err("not yet".to_owned()) }
    });
}

/// Panics when it is dropped: a value that a server of one's own puts into a request's extensions.
#[derive(Clone)]
struct Extension;

impl Drop for Extension {
    fn drop(&mut self) {
        explode(1);
    }
}

#[test]
fn a_worker_that_panics_outside_of_any_kernel_is_restarted_and_says_so() {
    use tower::ServiceExt;
    use tower_kernels::service::{KernelRequest, Payload};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cpu = cpu();
    let service = KernelService::with_backend(registry(), cpu.clone());
    for round in 0..OFTEN {
        let mut request = KernelRequest::new(WORKER, Payload::json(document(place::NOWHERE, 0)));
        request.extensions.insert(Extension);
        let response = runtime.block_on(service.clone().oneshot(request));
        assert!(matches!(response, Err(KernelError::Panicked { .. })), "round {round}: {response:?}");
    }
    until("all workers are back", || {
        let status = cpu.status();
        if status.alive == WORKERS && status.restarts == OFTEN as u64 { Ok(()) } else { Err(format!("{status:?}")) }
    });
    let request = KernelRequest::new(WORKER, Payload::json(document(place::NOWHERE, 0)));
    runtime.block_on(service.oneshot(request)).unwrap();
    assert_eq!(cpu.status().alive, WORKERS);
}

#[test]
fn a_panic_is_logged_with_the_id_of_its_request_on_whichever_thread() {
    let servers = Servers::start();
    let body = document(place::RUN, 0);
    for (server, address) in [("axum", servers.axum), ("hyper", servers.hyper)] {
        for kernel in [INLINE, WORKER] {
            let id = format!("panics-{server}-{kernel}");
            post_as(address, kernel, &body, &id).is_internal(&id, server);
        }
    }
    let mut client = servers.client();
    let named = |id: &str| {
        let mut request = Request::new(ExecuteRequest { kernel_id: WORKER.to_owned(), input: body.clone() });
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        request
    };
    let status = servers.runtime.block_on(client.execute(named("panics-grpc"))).unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    let message = named("panics-stream").map(|call| {
        futures::stream::iter([ExecuteStreamRequest { tag: 1, timeout_ms: 0, call: Some(Call::Json(call)) }])
    });
    servers.runtime.block_on(async {
        let mut responses = client.execute_stream(message).await.unwrap().into_inner();
        while responses.message().await.unwrap().is_some() {}
    });

    // Last, as of the panics of a kernel ten lines a second are logged.
    std::thread::scope(|scope| {
        for call in 0..2 * WORKERS {
            let (address, body) = (servers.batched, &body);
            scope.spawn(move || {
                let id = format!("panics-batched-{call}");
                post_as(address, WORKER, body, &id).is_internal(&id, "batched");
            });
        }
    });
    let log = String::from_utf8_lossy(&log().lock().unwrap()).into_owned();
    let panics: Vec<_> = log.lines().filter(|line| line.contains("a kernel panicked")).collect();
    for id in ["panics-axum-test/inline", "panics-axum-test/worker", "panics-hyper-test/inline"].into_iter().chain([
        "panics-hyper-test/worker",
        "panics-grpc",
        "panics-stream/1",
    ]) {
        let kernel = if id.ends_with("inline") { INLINE } else { WORKER };
        let (id, kernel) = (format!("request_id=\"{id}\""), format!("kernel=\"{kernel}\""));
        let names =
            |line: &&str| line.split("}: ").next().is_some_and(|span| span.contains(&id) && span.contains(&kernel));
        assert!(panics.iter().any(names), "{id}: {panics:#?}");
    }
    // Those of runs that requests share as well.
    assert!(panics.iter().any(|line| line.contains("request_id=\"panics-batched-")), "{panics:#?}");
    for line in panics {
        assert!(line.contains("request_id=\""), "{line}");
    }
}
