//! Kernels for the tests: one made of a closure, and device code to run in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Service, ServiceExt};
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::cuda::Module;
use tower_kernels::service::{
    BackendKind, Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest,
    KernelResponse, KernelService, LaunchContext, Payload, RunContext,
};

/// A kernel whose host code is a closure.
pub(crate) struct Probe<F> {
    pub(crate) name: &'static str,
    pub(crate) memory: u64,
    pub(crate) run: F,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Values {
    pub(crate) values: Buffer<f64>,
}

impl<F> Kernel for Probe<F>
where
    F: Fn(&mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> + Send + Sync + 'static,
{
    type Input = Nothing;
    type Output = Values;

    fn info(&self) -> KernelInfo {
        KernelInfo::new(self.name, "1", "A test.").backends([BackendKind::Cuda])
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost { device_memory: self.memory, ..Cost::default() }
    }

    fn run_cuda(&self, _: &Nothing, cuda: &mut LaunchContext<'_>) -> Result<Values, KernelError> {
        (self.run)(cuda).map(|values| Values { values })
    }
}

/// A kernel with code for both, which says where it ran.
pub(crate) struct Where;

impl Kernel for Where {
    type Input = Nothing;
    type Output = Values;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/where", "1", "A test.").backends([BackendKind::Cpu, BackendKind::Cuda]).pure()
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        // Much longer on the CPU than on a device, so that it goes to a device.
        Cost { operations: 100_000_000_000, ..Cost::default() }
    }

    fn run_cpu(&self, _: &Nothing, _: &RunContext<'_>) -> Result<Values, KernelError> {
        Ok(Values { values: vec![0.0].into() })
    }

    fn run_cuda(&self, _: &Nothing, cuda: &mut LaunchContext<'_>) -> Result<Values, KernelError> {
        cuda.upload(&[1.0]).and_then(|one| cuda.download(&one)).map(|values| Values { values })
    }
}

/// A service of its own over the first device, with these kernels.
pub(crate) struct Bench {
    pub(crate) registry: Arc<KernelRegistry>,
    pub(crate) backend: CudaBackend,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub(crate) fn new(workers: usize) -> Self {
        Self::with_queue(workers, 64)
    }

    pub(crate) fn with_queue(workers: usize, queue: usize) -> Self {
        Self::configured(|config| (config.workers, config.queue) = (workers, queue))
    }

    pub(crate) fn configured(change: impl FnOnce(&mut CudaConfig)) -> Self {
        let mut config = CudaConfig { poison_uninitialized: true, ..Default::default() };
        change(&mut config);
        Self {
            registry: Arc::new(KernelRegistry::new()),
            backend: CudaBackend::with_config(0, config).unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        }
    }

    pub(crate) fn with<F>(self, name: &'static str, run: F) -> Self
    where
        F: Fn(&mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> + Send + Sync + 'static,
    {
        self.with_memory(name, 0, run)
    }

    pub(crate) fn with_memory<F>(self, name: &'static str, memory: u64, run: F) -> Self
    where
        F: Fn(&mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> + Send + Sync + 'static,
    {
        self.registry.register(Probe { name, memory, run }).unwrap();
        self
    }

    pub(crate) fn service(&self) -> KernelService<CudaBackend> {
        KernelService::with_backend(Arc::clone(&self.registry), self.backend.clone())
    }

    pub(crate) fn run(&self, name: &'static str) -> Result<Vec<f64>, KernelError> {
        self.runtime.block_on(run(self.service(), request(name)))
    }

    /// Waits until no job holds a permit, which must not take long.
    pub(crate) fn settle(&self) {
        let start = Instant::now();
        while in_flight(&self.backend) > 0 {
            assert!(start.elapsed() < Duration::from_secs(5), "a permit was not released");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(crate) fn in_flight(backend: &CudaBackend) -> usize {
    tower::load::Load::load(backend).jobs
}

pub(crate) fn request(name: &'static str) -> KernelRequest {
    KernelRequest::new(name, Payload::typed(Nothing {}))
}

pub(crate) async fn run<S>(mut service: S, request: KernelRequest) -> Result<Vec<f64>, KernelError>
where
    S: Service<KernelRequest, Response = KernelResponse, Error = KernelError>,
{
    let response = service.ready().await?.call(request).await?;
    Ok(response.payload.downcast::<Values>().expect("typed in, typed out").values.to_vec())
}

/// Numbers that repeat for no short period, the same each time.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..len).map(|_| next()).collect()
}

/// Device code for the tests.
pub(crate) static CODE: Module = {
    const SOURCE: &str = r#"
        typedef unsigned long long u64;
        extern "C" __global__ void scale(u64 n, double a, const double* x, double* out) {
            for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x)
                out[i] = a * x[i];
        }
        extern "C" __global__ void all_types(unsigned a, int b, u64 c, long long d, float e, double f, double* out) {
            out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e; out[5] = f;
        }
        extern "C" __global__ void until_cancelled(const volatile unsigned* stop, double* out) {
            while (*stop == 0) {}
            out[0] = 1.0;
        }
        extern "C" __global__ void pass_time(u64 cycles, double* out) {
            const long long start = clock64();
            while (clock64() - start < (long long)cycles) {}
            out[0] += 1.0;
        }
        extern "C" __global__ void shared_sum(unsigned n, double* out) {
            extern __shared__ double cells[];
            for (unsigned i = threadIdx.x; i < n; i += blockDim.x) cells[i] = i;
            __syncthreads();
            if (threadIdx.x == 0) { out[0] = 0; for (unsigned i = 0; i < n; i++) out[0] += cells[i]; }
        }
        extern "C" __global__ void trap(double* out) { if (out[0] >= 0) asm volatile("trap;"); }
        extern "C" __global__ void misaligned(double* out) { *(volatile double*)((char*)out + 1) = 1.0; }
        extern "C" __global__ void astray(double* out) { *(volatile double*)16 = out[0]; }
    "#;
    // SAFETY: each entry stays within what it is passed, and is passed what it declares; but for `astray`,
    // `trap` and `misaligned`, which are launched in processes of their own that are given up afterwards.
    unsafe { Module::from_source("test/code", SOURCE) }
};
