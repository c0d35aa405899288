//! A server for `benches/http.sh`: `bare`, an axum handler that reads and writes the same JSON and does the same sum, or
//! `ours`, the REST router over the kernel service.

use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::service::KernelRegistry;

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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, which, address] = arguments.as_slice() else { return Err("usage: rest_server bare|ours ADDRESS".into()) };
    let router = match which.as_str() {
        "bare" => Router::new().route("/execute", post(bare)),
        "ours" => {
            let registry = Arc::new(KernelRegistry::new());
            tower_kernels::kernels::register_all(&registry)?;
            KernelRouter::new(registry, RouterConfig::default()).into_router()
        }
        other => return Err(format!("{other} is neither bare nor ours").into()),
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(listener, router).await?)
}
