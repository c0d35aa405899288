//! A Tower `Service<KernelRequest>` that runs real kernels on CUDA GPUs and on the CPU, and the layers that make it safe
//! to put in front of users.
//!
//! Everything is a Tower service, so a hyper, axum, tonic or actix program builds its own pipeline from the parts and
//! nobody has to take the whole:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
//! use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};
//!
//! let registry = KernelRegistry::new();
//! tower_kernels::kernels::register_all(&registry)?;
//!
//! let mut service = ServiceBuilder::new()
//!     .layer(MetricsLayer::new())
//!     .layer(TracingLayer::new())
//!     .layer(RateLimiterLayer::new(100, Duration::from_secs(1)))
//!     .layer(TimeoutLayer::new(Duration::from_secs(30)))
//!     .service(KernelService::new(registry));
//!
//! let input = r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]]}"#;
//! let request = KernelRequest::new("graph/betweenness-centrality", Payload::json(input));
//! let response = service.ready().await?.call(request).await?;
//! assert_eq!(response.execution.batch_size, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # The way of a request
//!
//! ```text
//! hyper / axum / tonic / actix / your code                            src/servers
//!   -> layers          metrics, load shed, timeout, queue, ...        src/middleware, stacked in src/pipeline
//!   -> KernelService   look up the kernel                             src/service
//!   -> backend         reserve a permit, decode, validate, estimate   src/backends
//!   -> worker          a thread of its own; on CUDA a stream too      src/backends/worker_pool
//!   -> kernel          run, encode                                    src/kernels
//!   -> the same way back
//! ```
//!
//! What holds on that way:
//!
//! * **Readiness tells the truth.** `poll_ready` reserves a place to run; `Pending` means that the machine is full.
//!   Nothing queues without a bound.
//! * **Dropping the future cancels the work.** A deadline, a disconnect and an explicit drop take the same way. Work that
//!   waits is never started, a running kernel stops at its next check, and its permit is released when it has really stopped.
//! * **One parse, one write.** Input bytes are decoded once, straight into the kernel's typed input. Callers in the same
//!   process pass typed values and pay for no codec.
//! * **What costs less than a thread hop runs where it is**, everything else on a worker thread, so that no async thread is held
//!   up.
//! * **Errors carry their meaning**: each says of itself what kind of refusal it is and when to retry; one
//!   [table](error) turns that into HTTP and gRPC statuses.
//!
//! # Where to go from here
//!
//! * A server to start, without code of your own: the program `tower-kernels` (feature `server`); `tower-kernels serve
//!   --help` lists its settings.
//! * Kernels behind a server of your own, each with a feature of its name: `axum` for REST (`KernelRouter`), `grpc` over
//!   tonic (`KernelGrpcServer`, `KernelClient`), `hyper` for any pipeline as a service of hyper's and a server with a
//!   graceful end, `actix` for actors.
//! * Who may call: `layers::AuthenticateLayer` (feature `auth`), and [`layers::ErrorResponseLayer`], which makes HTTP or gRPC
//!   answers of what layers refuse.
//! * Using kernels: [`KernelService`](service::KernelService) and the [catalogue](kernels).
//! * The layers around kernels in the right order, from a few settings: [`pipeline`].
//! * Around a service of your own that knows nothing of kernels: [`middleware`].
//! * What to do when [it does not compile](compile_errors).
//! * A kernel of your own: [the guide](guide), which walks through the smallest one there is.
//! * GPUs, and what happens when one is lost: [`backends`].
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `cuda` | yes | the CUDA backend; it loads the driver at run time, so it builds and runs without one |
//! | `actix` | | `tower_kernels::actix`: actors that run kernels |
//! | `auth` | | `layers::AuthenticateLayer`: API keys and JSON web tokens, around any HTTP or gRPC service |
//! | `axum` | | `tower_kernels::axum`: kernels as a REST API, a router to serve or to nest |
//! | `cache` | | `layers::CacheLayer`: answers kept for the next who asks the same |
//! | `docs` | | `axum`, with a page at `/docs` that shows the REST API and tries it out: Swagger UI, embedded |
//! | `grpc` | | `tower_kernels::grpc`: gRPC over tonic, a server, a client, health and reflection |
//! | `hyper` | | `tower_kernels::hyper`: any pipeline as a hyper service, and a server with a graceful end |
//! | `server` | | the program `tower-kernels`: REST and gRPC in one server, and kernels from the command line; with `auth`, `axum`, `cache`, `cuda`, `docs`, `grpc`, `hyper` and `tls` |
//! | `tls` | | TLS for the server of `hyper`: certificates that are read again when they change, and client certificates that name the tenant |
//! | `tower` | | nothing more: the [`layers`] and `Service` are there without any feature, and a manifest can name it |
//! | `full` | | all of the above |
//! | `fault-kernel` | | for tests alone: the program with a kernel that loses the device |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backends;
mod buffer;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
pub mod kernels;
pub mod layers;
pub mod middleware;
mod panics;
pub mod pipeline;
pub mod request;
mod servers;
pub mod service;
mod sync;

#[cfg(feature = "actix")]
pub use servers::actix;
#[cfg(feature = "axum")]
pub use servers::axum;
#[cfg(feature = "grpc")]
pub use servers::grpc;
#[cfg(feature = "hyper")]
pub use servers::hyper;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub use servers::requests;

#[doc = include_str!("guide.md")]
pub mod guide {}

#[doc = include_str!("compile_errors.md")]
pub mod compile_errors {}

/// The README's code is compiled and run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub mod readme {}
