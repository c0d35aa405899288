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

use crate::checks::Subject;
use crate::contract;

/// A kernel that does as it is told, inline where it costs nothing.
struct Told {
    cost: Cost,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum Act {
    Answer,
    Never,
    Fail,
    Panic,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Done {}

impl Kernel for Told {
    type Input = Act;
    type Output = Done;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/told", "1.0.0", "Does as it is told.")
    }

    fn validate(&self, _: &Act) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, act: &Act) -> Cost {
        match act {
            // What never ends must not run inside the call.
            Act::Never => Cost { bytes: u64::MAX, ..Cost::default() },
            _ => self.cost,
        }
    }

    fn run_cpu(&self, act: &Act, context: &RunContext<'_>) -> Result<Done, KernelError> {
        match act {
            Act::Answer => Ok(Done {}),
            Act::Fail => Err(KernelError::kernel("as it was told to")),
            Act::Panic => panic!("as it was told to"),
            Act::Never => loop {
                context.check()?;
                std::thread::sleep(Duration::from_micros(100));
            },
        }
    }
}

/// A backend with one place, in a layer or in none.
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
        request(Act::Answer)
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
    KernelRequest::new("test/told", Payload::typed(act))
}

const INLINE: Cost = Cost { bytes: 0, operations: 0, device_memory: 0 };
const ON_A_LANE: Cost = Cost { bytes: 1 << 40, operations: 0, device_memory: 0 };

fn cpu() -> CpuBackend {
    let mut config = CpuConfig::default();
    (config.workers, config.queue) = (1, 0);
    CpuBackend::with_config(config).unwrap()
}

/// No machine has so many devices: this is what `detect` makes of one without any.
#[cfg(feature = "cuda")]
fn local() -> Local {
    let cuda = tower_kernels::backends::cuda::CudaBackend::open(u32::MAX);
    assert!(cuda.is_err());
    Local::with_backends(cpu(), cuda)
}

fn over<L, B>(layer: L, backend: B, cost: Cost, failing: Act) -> Over<L, B> {
    let registry = KernelRegistry::new();
    registry.register(Told { cost }).unwrap();
    Over { layer, service: KernelService::with_backend(registry, backend), failing }
}

fn no_layer() -> tower::layer::util::Identity {
    tower::layer::util::Identity::new()
}

contract!(cpu_inline, over(no_layer(), cpu(), INLINE, Act::Fail));
contract!(cpu_on_a_lane, over(no_layer(), cpu(), ON_A_LANE, Act::Fail));
contract!(cpu_that_panics_inline, over(no_layer(), cpu(), INLINE, Act::Panic));
contract!(cpu_that_panics_on_a_lane, over(no_layer(), cpu(), ON_A_LANE, Act::Panic));
#[cfg(feature = "cuda")]
contract!(local_without_a_device, over(no_layer(), local(), ON_A_LANE, Act::Fail));
// Inline, because paused time runs on to the timeout while a lane works.
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

/// A backend with one place, behind the batch layer with one place to wait: what is asked is that both are free again.
fn batched(cost: Cost) -> impl Subject {
    let layer = BatchedLayer::for_workers(1).capacity(1);
    let gauge = layer.clone();
    let registry = KernelRegistry::new();
    registry.register(Told { cost }).unwrap();
    let service = KernelService::with_backend(registry, layer.layer(cpu()));
    Waiting { over: Over { layer: no_layer(), service, failing: Act::Fail }, waiting: move || gauge.stats().waiting }
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
contract!(batched_on_a_lane, batched(ON_A_LANE));

#[test]
fn nothing_grows_unnoticed() {
    assert!(size_of::<KernelRequest>() <= 120, "{}", size_of::<KernelRequest>());
    // Up to 128 bytes are moved by a few instructions, and more by a call of `memcpy`.
    assert!(size_of::<KernelResponse>() <= 128, "{}", size_of::<KernelResponse>());
    assert!(size_of::<RunFuture>() <= 240, "{}", size_of::<RunFuture>());
}
