//! Merges requests into shared runs: a backend behind the [batch layer](crate::middleware::batch).
//!
//! A small request costs a launch, three copies and two hops between threads, and computes for a fraction of that time.
//! Requests that wait at the same time for the same kernel, and have the same
//! [batch key](crate::service::Kernel::batch_key), share one run.
//!
//! ```
//! use tower::Layer;
//! use tower_kernels::backends::{BatchedLayer, Local};
//! use tower_kernels::service::{KernelRegistry, KernelService};
//!
//! let registry = KernelRegistry::new();
//! tower_kernels::kernels::register_all(&registry).unwrap();
//! let local = Local::detect();
//! // With all layers: `PipelineLayer::over`.
//! let service = KernelService::with_backend(registry, BatchedLayer::over(&local).layer(local));
//! # let _ = service;
//! ```
//!
//! Each payload is decoded and validated by itself, on its caller's thread, before it is merged, so an invalid request fails
//! alone. An input that is too large to decode on that thread, or heavier than a run may be, runs alone; a run of inputs that
//! [share their work](crate::service::BatchKey::sharing_work) may be much heavier. Inputs are
//! concatenated and outputs split on the worker, and each output is encoded like its own request. If a run fails and one of
//! its requests may be the cause, each is run alone.
//!
//! [`Execution::batch_size`](crate::request::Execution::batch_size) is the number of requests in the run, and `queued` counts
//! from the moment the request began to wait for it. A request with a [`Progress`](crate::service::Progress) runs alone.
//!
//! # A kernel of your own
//!
//! An elementwise kernel needs a batch key of the parameters that a run takes once for all of its requests:
//!
//! ```
//! use std::time::Duration;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//! use tower::{Layer, ServiceExt};
//! use tower_kernels::backends::{BatchedLayer, cpu::CpuBackend};
//! use tower_kernels::service::*;
//!
//! #[derive(Deserialize, Serialize, JsonSchema)]
//! struct Scaled {
//!     by: f32,
//!     x: Buffer<f32>,
//! }
//!
//! struct Scale;
//!
//! impl Kernel for Scale {
//!     type Input = Scaled;
//!     type Output = Buffer<f32>;
//!
//!     fn batch_key(&self, input: &Scaled) -> Option<BatchKey> {
//!         Some(BatchKey::exact(input.by.to_bits().into()))
//!     }
//!     // The rest is as without batching:
//!     fn info(&self) -> KernelInfo {
//!         KernelInfo::new("my/scale", "1.0.0", "Multiplies numbers.")
//!     }
//!     fn validate(&self, _: &Scaled) -> Result<(), InvalidInput> {
//!         Ok(())
//!     }
//!     fn cost(&self, input: &Scaled) -> Cost {
//!         Cost { bytes: 8 * input.x.len() as u64, ..Cost::default() }
//!     }
//!     fn run_cpu(&self, input: &Scaled, _: &RunContext<'_>) -> Result<Buffer<f32>, KernelError> {
//!         Ok(input.x.iter().map(|x| input.by * x).collect())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = KernelRegistry::new();
//! registry.register(Scale)?;
//! // A delay, so that the two requests always meet.
//! let layer = BatchedLayer::for_workers(1).max_requests(2).max_delay(Duration::from_secs(1));
//! let service = KernelService::with_backend(registry, layer.layer(CpuBackend::new()));
//!
//! let call = |input| service.clone().oneshot(KernelRequest::new("my/scale", Payload::json(input)));
//! let (first, second) = tokio::join!(call(r#"{"by": 2, "x": [1, 2]}"#), call(r#"{"by": 2, "x": [3]}"#));
//! assert!(matches!(first?.payload, Payload::Json(x) if x == "[2.0,4.0]"));
//! assert_eq!(second?.execution.batch_size, 2);
//! # Ok(())
//! # }
//! ```
//!
//! By default the inputs of a run are processed one after the other, which saves them the hops between threads. On CUDA, one
//! launch for all inputs gains most: the [guide](crate::guide) has the code.
//!
//! # Number of Tokio threads
//!
//! With many requests in flight, contention between Tokio's threads dominates: on 16 processors and 8 workers, a request of
//! 1024 elements took 4.7 µs of CPU time with 6 Tokio threads, and 12.4 µs with 16, Tokio's default there. A program that has
//! little else to do should have at most as many Tokio threads as processors that run no worker
//! (`tokio::runtime::Builder::worker_threads`): 6 reached 1.07 million such requests a second, 16 reached 0.99. The
//! measurement is in `benches/RESULTS.md`.

mod future;
mod layer;
mod service;

pub use future::BatchFuture;
pub use layer::{BatchedLayer, SameRun};
pub use service::Batches;

use crate::middleware::batch::Batch;
use crate::service::Job;

/// A backend whose requests are merged into shared runs.
pub type Batched<B> = Batch<Batches<B>, Job, SameRun>;
