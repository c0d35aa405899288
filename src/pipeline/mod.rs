//! Puts the [layers](crate::layers) around kernels in the recommended order, as a configuration says.
//!
//! Each layer also works alone. A [`PipelineLayer`] stacks those that the [`PipelineConfig`] turns on and prints them
//! with `Display`. Its [`PipelineHandle`] reads their state and exports their metrics.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::time::Duration;
//! use tower::{Service, ServiceExt};
//! use tower_kernels::backends::Local;
//! use tower_kernels::pipeline::{BatchConfig, PipelineConfig, PipelineLayer};
//! use tower_kernels::service::{KernelRegistry, KernelRequest, Payload};
//!
//! let registry = KernelRegistry::new();
//! tower_kernels::kernels::register_all(&registry).unwrap();
//!
//! let batch = Some(BatchConfig::default());
//! let config = PipelineConfig { timeout: Duration::from_secs(5), batch, ..Default::default() };
//! let layer = PipelineLayer::new(registry, config).unwrap();
//! println!("{layer}");
//!
//! let mut pipeline = layer.over(Local::detect());
//! let input = Payload::json(r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#);
//! pipeline.ready().await.unwrap().call(KernelRequest::new("linalg/saxpy", input)).await.unwrap();
//! assert_eq!(layer.handle().metrics().ended()[0].outcome, "ok");
//! # }
//! ```
//!
//! # Order
//!
//! From the outside in:
//!
//! | layer | default | why it has this position |
//! |---|---|---|
//! | metrics | on | outside all layers that reject calls, so that rejections are counted |
//! | tracing | on | directly inside the metrics, so that the span of a call records its outcome, whichever layer ends it |
//! | rate limit | off | outside all work, the cache lookup included, so that calls over the limit cost little |
//! | cache | off | inside the rate limit, because cached responses count towards it; outside the layers that only executions need |
//! | coalesce | off | inside the cache, so that an expired entry is computed once; outside the circuit breaker, so that a failed execution counts once, however many calls share it |
//! | load shed | 5 s | inside the cache and coalescing, because it measures executions: a cache hit takes no time, and would distort the estimate. Outside retry, so that a rejection is not retried. It knows the timeout, and that the queue serves by share and priority. It rejects nothing until it has measured the throughput |
//! | circuit breaker | on, per kernel and tenant | outside the timeout, so that a timeout counts as a failure; exceeding a deadline that the client chose does not |
//! | timeout | 30 s | outside retry, so that all attempts share one timeout |
//! | retry | off | inside the circuit breaker, which counts calls and not attempts; outside the queue, so that each attempt is queued |
//! | priority queue | 1 024 calls | directly around the layers and backend whose readiness it waits for. It learns how long responses take, and does not serve calls that would miss their deadline |
//! | concurrency | off | innermost, because the workers of the backend already limit the kernels that run. Calls that wait for a worker are served by fair share, as in the queue. With a limit of about two per worker they wait in the queue instead, which within a share serves the earliest deadline first |
//! | batch | off; on for CUDA devices in `tower-kernels serve` | inside the kernel service, around the backend: requests have been validated by then, so an invalid one fails alone. Inside the queue, because batches are first in, first out: up to 16 384 requests wait for one. A concurrency limit keeps these calls in the queue, and makes batches smaller |
//!
//! The backend is that of [`PipelineLayer::over`]. As a [`Layer`](tower_layer::Layer), the pipeline goes around a
//! kernel service that has a backend, with all layers but batching. Such a service batches if its backend is in a
//! [`BatchedLayer`](crate::backends::BatchedLayer).
//!
//! Other orders compile as well, and have defects: a cache outside the rate limit serves an unlimited number of
//! responses, retry outside the timeout gives each attempt the whole timeout, metrics inside the rate limit do not
//! count its rejections, and a queue outside the circuit breaker delays calls that are then rejected. So the order is
//! not configurable.
//!
//! # Tenants
//!
//! Each tenant has a share of the machine in proportion to its [weight](TenantConfig::weight). The pipeline assigns the
//! share before all layers, and load shedding, the priority queue and the queues of the CPU and the devices use it. A
//! tenant that requests less than its share waits for running calls only, not for the waiting calls of others. A
//! priority orders the calls of one share, up to the tenant's [maximum](TenantConfig::max_priority), and takes nothing
//! from other shares. Shares are of time if the duration of calls is known: in the queues of the CPU and the devices it
//! is measured.
//!
//! Names of tenants must be authenticated, by an [`AuthenticateLayer`](crate::layers::AuthenticateLayer) around the
//! server or by the caller of the pipeline. If they are [not](TenantsConfig::verified), all tenants that the
//! configuration does not name have one share together, so that a client gains nothing by inventing names.
//!
//! Authentication is not part of the pipeline. It reads HTTP and gRPC headers, goes around the server, and adds the
//! tenant to the request. The cache, coalescing and batches are inside it; cached and coalesced responses are shared
//! across tenants only if the configuration says so.
//!
//! # When batching helps
//!
//! Batching merges requests for kernels with a [batch key](crate::service::Kernel::batch_key) that are small enough to
//! be decoded on the caller's thread. On CUDA devices, through the pipeline with 1 024 calls in flight, it serves 3
//! times the requests per second for saxpy and 5.6 times for option pricing, and costs nothing measurable if there is
//! nothing to batch (`benches/RESULTS.md`, on an H200). A request never waits for others unless a delay is set. A
//! failed batch counts for the circuit breaker as one failure per request.
//!
//! On a machine without devices, batching is off unless `on_cpu` is set. Small requests for the kernels of this crate
//! run on the caller's thread, where batching gains nothing and costs up to 0.6 µs. For custom kernels that take 25 to
//! 50 µs, throughput with 64 calls in flight on 2 workers was 1.08 to 1.23 times as high, as batches save wake-ups; at
//! 200 µs it was the same.
//!
//! # Cost of layers that are off
//!
//! The queue and the concurrency limit cost one branch if they are off. The other layers are always in the stack, so
//! that the code inside them is compiled once, and check a flag.
//!
//! # Layers that are not included
//!
//! [`FallbackLayer`](crate::layers::FallbackLayer) and [`HedgeLayer`](crate::layers::HedgeLayer) need a second service.
//! [`Local`](crate::backends::Local) already moves requests from a lost device to another, and a hedged attempt on the
//! same machine takes the permit of another call. With several machines, put these layers around the kernel service
//! that the pipeline goes around.
//!
//! # Readiness
//!
//! With load shedding the pipeline is always ready. Otherwise, with the queue, it is ready while the queue can hold a
//! call of the highest priority, so that cached and coalesced calls are served while the backend is full. Without
//! either, it is ready when the kernels are.
//!
//! # Cancel safety
//!
//! Dropping the future cancels the call in all layers and releases what they hold for it.

mod backend;
mod config;
mod display;
mod error;
mod future;
mod handle;
mod layer;
mod metrics;
mod service;
mod source;
mod tenants;

pub use self::backend::{BackendFuture, PipelineBackend};
pub use self::config::{
    BatchConfig, BreakerConfig, CacheConfig, CoalesceConfig, InvalidPipeline, LoadShedConfig, PipelineConfig,
    QueueConfig, QuotaConfig, RateLimitConfig, RetryConfig, TenantConfig, TenantsConfig,
};
pub use self::error::PipelineError;
pub use self::future::PipelineFuture;
pub use self::handle::PipelineHandle;
pub use self::layer::PipelineLayer;
pub use self::service::{KernelHandler, LocalPipeline, Pipeline};
pub use self::source::{KernelSource, RegistryOnly};
