//! What the loss of a device affects: each kind of fault, a hang, two devices. Each runs in a process of its own, because
//! CUDA cannot be used in the process afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::backends::{CudaState, Local};
use tower_kernels::cuda::{self, Launch};
use tower_kernels::service::{
    BackendKind, Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest,
    KernelResponse, KernelService, LaunchContext, RunContext,
};

use crate::faults::in_a_child;
use crate::probe::{CODE, Nothing, Probe, Values, Where, request, run};
use crate::stopping::until_cancelled;

crate::tests! {
    an_illegal_address_fails_only_what_ran_there
    a_trap_fails_only_what_ran_there
    a_misaligned_address_fails_only_what_ran_there
    a_device_that_hangs_is_lost_within_its_limit
}

/// Where there are two devices.
pub(crate) const TWO: &[crate::Test] = &[("cuda::domain::the_other_device_and_the_cpu_go_on", || {
    in_a_child(&["--domain", "two"]);
})];

fn an_illegal_address_fails_only_what_ran_there() {
    in_a_child(&["--domain", "astray"]);
}

fn a_trap_fails_only_what_ran_there() {
    in_a_child(&["--domain", "trap"]);
}

fn a_misaligned_address_fails_only_what_ran_there() {
    in_a_child(&["--domain", "misaligned"]);
}

fn a_device_that_hangs_is_lost_within_its_limit() {
    in_a_child(&["--domain", "hang"]);
}

pub(crate) fn child(what: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    match what {
        "two" => runtime.block_on(two_devices()),
        "hang" => runtime.block_on(hang()),
        "operand-on-one-of-two" => return crate::operands::on_one_of_two(),
        "write-to-operand" => return crate::operands::write_to_a_copy(),
        "trap" => runtime.block_on(fault("trap", "")),
        "misaligned" => runtime.block_on(fault("misaligned", "MISALIGNED_ADDRESS")),
        _ => runtime.block_on(fault("astray", "ILLEGAL_ADDRESS")),
    }
    println!("as expected");
}

/// Runs on the device until it is cancelled, and takes no time on the CPU.
struct Held {
    pure: bool,
}

impl Kernel for Held {
    type Input = Nothing;
    type Output = Values;

    fn info(&self) -> KernelInfo {
        let name = if self.pure { "test/held-pure" } else { "test/held" };
        let info = KernelInfo::new(name, "1", "A test.").backends([BackendKind::Cpu, BackendKind::Cuda]);
        if self.pure { info.pure() } else { info }
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
        until_cancelled(cuda).map(|values| Values { values })
    }
}

/// About a tenth of a second.
const PAUSE: u64 = 200_000_000;

fn pause(cuda: &mut LaunchContext<'_>, cycles: u64) -> Result<tower_kernels::cuda::DeviceBuffer<f64>, KernelError> {
    let out = cuda.zeroed::<f64>(1)?;
    cuda.launch(&CODE, "pass_time", Launch::new(1, 1), &[&cycles, &out])?;
    Ok(out)
}

pub(crate) fn registry(entry: &'static str) -> Arc<KernelRegistry> {
    let registry = KernelRegistry::new();
    let probe =
        |name, run: fn(&mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError>| Probe { name, memory: 0, run };
    registry.register(probe("test/pause", |cuda| pause(cuda, PAUSE).and_then(|out| cuda.download(&out)))).unwrap();
    // Ends by itself, so that the machine can be used by the next test.
    registry.register(probe("test/deaf", |cuda| pause(cuda, 100 * PAUSE).and_then(|out| cuda.download(&out)))).unwrap();
    let late = move |cuda: &mut LaunchContext<'_>| {
        let out = pause(cuda, PAUSE)?;
        cuda.launch(&CODE, entry, Launch::new(1, 1), &[&out])?;
        cuda.download(&out)
    };
    registry.register(Probe { name: "test/faults-late", memory: 0, run: late }).unwrap();
    registry.register(Where).unwrap();
    registry.register(Held { pure: true }).unwrap();
    registry.register(Held { pure: false }).unwrap();
    Arc::new(registry)
}

