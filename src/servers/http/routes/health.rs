//! `GET /health`, `/health/live`, `/health/ready`: server health, liveness and readiness.

use std::future::poll_fn;
use std::task::Poll;

use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::backends::{CpuStatus, CudaState, LocalStatus, PoolStatus};
#[cfg(feature = "cuda")]
use crate::cuda::GpuReading;
use crate::error::{ClientMessage, ErrorKind};
use crate::middleware::circuit_breaker::{CircuitSnapshot, CircuitState};
use crate::pipeline::PipelineHandle;
#[cfg(feature = "cuda")]
use crate::servers::devices::is_missed;
use crate::servers::devices::{cuda_problems, not_ready, operands_not_ready};
use crate::servers::http::openapi::{Schemas, json_content, response, without_body};
use crate::servers::http::outcomes::{Outcomes, WINDOW};
use crate::servers::http::route::{RestRequest, RestService};
use crate::servers::http::{Problem, ResponseBody, Rest};
use crate::service::{HostMemory, KernelRegistry, OperandDirectoryUsage, OperandUsage, Operands, RegisteredKernel};

/// Error rates above which execution is degraded or unhealthy.
const DEGRADED: f64 = 0.05;
const UNHEALTHY: f64 = 0.5;
/// Executions below which the error rate is ignored.
const MIN_EXECUTIONS: u64 = 20;

/// Health of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HealthStatus")]
enum Status {
    /// Not present, and no kernel requires it.
    Off,
    /// Works.
    Healthy,
    /// Works with problems that should be looked at.
    Degraded,
    /// Does not work.
    Unhealthy,
}

/// Server health.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// The worst status of the components.
    status: Status,
    /// Whether the server is draining.
    draining: bool,
    components: Components,
}

/// Components of the server.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Components {
    registry: Registry,
    execution: Execution,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    devices: Option<Devices>,
    /// Only if the service is a pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuits: Option<Circuits>,
    /// Only if the memory of requests is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    /// Only if there are operands, or a directory for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    operands: Option<StoredOperands>,
}

/// Operands and their memory.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct StoredOperands {
    /// Degraded if less than a tenth of their memory is free, or if some were skipped when they were loaded.
    status: Status,
    /// Operands that requests can refer to.
    operands: u64,
    /// Versions in memory: those, and versions that were replaced or deleted and that requests still use.
    versions: u64,
    /// Bytes of host memory of all versions.
    bytes: u64,
    /// Maximum bytes of host memory of all versions, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    /// Only if operands survive a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<OperandDirectory>,
}

/// Files of operands.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct OperandDirectory {
    /// Whether operands are still being loaded.
    loading: bool,
    /// Bytes on the disk.
    bytes: u64,
    /// Files and versions that were skipped, as they are damaged or exceed a limit.
    skipped: u64,
}

/// Memory of requests.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Memory {
    /// Degraded if a request was rejected for lack of memory within the last two seconds.
    status: Status,
    /// Bytes in use by requests.
    used: u64,
    /// Maximum bytes of all requests together.
    max: u64,
}

/// Circuit breakers of the kernels that have been called.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Circuits {
    /// Degraded if a circuit is not closed.
    status: Status,
    /// Circuits that are not closed.
    not_closed: Vec<CircuitSnapshot>,
}

/// Registered kernels.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Registry {
    /// Degraded if there are none.
    status: Status,
    /// Number of kernels.
    kernel_count: usize,
}

/// Outcomes of recent executions.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Execution {
    /// Degraded or unhealthy if too many failed because of the server.
    status: Status,
    /// Share of executions that failed because of the server.
    error_rate: f64,
    /// Number of executions.
    executions: u64,
    /// Length of the window, in seconds.
    window_seconds: u64,
    /// Error of a service that has failed permanently.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Devices that kernels run on.
#[derive(Serialize, JsonSchema)]
struct Devices {
    cpu: Device<CpuStatus>,
    cuda: Device<CudaState>,
    /// Sensor readings of the CUDA devices, if available.
    #[cfg(feature = "cuda")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<Device<GpuReading>>,
}

/// A device and its health.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Device<T> {
    /// Health of the device.
    status: Status,
    /// Human-readable problems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    #[serde(flatten)]
    details: T,
}

/// Response of a successful probe.
#[derive(Serialize, JsonSchema)]
struct Probe {
    status: ProbeStatus,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum ProbeStatus {
    /// The server responds.
    Alive,
    /// The server accepts requests.
    Ready,
}

impl Components {
    fn new(
        registry: &KernelRegistry,
        outcomes: &Outcomes,
        failure: Option<String>,
        local: Option<LocalStatus>,
    ) -> Self {
        let kernel_count = registry.len();
        let status = if kernel_count == 0 { Status::Degraded } else { Status::Healthy };
        let execution = Execution::new(outcomes, failure);
        let devices = local.map(|LocalStatus { cpu, cuda }| Devices {
            cpu: Device { status: cpu_status(&cpu), problems: cpu.problems(), details: cpu },
            cuda: Device { status: cuda_status(&cuda, registry), problems: cuda_problems(&cuda), details: cuda },
            #[cfg(feature = "cuda")]
            gpus: Vec::new(),
        });
        Self {
            registry: Registry { status, kernel_count },
            execution,
            devices,
            circuits: None,
            memory: None,
            operands: None,
        }
    }

