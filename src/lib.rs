//! A Tower `Service<KernelRequest>` that runs real kernels on CUDA GPUs and on the CPU, and the layers that make it
//! safe to put in front of users.
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
//! # How a request is processed
//!
//! ```text
//! hyper / axum / tonic / actix / your code                            src/servers
//!   -> layers          metrics, load shed, timeout, queue, ...        src/middleware, stacked in src/pipeline
//!   -> KernelService   look up the kernel; encode the output          src/service
//!   -> backend         reserve a permit, decode, validate, choose     src/backends
//!   -> worker          a thread of its own; on CUDA a stream too      src/backends/worker_pool
//!   -> kernel          run                                            src/kernels
//! ```
//!
//! The response takes the same path back. In all of it:
//!
//! * **Readiness tells the truth.** `poll_ready` reserves a permit to run; `Pending` means that the machine is full.
//!   Nothing queues without a bound.
//! * **Dropping the future cancels the work**, whether by a deadline, a disconnect or an explicit drop. Work that waits is
//!   never started, a running kernel stops at its next check, and its permit is free when it has really stopped.
//! * **One parse, one write.** Input bytes are decoded once, straight into the kernel's typed input. Callers in the same
//!   process pass typed values and pay for no codec.
//! * **What costs less than a thread hop runs inline**, everything else on a worker, so that no async thread is blocked.
//!   Large inputs and outputs are decoded and encoded on threads for that, so that no worker waits for text.
//! * **Errors carry their meaning**: each has a kind and a retry-after time, which one [table](error) maps to HTTP and gRPC
//!   statuses.
//!
//! # Where to go from here
//!
//! * A server to start, without code of your own: the program `tower-kernels` (feature `server`); `tower-kernels serve
//!   --help` lists its settings.
//! * Kernels behind a server of your own, each with a feature of its name: `axum` for REST (`KernelRouter`), `grpc` over
//!   tonic (`KernelGrpcServer`, `KernelClient`), `hyper` for any pipeline as a service of hyper's and a server with a
//!   graceful end, `actix` for actors.
//! * Authentication: `layers::AuthenticateLayer` (feature `auth`), and [`layers::ErrorResponseLayer`], which converts
//!   rejections into HTTP or gRPC responses.
//! * Using kernels: [`KernelService`](service::KernelService) and the [catalogue](kernels).
//! * The layers around kernels in the right order, from a few settings: [`pipeline`].
//! * Around a service of your own that knows nothing of kernels: [`middleware`].
//! * What to do when [it does not compile](compile_errors).
//! * A kernel of your own: [the guide](guide), which walks through the smallest one there is.
//! * GPUs, and what happens when one is lost: [`backends`].
//!
//! # Feature flags
//!
//! A layer needs no more than its own feature, for example `default-features = false, features = ["timeout"]`.
//!
//! | feature | default | description |
//! |---|---|---|
//! | `batch` | yes | [`BatchLayer`](layers::BatchLayer) |
//! | `circuit-breaker` | yes | [`CircuitBreakerLayer`](layers::CircuitBreakerLayer) |
//! | `classify` | yes | [`ClassifyLayer`](layers::ClassifyLayer) |
//! | `coalesce` | yes | [`CoalesceLayer`](layers::CoalesceLayer) |
//! | `concurrency` | yes | [`ConcurrencyLayer`](layers::ConcurrencyLayer) |
//! | `error-response` | yes | [`ErrorResponseLayer`](layers::ErrorResponseLayer) |
//! | `fallback` | yes | [`FallbackLayer`](layers::FallbackLayer) |
//! | `hedge` | yes | [`HedgeLayer`](layers::HedgeLayer); enables `retry` |
//! | `load-shed` | yes | [`LoadShedLayer`](layers::LoadShedLayer) |
//! | `metrics` | yes | [`MetricsLayer`](layers::MetricsLayer) |
//! | `optional` | yes | [`OptionalLayer`](layers::OptionalLayer) |
//! | `priority-queue` | yes | [`PriorityQueueLayer`](layers::PriorityQueueLayer) |
//! | `rate-limit` | yes | [`RateLimiterLayer`](layers::RateLimiterLayer) |
//! | `retry` | yes | [`RetryLayer`](layers::RetryLayer) |
//! | `timeout` | yes | [`TimeoutLayer`](layers::TimeoutLayer) |
//! | `tracing` | yes | [`TracingLayer`](layers::TracingLayer) |
//! | `auth` | | `layers::AuthenticateLayer`: API keys and JSON web tokens; enables `tracing` |
//! | `cache` | | `layers::CacheLayer`: a cache of responses |
//! | `layers` | | all of the layers above |
//! | `service` | yes | [`KernelService`](service::KernelService), the CPU backend, and the [`pipeline`] with the layers that it consists of; no kernels |
//! | `kernels-compliance`, `kernels-core`, `kernels-graph`, `kernels-linalg`, `kernels-ml`, `kernels-orderbook`, `kernels-risk`, `kernels-stats`, `kernels-temporal` | yes | the kernels of one domain of the [catalogue](kernels); each enables `service` |
//! | `kernels` | yes | all domains |
//! | `cuda` | yes | the CUDA backend, which loads the driver at run time and builds without it; enables `service` |
//! | `tower` | yes | `kernels` and all layers but `auth` and `cache` |
//! | `actix` | | `tower_kernels::actix`: actors that run kernels |
//! | `axum` | | `tower_kernels::axum`: a REST API as an axum router |
//! | `docs` | | a page at `/docs` that shows and tries the REST API, by Swagger UI; enables `axum` |
//! | `grpc` | | `tower_kernels::grpc`: a gRPC server and client over tonic, health and reflection |
//! | `hyper` | | `tower_kernels::hyper`: a pipeline as a hyper service, and a server with graceful shutdown |
//! | `tls` | | TLS for the server of `hyper`, with certificate reload and client certificates; enables `hyper` |
//! | `isolation` | | kernels in processes of their own, on Linux, so that a fault costs one request one error; enables `service` |
//! | `server` | | the program `tower-kernels`; enables `auth`, `axum`, `cache`, `cuda`, `docs`, `grpc`, `hyper`, `isolation`, `kernels` and `tls` |
//! | `full` | | all of the above |
//! | `tower-buffer` | yes | [`error::classify`](fn@error::classify) recognizes the `Closed` of tower's `Buffer`; enabled by the layers that classify errors |
//! | `fault-kernel` | | for tests only: the program with a kernel that loses the device |

