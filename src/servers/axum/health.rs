//! `GET /health`, `/health/live`, `/health/ready`: how it is, whether it answers, whether to send it more.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use ::axum::extract::State;
use ::axum::response::Response;
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;
use tower_service::Service;

use super::kernels::{answer, json};
use super::outcomes::{Outcomes, WINDOW};
use super::router::Shared;
use crate::backends::{CpuStatus, CudaState, LocalStatus, PoolStatus};
#[cfg(feature = "cuda")]
use crate::cuda::GpuReading;
use crate::error::{AnyError, ErrorKind, Told};
use crate::middleware::circuit_breaker::{CircuitState, CircuitStatus};
use crate::pipeline::PipelineHandle;
#[cfg(feature = "cuda")]
use crate::servers::devices::is_missed;
use crate::servers::devices::{cuda_problems, out_of_service};
use crate::servers::http::{Problem, RequestId, document};
use crate::service::{HostMemory, KernelRegistry, KernelRequest};

/// Shares of faults past which the execution is degraded, and unhealthy, where there is enough to go by.
const DEGRADED: f64 = 0.05;
const UNHEALTHY: f64 = 0.5;
const ENOUGH: u64 = 20;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HealthStatus")]
enum Status {
    /// There is none, and nobody misses it.
    Off,
    /// As it should be.
    Healthy,
    /// It works, and somebody should look.
    Degraded,
    /// It does not work.
    Unhealthy,
}

/// How the server is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// As the worst of its components.
    status: Status,
    /// Whether it is about to stop.
    draining: bool,
    components: Components,
}

/// What the server is made of.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Components {
    registry: Registry,
    execution: Execution,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    devices: Option<Devices>,
    /// Where the service is a ready pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuits: Option<Circuits>,
    /// Where the memory of requests is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
}

/// The memory that requests hold at one time.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Memory {
    /// Degraded where there was not enough for some request within the last two seconds.
    status: Status,
    /// The bytes that requests hold.
    used: u64,
    /// The bytes that they may hold together.
    max: u64,
}

/// The circuit breakers of the kernels that have been called.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Circuits {
    /// Degraded where any of them is not closed.
    status: Status,
    /// Those that are not closed.
    troubled: Vec<CircuitStatus>,
}

/// The kernels that there are.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Registry {
    /// Degraded where there are none.
    status: Status,
    /// How many.
    kernel_count: usize,
}

/// How executions have ended of late.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Execution {
    /// Degraded or unhealthy where too many were faults of the server.
    status: Status,
    /// The share of faults.
    error_rate: f64,
    /// How many there were.
    executions: u64,
    /// How far back this looks, in seconds.
    window_seconds: u64,
    /// Why the service takes nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What kernels run on.
#[derive(Serialize, JsonSchema)]
struct Devices {
    cpu: Device<CpuStatus>,
    cuda: Device<CudaState>,
    /// What the sensors of the CUDA devices say, where they can be read.
    #[cfg(feature = "cuda")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<Device<GpuReading>>,
}

/// A device and how it is.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Device<T> {
    /// Whether it is as it should be.
    status: Status,
    /// What is wrong with it, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    #[serde(flatten)]
    details: T,
}

/// What a probe is told when all is well.
#[derive(Serialize, JsonSchema)]
pub(super) struct Probe {
    status: ProbeStatus,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum ProbeStatus {
    /// It answers.
    Alive,
    /// It takes requests.
    Ready,
}

impl Components {
    fn new(registry: &KernelRegistry, outcomes: &Outcomes, gone: Option<String>, local: Option<LocalStatus>) -> Self {
        let kernel_count = registry.len();
        let status = if kernel_count == 0 { Status::Degraded } else { Status::Healthy };
        let execution = Execution::new(outcomes, gone);
        let devices = local.map(|LocalStatus { cpu, cuda }| Devices {
            cpu: Device { status: cpu_status(&cpu.pool), problems: cpu.problems(), details: cpu },
            cuda: Device { status: cuda_status(&cuda, registry), problems: cuda_problems(&cuda), details: cuda },
            #[cfg(feature = "cuda")]
            gpus: Vec::new(),
        });
        Self { registry: Registry { status, kernel_count }, execution, devices, circuits: None, memory: None }
    }

