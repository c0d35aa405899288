//! One device and several: jobs of which one in ten takes a hundred times as long as the others.
//!
//! A job holds the whole device for as long as it says, so devices are what there is too little of.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Service, ServiceExt};
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::cuda::{Launch, Module, devices};
use tower_kernels::service::{
    BackendKind, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, KernelService,
    LaunchContext, Payload,
};

use crate::kernels::Done;

const PTX: &str = "
.version 8.2
.target sm_75
.address_size 64
.visible .entry pass_time(.param .u64 nanos) {
    .reg .u64 %rd<5>;
    .reg .pred %p;
    ld.param.u64 %rd1, [nanos];
    mov.u64 %rd2, %globaltimer;
again:
    mov.u64 %rd3, %globaltimer;
    sub.u64 %rd4, %rd3, %rd2;
    setp.lt.u64 %p, %rd4, %rd1;
    @%p bra again;
    ret;
}
";
// SAFETY: it touches no memory.
static MODULE: Module = unsafe { Module::from_ptx("bench/pass-time", PTX) };

/// What the backend's own rate makes of an operation, so that a job is predicted to take what it takes.
const OPERATIONS_PER_NANOSECOND: u64 = 5000;

const SHORT: u64 = 50_000;
const LONG: u64 = 100 * SHORT;

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
struct Job {
    nanos: u64,
    /// Whether its cost says how long it takes.
    has_cost: bool,
}

/// Occupies all multiprocessors of the device.
struct PassTime {
    blocks: u32,
}

impl Kernel for PassTime {
    type Input = Job;
    type Output = Done;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("bench/pass-time", "1", "Holds the device.").backends([BackendKind::Cuda])
    }

    fn validate(&self, _: &Job) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, job: &Job) -> Cost {
        let operations = if job.has_cost { job.nanos * OPERATIONS_PER_NANOSECOND } else { 0 };
        Cost { operations, ..Cost::default() }
    }

    fn run_cuda(&self, job: &Job, cuda: &mut LaunchContext<'_>) -> Result<Done, KernelError> {
        cuda.launch(&MODULE, "pass_time", Launch::new(self.blocks, 1024), &[&job.nanos])?;
        cuda.wait()?;
        Ok(Done {})
    }
}

pub(crate) fn run() {
    let all = devices().unwrap();
    let registry = KernelRegistry::new();
    // Two blocks of 1024 threads fill a multiprocessor.
    registry.register(PassTime { blocks: all[0].multiprocessors * 2 }).unwrap();
    let registry = std::sync::Arc::new(registry);
    println!("\njobs of 50 µs, every tenth 5 ms; 32 callers a device");
    println!(
        "devices  balanced by         jobs/s   x one   short p50, ms     p99   long p50, ms     p99   jobs a device"
    );
    let mut base = 0.0;
    for count in 1..=all.len() {
        for (has_cost, name) in [(true, "predicted time"), (false, "number of jobs")] {
            let config = CudaConfig::for_devices(count);
            let open = |device: u32| CudaBackend::with_config(device, config.clone()).unwrap();
            let backends: Vec<_> = (0..count as u32).map(open).collect();
            let mut cpu = CpuConfig::default();
            (cpu.workers, cpu.queue) = (1, 1024);
            let local = Local::with_backends(CpuBackend::with_config(cpu).unwrap(), Ok(backends));
            let service = KernelService::with_backend(std::sync::Arc::clone(&registry), local);
            let figures = Figures::of(&service, count, has_cost);
            if base == 0.0 {
                base = figures.rate;
            }
            let [short, long] = &figures.times;
            println!(
                "{count:>7}  {name:<15} {:>10.0} {:>7.2} {:>15.2} {:>7.2} {:>14.2} {:>7.2}   {:?}",
                figures.rate,
                figures.rate / base,
                at(short, 0.5),
                at(short, 0.99),
                at(long, 0.5),
                at(long, 0.99),
                figures.per_device
            );
        }
    }
}

/// Milliseconds.
fn at(times: &[Duration], share: f64) -> f64 {
    let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

struct Figures {
    rate: f64,
    /// Of short jobs and of long ones.
    times: [Vec<Duration>; 2],
    per_device: Vec<usize>,
}

impl Figures {
    fn of(service: &KernelService<Local>, devices: usize, has_cost: bool) -> Self {
        const EACH: usize = 100;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let callers = 32 * devices;
        runtime.block_on(async {
            Self::round(service, callers, EACH / 10, has_cost, devices).await;
            Self::round(service, callers, EACH, has_cost, devices).await
        })
    }

    async fn round(
        service: &KernelService<Local>,
        callers: usize,
        each: usize,
        has_cost: bool,
        devices: usize,
    ) -> Self {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let service = service.clone();
                tokio::spawn(async move {
                    let mut responses = Vec::with_capacity(each);
                    for index in 0..each {
                        let long = (caller + index) % 10 == 0;
                        let job = Job { nanos: if long { LONG } else { SHORT }, has_cost };
                        let request = KernelRequest::new("bench/pass-time", Payload::typed(job));
                        let start = Instant::now();
                        // A handle for each request, as servers have it.
                        let response = service.clone().ready().await.unwrap().call(request).await.unwrap();
                        responses.push((long, start.elapsed(), response.execution.device));
                    }
                    responses
                })
            })
            .collect();
        let mut this = Self { rate: 0.0, times: [Vec::new(), Vec::new()], per_device: vec![0; devices] };
        for task in tasks {
            for (long, time, device) in task.await.unwrap() {
                this.times[usize::from(long)].push(time);
                this.per_device[device.unwrap() as usize] += 1;
            }
        }
        this.rate = (callers * each) as f64 / begun.elapsed().as_secs_f64();
        this.times.iter_mut().for_each(|times| times.sort());
        this
    }
}
