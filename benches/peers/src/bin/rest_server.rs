//! A server for `benches/http.sh`: `bare`, an axum handler that reads and writes the same JSON and does the same sum, and
//! one that answers with the bytes that it got, or `ours`, the REST router over the kernel service, with a kernel that
//! answers with its input.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::service::{Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext};

/// The most that a body may have, for either.
const MAX_BODY: usize = 64 << 20;

#[derive(Deserialize)]
struct Request {
    kernel_id: String,
    input: Input,
}

#[derive(Deserialize)]
struct Input {
    a: f32,
    x: Vec<f32>,
    y: Vec<f32>,
}

#[derive(Serialize)]
struct Response {
    request_id: &'static str,
    kernel_id: String,
    output: Output,
    metadata: Metadata,
}

#[derive(Serialize)]
struct Output {
    y: Vec<f32>,
}

#[derive(Serialize)]
struct Metadata {
    duration_us: u64,
    backend: &'static str,
}

async fn bare(Json(request): Json<Request>) -> Json<Response> {
    let Input { a, x, y } = request.input;
    let y = x.iter().zip(&y).map(|(x, y)| a.mul_add(*x, *y)).collect();
    let metadata = Metadata { duration_us: 0, backend: "CPU" };
    Json(Response { request_id: "req-1", kernel_id: request.kernel_id, output: Output { y }, metadata })
}

async fn bare_bytes(body: Bytes) -> Bytes {
    body
}

/// Answers with its input.
struct Identity;

#[derive(Deserialize, Serialize, JsonSchema)]
struct Vector {
    x: Buffer<f32>,
}

impl Kernel for Identity {
    type Input = Vector;
    type Output = Vector;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("bench/identity", "1.0.0", "Answers with its input.")
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, which, address] = arguments.as_slice() else { return Err("usage: rest_server bare|ours ADDRESS".into()) };
    let router = match which.as_str() {
        "bare" => Router::new()
            .route("/execute", post(bare))
            .route("/kernels/bench/identity/execute", post(bare_bytes))
            .layer(DefaultBodyLimit::max(MAX_BODY)),
        "ours" => {
            let registry = Arc::new(KernelRegistry::new());
            tower_kernels::kernels::register_all(&registry)?;
            registry.register(Identity)?;
            let config = RouterConfig { max_request_size: MAX_BODY, ..RouterConfig::default() };
            KernelRouter::new(registry, config).into_router()
        }
        other => return Err(format!("{other} is neither bare nor ours").into()),
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(listener, router).await?)
}