    fn with_circuits(mut self, pipeline: Option<&PipelineHandle>) -> Self {
        self.circuits = pipeline.map(|pipeline| {
            let troubled = |circuit: &CircuitStatus| circuit.state != CircuitState::Closed;
            let troubled: Vec<_> = pipeline.circuits().into_iter().filter(troubled).collect();
            Circuits { status: if troubled.is_empty() { Status::Healthy } else { Status::Degraded }, troubled }
        });
        self
    }

    /// A server that is short of memory is degraded and still ready: it serves small requests, rejects the others at once,
    /// and a probe that took it out of service would leave the others with what it was sent.
    fn with_memory(mut self, memory: &HostMemory) -> Self {
        let (used, max) = (memory.used(), memory.max());
        let status = if memory.is_short() { Status::Degraded } else { Status::Healthy };
        self.memory = (max < u64::MAX).then_some(Memory { status, used, max });
        self
    }

    #[cfg(feature = "cuda")]
    fn with_gpus(mut self, gpus: Vec<GpuReading>) -> Self {
        if let Some(devices) = &mut self.devices {
            let gpu = |details| Device { status: gpu_status(&details), problems: Vec::new(), details };
            devices.gpus = gpus.into_iter().map(gpu).collect();
        }
        self
    }

    /// As the worst of them.
    fn status(&self) -> Status {
        let devices = self.devices.as_ref().map_or(Status::Healthy, Devices::status);
        let circuits = self.circuits.as_ref().map_or(Status::Healthy, |circuits| circuits.status);
        let memory = self.memory.as_ref().map_or(Status::Healthy, |memory| memory.status);
        self.registry.status.max(self.execution.status).max(devices).max(circuits).max(memory)
    }
}

impl Devices {
    fn status(&self) -> Status {
        let status = self.cuda.status.max(self.cpu.status);
        #[cfg(feature = "cuda")]
        let status = self.gpus.iter().map(|gpu| gpu.status).fold(status, Status::max);
        status
    }
}

impl Execution {
    fn new(outcomes: &Outcomes, gone: Option<String>) -> Self {
        let recent = outcomes.recent();
        let error_rate = recent.error_rate();
        let status = match error_rate {
            _ if gone.is_some() => Status::Unhealthy,
            rate if rate > UNHEALTHY && recent.executions >= ENOUGH => Status::Unhealthy,
            rate if rate > DEGRADED && recent.executions >= ENOUGH => Status::Degraded,
            _ => Status::Healthy,
        };
        Self { status, error_rate, executions: recent.executions, window_seconds: WINDOW, reason: gone }
    }
}

/// A worker that is being restarted leaves its jobs to the others; without any worker there is no CPU.
fn cpu_status(pool: &PoolStatus) -> Status {
    match pool.alive {
        0 => Status::Unhealthy,
        _ if !pool.up => Status::Unhealthy,
        alive if alive < pool.workers => Status::Degraded,
        _ => Status::Healthy,
    }
}

#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "without CUDA nothing can be lost"))]
fn cuda_status(cuda: &CudaState, registry: &KernelRegistry) -> Status {
    match cuda {
        CudaState::Off { .. } => Status::Off,
        #[cfg(feature = "cuda")]
        CudaState::On { .. } if cuda.problems().is_empty() => Status::Healthy,
        #[cfg(feature = "cuda")]
        CudaState::On { .. } if is_missed(cuda, registry) => Status::Unhealthy,
        // Everything goes on, on other devices or on the CPU, and more slowly.
        #[cfg(feature = "cuda")]
        CudaState::On { .. } => Status::Degraded,
    }
}

/// Memory that has lost what it held works on, with what is broken mapped out, and has to be looked after.
#[cfg(feature = "cuda")]
fn gpu_status(reading: &GpuReading) -> Status {
    if reading.ecc_uncorrected.is_some_and(|errors| errors > 0) { Status::Degraded } else { Status::Healthy }
}

/// Why the service takes nothing any more; `None` where it is ready, or full just now. What a clone reserves when it is
/// asked is given back when it is dropped.
async fn gone<S>(service: &S) -> Option<String>
where
    S: Service<KernelRequest, Error: AnyError> + Clone,
{
    let mut service = service.clone();
    poll_fn(|cx| {
        Poll::Ready(match service.poll_ready(cx) {
            Poll::Ready(Err(error)) => Some(Told::of(&error).detail),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        })
    })
    .await
}

pub(super) async fn health<S>(State(shared): State<Arc<Shared<S>>>, headers: HeaderMap) -> Response
where
    S: Service<KernelRequest, Error: AnyError> + Clone,
{
    let request_id = RequestId::of(&headers);
    let gone = gone(&shared.service).await;
    let local = shared.devices.as_ref().map(|local| local.status());
    let components = Components::new(&shared.registry, &shared.outcomes, gone, local);
    let components = components.with_circuits(shared.pipeline.as_ref()).with_memory(&shared.limits.memory);
    #[cfg(feature = "cuda")]
    let components = components.with_gpus(super::gpus::read(shared.devices.as_ref()).await);
    let health = Health { status: components.status(), draining: shared.drain.is_draining(), components };
    match json(&health) {
        Ok(body) if health.status == Status::Unhealthy => {
            document(StatusCode::SERVICE_UNAVAILABLE, "application/json", body.into(), &request_id)
        }
        body => answer(body, &request_id),
    }
}

pub(super) async fn live(headers: HeaderMap) -> Response {
    answer(json(&Probe { status: ProbeStatus::Alive }), &RequestId::of(&headers))
}

pub(super) async fn ready<S>(State(shared): State<Arc<Shared<S>>>, headers: HeaderMap) -> Response
where
    S: Service<KernelRequest, Error: AnyError> + Clone,
{
    let request_id = RequestId::of(&headers);
    let lost = || shared.devices.as_ref().and_then(|local| out_of_service(&local.status(), &shared.registry));
    let refusal = if shared.drain.is_draining() {
        Some("the server is draining".to_owned())
    } else if let Some(lost) = lost() {
        Some(lost)
    } else {
        gone(&shared.service).await
    };
    match refusal {
        None => answer(json(&Probe { status: ProbeStatus::Ready }), &request_id),
        Some(why) => Problem::new(ErrorKind::Unavailable, why).into_response(&request_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "cuda")]
    use crate::service::BackendKind;

    fn registry() -> KernelRegistry {
        let registry = KernelRegistry::new();
        crate::kernels::register_all(&registry).unwrap();
        registry
    }

    fn status(outcomes: &Outcomes, gone: Option<&str>) -> Status {
        Components::new(&registry(), outcomes, gone.map(str::to_owned), None).status()
    }

    #[test]
    fn the_whole_is_as_the_worst_of_its_parts() {
        let outcomes = Outcomes::new();
        assert_eq!(status(&outcomes, None), Status::Healthy);
        assert_eq!(status(&outcomes, Some("gone")), Status::Unhealthy);
        (0..ENOUGH - 1).for_each(|_| outcomes.record(Some(&Problem::new(ErrorKind::Internal, ""))));
        assert_eq!(status(&outcomes, None), Status::Healthy, "too few to go by");
        outcomes.record(Some(&Problem::new(ErrorKind::Internal, "")));
        assert_eq!(status(&outcomes, None), Status::Unhealthy);
        (0..2 * ENOUGH).for_each(|_| outcomes.record(None));
        assert_eq!(status(&outcomes, None), Status::Degraded);
        (0..20 * ENOUGH).for_each(|_| outcomes.record(Some(&Problem::new(ErrorKind::InvalidArgument, ""))));
        assert_eq!(status(&outcomes, None), Status::Healthy, "what clients do wrong is no fault");
        let none = Components::new(&KernelRegistry::new(), &Outcomes::new(), None, None);
        assert_eq!(none.status(), Status::Degraded);
    }

    #[test]
    fn a_cpu_without_all_of_its_workers_is_degraded_and_without_any_is_unhealthy() {
        let all = PoolStatus { up: true, workers: 2, alive: 2, restarts: 3, capacity: 4, queued: 0, running: 0 };
        let problems = |pool| CpuStatus { processors: 2, pool }.problems();
        assert_eq!((cpu_status(&all), problems(all).len()), (Status::Healthy, 0), "what is over is over");
        let some = PoolStatus { alive: 1, ..all };
        assert_eq!(
            (cpu_status(&some), problems(some)),
            (Status::Degraded, vec!["1 of 2 workers of the CPU take jobs".into()])
        );
        let none = PoolStatus { up: false, alive: 0, ..all };
        assert_eq!(
            (cpu_status(&none), problems(none)),
            (Status::Unhealthy, vec!["the CPU takes no jobs any more".into()])
        );
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn memory_that_could_not_be_put_right_degrades() {
        let components = |errors| {
            let mut reading = GpuReading::default();
            (reading.ecc_corrected, reading.ecc_uncorrected) = (Some(100), errors);
            let local = crate::backends::Local::detect().status();
            Components::new(&registry(), &Outcomes::new(), None, Some(local)).with_gpus(vec![reading])
        };
        assert_eq!(components(None).status(), Status::Healthy);
        assert_eq!(components(Some(0)).status(), Status::Healthy);
        assert_eq!(components(Some(1)).status(), Status::Degraded);
        let json = serde_json::to_value(components(Some(1))).unwrap();
        assert_eq!((&json["gpus"][0]["status"], &json["gpus"][0]["ecc_uncorrected"]), (&"degraded".into(), &1.into()));
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_lost_device_matters_as_much_as_it_is_needed() {
        use crate::backends::cuda::{CudaStatus, CudaUsage};
        use crate::cuda::DeviceInfo;
        use crate::service::{Cost, InvalidInput, Kernel, KernelError, KernelInfo, RunContext};

        struct OnCudaAlone;

        impl Kernel for OnCudaAlone {
            type Input = u32;
            type Output = u32;

            fn info(&self) -> KernelInfo {
                KernelInfo::new("test/cuda", "1.0.0", "On CUDA alone.").backends([BackendKind::Cuda])
            }
            fn validate(&self, _: &u32) -> Result<(), InvalidInput> {
                Ok(())
            }
            fn cost(&self, _: &u32) -> Cost {
                Cost::default()
            }
            fn run_cpu(&self, input: &u32, _: &RunContext<'_>) -> Result<u32, KernelError> {
                Ok(*input)
            }
        }

        let device =
            DeviceInfo { ordinal: 0, name: "GPU".into(), memory: 1, compute_capability: (9, 0), multiprocessors: 1 };
        let pool = PoolStatus { up: true, workers: 1, alive: 1, restarts: 0, capacity: 1, queued: 0, running: 0 };
        let usage = CudaUsage::default();
        let well = CudaStatus { device: device.clone(), lost: None, pool, usage };
        let pool = PoolStatus { up: false, ..pool };
        let lost = CudaStatus { device, lost: Some("it fell off the bus".into()), pool, usage };
        let cuda = |devices: &[&CudaStatus]| CudaState::On {
            devices: devices.iter().copied().cloned().collect(),
            missing: Vec::new(),
        };
        let (one_of_two, well, lost) = (cuda(&[&lost, &well]), cuda(&[&well, &well]), cuda(&[&lost, &lost]));
        let registry = registry();
        assert_eq!(cuda_status(&well, &registry), Status::Healthy);
        assert_eq!(cuda_status(&lost, &registry), Status::Degraded);
        assert_eq!(cuda_status(&CudaState::Off { reason: "no driver".into() }, &registry), Status::Off);
        registry.register(OnCudaAlone).unwrap();
        assert_eq!(cuda_status(&lost, &registry), Status::Unhealthy);
        assert_eq!(cuda_status(&one_of_two, &registry), Status::Degraded, "the other one goes on");
        assert_eq!(one_of_two.problems(), ["it fell off the bus"]);
    }
}