    fn with_circuits(mut self, pipeline: Option<&PipelineHandle>) -> Self {
        self.circuits = pipeline.map(|pipeline| {
            let not_closed = |circuit: &CircuitSnapshot| circuit.state != CircuitState::Closed;
            let not_closed: Vec<_> = pipeline.circuits().into_iter().filter(not_closed).collect();
            Circuits { status: if not_closed.is_empty() { Status::Healthy } else { Status::Degraded }, not_closed }
        });
        self
    }

    /// A server that is short of memory is degraded but still ready: it serves small requests and rejects the others at
    /// once, and removing it from load balancing would move its load to the other replicas.
    fn with_memory(mut self, memory: &HostMemory) -> Self {
        let (used, max) = (memory.used(), memory.max());
        let status = if memory.is_short() { Status::Degraded } else { Status::Healthy };
        self.memory = (max < u64::MAX).then_some(Memory { status, used, max });
        self
    }

    fn with_operands(mut self, operands: &Operands) -> Self {
        let OperandUsage { operands: count, versions, bytes, directory, .. } = operands.usage();
        let max = operands.limits().max_bytes;
        let any_skipped = directory.is_some_and(|directory| directory.skipped > 0);
        let status = if any_skipped || bytes > max - max / 10 { Status::Degraded } else { Status::Healthy };
        let directory = directory.map(|OperandDirectoryUsage { bytes, skipped, loading, .. }| OperandDirectory {
            loading,
            bytes,
            skipped,
        });
        let is_shown = versions > 0 || directory.is_some();
        let max = (max < u64::MAX).then_some(max);
        let stored = StoredOperands { status, operands: count, versions, bytes, max, directory };
        self.operands = is_shown.then_some(stored);
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

    /// The worst status of the components.
    fn status(&self) -> Status {
        let devices = self.devices.as_ref().map_or(Status::Healthy, Devices::status);
        let circuits = self.circuits.as_ref().map_or(Status::Healthy, |circuits| circuits.status);
        let memory = self.memory.as_ref().map_or(Status::Healthy, |memory| memory.status);
        let operands = self.operands.as_ref().map_or(Status::Healthy, |operands| operands.status);
        let layers = circuits.max(memory).max(operands);
        self.registry.status.max(self.execution.status).max(devices).max(layers)
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
    fn new(outcomes: &Outcomes, failure: Option<String>) -> Self {
        let recent = outcomes.recent();
        let error_rate = recent.error_rate();
        let status = match error_rate {
            _ if failure.is_some() => Status::Unhealthy,
            rate if rate > UNHEALTHY && recent.executions >= MIN_EXECUTIONS => Status::Unhealthy,
            rate if rate > DEGRADED && recent.executions >= MIN_EXECUTIONS => Status::Degraded,
            _ => Status::Healthy,
        };
        Self { status, error_rate, executions: recent.executions, window_seconds: WINDOW, reason: failure }
    }
}

/// While a worker restarts, the others run its jobs; without workers the CPU backend does not work.
fn cpu_status(cpu: &CpuStatus) -> Status {
    let PoolStatus { up, alive, .. } = cpu.pool;
    match cpu.problems().as_slice() {
        _ if !up || alive == 0 => Status::Unhealthy,
        [] => Status::Healthy,
        _ => Status::Degraded,
    }
}

#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "only CUDA devices can be lost"))]
fn cuda_status(cuda: &CudaState, registry: &KernelRegistry) -> Status {
    match cuda {
        CudaState::Off { .. } => Status::Off,
        #[cfg(feature = "cuda")]
        CudaState::On { .. } if cuda.problems().is_empty() => Status::Healthy,
        #[cfg(feature = "cuda")]
        CudaState::On { .. } if is_missed(cuda, registry) => Status::Unhealthy,
        // Kernels run on other devices or on the CPU, more slowly; one that is quarantined does not.
        #[cfg(feature = "cuda")]
        CudaState::On { .. } => Status::Degraded,
    }
}

/// A GPU with uncorrected ECC errors continues to work, as it retires the faulty pages, but should be looked at.
#[cfg(feature = "cuda")]
fn gpu_status(reading: &GpuReading) -> Status {
    if reading.ecc_uncorrected.is_some_and(|errors| errors > 0) { Status::Degraded } else { Status::Healthy }
}

/// The error of a service that has failed permanently; `None` if it is ready or at capacity. The clone that is polled
/// returns its permit when it is dropped.
async fn failure<S: RestService>(mut service: S) -> Option<String> {
    poll_fn(|cx| {
        Poll::Ready(match service.poll_ready(cx) {
            Poll::Ready(Err(error)) => Some(ClientMessage::of(&error).text),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        })
    })
    .await
}

pub(super) async fn health<S: RestService, B: Send>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let Rest { service, state } = rest;
    let failure = failure(service).await;
    let local = state.devices.as_ref().map(|local| local.status());
    let components = Components::new(&state.registry, &state.outcomes, failure, local);
    let components = components.with_circuits(state.pipeline.as_ref()).with_memory(&state.limits.memory);
    let components = components.with_operands(state.registry.operands());
    #[cfg(feature = "cuda")]
    let components = components.with_gpus(super::metrics::read_gpus(state.devices.as_ref()).await);
    let health = Health { status: components.status(), draining: state.drain.is_draining(), components };
    let is_unhealthy = health.status == Status::Unhealthy;
    request.json(if is_unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &health)
}

pub(super) async fn live<S, B>(_: Rest<S>, request: RestRequest<'_, B>) -> Result<Response<ResponseBody>, Problem> {
    request.json(StatusCode::OK, &Probe { status: ProbeStatus::Alive })
}

pub(super) async fn ready<S: RestService, B: Send>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    match not_ready_reason(rest).await {
        None => request.json(StatusCode::OK, &Probe { status: ProbeStatus::Ready }),
        Some(reason) => Err(Problem::new(ErrorKind::Unavailable, reason)),
    }
}

/// Returns why the server is not ready; `None` if it is.
pub(super) async fn not_ready_reason<S: RestService>(Rest { service, state }: Rest<S>) -> Option<String> {
    if state.drain.is_draining() {
        return Some("the server is draining".to_owned());
    }
    let devices = state.devices.as_ref().and_then(|local| not_ready(&local.status(), &state.registry));
    match devices.or_else(|| operands_not_ready(&state.registry)) {
        Some(reason) => Some(reason),
        None => failure(service).await,
    }
}

/// OpenAPI: `/health`.
pub(super) fn health_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let health = json_content(&schemas.written::<Health>());
    let mut operation = without_body(response("Healthy or degraded.", health.clone()), &[]);
    operation["responses"]["503"] = response("Unhealthy.", health);
    operation
}

