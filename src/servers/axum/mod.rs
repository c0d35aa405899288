//! Kernels as a REST API, as an [`axum::Router`](::axum::Router).
//!
//! ```no_run
//! use tower_kernels::axum::{KernelRouter, RouterConfig};
//! use tower_kernels::service::KernelRegistry;
//! use std::sync::Arc;
//!
//! #[tokio::main]
//! async fn main() {
//!     let registry = Arc::new(KernelRegistry::new());
//!     tower_kernels::kernels::register_all(&registry).unwrap();
//!
//!     let router = KernelRouter::new(registry, RouterConfig::default());
//!     let app = router.into_router();
//!
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await.unwrap();
//!     axum::serve(listener, app).await.unwrap();
//! }
//! ```
//! It is thin: every request goes through one [`Service<KernelRequest>`](crate::service::KernelService), and
//! [`KernelRouter::with_service`] takes a service of yours in its place. It is given the kernels inside as well, so that health
//! and metrics are those of the devices that they run on:
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_kernels::axum::{KernelRouter, RouterConfig};
//! use tower_kernels::layers::{RateLimiterLayer, TimeoutLayer, TracingLayer};
//! use tower_kernels::service::{KernelRegistry, KernelService};
//!
//! let registry = KernelRegistry::new();
//! tower_kernels::kernels::register_all(&registry).unwrap();
//! let kernels = KernelService::new(registry);
//! let pipeline = ServiceBuilder::new()
//!     .layer(TracingLayer::new())
//!     .layer(RateLimiterLayer::new(100, Duration::from_secs(1)))
//!     .layer(TimeoutLayer::new(Duration::from_secs(30)))
//!     .service(kernels.clone());
//! let config = RouterConfig {
//!     prefix: "/api/v1".to_string(),
//!     enable_metrics: true,
//!     enable_health: true,
//!     cors_enabled: true,
//!     max_request_size: 10 * 1024 * 1024, // 10 MB
//! };
//! let app = KernelRouter::with_service(pipeline, &kernels, config).into_router();
//! # let _: ::axum::Router = app;
//! ```
//!
//! # Routes
//!
//! | method | path | what |
//! |---|---|---|
//! | GET | `{prefix}/kernels` | the kernels, by id: `?domain=graph`, `?mode=batch` or `ring`; `?limit=` (100, at most 1 000) a page, `?after=` the `next` of the page before |
//! | GET | `{prefix}/kernels/{id}` | one kernel: aliases, backends, and the JSON Schemas of its input and output; ids hold slashes, as they are or as `%2F` |
//! | POST | `{prefix}/execute` | runs the kernel that the document names, on its `input`, with its `metadata` |
//! | POST | `{prefix}/kernels/{id}/execute` | runs this kernel; the body is the input itself and not the document, so that there is one place only that names the kernel; metadata comes in headers |
//! | GET | `/health` | the registry, the execution (share of faults over the last minute), the devices and what their sensors say; degraded where a GPU had errors of memory that could not be put right; 503 where it is unhealthy |
//! | GET | `/health/live` | 200 as long as it answers at all |
//! | GET | `/health/ready` | 503 once it [drains](DrainHandle), its backend has stopped, or a device is lost that a kernel cannot do without |
//! | GET | `/metrics` | what Prometheus reads: its text format, or OpenMetrics where `Accept` prefers that; with gzip where `Accept-Encoding` takes it |
//! | GET | `/openapi.json` | all of this as an OpenAPI 3.1 document, with the schemas of every kernel |
//! | GET | `/docs` | a page that shows the document and tries it out (feature `docs`) |
//! | GET | `/` | leads to that page, unless the program has a route of its own there |
//!
//! A document and its answer; all of `metadata` may be left out:
//!
//! ```json
//! {"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0], "y": [1.0]},
//!  "metadata": {"timeout_ms": 50, "priority": "high", "tenant": "acme", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}}
//!
//! {"request_id": "req-9f86d081884c7d65", "kernel_id": "linalg/saxpy", "output": {"y": [3.0]},
//!  "metadata": {"duration_us": 1, "queued_us": 0, "backend": "CPU"}}
//! ```
//!
//! # Tensors
//!
//! Both execute routes take tensors as well, and answer with tensors what came as tensors. A body of
//! `application/octet-stream` is the
//! [binary tensor data extension](https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension)
//! of the Open Inference Protocol, which the clients of model servers (`tritonclient`, KServe) write and read already: a
//! JSON head, whose length the header `inference-header-content-length` says, and then the tensors' bytes back to back,
//! little-endian and row-major, in the order of the head's `inputs`. Each is copied once, to where the kernel reads it,
//! and the answer's, from 4 KiB on, are sent from where the kernel wrote them. In multipart the parts have no length, so
//! that every byte would be searched for a boundary, and clients would have to be written for it.
//!
//! ```json
//! {"kernel_id": "linalg/saxpy", "id": "7", "parameters": {"timeout_ms": 50},
//!  "inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]},
//!             {"name": "x", "datatype": "FP32", "shape": [1000], "parameters": {"binary_data_size": 4000}},
//!             {"name": "y", "datatype": "FP32", "shape": [1000], "parameters": {"binary_data_size": 4000}}]}
//!
//! {"model_name": "linalg/saxpy", "id": "7", "request_id": "req-9f86d081884c7d65", "kernel_id": "linalg/saxpy",
//!  "outputs": [{"name": "y", "datatype": "FP32", "shape": [1000], "parameters": {"binary_data_size": 4000}}],
//!  "metadata": {"duration_us": 1, "queued_us": 0, "backend": "CPU"}}
//! ```
//!
//! * `kernel_id` is for `{prefix}/execute` alone; elsewhere the path names the kernel.
//! * `parameters` hold what a document has in `metadata`, by the same names. `binary_data_output` may be `true`. Others
//!   are refused by name.
//! * The datatypes are BOOL, UINT8, UINT32, UINT64, INT32, INT64, FP32 and FP64. Text is UINT8. A scalar has shape `[]` or
//!   `[1]`.
//! * `outputs` may name those that are wanted. Outputs are always binary, whether the request asks for it or not.
//! * The head's JSON Schemas are in the [OpenAPI](#openapi) document, as `TensorHead` and `TensorAnswerHead`.
//! * Small tensors may be in the head, as `data`, an array with all dimensions in one. The head is of at most 64 KiB.
//!
//! ```python
//! from tritonclient.http import InferenceServerClient as Client, InferInput
//! import numpy as np, urllib.request
//!
//! def tensor(name, array):
//!     infer_input = InferInput(name, array.shape, "FP32")
//!     infer_input.set_data_from_numpy(array)
//!     return infer_input
//!
//! x = np.ones(1000, dtype=np.float32)
//! body, head = Client.generate_request_body([tensor("a", x[:1]), tensor("x", x), tensor("y", x)])
//! headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(head)}
//! url = "http://127.0.0.1:8080/kernels/linalg/saxpy/execute"
//! with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
//!     head = int(answer.headers["inference-header-content-length"])
//!     print(Client.parse_response_body(answer.read(), header_length=head).as_numpy("y"))
//! ```
//!
//! # Headers
//!
//! * `content-type` must be `application/json`, or end in `+json`, or be `application/octet-stream` for
//!   [tensors](#tensors).
//! * `x-request-id` is echoed where it is of at most 128 visible ASCII characters; else one is made. Every answer has it.
//! * `grpc-timeout` and `connect-timeout-ms` set a deadline, as does `metadata.timeout_ms`; the earliest holds, and none is
//!   later than [`KernelRouter::timeout`] from the request's arrival.
//! * `traceparent` and `tracestate` name the trace, where the document does not.
//! * A [`Tenant`](crate::request::Tenant), [`Priority`](crate::request::Priority) or
//!   [`Deadline`](crate::request::Deadline) among the request's extensions, which a layer of yours has put there, is
//!   stronger than what the document says.
//!
//! # Refusals
//!
//! Each is a problem document after RFC 9457, `application/problem+json`, with `title`, `status`, `code`, `detail`,
//! `request_id`, and `field` where one is to blame. Statuses and codes are those of the [table](crate::error); besides
//! there are 405 `method_not_allowed`, 408 `request_timeout` (the body did not come within the deadline) and 415
//! `unsupported_media_type`. 429 and 503 say in `Retry-After` when to come back, and 401 in `WWW-Authenticate` how. Where a
//! body was too slow or too long to be read, the connection ends after the answer, which says so. What is left of a small
//! body is read and dropped, so that the connection can be used again.
//!
//! A layer around the router that answers in its place, such as [`ErrorResponseLayer`](crate::layers::ErrorResponseLayer), knows no
//! `request_id`; inside of [`KernelRouter::into_router_with`] its answers have one too, and the headers of CORS.
//!
//! # Scripts of other origins
//!
//! With [`RouterConfig::cors_enabled`] they may call and read every answer, with `x-request-id`, `retry-after`,
//! `www-authenticate`, `allow` and `inference-header-content-length`. They may send any header, `authorization` included;
//! browsers add no credentials by themselves. Preflights hold for an hour and need no credentials.
//!
//! # OpenAPI
//!
//! The document is made from the routes, from the types that are read and written, and from the kernels that there are,
//! again whenever the registry has other ones. It lists neither itself nor the page. A path's parameter cannot hold the slashes of an id, so each kernel has
//! paths of its own: it is described there, and executed where it is a batch kernel. Paths carry the prefix; the document
//! itself stays at the root, as `/health` does, and its server is where it was found, so a router that is nested, or behind
//! a proxy that takes off a part of the path, has a document that is right. [`KernelRouter::openapi`] turns it off.
//!
//! Authentication is a layer of yours, inside of [`KernelRouter::into_router_with`]. [`KernelRouter::security`] tells the
//! document of it: which credentials there are, which operations need one, and that those without are refused with 401.
//! The page then has a button for them, and keeps them in the browser. A browser has no credential when it opens the page,
//! so the layer has to exempt the paths of [`is_docs`] for it to be of use.
//!
//! The page is Swagger UI, embedded in the program. It loads nothing from elsewhere, and its content security policy lets
//! it load nothing from elsewhere. Its files are sent compressed with gzip, which every browser takes. With thousands of
//! kernels it is slow; `/kernels` is paged.
//!
//! # Metrics
//!
//! A metric without values is left out: none of the tables below is on a page of which it has nothing to tell.
//!
//! Besides those of [`layers::metrics`](crate::middleware::metrics), which are counted just outside of the service and of a
//! [`TimeoutLayer`](crate::layers::TimeoutLayer) around it, so that what its layers refuse, and what was too late, is among
//! them as what it is. Up to 1 024 kernels have series of their own; of more, those that are called
//! first, and the others are counted together, under the operation and the domain `other`:
//!
//! | name | type | labels | what |
//! |---|---|---|---|
//! | `kernel_domain_requests_total` | counter | `domain`, `outcome` | calls that ended |
//! | `kernel_domain_request_duration_seconds_total` | counter | `domain`, `outcome` | the time that they took |
//! | `kernel_registered` | gauge | `domain`, `mode` | kernels that there are |
//! | `kernel_http_responses_total` | counter | `code` | execute calls that were answered, whether they reached the service or not; 405, 408 and 415 have the codes of their problem documents |
//! | `kernel_backend_up` | gauge | `backend`, `device` | 1 while the backend takes work, 0 once it is lost |
//! | `kernel_backend_workers` | gauge | `backend`, `device` | worker threads, each of which runs one job at a time |
//! | `kernel_backend_capacity` | gauge | `backend`, `device` | jobs that the backend accepts at one time, running and queued |
//! | `kernel_backend_queued` | gauge | `backend`, `device` | jobs that wait in the queue |
//! | `kernel_backend_running` | gauge | `backend`, `device` | jobs that hold a permit and are not queued |
//!
//! | `kernel_connections` | gauge | `listener` | connections that are open |
//! | `kernel_connections_accepted_total` | counter | `listener` | connections that were accepted |
//! | `kernel_connections_rejected_total` | counter | `listener`, `reason` | connections past the most that there may be (`max`), which are let in for health probes alone, or past the most of one address (`address`), which are closed |
//! | `kernel_connections_not_accepted_total` | counter | `listener` | times that none could be accepted, for want of open files in most cases |
//! | `kernel_connections_closed_total` | counter | `listener`, `reason` | connections that the server ended: the client did not read (`slow`), asked nothing over HTTP/2 (`idle`), or the connection had reached its age (`age`) |
//! | `kernel_streams_reset_total` | counter | `listener` | HTTP/2 streams that were reset because their client did not read them |
//!
//! Those of connections are there where the router knows its [listeners](KernelRouter::connections).
//!
//! Requests of every kind, with those that were not answered and those of gRPC, are counted by
//! [`requests`](crate::requests), which [`KernelRouter::more_metrics`] shows.
//!
//! Those of the backends are there where the router knows its [devices](KernelRouter::with_service); the CPU has no label
//! `device`. When all permits are taken, further requests wait in front of the service and are in no gauge:
//! `kernel_backend_queued` over `kernel_backend_workers` says how many rounds of work a newcomer waits for, and is what to
//! add replicas by.
//!
//! Where the router knows the server's TLS (`KernelRouter::tls`, feature `tls`):
//!
//! | name | type | labels | what |
//! |---|---|---|---|
//! | `kernel_tls_certificate_expiry_seconds` | gauge | | time until the certificate that is presented expires, or one of its chain; below 0 once it has |
//! | `kernel_tls_reloads_total` | counter | `outcome` | how often its files had changed (`ok`), or could not be used when they were looked at (`failed`) |
//! | `kernel_tls_handshake_failures_total` | counter | `reason` | connections closed in the handshake: `timeout`, `not_tls`, `client_certificate`, `other` |
//!
//! Where NVIDIA's management library is there (it comes with the driver), what the sensors of each CUDA device say, read
//! when the page is asked for. The names are those of NVIDIA's DCGM exporter, in Prometheus's units; a device or driver
//! that does not tell one of them has no line of it:
//!
//! | name | type | DCGM's `DCGM_FI_DEV_` | what |
//! |---|---|---|---|
//! | `gpu_util_ratios` | gauge | `GPU_UTIL` | share of the last moments in which a kernel ran |
//! | `gpu_mem_copy_util_ratios` | gauge | `MEM_COPY_UTIL` | share of the last moments in which memory was read or written |
//! | `gpu_fb_used_bytes`, `gpu_fb_total_bytes` | gauge | `FB_USED`, `FB_TOTAL` | memory, by whichever process it is taken |
//! | `gpu_temp_celsius` | gauge | `GPU_TEMP` | temperature |
//! | `gpu_power_usage_watts`, `gpu_power_mgmt_limit_watts` | gauge | `POWER_USAGE`, `ENFORCED_POWER_LIMIT` | power that is drawn and that may be |
//! | `gpu_ecc_sbe_vol_total`, `gpu_ecc_dbe_vol_total` | counter | `ECC_SBE_VOL_TOTAL`, `ECC_DBE_VOL_TOTAL` | errors of memory that were put right, and that could not be, since the driver was loaded |
//! | `gpu_clock_throttle_reasons` | gauge | `CLOCK_THROTTLE_REASONS` | 1 for each `reason` why the clocks are lower than they could be; to be idle is none |
//!
//! Each has the labels `device`, as above, and `uuid`, the name by which NVIDIA's tools know it.
//!
//! # Cancel safety
//!
//! A client that hangs up cancels its work: the server drops the handler's future, and with it the call. How long a
//! client may take over the head of its request is the server's to bound; the body has to come within the deadline.
//!
//! # Many clients
//!
//! `axum::serve` bounds neither how long a client may take over the head of a request, nor how many there are, nor how
//! long a graceful end may take. Feature `hyper` has a server that does, for any router:
//! `tower_kernels::hyper::serve(listener, TowerToHyperService::new(router), stop, drain)`, with `hyper-util`'s
//! `TowerToHyperService` and a listener from `tower_kernels::hyper::listen`. `examples/axum_server.rs` is served so.
//!
//! Clients that connect in the same moment wait in the listener's backlog, and the system may reset those that find it
//! full. Where hundreds may come at once use that `listen`, or tokio's `TcpSocket::listen`, with a longer backlog than
//! `TcpListener::bind` asks for.

mod config;
#[cfg(feature = "hyper")]
mod connections;
mod cors;
#[cfg(feature = "docs")]
mod docs;
mod drain;
mod execute;
#[cfg(feature = "cuda")]
mod gpus;
mod health;
mod kernels;
mod metrics;
mod openapi;
mod outcomes;
mod request_ids;
mod route;
mod router;
#[cfg(feature = "tls")]
mod tls;
mod unread;

pub use self::config::{InvalidPrefix, RouterConfig};
pub use self::drain::DrainHandle;
pub use self::openapi::SecurityScheme;
pub use self::route::is_docs;
pub use self::router::KernelRouter;
