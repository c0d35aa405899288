//! Requests that share a run: a backend behind the [batch layer](crate::middleware::batch).
//!
//! A small request costs a launch, three copies and the way to a lane and back, and computes for a fraction of that. Of
//! those that wait at the same time for the same kernel, a kernel that [says which may](crate::service::Kernel::batch_key)
//! does many in one run.
//!
//! ```
//! use tower::Layer;
//! use tower_kernels::backends::{BatchedLayer, Local};
//! use tower_kernels::service::{KernelRegistry, KernelService};
//!
//! let registry = KernelRegistry::new();
//! tower_kernels::kernels::register_all(&registry).unwrap();
//! let local = Local::detect();
//! // In all layers: `PipelineLayer::over`.
//! let service = KernelService::with_backend(registry, BatchedLayer::over(&local).layer(local));
//! # let _ = service;
//! ```
//!
//! Each payload is decoded and checked by itself, on its caller's thread, before it joins others: what is wrong fails
//! alone. What is too large for that thread, and what weighs more than a run may, runs alone. Inputs are joined and outputs
//! taken apart on the lane, and each is encoded as its own request was. Where a run fails in a way that could be the fault
//! of one of those who share it, each is run alone.
//!
//! [`Execution::batch_size`](crate::request::Execution::batch_size) says how many shared a run, and `queued` counts from the
//! moment at which the request began to wait for it. A request that somebody watches the
//! [`Progress`](crate::service::Progress) of runs alone.
//!
//! # A kernel of your own
//!
//! One that does the same to each element needs a key, which says what a run takes once for all of its requests:
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
//!     // And as without it:
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
//! // So that the two find each other, whatever else the machine does.
//! let layer = BatchedLayer::for_workers(1).max_requests(2).max_delay(Duration::from_secs(1));
//! let service = KernelService::with_backend(registry, layer.layer(CpuBackend::new()));
//!
//! let call = |input| service.clone().oneshot(KernelRequest::new("my/scale", Payload::json(input)));
//! let (one, other) = tokio::join!(call(r#"{"by": 2, "x": [1, 2]}"#), call(r#"{"by": 2, "x": [3]}"#));
//! assert!(matches!(one?.payload, Payload::Json(x) if x == "[2.0,4.0]"));
//! assert_eq!(other?.execution.batch_size, 2);
//! # Ok(())
//! # }
//! ```
//!
//! By default the inputs of a run are worked one after the other, which spares them the ways to a lane and back. On CUDA most
//! is gained by one launch for all: the [guide](crate::guide) has the lines.
//!
//! # How many threads
//!
//! With many requests in flight what Tokio's threads share is what costs: on 16 processors and 8 lanes, a request of 1024
//! elements took 4.7 µs of them where they were 6, and 12.4 µs where they were 16, which is Tokio's default there. A program
//! that has little else to do is best off with as many threads as there are processors beside the lanes, or a few less
//! (`tokio::runtime::Builder::worker_threads`): 6 gave 1.07 million such requests a second, 16 gave 0.99. The measurement
//! is in `benches/RESULTS.md`.

mod future;
mod layer;
mod service;

pub use future::BatchFuture;
pub use layer::{BatchedLayer, SameRun};
pub use service::Batches;

use crate::middleware::batch::Batch;
use crate::service::Job;

/// A backend whose requests share runs.
pub type Batched<B> = Batch<Batches<B>, Job, SameRun>;
