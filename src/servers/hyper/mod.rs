//! Serves kernels with plain hyper 1.x: adapts any `Service<KernelRequest>` to a hyper service.
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
//! let stop = async { Ok(()) }; // stops at once; use `tokio::signal::ctrl_c()` in a real server
//! serve(listener, kernels, stop, Duration::from_secs(30)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`KernelHttpService`] is a [`hyper::service::Service`](::hyper::service::Service) and works with any connection
//! type of hyper or `hyper-util`, including HTTP/2 and TLS. [`serve`] is an accept loop around it that suits most
//! programs.
//!
//! # Routes
//!
//! The same as those of `tower_kernels::axum`, with the same responses. There is no prefix, and `/metrics` requires
//! [`KernelHttpService::metrics`] or a pipeline.
//!
#![doc = include_str!("../http/routes/routes.md")]
//!
//! Rejections are problem documents (RFC 9457) with `code` and `request_id`: those of the [error table](crate::error),
//! and 405, 408 (the body did not arrive in time), 413 and 415. Below `/v2` they are error objects of the Open Inference
//! Protocol, `{"error": "..."}`, with the same statuses and headers. The client's `x-request-id` is echoed. Its
//! `traceparent` and a deadline in `grpc-timeout` or `connect-timeout-ms` are honoured.
//!
//! # Tensors
//!
//! Both execute routes also accept tensors, and respond to tensors with tensors: `application/octet-stream` with the
//! header `inference-header-content-length`, which is the length of the JSON that describes the tensors after it. This
//! is the [binary tensor data
//! extension](https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension)
//! of the Open Inference Protocol, which `tritonclient` and KServe clients use; unlike multipart, it needs no search
//! for a boundary. The metadata of a document is in the head's `parameters`, by the same names. The datatypes are BOOL,
//! UINT8, UINT32, UINT64, INT32, INT64, FP32 and FP64. Request tensors are copied once. Response tensors of 4 KiB or
//! more are not copied.
//!
//! ```sh
//! head='{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]},
//!   {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
//!   {"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}'
//! printf '%s\0\0\200\077\0\0\200\077' "$head" | curl --data-binary @- \
//!   -H 'content-type: application/octet-stream' -H "inference-header-content-length: ${#head}" \
//!   http://127.0.0.1:8080/kernels/linalg/saxpy/execute
//! ```
//! The response is such a head, and the four bytes of 3.0.
//!
//! # Deadlines and cancellation
//!
//! A request's deadline counts from its arrival and covers reading the body, waiting for capacity and running the
//! kernel. When a client disconnects, the response future is dropped, which cancels the kernel. [`Server`] notices a
//! disconnect within about 100 ms, whatever the client has sent after the request. An accept loop of your own around
//! hyper's connections does not notice the disconnect of a client that has pipelined another request until the first
//! response is complete, because hyper does not read in the meantime. Closing only the sending half of the connection
//! counts as a disconnect. A client that sends more than 80 KiB of further requests while one runs gets
//! `connection: close` with the response, and those requests are dropped.
//!
//! # Connection limits and slow clients
//!
//! [`serve`] is [`Server::serve`] with the default [`ServerConfig`], and takes any hyper service: an `axum::Router` or
//! tonic's routes in a `hyper_util::service::TowerToHyperService` get the same protection. HTTP/1.1 and HTTP/2 share
//! one port, over TLS if [`Server::tls`] is set (feature `tls`).
//!
//! * Slow request heads, idle connections (including HTTP/2 connections that answer pings), and clients that do not
//!   read their responses are each cut off by a timeout of their own. A request body is limited by the request's
//!   deadline.
//! * An HTTP/2 response that is blocked by the client's flow control is reset (`CANCEL`) after the write timeout; the
//!   connection's other streams continue. In that time a client must read 64 KiB, or everything available.
//! * [`Listener::bind`] accepts IP addresses, host names, all interfaces, and Unix domain sockets. The per-address
//!   limit does not apply to Unix domain sockets.
//! * Connections above the configured maximum are not accepted and wait in the backlog of [`listen`]. Connections above
//!   the per-address maximum are closed at once. [`Server::reserve`] reserves some connections for health probes.
//! * Connections can have a maximum age, after which clients are asked to reconnect.
//! * A response that is sent before the request body was read does not close the connection if at most 64 KiB of the
//!   body remain and arrive within 5 s. Over HTTP/1.1 they are read before the response, which otherwise says
//!   `connection: close`. Over HTTP/2 up to 16 MiB are read after the response, and then the stream is reset.
//! * A client that keeps sending after its last response is read for up to 3 s, so that it receives the response
//!   instead of a connection reset.
//! * When it is stopped, the server first gives clients [notice](Server::notice): it continues to serve, says
//!   `connection: close` in each response, and sends GOAWAY over HTTP/2. Then it accepts connections for another 20 ms,
//!   closes idle connections, completes requests in flight, and reports how many requests it cancelled when the drain
//!   time is over. Clients that have started a request or handshake and make no progress are closed after 10 s.
//! * [`Connections`] counts open connections, accepted connections and accept failures.

mod serve;
mod service;

#[cfg(unix)]
pub use self::serve::SocketFile;
#[cfg(feature = "tls")]
pub use self::serve::{ClientTenant, HandshakeFailure, InvalidTls, Tls, TlsFiles, TlsPem, TlsStatus};
pub use self::serve::{
    Connections, InvalidListenAddress, ListenAddress, Listener, RequestBody, Server, ServerConfig, listen, serve,
};
pub use self::service::KernelHttpService;
pub use crate::servers::http::{DrainHandle, ResponseBody, ResponseFuture, SecurityScheme};
