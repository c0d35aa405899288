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
#[cfg(feature = "cuda")]
use crate::backends::cuda::GpuReading;
use crate::backends::{CpuStatus, CudaState, LocalStatus};
use crate::error::ErrorKind;
use crate::layers::circuit_breaker::{CircuitState, CircuitStatus};
use crate::pipeline::PipelineHandle;
use crate::servers::http::{Problem, RequestId, document};
#[cfg(feature = "cuda")]
use crate::service::BackendKind;
use crate::service::{KernelRegistry, KernelRequest};

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
            cpu: Device { status: Status::Healthy, details: cpu },
            cuda: Device { status: cuda_status(&cuda, registry), details: cuda },
            #[cfg(feature = "cuda")]
            gpus: Vec::new(),
        });
        Self { registry: Registry { status, kernel_count }, execution, devices, circuits: None }
    }

    fn with_circuits(mut self, pipeline: Option<&PipelineHandle>) -> Self {
        self.circuits = pipeline.map(|pipeline| {
            let troubled = |circuit: &CircuitStatus| circuit.state != CircuitState::Closed;
            let troubled: Vec<_> = pipeline.circuits().into_iter().filter(troubled).collect();
            Circuits { status: if troubled.is_empty() { Status::Healthy } else { Status::Degraded }, troubled }
        });
        self
    }

    #[cfg(feature = "cuda")]
    fn with_gpus(mut self, gpus: Vec<GpuReading>) -> Self {
        if let Some(devices) = &mut self.devices {
            let gpu = |details| Device { status: gpu_status(&details), details };
            devices.gpus = gpus.into_iter().map(gpu).collect();
        }
        self
    }

    /// As the worst of them.
    fn status(&self) -> Status {
        let devices = self.devices.as_ref().map_or(Status::Healthy, Devices::status);
        let circuits = self.circuits.as_ref().map_or(Status::Healthy, |circuits| circuits.status);
        self.registry.status.max(self.execution.status).max(devices).max(circuits)
    }
}

impl Devices {
    fn status(&self) -> Status {
        let status = self.cuda.status;
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

#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "without CUDA nothing can be lost"))]
fn cuda_status(cuda: &CudaState, registry: &KernelRegistry) -> Status {
    match cuda {
        CudaState::Off { .. } => Status::Off,
        #[cfg(feature = "cuda")]
        CudaState::On { .. } if cuda.troubles().is_empty() => Status::Healthy,
        #[cfg(feature = "cuda")]
        CudaState::On { .. } if !cuda.is_up() && needs_cuda(registry) => Status::Unhealthy,
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

/// Whether there is a kernel that runs on CUDA and nowhere else.
#[cfg(feature = "cuda")]
fn needs_cuda(registry: &KernelRegistry) -> bool {
    registry.list().iter().any(|kernel| {
        let backends = &kernel.info().backends;
        backends.contains(&BackendKind::Cuda) && !backends.contains(&BackendKind::Cpu)
    })
}

/// Why the service takes nothing any more; `None` where it is ready, or full just now. What a clone reserves when it is
/// asked is given back when it is dropped.
async fn gone<S>(service: &S) -> Option<String>
where
    S: Service<KernelRequest, Error: std::error::Error> + Clone,
{
    let mut service = service.clone();
    poll_fn(|cx| {
        Poll::Ready(match service.poll_ready(cx) {
            Poll::Ready(Err(error)) => Some(error.to_string()),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        })
    })
    .await
}

pub(super) async fn health<S>(State(shared): State<Arc<Shared<S>>>, headers: HeaderMap) -> Response
where
    S: Service<KernelRequest, Error: std::error::Error> + Clone,
{
    let request_id = RequestId::of(&headers);
    let gone = gone(&shared.service).await;
    let local = shared.devices.as_ref().map(|local| local.status());
    let components = Components::new(&shared.registry, &shared.outcomes, gone, local);
    let components = components.with_circuits(shared.pipeline.as_ref());
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
    S: Service<KernelRequest, Error: std::error::Error> + Clone,
{
    let request_id = RequestId::of(&headers);
    let cuda = shared.devices.as_ref().map(|local| local.status().cuda);
    let refusal = if shared.drain.is_draining() {
        Some("the server is draining".to_owned())
    } else if let Some(cuda) = cuda.filter(|cuda| cuda_status(cuda, &shared.registry) == Status::Unhealthy) {
        Some(cuda.troubles().join("; "))
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
        use crate::backends::PoolStatus;
        use crate::backends::cuda::{CudaStatus, CudaUsage, DeviceInfo};
        use crate::service::{Context, Cost, Invalid, Kernel, KernelError, KernelInfo};

        struct OnCudaAlone;

        impl Kernel for OnCudaAlone {
            type Input = u32;
            type Output = u32;

            fn info(&self) -> KernelInfo {
                KernelInfo::new("test/cuda", "1.0.0", "On CUDA alone.").backends([BackendKind::Cuda])
            }
            fn validate(&self, _: &u32) -> Result<(), Invalid> {
                Ok(())
            }
            fn cost(&self, _: &u32) -> Cost {
                Cost::default()
            }
            fn run_cpu(&self, input: &u32, _: &Context<'_>) -> Result<u32, KernelError> {
                Ok(*input)
            }
        }

        let device =
            DeviceInfo { ordinal: 0, name: "GPU".into(), memory: 1, compute_capability: (9, 0), multiprocessors: 1 };
        let pool = PoolStatus { up: true, lanes: 1, slots: 1, queued: 0, running: 0 };
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
        assert_eq!(cuda_status(&CudaState::Off { off: "no driver".into() }, &registry), Status::Off);
        registry.register(OnCudaAlone).unwrap();
        assert_eq!(cuda_status(&lost, &registry), Status::Unhealthy);
        assert_eq!(cuda_status(&one_of_two, &registry), Status::Degraded, "the other one goes on");
        assert_eq!(one_of_two.troubles(), ["it fell off the bus"]);
    }
}
