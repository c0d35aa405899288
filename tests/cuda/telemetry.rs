//! What the device measures of requests, and what its sensors say.

use std::time::Duration;

use tower::{Service, ServiceExt};
use tower_kernels::cuda::{Gpu, Launch, Module};
use tower_kernels::kernels::linalg::saxpy::SaxpyInput;
use tower_kernels::request::{DeviceTimes, Execution};
use tower_kernels::service::{Buffer, KernelError, KernelRequest, LaunchContext, Payload};

use crate::probe::{Bench, numbers, request};

crate::tests! {
    phases_are_together_no_more_than_the_work
    one_request_in_so_many_is_timed
    a_kernel_of_known_length_is_measured
    the_host_at_work_between_launches_and_waits_counts_for_nothing
    more_phases_than_there_are_marks_for
    a_request_after_one_that_failed_is_timed_anew
    the_peak_is_that_of_the_data_sheet
    a_kernel_that_streams_memory_comes_near_the_roof
    sensors_agree_with_what_is_allocated
    sensors_tell_what_there_is
}

const MILLISECOND: Duration = Duration::from_millis(1);

static SPIN: Module = {
    const SOURCE: &str = r#"
        extern "C" __global__ void spin(unsigned long long nanoseconds) {
            unsigned long long start, now;
            asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
            do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now - start < nanoseconds);
        }
    "#;
    // SAFETY: it touches no memory.
    unsafe { Module::from_source("test/spin", SOURCE) }
};

/// Keeps the device busy for so long, by its own clock.
fn spin(cuda: &mut LaunchContext<'_>, time: Duration) -> Result<(), KernelError> {
    cuda.launch(&SPIN, "spin", Launch::new(1, 1), &[&(time.as_nanos() as u64)])
}

fn timing(one_in: u32) -> Bench {
    Bench::configured(|config| (config.workers, config.timing_sample_interval) = (1, one_in))
}

fn execute(bench: &Bench, name: &'static str, payload: Payload) -> Execution {
    let request = KernelRequest::new(name, payload);
    bench.runtime.block_on(async { bench.service().ready().await?.call(request).await }).unwrap().execution
}

fn run(bench: &Bench, name: &'static str) -> Execution {
    execute(bench, name, request(name).payload)
}

fn times(execution: &Execution) -> DeviceTimes {
    *execution.device_times().unwrap_or_else(|| panic!("not timed: {execution:?}"))
}

/// Runs it until the time that the device measured is within a fifth of `expected`. It is never less; other tests may be
/// in the way of it for a while, and then it is more.
fn measures(expected: Duration, time: impl Fn() -> DeviceTimes) -> DeviceTimes {
    for _ in 0..100 {
        let times = time();
        let ratio = times.kernel.as_secs_f64() / expected.as_secs_f64();
        assert!(ratio > 0.8, "{expected:?} were measured as {times:?}");
        if ratio < 1.2 {
            return times;
        }
        std::thread::sleep(50 * MILLISECOND);
    }
    panic!("{expected:?} were never measured as that: {:?}", time());
}

fn phases_are_together_no_more_than_the_work() {
    let bench = timing(1).with("test/phases", |cuda| {
        // In slabs, in pieces, and both ways more than once.
        for len in [1, 1000, 20_000, 3 << 20] {
            let x = cuda.upload(&numbers(len, 1))?;
            let y = cuda.zeroed::<f64>(len)?;
            cuda.copy(&x, &y)?;
            cuda.download_all([&x, &y])?;
        }
        let x = cuda.upload(&numbers(1 << 20, 2))?;
        spin(cuda, MILLISECOND)?;
        cuda.download(&x)
    });
    for round in 0..5 {
        let execution = run(&bench, "test/phases");
        let times = times(&execution);
        let DeviceTimes { upload, kernel, download, .. } = times;
        assert!(upload + kernel + download <= execution.executed, "round {round}: {execution:?}");
        assert!(kernel >= MILLISECOND, "round {round}: {execution:?}");
        // 33 MB one way and 59 MB the other, at no more than 64 GB/s.
        assert!(upload >= MILLISECOND / 2 && download >= MILLISECOND / 2, "round {round}: {execution:?}");
    }
}

