//! The choice between the CPU and a device without a GPU: both sleep for a set time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};

use super::Local;
use super::device_set::DeviceSet;
use crate::backends::cpu::{CpuBackend, CpuConfig};
use crate::backends::worker_pool::{Profile, Reservation, Worker, WorkerPool};
use crate::request::{BackendChoice, ChoiceReason, Execution};
use crate::service::{
    BackendKind, Cost, InvalidInput, Job, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest,
    KernelService, Payload, RunContext, Typed,
};

const CPU: BackendKind = BackendKind::Cpu;
const CUDA: BackendKind = BackendKind::Cuda;

/// Sleeps for a set time on the CPU, whatever it is predicted to take there.
#[derive(Clone, Copy)]
struct Sleeps {
    pure: bool,
    on_cpu: Duration,
    predicted: Duration,
    backends: &'static [BackendKind],
}

const BOTH: &[BackendKind] = &[CPU, CUDA];

impl Kernel for Sleeps {
    type Input = u64;
    type Output = u64;

    fn info(&self) -> KernelInfo {
        let info = KernelInfo::new("test/sleeps", "1", "A test.").backends(self.backends);
        if self.pure { info.pure() } else { info }
    }
    fn validate(&self, _: &u64) -> Result<(), InvalidInput> {
        Ok(())
    }
    /// The CPU does 2e9 operations a second.
    fn cost(&self, _: &u64) -> Cost {
        Cost { operations: (self.predicted.as_secs_f64() * 2e9) as u64, ..Cost::default() }
    }
    fn run_cpu(&self, input: &u64, context: &RunContext<'_>) -> Result<u64, KernelError> {
        let start = Instant::now();
        while start.elapsed() < self.on_cpu {
            context.check()?;
            std::thread::sleep(self.on_cpu.min(Duration::from_micros(500)));
        }
        Ok(*input)
    }
}

struct Device(Duration);

impl Worker for Device {
    fn run(&mut self, _: &Job, _: &RunContext<'_>, _: Option<Reservation>) -> Result<Typed, KernelError> {
        std::thread::sleep(self.0);
        Ok(Typed::new(0_u64))
    }

    fn recover(&mut self) {}
}

struct Machine {
    local: Local,
    registry: KernelRegistry,
}

impl Machine {
    /// A CPU with two workers, and a device with one that sleeps for `device`. The device is said to compute a hundred times as
    /// fast as the CPU.
    fn new(kernel: Sleeps, device: Option<Duration>) -> Self {
        Self::with_overhead(kernel, device, Duration::from_micros(20))
    }

    /// A hop to the device's worker takes so long, and a launch.
    fn with_overhead(kernel: Sleeps, device: Option<Duration>, overhead: Duration) -> Self {
        let cpu = CpuConfig { workers: 2, queue: 1000, ..CpuConfig::default() };
        let cpu = CpuBackend::with_config(cpu).unwrap();
        let profile = Profile {
            backend: CUDA,
            device: Some(0),
            idle_spin: Duration::ZERO,
            inline: overhead,
            isolated: false,
            busy_poll: Duration::ZERO,
            shutdown_grace: Duration::from_secs(60),
            launch: overhead,
            bytes_per_second: 1e12,
            operations_per_second: 2e11,
            pinned_memory: None,
        };
        let pool = |time| Arc::new(WorkerPool::start(profile, 1000, None, |_| Ok(vec![Device(time)])).unwrap());
        let pools = device.map(pool).into_iter().chain([Arc::clone(cpu.pool())]).collect();
        let registry = KernelRegistry::new();
        registry.register(kernel).unwrap();
        Self { local: Local::over(DeviceSet::new(pools)), registry }
    }

    fn job(&self, backend: Option<BackendKind>) -> Job {
        let mut request = KernelRequest::new("test/sleeps", Payload::typed(1_u64));
        if let Some(backend) = backend {
            request.set_backend(backend);
        }
        Job::new(self.registry.get("test/sleeps").unwrap(), request).unwrap()
    }

    async fn run(&self, backend: Option<BackendKind>) -> Result<Execution, KernelError> {
        Ok(self.local.clone().ready().await?.call(self.job(backend)).await?.execution)
    }

