//! Several devices without a GPU: their workers only sleep, and a test decides when they are lost.
//!
//! The CPU is predicted to take so long that jobs go to a device as long as there is one; those of pure kernels may go to the CPU
//! to measure it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tower::{Layer, Service, ServiceExt};

use super::*;
use crate::backends::BatchedLayer;
use crate::backends::cpu::CpuConfig;
use crate::backends::worker_pool::{PoolState, Profile, Reservation, Worker, WorkerPool};
use crate::service::{
    BatchKey, Cost, InvalidInput, Kernel, KernelInfo, KernelRegistry, KernelRequest, Payload, RunContext, TensorSet,
    Typed,
};

const SOON: Duration = Duration::from_secs(60);
const CPU: u32 = u32::MAX;

/// The time of jobs for which the kernel has no code on a device.
const CPU_ONLY: u64 = 1_234_567;

/// A job with a number, which takes so many milliseconds on a device and none on the CPU.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Work {
    id: u64,
    millis: u64,
    /// The predicted time on the CPU.
    #[serde(default = "cpu_seconds")]
    cpu_seconds: u64,
}

/// More than the longest job on a device takes, and less than [`SOON`].
fn cpu_seconds() -> u64 {
    40
}

const CPU_BYTES_PER_SECOND: u64 = 8_000_000_000;

/// Returns the device that it ran on.
struct Passes {
    name: &'static str,
    pure: bool,
    on_cpu: bool,
}

impl Kernel for Passes {
    type Input = Work;
    type Output = u32;

    fn info(&self) -> KernelInfo {
        let backends: &[_] = if self.on_cpu { &[BackendKind::Cpu, BackendKind::Cuda] } else { &[BackendKind::Cuda] };
        let info = KernelInfo::new(self.name, "1", "A test.").backends(backends);
        if self.pure { info.pure() } else { info }
    }
    fn validate(&self, _: &Work) -> Result<(), InvalidInput> {
        Ok(())
    }
    /// An operation is a millisecond on a device and no time at all on the CPU, and bytes are the other way round. The memory is
    /// the number.
    fn cost(&self, work: &Work) -> Cost {
        let bytes = work.cpu_seconds * CPU_BYTES_PER_SECOND;
        Cost { bytes, operations: work.millis, device_memory: work.id }
    }
    fn run_cpu(&self, _: &Work, _: &RunContext<'_>) -> Result<u32, KernelError> {
        Ok(CPU)
    }
}

struct Device {
    ordinal: u32,
    pool: Arc<PoolState>,
    starts: Arc<Mutex<HashMap<u64, u32>>>,
}

