//! Whose work the device takes first.

use std::time::{Duration, Instant};

use tower_kernels::cuda::Launch;
use tower_kernels::request::Priority;
use tower_kernels::service::{Buffer, KernelError, LaunchContext};

use crate::probe::{Bench, CODE, request, run};

crate::tests! {
    high_priority_overtakes_low_priority_that_waits_for_room
    a_lane_serves_one_priority_after_the_other
}

/// Blocks of some 0.2 ms, two of which fill a multiprocessor, forty times as many as the device can hold.
fn fill(cuda: &mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> {
    let out = cuda.zeroed::<f64>(1)?;
    let blocks = cuda.device().multiprocessors * 2 * 40;
    cuda.launch(&CODE, "pass_time", Launch::new(blocks, 1024), &[&400_000_u64, &out])?;
    cuda.download(&out)
}

/// Runs a kernel, which waits for a multiprocessor.
fn small(cuda: &mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> {
    let x = cuda.upload(&[3.0])?;
    let out = cuda.alloc::<f64>(1)?;
    cuda.launch(&CODE, "scale", Launch::new(1, 32), &[&1_u64, &2.0, &x, &out])?;
    cuda.download(&out)
}

fn high_priority_overtakes_low_priority_that_waits_for_room() {
    let bench = Bench::new(4).with("test/fill", fill).with("test/small", small);
    bench.run("test/fill").unwrap();
    let median = |priority: Priority| {
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                bench.runtime.block_on(async {
                    let low = || {
                        let mut request = request("test/fill");
                        request.priority = Priority::Low;
                        tokio::spawn(run(bench.service(), request))
                    };
                    let others = [low(), low()];
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let mut request = request("test/small");
                    request.priority = priority;
                    let start = Instant::now();
                    assert_eq!(run(bench.service(), request).await.unwrap(), [6.0]);
                    let time = start.elapsed();
                    for other in others {
                        other.await.unwrap().unwrap();
                    }
                    time
                })
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let (low, high) = (median(Priority::Low), median(Priority::High));
    println!("next to work of low priority: low {low:?}, high {high:?}");
    assert!(high * 2 < low, "low {low:?}, high {high:?}");
}

fn a_lane_serves_one_priority_after_the_other() {
    let bench = Bench::new(1).with("test/small", small);
    for round in 0..300 {
        let priority = [Priority::Low, Priority::Normal, Priority::High][round % 3];
        let mut request = request("test/small");
        request.priority = priority;
        assert_eq!(bench.runtime.block_on(run(bench.service(), request)).unwrap(), [6.0], "{priority}");
    }
}