    /// Runs so many jobs one after the other; how many of them ran on this backend.
    async fn count(&self, runs: usize, backend: BackendKind) -> usize {
        let mut count = 0;
        for _ in 0..runs {
            count += usize::from(self.run(None).await.unwrap().backend == backend.as_str());
        }
        count
    }
}

#[tokio::test]
async fn a_job_runs_where_the_response_is_predicted_to_come_first() {
    let micros = Duration::from_micros;
    for (predicted, expected) in [(micros(1), CPU), (micros(19), CPU), (micros(500), CUDA), (micros(1_000_000), CUDA)] {
        let kernel = Sleeps { pure: true, on_cpu: Duration::ZERO, predicted, backends: BOTH };
        let machine = Machine::new(kernel, Some(Duration::ZERO));
        let execution = machine.run(None).await.unwrap();
        assert_eq!(execution.backend, expected.as_str(), "{predicted:?}");
        let &BackendChoice { reason, predicted: [chosen, other] } = execution.choice().unwrap();
        assert_eq!((reason, chosen.0), (ChoiceReason::Predicted, expected));
        assert!(chosen.1 < other.1, "{chosen:?}, {other:?}");
    }
}

#[tokio::test]
async fn a_request_may_ask_for_a_backend() {
    let kernel = Sleeps { pure: true, on_cpu: Duration::ZERO, predicted: Duration::from_secs(3600), backends: BOTH };
    let machine = Machine::new(kernel, Some(Duration::ZERO));
    for backend in [CPU, CUDA] {
        let execution = machine.run(Some(backend)).await.unwrap();
        let choice = execution.choice().unwrap();
        assert_eq!(execution.backend, backend.as_str());
        assert_eq!((choice.reason, choice.predicted[0].0), (ChoiceReason::Requested, backend));
    }
    let without_device = Machine::new(kernel, None);
    let execution = without_device.run(Some(CPU)).await.unwrap();
    assert_eq!((execution.backend, execution.choice()), ("CPU", None), "there was no choice");
    let error = without_device.run(Some(CUDA)).await.unwrap_err();
    assert!(matches!(error, KernelError::NoBackend { backend: "CUDA" }), "{error}");
    let cpu_alone = Machine::new(Sleeps { backends: &BOTH[..1], ..kernel }, Some(Duration::ZERO));
    let error = cpu_alone.run(Some(CUDA)).await.unwrap_err();
    assert!(matches!(error, KernelError::UnsupportedBackend { backend: "CUDA", .. }), "{error}");
    let lost = || KernelError::DeviceLost { device: "CUDA 0".into(), reason: "a test".into() };
    machine.local.devices.of_kind(CUDA).for_each(|pool| pool.state().close(lost()));
    let error = machine.run(Some(CUDA)).await.unwrap_err();
    assert!(matches!(error, KernelError::DeviceLost { .. }), "it went to another backend: {error}");
    assert_eq!(machine.run(None).await.unwrap().backend, "CPU");
}

/// The prediction is wrong by a factor of a thousand in both directions.
#[tokio::test]
async fn a_kernel_whose_cost_is_wrong_is_placed_right_after_ten_runs() {
    let millis = Duration::from_millis;
    for (on_cpu, on_device, right) in [(millis(20), millis(2), CUDA), (millis(2), millis(20), CPU)] {
        for predicted in [on_cpu / 1000, on_cpu, on_cpu * 1000] {
            let machine = Machine::new(Sleeps { pure: true, on_cpu, predicted, backends: BOTH }, Some(on_device));
            machine.count(10, CPU).await;
            let rightly = machine.count(20, right).await;
            // One of them may measure the other backend.
            assert!(rightly >= 19, "{rightly} of 20 on {right}, predicted {predicted:?} where {on_cpu:?} is right");
        }
    }
}

#[tokio::test]
async fn a_full_device_gives_work_to_the_cpu_and_takes_it_back() {
    let (on_cpu, on_device) = (Duration::from_millis(40), Duration::from_millis(10));
    let machine = Machine::new(Sleeps { pure: true, on_cpu, predicted: on_cpu, backends: BOTH }, Some(on_device));
    machine.count(10, CUDA).await;
    let start = Instant::now();
    let all: Vec<_> = (0..60).map(|_| tokio::spawn(machine.local.clone().oneshot(machine.job(None)))).collect();
    let mut on_cpu = 0;
    for job in all {
        on_cpu += usize::from(job.await.unwrap().unwrap().execution.backend == "CPU");
    }
    let took = start.elapsed();
    // The device does 100 a second and the two workers of the CPU 50.
    assert!((10..=30).contains(&on_cpu), "{on_cpu} of 60 on the CPU");
    assert!(took < 60 * on_device, "{took:?} where the device alone takes {:?}", 60 * on_device);
    assert!(machine.count(10, CUDA).await >= 9, "the device is free again");
}