fn one_request_in_so_many_is_timed() {
    const REQUESTS: usize = 4_000;
    for (one_in, expected) in [(0, 0..=0), (1, REQUESTS..=REQUESTS), (16, 200..=300), (128, 15..=50)] {
        let bench = timing(one_in).with("test/small", |cuda| cuda.upload(&[1.0]).and_then(|one| cuda.download(&one)));
        let timed = (0..REQUESTS).filter(|_| run(&bench, "test/small").device_times().is_some()).count();
        assert!(expected.contains(&timed), "1 in {one_in}: {timed} of {REQUESTS}");
    }
}

fn a_kernel_of_known_length_is_measured() {
    let bench = timing(1)
        .with("test/spin", |cuda| spin(cuda, 5 * MILLISECOND).map(|()| Buffer::default()))
        .with("test/spins", |cuda| (0..10).try_for_each(|_| spin(cuda, MILLISECOND)).map(|()| Buffer::default()));
    run(&bench, "test/spin");
    for (name, expected) in [("test/spin", 5 * MILLISECOND), ("test/spins", 10 * MILLISECOND)] {
        let times = measures(expected, || times(&run(&bench, name)));
        assert_eq!((times.upload, times.download), (Duration::ZERO, Duration::ZERO), "{name}");
    }
}

fn the_host_at_work_between_launches_and_waits_counts_for_nothing() {
    let bench = timing(1).with("test/pauses", |cuda| {
        for _ in 0..5 {
            let x = cuda.upload(&numbers(100_000, 3))?;
            std::thread::sleep(4 * MILLISECOND);
            spin(cuda, 2 * MILLISECOND)?;
            cuda.wait()?;
            std::thread::sleep(4 * MILLISECOND);
            cuda.download(&x)?;
            std::thread::sleep(4 * MILLISECOND);
        }
        Ok(Buffer::default())
    });
    run(&bench, "test/pauses");
    let times = measures(10 * MILLISECOND, || {
        let execution = run(&bench, "test/pauses");
        assert!(execution.executed > 60 * MILLISECOND);
        times(&execution)
    });
    // Each would have 20 ms of the host's sleep in it.
    assert!(times.upload.max(times.download) < 15 * MILLISECOND, "{times:?}");
}

fn more_phases_than_there_are_marks_for() {
    let bench = timing(1)
        .with("test/waits", |cuda| {
            (0..200).try_for_each(|_| spin(cuda, MILLISECOND / 10).and_then(|()| cuda.wait()))?;
            Ok(Buffer::default())
        })
        .with("test/queued", |cuda| {
            // The device has the first launch to do while the host queues the rest.
            spin(cuda, 20 * MILLISECOND)?;
            for turn in 0..200 {
                let x = cuda.upload(&[f64::from(turn)])?;
                cuda.zero(&x)?;
            }
            Ok(Buffer::default())
        });
    measures(20 * MILLISECOND, || times(&run(&bench, "test/waits")));
    assert_eq!(run(&bench, "test/queued").device_times(), None, "an incomplete measurement is not reported");
    measures(20 * MILLISECOND, || times(&run(&bench, "test/waits")));
}

fn a_request_after_one_that_failed_is_timed_anew() {
    let bench = timing(1)
        .with("test/fails", |cuda| {
            spin(cuda, 10 * MILLISECOND)?;
            cuda.launch(&SPIN, "no such entry", Launch::new(1, 1), &[]).map(|()| Buffer::default())
        })
        .with("test/panics", |cuda| {
            spin(cuda, 10 * MILLISECOND)?;
            panic!("on purpose")
        })
        .with("test/well", |cuda| spin(cuda, MILLISECOND).map(|()| Buffer::default()));
    run(&bench, "test/well");
    for bad in ["test/fails", "test/panics"] {
        measures(MILLISECOND, || {
            bench.run(bad).unwrap_err();
            times(&run(&bench, "test/well"))
        });
    }
}

