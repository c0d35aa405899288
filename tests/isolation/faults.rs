//! What becomes of requests when the process ends that runs them.

use std::time::{Duration, Instant};

use tower_kernels::backends::process::ProcessConfig;
use tower_kernels::error::{Classify, ErrorKind, chain};
use tower_kernels::service::{KernelError, KernelRequest, Payload};

use crate::kernels::{Act, registry};
use crate::support::{Folder, Isolated, kill, until};

crate::tests! {
    each_fault_costs_one_request_one_error
    one_of_many_requests_ends_the_process_and_only_that_one_fails
    requests_that_run_and_wait_survive_the_death_of_the_process
    a_run_that_is_not_pure_is_not_repeated
    a_run_that_does_not_end_is_ended
    of_a_shared_run_only_the_cause_fails
    panics_and_errors_end_no_process
    a_kernel_that_faults_often_is_quarantined
    a_fault_leaves_a_report
}

fn many() -> ProcessConfig {
    ProcessConfig { max_faults: 0, ..ProcessConfig::default() }
}

fn assert_fault(result: Result<u32, KernelError>, words: &str) {
    match result {
        Err(error @ KernelError::DeviceFault { .. }) => {
            assert_eq!(error.kind(), ErrorKind::Internal);
            let KernelError::DeviceFault { kernel, reason } = &error else { unreachable!() };
            assert_eq!(kernel, "test/act");
            assert!(reason.contains(words), "{reason}");
            assert!(!error.to_string().contains(words), "clients see no more than that: {error}");
        }
        other => panic!("{other:?}"),
    }
}

fn each_fault_costs_one_request_one_error() {
    let isolated = Isolated::with(2, many());
    for (act, words) in [
        (Act::Abort, "SIGABRT"),
        (Act::Exit(3), "exit code 3"),
        (Act::WriteToNull, "SIGSEGV"),
        (Act::Trap, "SIG"),
        (Act::OverflowStack, "SIG"),
    ] {
        let before = isolated.act(Act::Sleep(0)).unwrap();
        assert_ne!(before, std::process::id());
        assert_fault(isolated.act(act.clone()), words);
        let after = isolated.act(Act::Sleep(0)).unwrap();
        assert_ne!(after, before, "{act:?}");
    }
    assert!(isolated.backend.processes().unwrap().replaced >= 5);
}

fn one_of_many_requests_ends_the_process_and_only_that_one_fails() {
    let isolated = Isolated::with(8, many());
    isolated.standby();
    let running: Vec<_> = (0..7).map(|_| isolated.start("test/act", Act::Sleep(300))).collect();
    isolated.running(7);
    let guilty = isolated.start("test/act", Act::Abort);
    let queued: Vec<_> = (0..64).map(|_| isolated.start("test/act", Act::Sleep(1))).collect();
    assert_fault(isolated.within(guilty).unwrap(), "SIGABRT");
    for innocent in running.into_iter().chain(queued) {
        isolated.within(innocent).unwrap().unwrap();
    }
}

fn requests_that_run_and_wait_survive_the_death_of_the_process() {
    let isolated = Isolated::new(4);
    let standby = isolated.standby();
    let running: Vec<_> = (0..4).map(|_| isolated.start("test/act", Act::Sleep(200))).collect();
    isolated.running(4);
    let queued: Vec<_> = (0..20).map(|_| isolated.start("test/act", Act::Sleep(1))).collect();
    let killed = isolated.pid().unwrap();
    kill(killed);
    let pids: Vec<u32> = queued.into_iter().map(|queued| isolated.within(queued).unwrap().unwrap()).collect();
    assert!(pids.contains(&standby) && !pids.contains(&killed), "{pids:?}");
    for repeated in running {
        isolated.within(repeated).unwrap().unwrap();
    }
}

fn a_run_that_is_not_pure_is_not_repeated() {
    let isolated = Isolated::with(4, many());
    isolated.standby();
    let impure = isolated.start("test/impure", Act::Sleep(30_000));
    let pure = isolated.start("test/act", Act::Sleep(500));
    isolated.running(2);
    kill(isolated.pid().unwrap());
    let error = isolated.within(impure).unwrap().unwrap_err();
    assert!(matches!(error, KernelError::Interrupted { .. }), "{error}");
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Unavailable, Some(Duration::from_secs(1))));
    isolated.within(pure).unwrap().unwrap();
    // Alone, it is the cause.
    let alone = isolated.start("test/impure", Act::Exit(1));
    let error = isolated.within(alone).unwrap().unwrap_err();
    assert!(matches!(error, KernelError::DeviceFault { .. }), "{error}");
}

