//! Kernels behind plain hyper 1.x: any `Service<KernelRequest>` as a service of hyper's.
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_kernels::hyper::{KernelHttpService, listen, serve};
//! use tower_kernels::layers::{MetricsLayer, TimeoutLayer};
//! use tower_kernels::service::{KernelRegistry, KernelService};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = KernelRegistry::new();
//! tower_kernels::kernels::register_all(&registry)?;
//!
//! let kernels = KernelService::new(registry);
//! let metrics = MetricsLayer::new();
//! let pipeline = ServiceBuilder::new()
//!     .layer(metrics.clone())
//!     .layer(TimeoutLayer::new(Duration::from_secs(5)))
//!     .service(kernels.clone());
//! let kernels = KernelHttpService::with_service(pipeline, &kernels).metrics(metrics.handle());
//!
//! let listener = listen("127.0.0.1:0".parse()?)?;
//! let stop = async { Ok(()) }; // at once, here; `tokio::signal::ctrl_c()` elsewhere
//! serve(listener, kernels, stop, Duration::from_secs(30)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`KernelHttpService`] is a [`hyper::service::Service`](::hyper::service::Service) and fits any connection of
//! hyper's or `hyper-util`'s, HTTP/2 and TLS included; [`serve`] is the loop around it that most want.
//!
//! | request | answer |
//! |---|---|
//! | `POST /execute` | runs the kernel that the document names |
//! | `POST /kernels/{id}/execute` | runs this kernel; the body is its input |
//! | `GET /kernels` | all kernels, an array |
//! | `GET /kernels/{id}` | one kernel, with the schemas of its input and output |
//! | `GET /metrics` | for Prometheus, where [`KernelHttpService::metrics`] was given a handle |
//!
//! Ids hold slashes, as they are. Refusals are problem documents after RFC 9457, with `code` and `request_id`: those of
//! the [table](crate::error), and 405, 408 for a body that does not come in time, 413, 415. The client's `x-request-id`
//! is echoed, its `traceparent` honoured, and so is a deadline in `grpc-timeout` or `connect-timeout-ms`.
//!
//! # Tensors
//!
//! Both execute routes take tensors as well, and answer with tensors what came as tensors: `application/octet-stream`
//! with the header `inference-header-content-length`, which says how long the JSON is that describes the tensors after
//! it. This is the
//! [binary tensor data extension](https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension)
//! of the Open Inference Protocol, which `tritonclient` and KServe's clients speak, where multipart would have to search
//! every byte for a boundary. The metadata of a document is in the head's `parameters`, by the same names; the datatypes
//! are BOOL, UINT8, UINT32, UINT64, INT32, INT64, FP32 and FP64. A request's tensors are copied once, and an answer's, from 4 KiB on, not at all.
//!
//! ```sh
//! head='{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]},
//!   {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
//!   {"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}'
//! printf '%s\0\0\200\077\0\0\200\077' "$head" | curl --data-binary @- \
//!   -H 'content-type: application/octet-stream' -H "inference-header-content-length: ${#head}" \
//!   http://127.0.0.1:8080/kernels/linalg/saxpy/execute
//! ```
//! answers with such a head, and the four bytes of 3.0.
//!
//! # Deadlines and cancellation
//!
//! A request has its deadline from its arrival on; reading the body, waiting for a free place and the kernel all share
//! it. A client that hangs up cancels its kernel, because the future of the response is dropped. [`Server`] notices within
//! some 100 ms, whatever the client has sent after the request; a loop of your own around hyper's connections notices one
//! that has sent its next request only when the first is answered, as hyper reads no further until then. To close the
//! sending half of the connection alone is to hang up as well. A client that sends more than 80 KiB of further requests
//! while one runs is told `connection: close` with the response, and those are dropped.
//!
//! # Many clients, and slow ones
//!
//! [`serve`] is [`Server::serve`] with the default [`ServerConfig`], and takes any service of hyper's: an `axum::Router`
//! or tonic's routes in a `hyper_util::service::TowerToHyperService` get the same care. HTTP/1.1 and HTTP/2
//! come on one port, over TLS where [`Server::tls`] says so (feature `tls`).
//!
//! * Heads that trickle in, connections on which nothing is asked (HTTP/2 as well, whatever pings are answered), and
//!   clients that do not read their responses are cut off, each by a clock of its own. The body of a request has the
//!   request's deadline.
//! * A response over HTTP/2 that its client does not let through ends with its stream (`CANCEL`) after the write timeout;
//!   the connection's other streams go on. A client has to take 64 KiB in that time, or all that there is.
//! * [`Listener::bind`] takes an address of any kind: IP addresses, host names, all interfaces, and Unix domain sockets, on
//!   which there is no limit that goes by addresses.
//! * No more connections than the configuration says are accepted; the others wait in the backlog of [`listen`]. An
//!   address has a limit of its own, past which it is closed at once, and [`Server::reserve`] keeps some for health probes.
//! * Connections may be given an age, after which their clients are told to connect anew.
//! * A request that is answered before its body was read costs its connection nothing where at most 64 KiB of the body
//!   are left and come within 5 s: over HTTP/1.1 they are read before the response, which otherwise says
//!   `connection: close`. Over HTTP/2 up to 16 MiB are read after the response, and only then is the stream reset.
//! * A client that goes on sending after its last response is read for up to 3 s, so that it finds the response and not a
//!   connection that was reset.
//! * Told to stop, the server gives its clients [notice](Server::notice): it goes on, says `connection: close` in each
//!   response, and sends GOAWAY over HTTP/2. Then it accepts for another moment (20 ms) whoever had come by then, closes
//!   idle connections, answers what is in flight, and after the drain says how many requests it cancelled. Clients that
//!   have begun something and do not go on are given 10 s.
//! * [`Connections`] tells how many there are, and how often none could be accepted.

mod serve;
mod service;

#[cfg(unix)]
pub use self::serve::SocketFile;
#[cfg(feature = "tls")]
pub use self::serve::{ClientTenant, HandshakeFailure, InvalidTls, Tls, TlsFiles, TlsPem, TlsStatus};
pub use self::serve::{
    Connections, InvalidListenAddress, ListenAddress, Listener, RequestBody, Server, ServerConfig, listen, serve,
};
pub use self::service::{KernelHttpService, ResponseFuture};
pub use crate::servers::http::ResponseBody;