fn the_peak_is_that_of_the_data_sheet() {
    let bench = timing(0);
    let peak = bench.backend.peak().expect("the driver tells its clocks");
    let name = &bench.backend.device().name;
    // TB/s and TFLOP/s.
    let sheet = match name.as_str() {
        name if name.contains("H200") => (4.8, 67.0),
        name if name.contains("H100 80GB HBM3") => (3.35, 67.0),
        name if name.contains("A100-SXM4-80GB") => (2.04, 19.5),
        _ => return assert!(peak.bytes_per_second > 1e9 && peak.operations_per_second > 1e9, "{name}: {peak:?}"),
    };
    let near = |value: f64, sheet: f64| (value / 1e12 / sheet - 1.0).abs() < 0.06;
    assert!(near(peak.bytes_per_second, sheet.0) && near(peak.operations_per_second, sheet.1), "{name}: {peak:?}");
}

fn a_kernel_that_streams_memory_comes_near_the_roof() {
    const LEN: usize = 32 << 20;
    let bench = timing(1);
    tower_kernels::kernels::register_all(&bench.registry).unwrap();
    let array: Buffer<f32> = vec![1.0; LEN].into();
    let saxpy = || Payload::typed(SaxpyInput { a: 2.0, x: array.clone(), y: array.clone() });
    execute(&bench, "linalg/saxpy", saxpy());
    let times = times(&execute(&bench, "linalg/saxpy", saxpy()));
    let fraction = times.roofline().expect("there is a peak and a launch");
    // Debug builds fill the output first, to find what is not written; that counts as the kernel's time.
    assert!((0.4..1.1).contains(&fraction), "{fraction}: {times:?}");
}

fn sensors(bench: &Bench) -> Gpu {
    bench.backend.gpu().expect("NVML comes with the driver and knows the device").clone()
}

fn sensors_agree_with_what_is_allocated() {
    const GIB: u64 = 1 << 30;
    // Other tests allocate and free memory meanwhile, so a round may see more or less.
    let mut seen = Vec::new();
    for _ in 0..40 {
        let bench = Bench::new(1);
        let gpu = sensors(&bench);
        let used = move || gpu.read().and_then(|reading| reading.memory_used).expect("memory is always read");
        let before = used();
        let bench = bench.with_memory("test/gib", GIB, move |cuda| {
            let memory = cuda.zeroed::<u8>(GIB as usize)?;
            cuda.wait()?;
            let grown = used().saturating_sub(before);
            cuda.zero(&memory).map(|()| vec![grown as f64].into())
        });
        let grown = bench.run("test/gib").unwrap()[0] as u64;
        if (GIB..GIB + GIB / 8).contains(&grown) {
            return;
        }
        seen.push(grown);
        std::thread::sleep(100 * MILLISECOND);
    }
    panic!("of {GIB} bytes allocated the sensors saw {seen:?}");
}

fn sensors_tell_what_there_is() {
    let bench = timing(0)
        .with("test/busy", |cuda| spin(cuda, 400 * MILLISECOND).and_then(|()| cuda.wait()).map(|()| Buffer::default()));
    run(&bench, "test/busy");
    run(&bench, "test/busy");
    let reading = sensors(&bench).read().expect("they can be read");
    assert!(reading.uuid.starts_with("GPU-") || reading.uuid.starts_with("MIG-"), "{reading:?}");
    assert_eq!(reading.device, 0);
    assert!(reading.memory_total.unwrap() >= bench.backend.device().memory, "{reading:?}");
    assert!((1..120).contains(&reading.temperature.unwrap()), "{reading:?}");
    assert!(reading.power.unwrap() > 1.0 && reading.power_limit.unwrap() > reading.power.unwrap() / 2.0, "{reading:?}");
    // Of the last second or less; it is absent where the device is partitioned into instances.
    if let Some(utilization) = reading.utilization {
        assert!(utilization > 0.1 && utilization <= 1.0, "{reading:?}");
    }
    let clones: Vec<_> = (0..4).map(|_| sensors(&bench)).collect();
    std::thread::scope(|scope| {
        for gpu in &clones {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(gpu.read().map(|reading| reading.device), Some(0))));
        }
    });
}