fn a_run_that_does_not_end_is_ended() {
    let hang_timeout = Duration::from_millis(200);
    let isolated = Isolated::with(2, ProcessConfig { hang_timeout, ..many() });
    isolated.standby();
    let innocent = isolated.start("test/act", Act::Sleep(1500));
    let request = KernelRequest::new("test/act", Payload::typed(Act::SleepDeaf(60_000)));
    let hung = isolated.call(request.with_timeout(Duration::from_millis(100)));
    let start = Instant::now();
    let error = isolated.within(hung).unwrap_err();
    assert!(matches!(error, KernelError::DeadlineExceeded { started: true }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    isolated.within(innocent).unwrap().unwrap();
    assert_eq!(isolated.backend.processes().unwrap().replaced, 1);
}

fn of_a_shared_run_only_the_cause_fails() {
    use tower::{Layer, Service, ServiceExt};
    use tower_kernels::backends::BatchedLayer;
    use tower_kernels::service::KernelService;

    let isolated = Isolated::with(2, many());
    let layer = BatchedLayer::for_workers(2).max_delay(Duration::from_millis(200));
    let mut service = KernelService::with_backend(registry(), layer.layer(isolated.backend.clone()));
    let requests = (0..12).map(|number| if number == 5 { -1_i64 } else { number });
    let responses = isolated.within(async {
        let mut responses = Vec::new();
        for number in requests {
            let request = KernelRequest::new("test/shares", Payload::typed(number));
            responses.push((number, tokio::spawn(service.ready().await.unwrap().call(request))));
        }
        let mut done = Vec::new();
        for (number, response) in responses {
            done.push((number, response.await.unwrap()));
        }
        done
    });
    let mut shared = 0;
    for (number, response) in responses {
        match response {
            Ok(response) => {
                assert_eq!(*response.payload.downcast::<i64>().unwrap(), number + 1);
                shared = shared.max(response.execution.batch_size);
            }
            Err(error) => {
                assert_eq!((number, error.kind()), (-1, ErrorKind::Internal), "{error}");
                assert!(chain(&error).to_string().contains("ended the device process"), "{error}");
            }
        }
    }
    assert!(shared > 1, "they share a run");
}

fn panics_and_errors_end_no_process() {
    let isolated = Isolated::new(1);
    let before = isolated.act(Act::Sleep(0)).unwrap();
    let panicked = isolated.act(Act::Panic).unwrap_err();
    assert!(matches!(&panicked, KernelError::Panicked { message } if message == "on purpose"), "{panicked:?}");
    let failed = isolated.act(Act::Fail).unwrap_err();
    assert!(matches!(&failed, KernelError::Kernel(error) if error.to_string() == "failed on purpose"), "{failed:?}");
    assert_eq!(isolated.act(Act::Sleep(0)).unwrap(), before);
}

fn a_kernel_that_faults_often_is_quarantined() {
    let isolated = Isolated::with(1, ProcessConfig { max_faults: 2, ..ProcessConfig::default() });
    for _ in 0..2 {
        assert_fault(isolated.act(Act::Abort), "SIGABRT");
    }
    let error = isolated.act(Act::Sleep(0)).unwrap_err();
    assert!(matches!(error, KernelError::Quarantined { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Quarantined);
    assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(60)));
    let status = isolated.backend.processes().unwrap();
    assert_eq!(status.quarantined.len(), 1);
    assert_eq!((&*status.quarantined[0].kernel, status.quarantined[0].tenant.as_deref()), ("test/act", Some("")));
    // Other kernels, and other tenants, are served.
    isolated.within(isolated.start("test/impure", Act::Sleep(0))).unwrap().unwrap();
    let mut request = KernelRequest::new("test/act", Payload::typed(Act::Sleep(0)));
    request.tenant = Some("acme".into());
    isolated.within(isolated.call(request)).unwrap();
    assert!(isolated.backend.release_kernel("test/act"));
    isolated.act(Act::Sleep(0)).unwrap();
}

fn a_fault_leaves_a_report() {
    let folder = Folder::new("reports");
    let isolated =
        Isolated::with(1, ProcessConfig { reports: Some(folder.path().to_owned()), ..ProcessConfig::default() });
    isolated.within(isolated.start("test/impure", Act::Sleep(0))).unwrap().unwrap();
    assert_fault(isolated.act(Act::Abort), "SIGABRT");
    until(|| std::fs::read_dir(folder.path()).unwrap().count() == 1);
    let report = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!((&report["kernel"], &report["device"]), (&"test/act".into(), &"CPU".into()));
    assert!(report["reason"].as_str().unwrap().contains("SIGABRT"), "{report}");
    let runs: Vec<_> =
        report["last_runs"].as_array().unwrap().iter().map(|run| run["kernel"].as_str().unwrap()).collect();
    assert_eq!(runs, ["test/act", "test/impure"]);
}
