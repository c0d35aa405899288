//! A kernel of your own, CPU code and CUDA source: `cargo run --release --example custom_kernel`.
//! On a GPU the source is compiled at the first request by NVRTC, which has to be installed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::ServiceExt;
use tower_kernels::cuda::{Launch, Module};
use tower_kernels::service::*;

struct Hypot;

#[derive(Deserialize, JsonSchema)]
struct Legs {
    x: Buffer<f32>,
    y: Buffer<f32>,
}

#[derive(Serialize, JsonSchema)]
struct Sides {
    z: Buffer<f32>,
}

const SOURCE: &str = r#"extern "C" __global__ void hypot_f32(unsigned n, const float* x, const float* y, float* z) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        z[i] = hypotf(x[i], y[i]);
}"#;
// SAFETY: the code stays within `n` elements of each array, and the one launch passes what it declares.
#[allow(unsafe_code)] // a lint of this repository
static MODULE: Module = unsafe { Module::from_source("hypot", SOURCE) };

impl Kernel for Hypot {
    type Input = Legs;
    type Output = Sides;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("example/hypot", "1.0.0", "The third side of right triangles.")
            .backends([BackendKind::Cpu, BackendKind::Cuda])
    }
    fn validate(&self, input: &Legs) -> Result<(), InvalidInput> {
        let fits = input.x.len() == input.y.len() && input.x.len() < 1 << 31;
        if fits { Ok(()) } else { Err(InvalidInput::new("y", "x and y differ in length, or are too long")) }
    }
    fn cost(&self, input: &Legs) -> Cost {
        let n = input.x.len() as u64;
        Cost { bytes: 12 * n, operations: 10 * n, device_memory: 12 * n }
    }
    fn run_cpu(&self, input: &Legs, _: &RunContext<'_>) -> Result<Sides, KernelError> {
        Ok(Sides { z: input.x.iter().zip(&*input.y).map(|(x, y)| x.hypot(*y)).collect() })
    }
    fn run_cuda(&self, input: &Legs, cuda: &mut LaunchContext<'_>) -> Result<Sides, KernelError> {
        let n = input.x.len();
        let (x, y, z) = (cuda.upload(&input.x)?, cuda.upload(&input.y)?, cuda.alloc::<f32>(n)?);
        cuda.launch(&MODULE, "hypot_f32", Launch::elements(n, 1 << 16), &[&(n as u32), &x, &y, &z])?;
        Ok(Sides { z: cuda.download(&z)? })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = KernelRegistry::new();
    registry.register(Hypot)?;
    let request = KernelRequest::new("example/hypot", Payload::json(r#"{"x": [3, 5], "y": [4, 12]}"#));
    let response = KernelService::new(registry).oneshot(request).await?;
    println!("{} on {}", response.json::<serde_json::Value>()?["z"], response.execution.backend);
    Ok(())
}