impl Worker for Device {
    fn run(&mut self, job: &Job, context: &RunContext<'_>, _: Option<Reservation>) -> Result<Typed, KernelError> {
        let Cost { operations: millis, device_memory: id, .. } = job.input().unwrap().cost;
        *self.starts.lock().unwrap().entry(id).or_default() += 1;
        if millis == CPU_ONLY {
            return Err(KernelError::UnsupportedBackend { id: job.kernel().info().id.clone(), backend: "CUDA" });
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(millis) {
            context.check()?;
            if let Some(lost) = self.pool.closed() {
                return Err(lost.clone());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(Typed::new(self.ordinal))
    }

    fn recover(&mut self) {}
}

struct Machine {
    local: Local,
    devices: Vec<Arc<WorkerPool>>,
    registry: KernelRegistry,
    /// How often a device has begun each job.
    starts: Arc<Mutex<HashMap<u64, u32>>>,
    ids: AtomicU64,
}

impl Machine {
    fn new(devices: u32, workers: usize, queue: usize) -> Self {
        let starts: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
        let pool = |ordinal| {
            let profile = Profile {
                backend: BackendKind::Cuda,
                device: Some(ordinal),
                idle_spin: Duration::ZERO,
                inline: Duration::from_micros(20),
                isolated: false,
                busy_poll: Duration::ZERO,
                shutdown_grace: SOON,
                launch: Duration::ZERO,
                bytes_per_second: 1e18,
                operations_per_second: 1e3,
                pinned_memory: None,
            };
            let start = |pool: &Arc<PoolState>| {
                let worker = || Device { ordinal, pool: Arc::clone(pool), starts: Arc::clone(&starts) };
                Ok(std::iter::repeat_with(worker).take(workers).collect())
            };
            Arc::new(WorkerPool::start(profile, queue, None, start).unwrap())
        };
        let devices: Vec<_> = (0..devices).map(pool).collect();
        let mut config = CpuConfig::default();
        (config.workers, config.queue) = (2, 1000);
        let cpu = CpuBackend::with_config(config).unwrap();
        let registry = KernelRegistry::new();
        for (name, pure, on_cpu) in
            [("test/pure", true, true), ("test/once", false, true), ("test/cuda-alone", true, false)]
        {
            registry.register(Passes { name, pure, on_cpu }).unwrap();
        }
        let local = Local::over(DeviceSet::new(devices.iter().chain([cpu.pool()]).cloned().collect()));
        Self { local, devices, registry, starts, ids: AtomicU64::new(0) }
    }

    fn job(&self, kernel: &str, millis: u64, timeout: Option<Duration>) -> Job {
        self.job_of(kernel, millis, cpu_seconds(), timeout)
    }

    fn job_of(&self, kernel: &str, millis: u64, cpu_seconds: u64, timeout: Option<Duration>) -> Job {
        let id = self.ids.fetch_add(1, Ordering::SeqCst);
        let mut request = KernelRequest::new(kernel.to_owned(), Payload::typed(Work { id, millis, cpu_seconds }));
        if let Some(timeout) = timeout {
            request = request.with_timeout(timeout);
        }
        Job::new(self.registry.get(kernel).unwrap(), request).unwrap()
    }

    /// Begins a job; where it ran, or why not.
    fn start(&self, kernel: &str, millis: u64) -> tokio::task::JoinHandle<Result<u32, KernelError>> {
        self.start_job(self.job(kernel, millis, None))
    }

    fn start_job(&self, job: Job) -> tokio::task::JoinHandle<Result<u32, KernelError>> {
        let mut local = self.local.clone();
        tokio::spawn(async move {
            let response = local.ready().await?.call(job).await?;
            let device = response.payload.downcast::<u32>().unwrap();
            assert_eq!(response.execution.device.map(u32::from), (*device != CPU).then_some(*device));
            Ok(*device)
        })
    }

    fn lose(&self, device: usize) {
        let name = format!("CUDA {device}");
        let lost = KernelError::DeviceLost { device: name.into(), reason: "it fell off the bus".into() };
        self.devices[device].state().close(lost);
    }

    /// Waits until the devices hold so many jobs.
    async fn reaches<const N: usize>(&self, jobs: [usize; N]) {
        let start = Instant::now();
        while (0..N).any(|at| self.devices[at].load().jobs != jobs[at]) {
            assert!(start.elapsed() < SOON, "{:?} where {jobs:?} is expected", self.devices);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn cpu(&self) -> &Arc<WorkerPool> {
        self.local.devices.of_kind(BackendKind::Cpu).next().unwrap()
    }

    fn begun(&self) -> usize {
        self.starts.lock().unwrap().len()
    }

    /// Starts a job and waits until it runs.
    async fn run(&self, kernel: &str, millis: u64) -> tokio::task::JoinHandle<Result<u32, KernelError>> {
        let begun = self.begun();
        let job = self.start(kernel, millis);
        let start = Instant::now();
        while self.begun() == begun {
            assert!(start.elapsed() < SOON, "it does not begin");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        job
    }

    /// Nothing holds a permit any more, and the predicted load is zero.
    async fn settled(&self) {
        let start = Instant::now();
        let loads = || self.devices.iter().chain([self.cpu()]).map(|pool| pool.load());
        while loads().any(|load| load.jobs > 0) {
            assert!(start.elapsed() < SOON, "{:?}", self.devices);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(loads().all(|load| load == PoolLoad::default()), "{:?}", loads().collect::<Vec<_>>());
    }
}

async fn within(task: tokio::task::JoinHandle<Result<u32, KernelError>>) -> Result<u32, KernelError> {
    tokio::time::timeout(SOON, task).await.expect("a job hangs").unwrap()
}

#[tokio::test]
async fn a_job_goes_where_less_time_is_predicted_however_many_jobs_that_is() {
    let machine = Machine::new(2, 1, 100);
    let long = machine.run("test/once", 10_000).await;
    let busy = machine.devices.iter().position(|device| device.load().jobs == 1).unwrap();
    let predicted = machine.devices[busy].load().predicted;
    assert_eq!(predicted, Duration::from_secs(10), "an operation is a millisecond");
    let short: Vec<_> = (0..50).map(|_| machine.start("test/once", 1)).collect();
    for job in short {
        assert_eq!(within(job).await.unwrap() as usize, 1 - busy);
    }
    long.abort();
    machine.settled().await;
}

#[tokio::test]
async fn a_job_goes_where_its_operands_are_unless_it_would_wait_longer_there() {
    let machine = Machine::new(3, 1, 100);
    machine.registry.operands().put("prices", TensorSet::of("close", vec![1.0_f64])).unwrap();
    // At 1e18 bytes a second, an upload takes a second. What the other jobs take is learned, and more on a busy machine.
    const UPLOAD: u64 = 1_000_000_000_000_000_000;
    let missing = [UPLOAD, 0, UPLOAD];
    for (device, missing) in machine.devices.iter().zip(missing) {
        device.on_missing_bytes(move |operand| {
            assert_eq!(operand.name(), "prices");
            missing
        });
    }
    let start = |millis: u64| {
        let input = format!(r#"{{"id": {millis}, "millis": {millis}, "unused": {{"operand": "prices"}}}}"#);
        let mut request = KernelRequest::new("test/once", Payload::json(input));
        request.resolve_operands(&machine.registry);
        let job = Job::new(machine.registry.get("test/once").unwrap(), request).unwrap();
        let mut local = machine.local.clone();
        tokio::spawn(async move {
            let execution = local.ready().await?.call(job).await?.execution;
            let operands = execution.operands().to_vec();
            assert_eq!(operands.iter().map(ToString::to_string).collect::<Vec<_>>(), ["prices@1"]);
            Ok(execution.device.map_or(CPU, u32::from))
        })
    };
    for _ in 0..50 {
        assert_eq!(within(start(1)).await.unwrap(), 1);
    }
    // What the device has to do takes less than the upload, and then more.
    let short = start(50);
    machine.reaches([0, 1, 0]).await;
    assert_eq!(within(start(1)).await.unwrap(), 1);
    assert_eq!(within(short).await.unwrap(), 1);
    let long = start(10_000);
    machine.reaches([0, 1, 0]).await;
    while machine.devices[1].load().predicted < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_ne!(within(start(1)).await.unwrap(), 1);
    long.abort();
    machine.settled().await;
    machine.lose(1);
    assert_ne!(within(start(1)).await.unwrap(), 1, "others upload it");
}

#[tokio::test]
async fn devices_with_equal_work_share_it() {
    let machine = Machine::new(4, 1, 100);
    let mut jobs = [0; 4];
    for job in (0..200).map(|_| machine.start("test/once", 1)).collect::<Vec<_>>() {
        jobs[within(job).await.unwrap() as usize] += 1;
    }
    assert!(jobs.iter().all(|jobs| (35..=65).contains(jobs)), "{jobs:?}");
    machine.settled().await;
}

#[tokio::test]
async fn it_is_ready_when_one_of_the_devices_is() {
    let machine = Machine::new(3, 1, 0);
    let held: Vec<_> = (0..3).map(|_| machine.start("test/pure", 10_000)).collect();
    machine.reaches([1, 1, 1]).await;
    let mut waits = tokio_test::task::spawn(machine.local.clone());
    let mut too = tokio_test::task::spawn(machine.local.clone());
    let poll = |task: &mut tokio_test::task::Spawn<Local>| task.enter(|cx, local| local.get_mut().poll_ready(cx));
    assert!(poll(&mut waits).is_pending() && poll(&mut too).is_pending(), "all three are full");
    held[0].abort();
    let start = Instant::now();
    while !waits.is_woken() {
        assert!(start.elapsed() < SOON, "no waiter was woken");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(poll(&mut waits).is_ready() && poll(&mut too).is_pending(), "one permit is one caller's");
    drop(waits);
    assert!(too.is_woken() && poll(&mut too).is_ready(), "it was given back");
    drop(too);
    held.iter().for_each(tokio::task::JoinHandle::abort);
    machine.settled().await;
}

#[tokio::test]
async fn who_waits_for_devices_that_are_lost_is_woken() {
    let machine = Machine::new(2, 1, 0);
    let held = [machine.start("test/pure", 10_000), machine.start("test/pure", 10_000)];
    machine.reaches([1, 1]).await;
    let waiting = [machine.start("test/pure", 1), machine.start("test/pure", 1)];
    tokio::time::sleep(Duration::from_millis(10)).await;
    machine.lose(0);
    machine.lose(1);
    for job in waiting.into_iter().chain(held) {
        assert_eq!(within(job).await.unwrap(), CPU);
    }
    machine.settled().await;
}

#[tokio::test]
async fn what_waits_moves_to_the_other_device_and_what_runs_does_not() {
    let machine = Machine::new(2, 1, 100);
    // Device 1 has more to do, so all that follow wait for device 0.
    let elsewhere = loop {
        let job = machine.run("test/pure", 500).await;
        if machine.devices[1].load().jobs == 1 {
            break job;
        }
        job.abort();
        machine.reaches([0, 0]).await;
    };
    let running = machine.run("test/pure", 100).await;
    machine.reaches([1, 1]).await;
    let waiting: Vec<_> = (0..3).map(|_| machine.start("test/once", 10)).collect();
    machine.reaches([4, 1]).await;
    machine.lose(0);
    assert_eq!(within(running).await.unwrap(), CPU, "it may be what the device was lost to");
    for job in waiting {
        assert_eq!(within(job).await.unwrap(), 1);
    }
    assert_eq!(within(elsewhere).await.unwrap(), 1, "others do not notice");
    machine.settled().await;
    assert!(machine.starts.lock().unwrap().values().all(|&starts| starts == 1));
}

#[tokio::test]
async fn what_is_not_pure_is_begun_once() {
    let machine = Machine::new(1, 1, 100);
    let running = machine.run("test/once", 10_000).await;
    let (waiting, nowhere) = (machine.start("test/once", 1), machine.start("test/cuda-alone", 1));
    tokio::time::sleep(Duration::from_millis(10)).await;
    machine.lose(0);
    assert!(matches!(within(running).await, Err(KernelError::DeviceLost { .. })));
    assert_eq!(within(waiting).await.unwrap(), CPU, "it never began");
    assert!(matches!(within(nowhere).await, Err(KernelError::DeviceLost { .. })));
    // And who comes afterwards.
    assert_eq!(within(machine.start("test/once", 1)).await.unwrap(), CPU);
    assert!(matches!(within(machine.start("test/cuda-alone", 1)).await, Err(KernelError::DeviceLost { .. })));
    machine.settled().await;
}

#[tokio::test]
async fn an_input_without_code_for_a_device_runs_on_the_cpu() {
    let machine = Machine::new(2, 1, 100);
    for kernel in ["test/pure", "test/once"] {
        let job = machine.job_of(kernel, CPU_ONLY, 10 * CPU_ONLY, Some(SOON));
        let response = machine.local.clone().ready().await.unwrap().call(job).await.unwrap();
        assert_eq!(response.execution.backend, "CPU");
    }
    assert_eq!(machine.begun(), 2, "one device was asked for each");
    let nowhere = within(machine.start("test/cuda-alone", CPU_ONLY)).await;
    assert!(matches!(nowhere, Err(KernelError::UnsupportedBackend { backend: "CUDA", .. })), "{nowhere:?}");
    // The devices are not lost by it.
    assert!(within(machine.start("test/cuda-alone", 0)).await.is_ok());
    machine.settled().await;
}

#[tokio::test]
async fn nothing_moves_that_would_be_late() {
    let machine = Machine::new(1, 1, 100);
    let running = machine.run("test/pure", 10_000).await;
    // The CPU with its two workers takes 250 s for this.
    let long = machine.start_job(machine.job_of("test/once", 1, 500, Some(Duration::from_secs(100))));
    let late = machine.start_job(machine.job("test/pure", 1, Some(Duration::from_millis(20))));
    let good = machine.start_job(machine.job("test/pure", 1, Some(SOON)));
    tokio::time::sleep(Duration::from_millis(30)).await;
    machine.lose(0);
    assert!(matches!(within(long).await, Err(KernelError::DeviceLost { .. })));
    let late = within(late).await;
    assert!(matches!(late, Err(KernelError::DeadlineExceeded { started: false } | KernelError::DeviceLost { .. })));
    assert_eq!(within(good).await.unwrap(), CPU);
    assert_eq!(within(running).await.unwrap(), CPU);
    machine.settled().await;
}

#[tokio::test]
async fn a_job_that_moves_can_be_dropped() {
    let machine = Machine::new(2, 1, 1);
    // Both are full, so what device 0 gives back waits.
    let jobs: Vec<_> = (0..4).map(|_| machine.start("test/pure", 10_000)).collect();
    machine.reaches([2, 2]).await;
    machine.lose(0);
    machine.reaches([0, 2]).await;
    let waiting = || jobs.iter().filter(|job| !job.is_finished()).count();
    let start = Instant::now();
    while waiting() > 3 {
        assert!(start.elapsed() < SOON, "one that ran is begun anew on the CPU");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(waiting(), 3, "the others have nowhere to run");
    jobs.iter().for_each(tokio::task::JoinHandle::abort);
    machine.settled().await;
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    /// Every job completes once, whichever device is lost at whatever time, and cancelled jobs release their permits.
    #[test]
    fn every_job_completes_once(
        jobs in proptest::collection::vec((0..3_usize, 0..3_u64, 0..10_u8), 50..200),
        losses in proptest::collection::vec((0..3_usize, 0..20_u64), 0..4),
        workers in 1..3_usize,
        queue in 0..20_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let machine = Machine::new(3, workers, queue);
            let kernels = ["test/pure", "test/once", "test/cuda-alone"];
            let tasks: Vec<_> = jobs
                .iter()
                .map(|&(kernel, millis, leaves)| (kernel, leaves, machine.start(kernels[kernel], millis)))
                .collect();
            for &(device, after) in &losses {
                tokio::time::sleep(Duration::from_millis(after)).await;
                machine.lose(device);
            }
            for (kernel, leaves, task) in tasks {
                if leaves == 0 {
                    task.abort();
                    continue;
                }
                match within(task).await {
                    Ok(_) => {}
                    Err(KernelError::DeviceLost { .. }) if !losses.is_empty() && kernel != 0 => {}
                    other => panic!("{}: {other:?}", kernels[kernel]),
                }
            }
            machine.settled().await;
            let starts = machine.starts.lock().unwrap();
            assert!(starts.values().all(|&starts| starts == 1), "a device was given what another one was lost to");
        });
    }
}

/// `tower::balance` works over backends as they are. It holds a permit on each of them, which is why `Local` does without.
#[tokio::test]
async fn towers_own_balance_works_over_backends() {
    use tower::balance::p2c::Balance;
    use tower::discover::ServiceList;

    let machine = Machine::new(2, 1, 100);
    let one = |at: usize| Local::over(DeviceSet::new(vec![machine.devices[at].clone(), machine.cpu().clone()]));
    let mut balance = Balance::new(ServiceList::new::<Job>(vec![one(0), one(1)]));
    let mut responses = Vec::new();
    for _ in 0..100 {
        let job = machine.job("test/cuda-alone", 1, None);
        responses.push(tokio::spawn(balance.ready().await.unwrap().call(job)));
    }
    let mut jobs = [0; 2];
    for response in responses {
        jobs[*response.await.unwrap().unwrap().payload.downcast::<u32>().unwrap() as usize] += 1;
    }
    assert!(jobs.iter().all(|jobs| *jobs > 20), "{jobs:?}");
    balance.ready().await.unwrap();
    machine.reaches([1, 1]).await;
    drop(balance);
    machine.settled().await;
}

/// Work that may share a run with any of its kind: so many bytes on the CPU, which take no time on a device.
struct Shares {
    name: &'static str,
    backends: &'static [BackendKind],
    bytes: u64,
}

impl Kernel for Shares {
    type Input = Work;
    type Output = u32;

    fn info(&self) -> KernelInfo {
        KernelInfo::new(self.name, "1", "A test.").backends(self.backends)
    }
    fn validate(&self, _: &Work) -> Result<(), InvalidInput> {
        Ok(())
    }
    fn cost(&self, _: &Work) -> Cost {
        Cost { bytes: self.bytes, ..Cost::default() }
    }
    fn batch_key(&self, _: &Work) -> Option<BatchKey> {
        Some(BatchKey::exact(0))
    }
    fn run_cpu(&self, _: &Work, _: &RunContext<'_>) -> Result<u32, KernelError> {
        Ok(CPU)
    }
}

#[tokio::test]
async fn behind_the_batch_layer_only_that_waits_which_gains_by_it() {
    const BOTH: &[BackendKind] = &[BackendKind::Cpu, BackendKind::Cuda];
    const DELAY: Duration = Duration::from_millis(200);
    // 50 µs of the CPU.
    const LARGE: u64 = CPU_BYTES_PER_SECOND / 20_000;
    for (devices, name, backends, bytes, waits) in [
        (1, "test/both", BOTH, LARGE, true),
        (1, "test/both", BOTH, 0, false),
        (1, "test/small", &BOTH[..1], 0, false),
        (1, "test/large", &BOTH[..1], LARGE, false),
        (0, "test/both", BOTH, 0, false),
        (0, "test/small", &BOTH[..1], 0, false),
        (0, "test/large", &BOTH[..1], LARGE, true),
    ] {
        let machine = Machine::new(devices, 1, 8);
        machine.registry.register(Shares { name, backends, bytes }).unwrap();
        let layer = BatchedLayer::over(&machine.local).max_delay(DELAY);
        let service = layer.layer(machine.local.clone());
        let response = service.oneshot(machine.job(name, 0, None)).await.unwrap();
        let waited = response.execution.queued >= DELAY - Duration::from_millis(20);
        assert_eq!(waited, waits, "{devices} devices, {name}: {:?}", response.execution);
    }
}
