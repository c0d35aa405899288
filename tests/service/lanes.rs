//! Permits, cancellation, deadlines and dead workers, on real threads.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::task::noop_waker;
use tower::load::Load;
use tower::{Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::service::{KernelError, KernelRegistry, KernelRequest, Payload};

use crate::kernels::{LARGE, Nothing, Panics, Sum, Watch, busy, service};

const SOON: Duration = Duration::from_secs(60);

fn busy_request() -> KernelRequest {
    KernelRequest::new("test/busy", Payload::typed(Nothing {}))
}

fn sum_request() -> KernelRequest {
    KernelRequest::new("test/sum", Payload::json(r#"{"numbers": [1]}"#))
}

fn registry() -> (KernelRegistry, Watch) {
    let registry = KernelRegistry::new();
    let (kernel, watch) = busy();
    registry.register(kernel).unwrap();
    registry.register(Sum { cost: LARGE }).unwrap();
    registry.register(Panics { cost: LARGE, twice: true }).unwrap();
    (registry, watch)
}

/// Waits, in real time, until no job holds a permit.
fn until_idle(service: &impl Load<Metric = tower_kernels::backends::PoolLoad>) {
    let start = Instant::now();
    while service.load().jobs > 0 {
        assert!(start.elapsed() < SOON, "{:?} still hold a permit", service.load());
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn ready_reserves_a_permit_once_and_drop_releases_it() {
    let (registry, _watch) = registry();
    let mut first = service(registry, 1, 1);
    let waker = noop_waker();
    let cx = &mut std::task::Context::from_waker(&waker);
    for _ in 0..3 {
        assert!(first.poll_ready(cx).is_ready());
    }
    assert_eq!(first.load().jobs, 1);
    let mut second = first.clone();
    assert_eq!(first.load().jobs, 1, "a clone starts without a permit");
    assert!(second.poll_ready(cx).is_ready());
    let mut third = second.clone();
    let mut ready = tokio_test::task::spawn(third.ready());
    assert!(ready.poll().is_pending(), "there are two permits");
    drop(second);
    assert!(ready.is_woken());
    assert!(ready.poll().is_ready());
    drop(ready);
    drop((first, third));
}

#[tokio::test]
async fn pending_is_woken_when_the_running_kernel_ends() {
    let (registry, watch) = registry();
    let mut first = service(registry, 1, 0);
    let mut second = first.clone();
    let mut running = tokio_test::task::spawn(first.ready().await.unwrap().call(busy_request()));
    assert!(running.poll().is_pending());
    watch.started.recv_timeout(SOON).unwrap();
    let waiting = tokio::spawn(async move { second.ready().await.unwrap().call(sum_request()).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(running);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_future_stops_the_kernel_and_then_releases_the_permit() {
    let (registry, watch) = registry();
    let mut service = service(registry, 1, 0);
    let mut running = tokio_test::task::spawn(service.ready().await.unwrap().call(busy_request()));
    assert!(running.poll().is_pending());
    watch.started.recv_timeout(SOON).unwrap();
    assert_eq!(service.load().jobs, 1);
    drop(running);
    assert!(matches!(watch.stopped.recv_timeout(SOON), Ok(KernelError::Cancelled)));
    until_idle(&service);
    service.ready().await.unwrap().call(sum_request()).await.unwrap();
}

#[tokio::test]
async fn a_queued_job_that_is_cancelled_is_never_started() {
    let (registry, watch) = registry();
    let mut service = service(registry, 1, 2);
    let mut running = tokio_test::task::spawn(service.ready().await.unwrap().call(busy_request()));
    assert!(running.poll().is_pending());
    watch.started.recv_timeout(SOON).unwrap();

    let unpolled = service.ready().await.unwrap().call(busy_request());
    assert_eq!(service.load().jobs, 2);
    drop(unpolled);
    assert_eq!(service.load().jobs, 1, "a job that was never polled is dropped at once");

    let mut queued = tokio_test::task::spawn(service.ready().await.unwrap().call(busy_request()));
    assert!(queued.poll().is_pending());
    drop(queued);
    drop(running);
    until_idle(&service);
    service.ready().await.unwrap().call(sum_request()).await.unwrap();
    assert_eq!(watch.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_deadline_stops_running_jobs_and_queued_ones_are_not_started() {
    let (registry, watch) = registry();
    let mut service = service(registry, 1, 1);
    let request = busy_request().with_timeout(Duration::from_millis(100));
    let running = service.ready().await.unwrap().call(request.clone());
    let waiting = service.ready().await.unwrap().call(request);
    let (running, waiting) = tokio::join!(running, waiting);
    assert!(matches!(running, Err(KernelError::DeadlineExceeded { started: true })), "{running:?}");
    let waiting = waiting.unwrap_err();
    assert!(matches!(waiting, KernelError::DeadlineExceeded { started: false }), "{waiting:?}");
    assert_eq!(waiting.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(watch.runs.load(Ordering::SeqCst), 1);
    until_idle(&service);
}

#[tokio::test]
async fn a_panic_that_panics_again_when_it_is_dropped_is_its_callers_alone() {
    let (registry, _watch) = registry();
    let mut service = service(registry, 1, 2);
    let request = || KernelRequest::new("test/panics", Payload::typed(Nothing {}));
    for _ in 0..3 {
        let panics = service.ready().await.unwrap().call(request());
        let queued = service.ready().await.unwrap().call(sum_request());
        assert!(service.clone().ready().await.is_ok(), "there is room while the worker has both of them");
        let (panics, queued) = tokio::join!(panics, queued);
        let error = panics.unwrap_err();
        assert!(matches!(error, KernelError::Panicked { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Internal);
        queued.unwrap();
    }
    let status = service.backend().status();
    assert_eq!(
        (status.up, status.alive, status.restarts),
        (true, 1, 0),
        "the kernel's panics are caught in the kernel"
    );
    until_idle(&service);
}

#[tokio::test]
async fn many_callers_that_come_and_go_leave_nothing_behind() {
    let (registry, watch) = registry();
    drop(watch.started);
    let service = service(registry, 2, 6);
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..200_u64 {
        let mut service = service.clone();
        tasks.spawn(async move {
            let call = async { service.ready().await.unwrap().call(sum_request()).await };
            // A third of them leaves at some point on the way.
            if index % 3 == 0 {
                tokio::time::timeout(Duration::from_micros(index * 7), call).await.is_ok_and(|answer| answer.is_ok())
            } else {
                call.await.is_ok()
            }
        });
    }
    let answered = tasks.join_all().await.into_iter().filter(|answered| *answered).count();
    assert!(answered >= 133, "{answered} of 200");
    until_idle(&service);
}

#[cfg(target_os = "linux")]
#[test]
fn dropping_the_service_ends_its_threads() {
    // No other test has 37 workers, so the last one's name is unique.
    let last_worker_runs = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        tasks
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .any(|name| name == "cpu-worker-36\n")
    };
    let wait_for = |runs: bool| {
        let start = Instant::now();
        while last_worker_runs() != runs {
            assert!(start.elapsed() < SOON, "the worker should {}", if runs { "run" } else { "have ended" });
            std::thread::yield_now();
        }
    };
    let service = service(KernelRegistry::new(), 37, 0);
    wait_for(true);
    drop(service);
    wait_for(false);
}
