//! The soak on the CPU, for some seconds: that the pipeline holds under what callers do, and that the books of
//! [`harness`] show it where something does not.

// The kernels of the soak have device code, which is a promise.
#![allow(unsafe_code)]

#[allow(dead_code, reason = "a part of it is for the soak on a device")]
mod harness;
#[path = "../../../benches/cuda/hold.rs"]
mod hold;

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tower::{Service, ServiceBuilder};
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::kernels::linalg::saxpy::SaxpyInput;
use tower_kernels::layers::{MetricsLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{Job, KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload};

use self::harness::kernels::{PANIC, Panic, without_words};
use self::harness::tally::Times;
use self::harness::{Report, Scale, Settings, Works, soak};
use self::hold::{HOLD, Hold};

type Inner = KernelService<CpuBackend>;

/// `inner`, which runs on a backend of its own, in the layers of a server.
fn soaked<S>(seconds: u64, wrap: impl FnOnce(Inner, &CpuBackend) -> S) -> Report
where
    S: Service<KernelRequest, Response = KernelResponse, Error = KernelError> + Clone + Send + 'static,
    S::Future: Send,
{
    // One at a time: they count the process's threads, and each is to have the machine.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    without_words();
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(Hold).unwrap();
    registry.register(Panic).unwrap();
    let mut config = CpuConfig::default();
    (config.workers, config.queue) = (4, 16);
    let cpu = CpuBackend::with_config(config).unwrap();
    let metrics = MetricsLayer::new().operations(Works::KERNELS);
    let service = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(TracingLayer::new())
        .layer(TimeoutLayer::new(Duration::from_secs(60)))
        .service(wrap(KernelService::with_backend(registry, cpu.clone()), &cpu));
    let settings = Settings {
        time: Duration::from_secs(seconds),
        seed: 20_261_122,
        tasks: 24,
        greedy: false,
        rest: Duration::from_secs(5),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let handle = metrics.handle();
    let gauges = || {
        let pool = cpu.status();
        vec![("in flight", handle.in_flight()), ("queued", pool.queued as u64), ("running", pool.running as u64)]
    };
    let report = runtime.block_on(async {
        let works = Arc::new(Works::new(Scale::Small, settings.seed, None).await);
        soak(&settings, service, works, &handle, gauges, || None).await
    });
    report.print(settings.time);
    report
}

#[test]
fn everything_holds_on_the_cpu() {
    let report = soaked(8, |service, _| service);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    // A soak of nothing holds as well: each way to end has been taken.
    let tally = &report.tally;
    for (kernel, outcome) in [
        ("linalg/saxpy", "ok"),
        ("linalg/saxpy", "invalid_argument"),
        ("linalg/saxpy", "cancelled"),
        ("linalg/saxpy", "deadline_exceeded"),
        ("risk/option-pricing", "ok"),
        ("graph/betweenness-centrality", "ok"),
        (HOLD, "ok"),
        (HOLD, "cancelled"),
        (HOLD, "deadline_exceeded"),
        (PANIC, "internal"),
        ("unknown", "not_found"),
    ] {
        assert!(tally.of(kernel, outcome) > 0, "no {kernel} ended as {outcome}");
    }
    let (requests, checked) = (tally.requests(), tally.checked);
    assert!(requests > 300 && checked > 100, "{requests} requests, {checked} of them checked");
}

/// Asks for something else than it was asked for.
#[derive(Clone)]
struct Faulty<F> {
    inner: Inner,
    fault: F,
}

impl<F: Fn(&mut KernelRequest)> Service<KernelRequest> for Faulty<F> {
    type Response = <Inner as Service<KernelRequest>>::Response;
    type Error = KernelError;
    type Future = <Inner as Service<KernelRequest>>::Future;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), KernelError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: KernelRequest) -> Self::Future {
        (self.fault)(&mut request);
        self.inner.call(request)
    }
}

fn with_fault(fault: impl Fn(&mut KernelRequest) + Clone + Send + 'static) -> Vec<String> {
    soaked(2, |inner, _| Faulty { inner, fault }).violations
}

#[test]
fn wrong_answers_are_found() {
    let violations = with_fault(|request| {
        if let Some(input) = request.payload.downcast::<SaxpyInput>() {
            let mut input = (*input).clone();
            input.a += 1.0;
            request.payload = Payload::typed(input);
        }
    });
    assert!(violations.iter().any(|violation| violation.contains("where the CPU's has")), "{violations:#?}");
}

#[test]
fn answers_where_an_error_is_due_are_found() {
    let violations = with_fault(|request| {
        if request.kernel_id == PANIC {
            request.kernel_id = HOLD.into();
            request.payload = Payload::json(r#"{"micros": 1, "blocks": 1}"#);
        }
    });
    assert!(violations.iter().any(|violation| violation.contains("an answer")), "{violations:#?}");
}

#[test]
fn what_is_counted_otherwise_is_found() {
    let violations = with_fault(|request| request.kernel_id = "soak/of-no-such-name".into());
    assert!(violations.iter().any(|violation| violation.contains("UnknownKernel")), "{violations:#?}");
}

#[test]
fn a_slot_that_is_kept_is_found() {
    let violations = soaked(1, |service, cpu| {
        let mut kept = cpu.clone();
        let waker = TaskContext::from_waker(std::task::Waker::noop());
        assert!(Service::<Job>::poll_ready(&mut kept, &mut { waker }).is_ready(), "nothing runs yet");
        std::mem::forget(kept);
        service
    })
    .violations;
    assert!(violations.iter().any(|violation| violation.contains("running is 1")), "{violations:#?}");
}

#[test]
fn a_quantile_is_within_a_thirtieth_of_the_true_one() {
    let mut times = Times::default();
    for micros in 1..=100_000 {
        times.add(Duration::from_micros(micros));
    }
    for share in [0.0001, 0.001, 0.1, 0.5, 0.99] {
        let (found, due) = (times.at(share) as f64, share * 1e5);
        assert!((found - due).abs() <= due / 30.0 + 1.0, "{share}: {found} and not {due}");
    }
    assert_eq!(Times::default().at(0.5), 0);
}
