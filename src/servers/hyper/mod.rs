//! Kernels behind plain hyper 1.x: any `Service<KernelRequest>` as a service of hyper's.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use tokio::net::TcpListener;
//! use tower::ServiceBuilder;
//! use tower_kernels::hyper::{KernelHttpService, serve};
//! use tower_kernels::layers::{MetricsLayer, TimeoutLayer};
//! use tower_kernels::service::{KernelRegistry, KernelService};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Arc::new(KernelRegistry::new());
//! tower_kernels::kernels::register_all(&registry)?;
//!
//! let metrics = MetricsLayer::new();
//! let pipeline = ServiceBuilder::new()
//!     .layer(metrics.clone())
//!     .layer(TimeoutLayer::new(Duration::from_secs(5)))
//!     .service(KernelService::new(Arc::clone(&registry)));
//! let kernels = KernelHttpService::with_service(pipeline, registry).metrics(metrics.handle());
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
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
//! # Deadlines and cancellation
//!
//! A request has its deadline from its arrival on; reading the body, waiting for a free place and the kernel all share
//! it. A client that hangs up cancels its kernel, because hyper drops the future of the answer.

mod serve;
mod service;

pub use self::serve::{Connections, Server, ServerConfig, listen, serve};
pub use self::service::{KernelHttpService, ResponseFuture};
