//! A kernel of your own, with CPU code and CUDA source, batched and tested: `cargo run --release --example custom_kernel`.
//! On a GPU the source is compiled at the first request by NVRTC, which has to be installed.
#![allow(unsafe_code)] // a lint of this repository

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::ServiceExt;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::cuda::{Module, devices};
use tower_kernels::kernels::authoring::{check_cpu, check_cuda, elementwise, with_device_headers};
use tower_kernels::service::{Buffer, KernelRegistry, KernelRequest, KernelService, Payload};

#[derive(Clone)]
struct Hypot;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Legs {
    x: Buffer<f32>,
    y: Buffer<f32>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Sides {
    z: Buffer<f32>,
}

const SOURCE: &str = r#"
extern "C" __global__ void ELEMENTWISE hypot_f32(u64 n, const float* x, const float* y, float* z) {
    elementwise<4>(n, [](float x, float y) { return hypotf(x, y); }, outputs(z), operand(x), operand(y));
}"#;

elementwise! {
    impl Kernel for Hypot {
        info: KernelInfo::new("example/hypot", "1.0.0", "The third sides of right triangles."),
        input: Legs { x, y },
        output: Sides { z } of f32,
        operations: 10,
        cpu: |x: f32, y: f32| [x.hypot(y)],
        // SAFETY: the entry takes the fields in order, and `elementwise` stays within their rows.
        cuda: unsafe { Module::from_source("hypot", with_device_headers!(SOURCE)) }, "hypot_f32",
        reference: |x, y| [(x.hypot(y), 1e-6 * x.hypot(y))],
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = KernelRegistry::new();
    registry.register(Hypot)?;
    let request = KernelRequest::new("example/hypot", Payload::json(r#"{"x": [3, 5], "y": [4, 12]}"#));
    let response = KernelService::new(registry).oneshot(request).await?;
    println!("{} on {}", response.json::<serde_json::Value>()?["z"], response.execution.backend);
    // What a test of yours calls: many sizes, NaN, and runs that requests share.
    tokio::task::spawn_blocking(|| match devices() {
        Ok(_) => check_cuda(&Hypot, &CudaBackend::with_config(0, CudaConfig::default()).map_err(|e| e.to_string())?),
        Err(_) => check_cpu(&Hypot),
    })
    .await??;
    Ok(())
}
