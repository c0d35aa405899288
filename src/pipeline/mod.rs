//! A pipeline that is ready to be used: the [layers](crate::layers) around kernels, in the order in which they work.
//!
//! The layers are made to be taken one by one. Whoever wants most of them takes this: it stacks those that the
//! [`PipelineConfig`] turns on, says what it has made when it is printed, and its [`PipelineHandle`] reads how all of it is.
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
//! # The order, and why
//!
//! From the outside in:
//!
//! | layer | if nothing is said | why it is there and nowhere else |
//! |---|---|---|
//! | metrics | on | outside of all that refuses, or refusals would not be counted |
//! | tracing | on | inside metrics alone, so that the span of a call says how it ended whoever ended it |
//! | rate limit | off | before any work is done for a caller who has had its share, a look into the cache included |
//! | cache | off | inside what decides who may ask; outside of all that only the work needs |
//! | coalesce | off | inside the cache, so that an answer that is not kept any more is worked out once; outside of the breaker, which is to see one failure of a shared run and not as many as there are callers |
//! | load shed | 5 s | inside the cache and what shares runs, as those it refuses or lets in are runs: a hit needs no time, and would teach it that kernels take none; outside of retry, which is not to ask again. It is told the timeout, and counts on no more, and that the queue serves by share and priority. Nothing is refused before it has been measured how much gets done |
//! | circuit breaker | on, per kernel and tenant | outside of the timeout, so that what takes too long counts as a failure; a deadline that the caller chose does not |
//! | timeout | 30 s | outside of retry, so that all attempts share the time of the call |
//! | retry | off | inside the breaker, which hears of calls and not of attempts; outside of the queue, so that each attempt waits for its own turn |
//! | priority queue | 1 024 calls | directly around what is not ready when it is full. It learns how long answers take, and gives no turn to a call that would be late |
//! | concurrency | off | innermost: kernels bound themselves by the lanes of their backend. Calls that wait for a lane are served fairly by share, as those in the queue; with a limit of some two a lane they wait in the queue, where the earliest deadline of a share goes first |
//! | batch | off; on CUDA devices in `tower-kernels serve` | around the machine, inside the kernel service: what is wrong with a request is known by then, and fails alone. Inside of all that decides who is next, which it does not: up to 16 384 calls wait in it, as they came. A limit on concurrency keeps them in the queue, and what would share a run with them |
//!
//! and then the machine that the pipeline is put [over](PipelineLayer::over). Around a service of kernels of your own, as a
//! [`Layer`](tower_layer::Layer), it stacks all but the last: that one is around the backend, which such a service has
//! already (behind a [`BatchedLayer`](crate::backends::BatchedLayer), or not).
//!
//! # Tenants
//!
//! Each tenant has a share of the machine, in proportion to its [weight](TenantConfig::weight). The share is assigned before
//! all layers, and load shedding, the queue, and the queues of the CPU and the devices go by it: a tenant that asks for less
//! than its share waits for what runs, and for nothing that others have waiting. A priority counts among the calls of the
//! same share, up to the highest that the tenant [may have](TenantConfig::max_priority); it takes nothing from others. Shares
//! are of time where it is known how long calls take: in the queues before the CPU and the devices it is the time that they
//! were given.
//!
//! The names of tenants must have been verified by somebody, an [`AuthenticateLayer`](crate::layers::AuthenticateLayer) around
//! the server or whoever calls the pipeline. Where they have [not](TenantsConfig::verified), only those in the configuration
//! have a share of their own, and all others have one together: made-up names gain nothing.
//!
//! # What gains by shared runs
//!
//! On CUDA devices, kernels that [say which requests may share one](crate::service::Kernel::batch_key), of those small
//! enough to be read on their caller's thread: through the pipeline, with 1024 in flight, 3 times as many requests a second
//! for saxpy and 5.6 times for option prices, and level with nothing to share (`benches/RESULTS.md`, on an H200). A single
//! request never waits for others unless a delay is set.
//! A run that fails is as many failures for the circuit breaker as it had requests.
//!
//! On a machine without devices nothing is put there unless `on_cpu` says so: what runs inside the call, which small
//! requests for the kernels of this crate do, gains nothing and costs up to 0.6 µs. Kernels of one's own that share runs, and
//! take 25 to 50 µs, were done 1.08 to 1.23 times as often with 64 in flight on 2 lanes, as they spare the ways there and back;
//! at 200 µs it made no difference.
//!
//! Authentication is not among them: it takes HTTP and gRPC, stands around the server, and writes the tenant into the request.
//! So the cache and the shared runs are always inside of it, and neither crosses tenants unless that is said.
//!
//! A call that fails in one of these ways would be worse off in another order, which compiles as well: a cache around the
//! rate limit hands out answers without limit; retry around the timeout gives each attempt the whole time; metrics inside
//! see no refusals; a queue around the breaker keeps calls waiting that will be refused. That is why there is one builder
//! and not a list of layers in a file.
//!
//! # What a layer costs that is off
//!
//! A queue and a limit on concurrency that are off are not there: a branch where their service would be. The other layers are
//! always there, so that the code inside them is there once, and look at a flag.
//!
//! # What is not among them
//!
//! [`FallbackLayer`](crate::layers::FallbackLayer) and [`HedgeLayer`](crate::layers::HedgeLayer) need somewhere else to go. A backend of this machine,
//! [`Local`](crate::backends::Local), moves runs off a lost device by itself, and a second attempt beside the first takes the
//! place of another call. Where there are several machines, put them around the kernels that the pipeline is given.
//!
//! # Readiness
//!
//! With load shedding it is always ready. Else, with the queue it is ready while there is room in the queue for the most urgent call, so that hits of the cache and calls
//! that join a run are answered while the machine is full. Without it, it is ready when the kernels are.
//!
//! # Cancel safety
//!
//! Dropping the future gives up what each layer holds for the call; see each of them.

mod backend;
mod config;
mod display;
mod error;
mod future;
mod handle;
mod layer;
mod metrics;
mod service;
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