#![cfg_attr(docsrs, feature(doc_cfg))]
// A layer or a server alone uses a part of what they share. Builds of everything show what is dead.
#![cfg_attr(
    not(all(
        feature = "actix",
        feature = "axum",
        feature = "grpc",
        feature = "hyper",
        feature = "kernels",
        feature = "layers"
    )),
    allow(dead_code, unreachable_pub, unused_imports, unused_macros)
)]

#[cfg(feature = "service")]
pub mod backends;
#[cfg(feature = "service")]
mod buffer;
#[cfg(any(feature = "cuda", all(feature = "isolation", target_os = "linux")))]
mod copy;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
#[cfg(feature = "service")]
mod fair_queue;
#[cfg(feature = "service")]
pub mod kernels;
pub mod layers;
pub mod middleware;
mod panics;
#[cfg(feature = "service")]
pub mod pipeline;
#[cfg(all(feature = "isolation", target_os = "linux"))]
mod process;
mod random;
pub mod request;
#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
mod servers;
#[cfg(feature = "service")]
pub mod service;
mod sync;
mod text;

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

/// The Open Inference Protocol (V2), which the servers for REST and gRPC speak.
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub mod inference {
    pub use crate::servers::InferenceExtensions;
}

#[cfg(feature = "service")]
#[doc = include_str!("guide.md")]
pub mod guide {}

#[doc = include_str!("compile_errors.md")]
pub mod compile_errors {}

/// The README's code is compiled and run as well.
#[cfg(all(doctest, feature = "kernels"))]
#[doc = include_str!("../README.md")]
pub mod readme {}
