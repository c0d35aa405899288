//! A device that faults. The process is lost to CUDA then, so this runs in one of its own.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::cuda::Launch;
use tower_kernels::service::{KernelError, KernelService};

use crate::probe::{Bench, CODE, Where, request, run};

crate::tests! { a_lost_device_fails_at_once_and_the_cpu_goes_on }

/// The argument that makes this executable the process that loses its device.
pub(crate) const CHILD: &str = "--lose-the-device";

fn a_lost_device_fails_at_once_and_the_cpu_goes_on() {
    in_a_child(&[CHILD]);
}

/// Runs this executable with these arguments, and shows what it says.
pub(crate) fn in_a_child(arguments: &[&str]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("the process that lost its device hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(status.success() && output.contains("as expected"), "{status}: {output}");
    println!("{}    (the process ended after {:?})", output, start.elapsed());
}

pub(crate) fn lose_the_device() {
    let bench = Bench::new(2)
        .with("test/until-cancelled", |cuda| {
            let out = cuda.zeroed::<f64>(1)?;
            let flag = cuda.cancel_flag();
            cuda.launch(&CODE, "until_cancelled", Launch::new(1, 1), &[&flag, &out])?;
            cuda.download(&out)
        })
        .with("test/astray", |cuda| {
            let out = cuda.zeroed::<f64>(1)?;
            cuda.launch(&CODE, "astray", Launch::new(1, 1), &[&out])?;
            cuda.download(&out)
        });
    bench.registry.register(Where).unwrap();
    let local = Local::with_backends(CpuBackend::new(), Ok(bench.backend.clone()));
    let both = KernelService::with_backend(std::sync::Arc::clone(&bench.registry), local.clone());
    bench.runtime.block_on(async {
        assert_eq!(run(both.clone(), request("test/where")).await.unwrap(), [1.0], "on the device");
        // This one has reserved its permit before the fault.
        let mut reserved = bench.service();
        reserved.ready().await.unwrap();

        let running = tokio::spawn(run(bench.service(), request("test/until-cancelled")));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut tasks = vec![running, tokio::spawn(run(bench.service(), request("test/astray")))];
        tasks.extend((0..8).map(|_| tokio::spawn(run(bench.service(), request("test/where")))));
        let mut lost = 0;
        for (index, task) in tasks.into_iter().enumerate() {
            match tokio::time::timeout(Duration::from_secs(20), task)
                .await
                .unwrap_or_else(|_| panic!("task {index} hangs"))
                .unwrap()
            {
                Err(KernelError::DeviceLost { reason, .. }) => {
                    assert!(reason.contains("700") || reason.contains("ILLEGAL_ADDRESS"), "{reason}");
                    lost += 1;
                }
                // It may have been done before the fault.
                Ok(_) if index > 1 => {}
                other => panic!("task {index}: {other:?}"),
            }
        }
        assert!(lost >= 2, "{lost}");

        assert!(matches!(bench.service().ready().await, Err(KernelError::DeviceLost { .. })));
        let late = reserved.call(request("test/where")).await;
        assert!(matches!(late, Err(KernelError::DeviceLost { .. })), "{late:?}");

        // Both kinds of kernel, many times: no permit leaks.
        for _ in 0..2000 {
            assert_eq!(run(both.clone(), request("test/where")).await.unwrap(), [0.0], "on the CPU");
            let only_cuda = run(both.clone(), request("test/astray")).await;
            assert!(matches!(only_cuda, Err(KernelError::DeviceLost { .. })), "{only_cuda:?}");
        }
        let status = serde_json::to_value(local.status()).unwrap();
        assert!(status["cuda"]["devices"][0]["lost"].as_str().unwrap().contains("ILLEGAL_ADDRESS"), "{status}");
    });
    bench.settle();
    println!("as expected");
}
