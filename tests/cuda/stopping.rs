//! Cancellation, deadlines, and panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tower_kernels::cuda::Launch;
use tower_kernels::service::{Buffer, KernelError, LaunchContext};

use crate::probe::{Bench, CODE, in_flight, request, run};

crate::tests! {
    dropping_the_future_reaches_a_running_kernel
    a_deadline_reaches_a_running_kernel
    a_deadline_stops_between_launches
    a_panic_is_its_callers_alone
    a_kernel_is_cancelled_while_the_driver_blocks_its_worker
    a_waiting_request_is_not_started_once_it_is_cancelled
}

pub(crate) fn until_cancelled(cuda: &mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> {
    let out = cuda.zeroed::<f64>(1)?;
    let flag = cuda.cancel_flag();
    cuda.launch(&CODE, "until_cancelled", Launch::new(1, 1), &[&flag, &out])?;
    cuda.download(&out)
}

pub(crate) fn one(cuda: &mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> {
    let one = cuda.upload(&[1.0])?;
    cuda.download(&one)
}

fn dropping_the_future_reaches_a_running_kernel() {
    let bench = Bench::new(2).with("test/until-cancelled", until_cancelled).with("test/one", one);
    for _ in 0..3 {
        bench.runtime.block_on(async {
            let timed_out =
                tokio::time::timeout(Duration::from_millis(50), run(bench.service(), request("test/until-cancelled")));
            timed_out.await.expect_err("it runs until it is cancelled");
        });
        bench.settle();
        assert_eq!(bench.run("test/one").unwrap(), [1.0]);
    }
}

fn a_deadline_reaches_a_running_kernel() {
    let bench = Bench::new(1).with("test/until-cancelled", until_cancelled).with("test/one", one);
    let request = request("test/until-cancelled").with_timeout(Duration::from_millis(50));
    let start = Instant::now();
    let result = bench.runtime.block_on(run(bench.service(), request));
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { started: true })), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    bench.settle();
    assert_eq!(bench.run("test/one").unwrap(), [1.0]);
}

fn a_deadline_stops_between_launches() {
    let launched = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&launched);
    let bench = Bench::new(1).with("test/steps", move |cuda| {
        let out = cuda.zeroed::<f64>(1)?;
        for _ in 0..100_000 {
            // Some 5 ms each.
            cuda.launch(&CODE, "pass_time", Launch::new(1, 1), &[&10_000_000_u64, &out])?;
            count.fetch_add(1, Ordering::Relaxed);
            cuda.wait()?;
        }
        cuda.download(&out)
    });
    let bench = bench.with("test/step", |cuda| {
        let out = cuda.zeroed::<f64>(1)?;
        cuda.launch(&CODE, "pass_time", Launch::new(1, 1), &[&1_u64, &out])?;
        cuda.download(&out)
    });
    // Loads the code, which can take longer than the timeout beside other tests. A launch can wait for those of others.
    bench.run("test/step").unwrap();
    let request = request("test/steps").with_timeout(Duration::from_secs(1));
    let result = bench.runtime.block_on(run(bench.service(), request));
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { started: true })), "{result:?}");
    bench.settle();
    assert!((1..1000).contains(&launched.load(Ordering::Relaxed)), "{launched:?}");
}

fn a_panic_is_its_callers_alone() {
    let bench = Bench::new(1).with("test/one", one).with("test/panic", |cuda| {
        let out = cuda.zeroed::<f64>(1)?;
        cuda.launch(&CODE, "pass_time", Launch::new(1, 1), &[&10_000_000_u64, &out])?;
        panic!("with queued work")
    });
    for _ in 0..3 {
        let result = bench.run("test/panic");
        assert!(
            matches!(&result, Err(KernelError::Panicked { message }) if message.contains("queued work")),
            "{result:?}"
        );
        assert_eq!(bench.run("test/one").unwrap(), [1.0]);
    }
    bench.settle();
}

fn a_kernel_is_cancelled_while_the_driver_blocks_its_worker() {
    let bench = Bench::new(1).with("test/until-cancelled", until_cancelled).with("test/one", one);
    // Its code is there before anything runs that it would have to wait for.
    bench.runtime.block_on(async {
        let late = request("test/until-cancelled").with_timeout(Duration::from_millis(200));
        assert!(run(bench.service(), late).await.is_err());
        for _ in 0..5 {
            let running = tokio::spawn(run(bench.service(), request("test/until-cancelled")));
            tokio::time::sleep(Duration::from_millis(20)).await;
            // The driver frees the memory of this one when the kernel has ended, and blocks other calls meanwhile.
            let other = std::thread::spawn(|| drop(Bench::new(1)));
            tokio::time::sleep(Duration::from_millis(100)).await;
            running.abort();
            let start = Instant::now();
            while in_flight(&bench.backend) > 0 {
                assert!(start.elapsed() < Duration::from_secs(5), "the kernel was not told to stop");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            other.join().unwrap();
        }
    });
    assert_eq!(bench.run("test/one").unwrap(), [1.0]);
}

fn a_waiting_request_is_not_started_once_it_is_cancelled() {
    let started = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&started);
    let bench = Bench::new(1).with("test/until-cancelled", until_cancelled).with("test/counted", move |cuda| {
        count.fetch_add(1, Ordering::Relaxed);
        one(cuda)
    });
    bench.runtime.block_on(async {
        let running = tokio::spawn(run(bench.service(), request("test/until-cancelled")));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let waiting: Vec<_> = (0..10).map(|_| tokio::spawn(run(bench.service(), request("test/counted")))).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(in_flight(&bench.backend), 11);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        running.abort();
    });
    bench.settle();
    assert_eq!(started.load(Ordering::Relaxed), 0);
}
