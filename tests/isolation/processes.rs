//! The processes themselves: that they stand by, take over, end, and have no way out.

use std::time::{Duration, Instant};

use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::backends::process::ProcessConfig;
use tower_kernels::service::KernelError;

use crate::kernels::Act;
use crate::support::{Folder, Isolated, is_alive, kill, until};

crate::tests! {
    the_standby_takes_over_and_is_replaced
    a_standby_that_ends_is_replaced
    a_process_is_replaced_under_load_without_a_failure
    a_dropped_request_stops_its_kernel
    processes_end_with_their_backend
    a_process_cannot_reach_out
    a_program_that_is_no_device_process_is_an_error
    without_a_standby_requests_wait_for_a_new_process
}

fn the_standby_takes_over_and_is_replaced() {
    let isolated = Isolated::new(1);
    let standby = isolated.standby();
    let first = isolated.act(Act::Sleep(0)).unwrap();
    kill(first);
    until(|| isolated.pid() == Some(standby));
    assert_eq!(isolated.act(Act::Sleep(0)).unwrap(), standby);
    assert_ne!(isolated.standby(), standby);
    until(|| !is_alive(first));
}

fn a_standby_that_ends_is_replaced() {
    let isolated = Isolated::new(1);
    let first = isolated.act(Act::Sleep(0)).unwrap();
    let standby = isolated.standby();
    kill(standby);
    until(|| isolated.backend.processes().unwrap().standby_pid.is_some_and(|pid| pid != standby));
    assert_eq!(isolated.act(Act::Sleep(0)).unwrap(), first);
    assert_eq!(isolated.backend.processes().unwrap().replaced, 0);
}

fn a_process_is_replaced_under_load_without_a_failure() {
    let isolated = Isolated::new(4);
    let mut pids = std::collections::HashSet::new();
    for _ in 0..3 {
        isolated.standby();
        let before: Vec<_> = (0..40).map(|_| isolated.start("test/impure", Act::Sleep(5))).collect();
        assert!(isolated.backend.replace_process());
        let after: Vec<_> = (0..40).map(|_| isolated.start("test/impure", Act::Sleep(5))).collect();
        for request in before.into_iter().chain(after) {
            pids.insert(isolated.within(request).unwrap().unwrap());
        }
    }
    assert!(pids.len() >= 3, "{pids:?}");
    let status = isolated.backend.processes().unwrap();
    let kept = [status.pid, status.standby_pid];
    until(|| pids.iter().all(|&pid| kept.contains(&Some(pid)) || !is_alive(pid)));
}

fn a_dropped_request_stops_its_kernel() {
    let folder = Folder::new("marks");
    let mark = folder.path().join("running");
    let isolated = Isolated::new(1);
    let running = isolated.start("test/act", Act::Mark(mark.clone()));
    until(|| mark.exists());
    running.abort();
    until(|| !mark.exists());
    // The permit is free, and the process goes on.
    until(|| isolated.backend.status().running == 0);
    assert_eq!(Some(isolated.act(Act::Sleep(0)).unwrap()), isolated.pid());
    assert_eq!(isolated.backend.processes().unwrap().replaced, 0);
}

fn processes_end_with_their_backend() {
    let isolated = Isolated::new(2);
    let pids = [isolated.act(Act::Sleep(0)).unwrap(), isolated.standby()];
    assert!(pids.into_iter().all(is_alive));
    drop(isolated);
    until(|| !pids.into_iter().any(is_alive));
}

fn a_process_cannot_reach_out() {
    Isolated::new(1).act(Act::TryToEscape).unwrap();
}

fn a_program_that_is_no_device_process_is_an_error() {
    // This program with these arguments lists its tests, if it is not a device process; but it is, so its registry is what
    // differs: an argument is no way to turn that off, and a time limit is.
    let processes = ProcessConfig { start_timeout: Duration::ZERO, ..ProcessConfig::default() };
    let error = CpuBackend::isolated(&CpuConfig::default(), &processes).unwrap_err();
    assert!(matches!(&error, KernelError::Device(reason) if reason.contains("not ready in time")), "{error}");
}

fn without_a_standby_requests_wait_for_a_new_process() {
    let isolated = Isolated::with(1, ProcessConfig { standby: false, ..ProcessConfig::default() });
    let first = isolated.act(Act::Sleep(0)).unwrap();
    assert_eq!(isolated.backend.processes().unwrap().standby_pid, None);
    kill(first);
    let start = Instant::now();
    let second = isolated.act(Act::Sleep(0)).unwrap();
    assert!(second != first && start.elapsed() < Duration::from_secs(50));
}
