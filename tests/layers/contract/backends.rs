//! The contract over the backends, through [`KernelService`], on real threads.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::load::Load;
use tower::{Layer, Service, ServiceBuilder};
#[cfg(feature = "cuda")]
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::backends::{BatchedLayer, PoolLoad, RunFuture};
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{
    Cost, InvalidInput, Job, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, KernelResponse,
    KernelService, Payload, RunContext,
};

use super::contract;
use crate::support::checks::Subject;
use crate::support::custom_backends::{Forward, ThreadBackend};

/// A kernel that does what its input says; it runs inline where it costs nothing.
struct Scripted {
    cost: Cost,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
enum Act {
    Respond,
    Never,
    Fail,
    Panic,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Done {}

impl Kernel for Scripted {
    type Input = Act;
    type Output = Done;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/scripted", "1.0.0", "Does what its input says.")
    }

    fn validate(&self, _: &Act) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, act: &Act) -> Cost {
        match act {
            // A run that never ends must not block the calling thread.
            Act::Never => Cost { operations: u64::MAX, ..Cost::default() },
            _ => self.cost,
        }
    }

    fn run_cpu(&self, act: &Act, context: &RunContext<'_>) -> Result<Done, KernelError> {
        match act {
            Act::Respond => Ok(Done {}),
            Act::Fail => Err(KernelError::kernel("the input asked for it")),
            Act::Panic => panic!("the input asked for it"),
            Act::Never => loop {
                context.check()?;
                std::thread::sleep(Duration::from_micros(100));
            },
        }
    }
}

/// A backend with one permit, in a layer or in none.
struct Over<L, B> {
    layer: L,
    service: KernelService<B>,
    failing: Act,
}

impl<L, B> Subject for Over<L, B>
where
    B: Service<Job, Response = KernelResponse, Error: From<KernelError>> + Load<Metric = PoolLoad> + Clone,
    L: Layer<KernelService<B>>,
    L::Service: Service<KernelRequest, Error: std::fmt::Debug + Send, Response: std::fmt::Debug + Send, Future: Send>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    type Request = KernelRequest;
    type Service = L::Service;

    fn service(&self) -> L::Service {
        self.layer.layer(self.service.clone())
    }
    fn quick(&self) -> KernelRequest {
        request(Act::Respond)
    }
    fn endless(&self) -> KernelRequest {
        request(Act::Never)
    }
    fn failing(&self) -> KernelRequest {
        request(self.failing)
    }
    fn in_use(&self) -> usize {
        self.service.load().jobs
    }
}

fn request(act: Act) -> KernelRequest {
    KernelRequest::new("test/scripted", Payload::typed(act))
}

const INLINE: Cost = Cost { bytes: 0, operations: 0, device_memory: 0 };
const ON_A_WORKER: Cost = Cost { bytes: 0, operations: 1 << 40, device_memory: 0 };

fn cpu() -> CpuBackend {
    let mut config = CpuConfig::default();
    (config.workers, config.queue) = (1, 0);
    CpuBackend::with_config(config).unwrap()
}

/// What `detect` makes of a machine without devices, as none has this many.
#[cfg(feature = "cuda")]
fn local() -> Local {
    let cuda = tower_kernels::backends::cuda::CudaBackend::open(u32::MAX);
    assert!(cuda.is_err());
    Local::with_backends(cpu(), cuda)
}

fn over<L, B>(layer: L, backend: B, cost: Cost, failing: Act) -> Over<L, B> {
    let registry = KernelRegistry::new();
    registry.register(Scripted { cost }).unwrap();
    Over { layer, service: KernelService::with_backend(registry, backend), failing }
}

fn no_layer() -> tower::layer::util::Identity {
    tower::layer::util::Identity::new()
}

contract!(cpu_inline, over(no_layer(), cpu(), INLINE, Act::Fail));
contract!(cpu_on_a_worker, over(no_layer(), cpu(), ON_A_WORKER, Act::Fail));
contract!(cpu_that_panics_inline, over(no_layer(), cpu(), INLINE, Act::Panic));
contract!(cpu_that_panics_on_a_worker, over(no_layer(), cpu(), ON_A_WORKER, Act::Panic));
contract!(a_backend_with_a_thread_of_its_own, over(no_layer(), ThreadBackend::start(), INLINE, Act::Fail));
contract!(a_backend_that_forwards, {
    let Over { service, .. } = over(no_layer(), cpu(), ON_A_WORKER, Act::Fail);
    over(no_layer(), Forward(service), ON_A_WORKER, Act::Fail)
});
#[cfg(feature = "cuda")]
contract!(local_without_a_device, over(no_layer(), local(), ON_A_WORKER, Act::Fail));
// Inline, because paused time advances to the timeout while a worker runs.
contract!(
    four_layers_over_the_cpu,
    over(
        ServiceBuilder::new()
            .layer(MetricsLayer::new())
            .layer(TracingLayer::new())
            .layer(RateLimiterLayer::new(1000, Duration::from_secs(1)))
            .layer(TimeoutLayer::new(Duration::from_secs(1000)))
            .into_inner(),
        cpu(),
        INLINE,
        Act::Fail
    )
);

/// A backend with one permit behind the batch layer with a queue of one; both have to be free again.
fn batched(cost: Cost) -> impl Subject {
    let layer = BatchedLayer::for_workers(1).capacity(1);
    let gauge = layer.clone();
    let registry = KernelRegistry::new();
    registry.register(Scripted { cost }).unwrap();
    let service = KernelService::with_backend(registry, layer.layer(cpu()));
    Waiting { over: Over { layer: no_layer(), service, failing: Act::Fail }, waiting: move || gauge.snapshot().waiting }
}

struct Waiting<O, W> {
    over: O,
    waiting: W,
}

impl<O: Subject, W: Fn() -> usize> Subject for Waiting<O, W> {
    type Request = O::Request;
    type Service = O::Service;

    fn service(&self) -> O::Service {
        self.over.service()
    }
    fn quick(&self) -> O::Request {
        self.over.quick()
    }
    fn endless(&self) -> O::Request {
        self.over.endless()
    }
    fn failing(&self) -> O::Request {
        self.over.failing()
    }
    fn in_use(&self) -> usize {
        self.over.in_use().max((self.waiting)())
    }
}

contract!(batched_inline, batched(INLINE));
contract!(batched_on_a_worker, batched(ON_A_WORKER));

#[test]
fn nothing_grows_unnoticed() {
    assert!(size_of::<KernelRequest>() <= 120, "{}", size_of::<KernelRequest>());
    // Up to 128 bytes are moved by a few instructions, and more by a call of `memcpy`.
    assert!(size_of::<KernelResponse>() <= 128, "{}", size_of::<KernelResponse>());
    assert!(size_of::<RunFuture>() <= 240, "{}", size_of::<RunFuture>());
}