#[tokio::test]
async fn a_run_that_measures_takes_at_most_a_few_times_what_the_better_backend_takes() {
    let (on_cpu, on_device) = (Duration::from_secs(3600), Duration::from_millis(5));
    let machine = Machine::new(Sleeps { pure: true, on_cpu, predicted: on_cpu, backends: BOTH }, Some(on_device));
    let start = Instant::now();
    assert_eq!(machine.count(10, CUDA).await, 10, "the CPU never ends");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // A run that may not be repeated is not tried.
    let machine = Machine::new(Sleeps { pure: false, on_cpu, predicted: on_cpu, backends: BOTH }, Some(on_device));
    assert_eq!(machine.count(10, CUDA).await, 10);
}

#[tokio::test]
async fn a_small_run_that_measures_is_moved_as_well() {
    // The CPU would run it on the calling thread, which cannot hand it back.
    let (on_cpu, predicted) = (Duration::from_secs(3600), Duration::from_micros(10));
    let kernel = Sleeps { pure: true, on_cpu, predicted, backends: BOTH };
    let machine = Machine::with_overhead(kernel, Some(Duration::ZERO), Duration::ZERO);
    assert_eq!(machine.count(10, CUDA).await, 10);
}

#[tokio::test]
async fn a_run_that_measures_goes_on_where_it_was_if_the_device_is_lost_meanwhile() {
    // The device is predicted to take 50 ms, so that a run on the CPU is ended after 100.
    let (on_cpu, predicted) = (Duration::from_millis(300), Duration::from_secs(5));
    let kernel = Sleeps { pure: true, on_cpu, predicted, backends: BOTH };
    let machine = Machine::new(kernel, Some(Duration::from_millis(1)));
    assert_eq!(machine.count(1, CUDA).await, 1);
    let measures = tokio::spawn(machine.local.clone().oneshot(machine.job(None)));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let lost = || KernelError::DeviceLost { device: "CUDA 0".into(), reason: "a test".into() };
    machine.local.devices.of_kind(CUDA).for_each(|pool| pool.state().close(lost()));
    assert_eq!(measures.await.unwrap().unwrap().execution.backend, "CPU");
}

/// An output that takes long to encode.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(from = "u64")]
struct SlowToEncode;

impl From<u64> for SlowToEncode {
    fn from(_: u64) -> Self {
        Self
    }
}

const ENCODING: Duration = Duration::from_millis(20);

impl serde::Serialize for SlowToEncode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        std::thread::sleep(ENCODING);
        serializer.serialize_u64(1)
    }
}

struct EncodesSlowly;

impl Kernel for EncodesSlowly {
    type Input = u64;
    type Output = SlowToEncode;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/encodes-slowly", "1", "A test.")
    }
    fn validate(&self, _: &u64) -> Result<(), InvalidInput> {
        Ok(())
    }
    fn cost(&self, _: &u64) -> Cost {
        Cost { operations: 2_000, ..Cost::default() }
    }
    fn run_cpu(&self, _: &u64, _: &RunContext<'_>) -> Result<SlowToEncode, KernelError> {
        Ok(SlowToEncode)
    }
}

/// Otherwise a small kernel with a long output would not run on the calling thread any more.
#[tokio::test]
async fn the_encoding_of_the_output_is_not_part_of_a_runs_time() {
    let cpu = CpuBackend::new();
    let local = Local::over(DeviceSet::new(vec![Arc::clone(cpu.pool())]));
    let registry = KernelRegistry::new();
    registry.register(EncodesSlowly).unwrap();
    let service = KernelService::with_backend(registry, local);
    for _ in 0..10 {
        let request = KernelRequest::new("test/encodes-slowly", Payload::json("1"));
        let started = Instant::now();
        let response = service.clone().oneshot(request).await.unwrap();
        assert!(started.elapsed() >= ENCODING);
        assert!(response.execution.estimated < ENCODING / 2, "{:?}", response.execution);
    }
}
