//! Serves two kernels of your own as models of the Open Inference Protocol, over REST and gRPC, behind the pipeline with
//! its defaults: what a Python model of Triton does, in Rust.
//!
//! ```text
//! cargo run --release --features full --example inference_server -- [127.0.0.1:8080] [127.0.0.1:50051]
//! curl localhost:8080/v2/models/identity/infer \
//!     -d '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}'
//! ```
//!
//! `benches/inference.sh` measures it beside Triton.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::backends::Local;
use tower_kernels::grpc::{GrpcConfig, KernelGrpcServer};
use tower_kernels::hyper::{Server, listen};
use tower_kernels::pipeline::{PipelineConfig, PipelineLayer};
use tower_kernels::service::{Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext};

/// Maximum size of a request in bytes, over REST and gRPC.
const MAX_REQUEST_SIZE: usize = 64 << 20;

/// Returns its input.
struct Identity;

#[derive(Deserialize, Serialize, JsonSchema)]
struct Vector {
    x: Buffer<f32>,
}

impl Kernel for Identity {
    type Input = Vector;
    type Output = Vector;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("example/identity", "1.0.0", "Returns its input.").alias("identity")
    }

    fn validate(&self, _: &Vector) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, input: &Vector) -> Cost {
        Cost { bytes: size_of_val::<[f32]>(&input.x) as u64, ..Cost::default() }
    }

    fn run_cpu(&self, input: &Vector, _: &RunContext<'_>) -> Result<Vector, KernelError> {
        Ok(Vector { x: input.x.clone() })
    }
}

/// Keeps a worker for a time, in milliseconds.
struct Sleep;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Millis {
    millis: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Slept {
    millis: Buffer<u64>,
}

impl Kernel for Sleep {
    type Input = Millis;
    type Output = Slept;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("example/sleep", "1.0.0", "Sleeps for a number of milliseconds.").alias("sleep")
    }

    fn validate(&self, _: &Millis) -> Result<(), InvalidInput> {
        Ok(())
    }

    /// Two million operations a millisecond, which is the rate that the CPU backend assumes. Only requests that take less
    /// than 20 µs run on the thread of the server.
    fn cost(&self, input: &Millis) -> Cost {
        Cost { operations: input.millis.saturating_mul(2_000_000), ..Cost::default() }
    }

    fn run_cpu(&self, input: &Millis, context: &RunContext<'_>) -> Result<Slept, KernelError> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(input.millis) {
            // The client may have left, or the deadline may have passed.
            context.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Slept { millis: vec![input.millis].into() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut addresses = std::env::args().skip(1);
    let mut address = |default: &str| addresses.next().unwrap_or_else(|| default.to_owned()).parse::<SocketAddr>();
    let (rest, grpc) = (listen(address("127.0.0.1:8080")?)?, listen(address("127.0.0.1:50051")?)?);

    let registry = KernelRegistry::new();
    registry.register(Identity)?;
    registry.register(Sleep)?;
    let pipeline = PipelineLayer::new(registry, PipelineConfig::default())?.over(Local::detect());

    let config = RouterConfig { max_request_size: MAX_REQUEST_SIZE, ..RouterConfig::default() };
    let router = KernelRouter::with_service(pipeline.clone(), &pipeline, config).into_router();
    let config = GrpcConfig { max_request_size: MAX_REQUEST_SIZE, ..GrpcConfig::default() };
    let kernels = KernelGrpcServer::with_service(pipeline.clone(), &pipeline, config);
    let routes = Routes::new(kernels.clone().into_service()).add_service(kernels.into_inference_service());

    eprintln!("listening on http://{} and for gRPC on http://{}", rest.local_addr()?, grpc.local_addr()?);
    let (router, routes) = (TowerToHyperService::new(router), TowerToHyperService::new(routes.prepare()));
    let drain = Duration::from_secs(30);
    tokio::try_join!(
        Server::default().serve(rest, router, tokio::signal::ctrl_c(), drain),
        Server::default().serve(grpc, routes, tokio::signal::ctrl_c(), drain),
    )?;
    Ok(())
}