pub(crate) fn open(device: u32, workers: usize, hang_timeout: Duration) -> CudaBackend {
    let mut config = CudaConfig::default();
    (config.workers, config.hang_timeout) = (workers, hang_timeout);
    CudaBackend::with_config(device, config).unwrap()
}

fn lost(local: &Local) -> Vec<Option<String>> {
    match local.status().cuda {
        CudaState::On { devices, .. } => devices.into_iter().map(|device| device.lost).collect(),
        CudaState::Off { reason } => panic!("{reason}"),
    }
}

/// When readiness, health and metrics said so, from `start` on.
#[cfg(feature = "axum")]
async fn said_so(service: KernelService<Local>, start: Instant) -> Duration {
    use tower_kernels::axum::{KernelRouter, RouterConfig};

    let router = KernelRouter::with_service(service.clone(), &service, RouterConfig::default()).into_router();
    let get = async |path: &str| {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!((get("/health/ready").await.0, get("/health").await.0), (200, 200), "before");
    loop {
        let (ready, health, metrics) = (get("/health/ready").await, get("/health").await, get("/metrics").await);
        let down = metrics.1.contains("kernel_backend_up{backend=\"CUDA\",device=\"0\"} 0");
        if ready.0 == 503 && health.0 == 503 && down {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{ready:?} {health:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[cfg(not(feature = "axum"))]
async fn said_so(service: KernelService<Local>, start: Instant) -> Duration {
    while lost(service.backend())[0].is_none() {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

async fn fault(entry: &'static str, reason: &str) {
    let registry = registry(entry);
    let local = Local::with_backends(CpuBackend::new(), Ok(open(0, 3, Duration::from_secs(60))));
    let service = KernelService::with_backend(registry, local.clone());
    let spawn = |name| tokio::spawn(run(service.clone(), request(name)));
    run(service.clone(), request("test/pause")).await.unwrap();
    let start = Instant::now();
    run(service.clone(), request("test/pause")).await.unwrap();
    let alone = start.elapsed();

    let (pure, other) = (spawn("test/held-pure"), spawn("test/held"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    let culprit = spawn("test/faults-late");
    let said = tokio::spawn(said_so(service.clone(), start));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let queued: Vec<_> = (0..20).map(|_| spawn("test/where")).collect();
    assert_eq!(lost(&local), [None], "20 ms and a pause of {alone:?}");

    let result = within(culprit).await;
    assert!(matches!(&result, Err(KernelError::DeviceLost { reason: why, .. }) if why.contains(reason)), "{result:?}");
    let returned = start.elapsed();
    assert!(lost(&local)[0].as_ref().unwrap().contains(reason), "{:?}", lost(&local));
    let said = within(said).await;
    for job in queued {
        assert_eq!(within(job).await.unwrap(), [0.0], "on the CPU");
    }
    assert_eq!(within(pure).await.unwrap(), [0.0], "again, on the CPU");
    let other = within(other).await;
    assert!(matches!(other, Err(KernelError::DeviceLost { .. })), "{other:?}");
    // The time that the driver takes to report the fault.
    let driver = returned.saturating_sub(alone);
    println!(
        "{entry}: {result:?}\n    reported {driver:?} after the fault; from the start returned after {returned:?}, said so after {said:?}"
    );
    assert!(said < returned + Duration::from_millis(100), "{said:?}");
    settled(&local).await;
}

async fn hang() {
    let limit = Duration::from_millis(200);
    let registry = registry("astray");
    let local = Local::with_backends(CpuBackend::new(), Ok(open(0, 1, limit)));
    let service = KernelService::with_backend(registry, local.clone());
    run(service.clone(), request("test/pause")).await.unwrap();
    let start = Instant::now();
    let deadline = Duration::from_millis(100);
    let deaf = tokio::spawn(run(service.clone(), request("test/deaf").with_timeout(deadline)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let queued: Vec<_> = (0..20).map(|_| tokio::spawn(run(service.clone(), request("test/where")))).collect();
    let said = said_so(service.clone(), start).await;
    println!("hang: {:?} after a deadline of {deadline:?} and a limit of {limit:?}: lost after {said:?}", lost(&local));
    assert!((deadline + limit..deadline + limit + Duration::from_millis(100)).contains(&said), "{said:?}");
    let deaf = within(deaf).await;
    let expected = matches!(deaf, Err(KernelError::DeviceLost { .. } | KernelError::DeadlineExceeded { .. }));
    assert!(expected, "{deaf:?}");
    for job in queued {
        assert_eq!(within(job).await.unwrap(), [0.0], "on the CPU");
    }
    settled(&local).await;
    // The process ends while the kernel runs: nothing may wait for it.
}

async fn two_devices() {
    let backends = [0, 1].map(|device| open(device, 2, Duration::from_secs(60)));
    let local = Local::with_backends(CpuBackend::new(), Ok(Vec::from(backends.clone())));
    let service = KernelService::with_backend(registry("astray"), local.clone());
    let call = |name| {
        let service = service.clone();
        tokio::spawn(async move { respond(service, request(name)).await.map(|response| response.execution.device) })
    };
    let mut used = [0; 2];
    for job in (0..200).map(|_| call("test/where")).collect::<Vec<_>>() {
        // Some measure the CPU.
        if let Some(device) = within(job).await.unwrap() {
            used[device as usize] += 1;
        }
    }
    println!("two: jobs a device: {used:?}");
    assert!(used.iter().all(|&used| used > 20), "{used:?}");

    let culprit = call("test/faults-late");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let held = [call("test/pause"), call("test/pause"), call("test/pause")];
    let queued: Vec<_> = (0..40).map(|_| call("test/where")).collect();
    let result = within(culprit).await;
    assert!(matches!(result, Err(KernelError::DeviceLost { .. })), "{result:?}");
    let mut ran: Vec<_> = Vec::new();
    for job in queued {
        ran.push(within(job).await.unwrap());
    }
    let on = |device| ran.iter().filter(|&&ran| ran == device).count();
    let mut results = Vec::new();
    for job in held {
        results.push(within(job).await.map_err(|error| error.to_string()));
    }
    println!("two: queued jobs ran on 0: {}, 1: {}, CPU: {}; pauses: {results:?}", on(Some(0)), on(Some(1)), on(None));

    for (device, backend) in backends.iter().enumerate() {
        let alone = KernelService::with_backend(Arc::clone(service.registry()), backend.clone());
        let result = run(alone, request("test/where")).await;
        println!("two: after the fault, device {device} by itself: {result:?}");
    }
    println!("two: {}", local.status());
    for _ in 0..1000 {
        run(service.clone(), request("test/where")).await.unwrap();
    }
    println!("two: and after 1000 jobs more: {}", local.status());
    // A device that is opened now: a new context in a process that has had a fault.
    println!("two: opened again: {:?}", CudaBackend::open(1).map(|backend| backend.status().lost));
    settled(&local).await;
}

async fn respond(mut service: KernelService<Local>, request: KernelRequest) -> Result<KernelResponse, KernelError> {
    service.ready().await?.call(request).await
}

async fn within<T>(task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("a job hangs").unwrap()
}

/// Waits until no job holds a permit.
async fn settled(local: &Local) {
    let start = Instant::now();
    while tower::load::Load::load(local).jobs > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "a permit was not released: {:?}", local.status());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(tower::load::Load::load(local).predicted, Duration::ZERO);
}

/// How many devices there are.
pub(crate) fn devices() -> usize {
    cuda::devices().map_or(0, |devices| devices.len())
}
