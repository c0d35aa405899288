//! Serves kernels as a REST API: an [`axum::Router`](::axum::Router).
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
//!
//! All requests are handled by one [`Service<KernelRequest>`](crate::service::KernelService).
//! [`KernelRouter::with_service`] takes any such service, and the kernels inside of it for health and metrics of their
//! devices:
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
#![doc = include_str!("../http/routes/routes.md")]
//!
//! A request and its response. All of `metadata` is optional:
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
//! Both execute routes accept tensors, and then respond with tensors. A body of `application/octet-stream` is the
//! [binary tensor data extension](https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension)
//! of the Open Inference Protocol, which clients of model servers (`tritonclient`, KServe) support: a JSON head, whose length
//! is in the header `inference-header-content-length`, followed by the bytes of the tensors in the order of the head's
//! `inputs`, little-endian and row-major. Input tensors are copied once, to where the kernel reads them. Output tensors of at
//! least 4 KiB are sent from where the kernel wrote them.
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
//! * `kernel_id` is for `{prefix}/execute` only; otherwise the path has the id.
//! * `parameters` has the fields of `metadata`, and optionally `binary_data_output: true`. Other fields are rejected.
//! * The datatypes are BOOL, UINT8, UINT32, UINT64, INT32, INT64, FP32 and FP64. Text is UINT8. A scalar has shape `[]`
//!   or `[1]`.
//! * `outputs` selects outputs by name. Outputs are always binary.
//! * The head's JSON Schemas are in the [OpenAPI](#openapi) document, as `TensorHead` and `TensorResponseHead`.
//! * Small tensors can be in the head as `data`, a flat array. The head has at most 64 KiB.
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
//! with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as response:
//!     head = int(response.headers["inference-header-content-length"])
//!     print(Client.parse_response_body(response.read(), header_length=head).as_numpy("y"))
//! ```
//!
//! # Headers
//!
//! * `content-type` must be `application/json`, or end in `+json`, or be `application/octet-stream` for
//!   [tensors](#tensors).
//! * `x-request-id` is repeated in the response if it is 1 to 128 visible ASCII characters, and generated otherwise.
//! * `grpc-timeout`, `connect-timeout-ms` and `metadata.timeout_ms` set the deadline. The earliest counts, and
//!   [`KernelRouter::timeout`] is the maximum.
//! * `traceparent` and `tracestate` set the trace context, unless the document does.
//! * A [`Tenant`](crate::request::Tenant), [`Priority`](crate::request::Priority) or
//!   [`Deadline`](crate::request::Deadline) in the request's extensions, inserted by a layer, takes precedence over the
//!   document.
//!
//! # Errors
//!
//! Error responses are problem documents (RFC 9457, `application/problem+json`) with `title`, `status`, `code`,
//! `detail`, `request_id`, and `field` if a field is invalid. Statuses and codes are those of the
//! [table](crate::error), and 405 `method_not_allowed`, 408 `request_timeout` (the body did not arrive before the
//! deadline) and 415 `unsupported_media_type`. 429 and 503 have a `Retry-After` header, and 401 has `WWW-Authenticate`.
//! If a body is too slow or too large to be read, the response has `connection: close`. The rest of a small body is
//! read and discarded, so that the connection can be reused.
//!
//! Below `/v2`, error responses are the error objects of the Open Inference Protocol, `{"error": "..."}`, with the same
//! statuses and headers.
//!
//! Error responses of a layer around the router, such as [`ErrorResponseLayer`](crate::layers::ErrorResponseLayer),
//! have no `request_id`, and are problem documents below `/v2` too. Add such layers with
//! [`KernelRouter::into_router_with`], which adds the id and the CORS headers, and writes them in the form of the path.
//!
//! # CORS
//!
//! With [`RouterConfig::cors_enabled`], scripts of all origins can send requests and read responses, with
//! `x-request-id`, `retry-after`, `www-authenticate`, `allow` and `inference-header-content-length`. They can send any
//! header, including `authorization`; browsers add no credentials by themselves. Preflights are cached for an hour and
//! need no credentials.
//!
//! # OpenAPI
//!
//! The document is generated from the routes, the types of requests and responses, and the registered kernels, again if
//! the registry has changed. It does not describe the documentation itself. Path parameters cannot contain the slashes
//! of kernel ids, so each kernel has paths of its own. Paths have the prefix; the document is at the root, as `/health`
//! is, and its server URL is relative, so it is correct for nested routers and behind proxies.
//! [`KernelRouter::openapi`] disables it.
//!
//! Add authentication as a layer with [`KernelRouter::into_router_with`], and describe it with
//! [`KernelRouter::security`]: which schemes there are and which operations require one. Swagger UI then has a button
//! for credentials, which it stores in the browser. Exempt the paths of [`is_docs`] from authentication, as a browser
//! has no credentials when it opens the page.
//!
//! Swagger UI is embedded, loads nothing from other hosts, and its content security policy forbids it. Its files are
//! sent with gzip, which every browser accepts. It is slow with thousands of kernels.
//!
//! # Metrics
//!
//! `/metrics` has those of [`layers::metrics`](crate::middleware::metrics), counted outside of the service and of a
//! [`TimeoutLayer`](crate::layers::TimeoutLayer) around it, so they include rejections of its layers and missed
//! deadlines, and the following. Metrics without values are omitted. Up to 1 024 kernels have series of their own: the
//! first that are called. The others are counted together as operation and domain `other`.
//!
//! | name | type | labels | what |
//! |---|---|---|---|
//! | `kernel_domain_requests_total` | counter | `domain`, `outcome` | calls that ended |
//! | `kernel_domain_request_duration_seconds_total` | counter | `domain`, `outcome` | total duration of these calls |
//! | `kernel_registered` | gauge | `domain`, `mode` | registered kernels |
//! | `kernel_http_responses_total` | counter | `code` | responses of execute requests, including those rejected before the service was called |
//! | `kernel_backend_up` | gauge | `backend`, `device` | 1 if the backend accepts jobs, 0 if it is lost |
//! | `kernel_backend_workers` | gauge | `backend`, `device` | worker threads, each of which runs one job at a time |
//! | `kernel_backend_capacity` | gauge | `backend`, `device` | jobs that the backend accepts at one time, running and queued |
//! | `kernel_backend_queued` | gauge | `backend`, `device` | jobs that wait in the queue |
//! | `kernel_backend_running` | gauge | `backend`, `device` | jobs that hold a permit and are not queued |
//!
//! | `kernel_connections` | gauge | `listener` | open connections |
//! | `kernel_connections_accepted_total` | counter | `listener` | accepted connections |
//! | `kernel_connections_rejected_total` | counter | `listener`, `reason` | connections over `connections.max` (`max`), which serve health probes only, or over `connections.max_per_address` (`address`), which are closed |
//! | `kernel_connections_not_accepted_total` | counter | `listener` | failed attempts to accept a connection, mostly because of the limit on open files |
//! | `kernel_connections_closed_total` | counter | `listener`, `reason` | connections closed by the server: the client did not read responses (`slow`), was idle over HTTP/2 (`idle`), or the maximum age was reached (`age`) |
//! | `kernel_streams_reset_total` | counter | `listener` | HTTP/2 streams reset because their client did not read the response |
//!
//! The connection metrics require [`KernelRouter::connections`]. Requests to all routes, and those of gRPC, are counted
//! by [`requests`](crate::requests); add them with [`KernelRouter::more_metrics`].
//!
//! Those of the backends are there where the router knows its [devices](KernelRouter::with_service); the CPU has no
//! label `device`. When all permits are taken, further requests wait in front of the service and are in no gauge:
//! `kernel_backend_queued` over `kernel_backend_workers` says how many rounds of work a new request waits for, and is what
//! to add replicas by.
//!
//! With `KernelRouter::tls` (feature `tls`):
//!
//! | name | type | labels | what |
//! |---|---|---|---|
//! | `kernel_tls_certificate_expiry_seconds` | gauge | | time until the certificate or one of its chain expires; negative if it has expired |
//! | `kernel_tls_reloads_total` | counter | `outcome` | reloads of changed certificate files: `ok` or `failed` |
//! | `kernel_tls_handshake_failures_total` | counter | `reason` | failed handshakes: `timeout`, `not_tls`, `client_certificate`, `other` |
//!
//! With NVIDIA's management library (part of the driver), sensor readings of each CUDA device. Names are those of
//! NVIDIA's DCGM exporter, with Prometheus units. Readings that a device or driver does not support are missing:
//!
//! | name | type | DCGM's `DCGM_FI_DEV_` | what |
//! |---|---|---|---|
//! | `gpu_util_ratios` | gauge | `GPU_UTIL` | share of recent time in which a kernel ran |
//! | `gpu_mem_copy_util_ratios` | gauge | `MEM_COPY_UTIL` | share of recent time in which memory was read or written |
//! | `gpu_fb_used_bytes`, `gpu_fb_total_bytes` | gauge | `FB_USED`, `FB_TOTAL` | memory used by all processes, and total |
//! | `gpu_temp_celsius` | gauge | `GPU_TEMP` | temperature |
//! | `gpu_power_usage_watts`, `gpu_power_mgmt_limit_watts` | gauge | `POWER_USAGE`, `ENFORCED_POWER_LIMIT` | power drawn, and limit |
//! | `gpu_ecc_sbe_vol_total`, `gpu_ecc_dbe_vol_total` | counter | `ECC_SBE_VOL_TOTAL`, `ECC_DBE_VOL_TOTAL` | corrected and uncorrected ECC errors since the driver was loaded |
//! | `gpu_clock_throttle_reasons` | gauge | `CLOCK_THROTTLE_REASONS` | 1 for each `reason` why the clocks are reduced; idle is not one |
//!
//! Each has the labels `device` and `uuid`, NVIDIA's id of the device.
//!
//! # Cancel safety
//!
//! If a client closes the connection, the server drops the handler's future, which cancels the call. The server must
//! limit the time to receive a request's head; the body must arrive before the deadline.
//!
//! # Many clients
//!
//! `axum::serve` limits neither the time to receive a request's head, nor the number of connections, nor the duration of a
//! graceful shutdown. The server of feature `hyper` does, for any router:
//! `tower_kernels::hyper::serve(listener, TowerToHyperService::new(router), stop, drain)`, with `hyper-util`'s
//! `TowerToHyperService` and a listener from `tower_kernels::hyper::listen`. See `examples/axum_server.rs`.
//!
//! New connections wait in the listener's backlog, and the system may reset them if it is full. If hundreds of clients
//! can connect at once, use that `listen` or tokio's `TcpSocket::listen` with a longer backlog than that of
//! `TcpListener::bind`.

mod cors;
mod request_ids;
mod router;
mod routes;

pub use self::router::KernelRouter;
pub use self::routes::KernelRoutes;
pub use crate::servers::http::{
    DrainHandle, InvalidPrefix, ResponseBody, ResponseFuture, RouterConfig, SecurityScheme, is_docs,
};