/// OpenAPI: `/health/live`.
pub(super) fn live_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    without_body(response("Alive.", json_content(&schemas.written::<Probe>())), &[])
}

/// OpenAPI: `/health/ready`.
pub(super) fn ready_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    without_body(response("Ready.", json_content(&schemas.written::<Probe>())), &[503])
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

    fn status(outcomes: &Outcomes, failure: Option<&str>) -> Status {
        Components::new(&registry(), outcomes, failure.map(str::to_owned), None).status()
    }

    #[test]
    fn the_whole_is_as_the_worst_of_its_parts() {
        let outcomes = Outcomes::new();
        assert_eq!(status(&outcomes, None), Status::Healthy);
        assert_eq!(status(&outcomes, Some("failure")), Status::Unhealthy);
        (0..MIN_EXECUTIONS - 1).for_each(|_| outcomes.record(Some(&Problem::new(ErrorKind::Internal, ""))));
        assert_eq!(status(&outcomes, None), Status::Healthy, "too few to go by");
        outcomes.record(Some(&Problem::new(ErrorKind::Internal, "")));
        assert_eq!(status(&outcomes, None), Status::Unhealthy);
        (0..2 * MIN_EXECUTIONS).for_each(|_| outcomes.record(None));
        assert_eq!(status(&outcomes, None), Status::Degraded);
        (0..20 * MIN_EXECUTIONS).for_each(|_| outcomes.record(Some(&Problem::new(ErrorKind::InvalidArgument, ""))));
        assert_eq!(status(&outcomes, None), Status::Healthy, "what clients do wrong is no fault");
        let none = Components::new(&KernelRegistry::new(), &Outcomes::new(), None, None);
        assert_eq!(none.status(), Status::Degraded);
    }

    #[test]
    fn a_cpu_without_all_of_its_workers_is_degraded_and_without_any_is_unhealthy() {
        let all = PoolStatus { up: true, workers: 2, alive: 2, restarts: 3, capacity: 4, queued: 0, running: 0 };
        let cpu = |pool| CpuStatus {
            processors: 2,
            pool,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: None,
        };
        let found = |pool| (cpu_status(&cpu(pool)), cpu(pool).problems());
        assert_eq!(found(all), (Status::Healthy, Vec::new()), "what is over is over");
        let some = PoolStatus { alive: 1, ..all };
        assert_eq!(found(some), (Status::Degraded, vec!["1 of 2 workers of the CPU take jobs".into()]));
        let none = PoolStatus { up: false, alive: 0, ..all };
        assert_eq!(found(none), (Status::Unhealthy, vec!["the CPU takes no jobs any more".into()]));
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
        let well = CudaStatus {
            device: device.clone(),
            lost: None,
            pool,
            usage,
            modules_loaded: 3,
            modules_loading: 0,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: None,
        };
        let pool = PoolStatus { up: false, ..pool };
        let lost = CudaStatus {
            device,
            lost: Some("it fell off the bus".into()),
            pool,
            usage,
            modules_loaded: 3,
            modules_loading: 0,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: None,
        };
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
