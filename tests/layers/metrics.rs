use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_kernels::error::ErrorKind;
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer};
use tower_kernels::middleware::metrics::{MetricsHandle, respond};
use tower_kernels::request::{DeviceTimes, Execution};
use tower_kernels::service::{KernelError, KernelRequest, KernelResponse, Payload};

use crate::support::probe::{Act, Probe, Request, probe};

const SECOND: Duration = Duration::from_secs(1);

/// Panics, with the whole text, unless `line` is a line of it.
#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|candidate| candidate == line), "no line {line}\nin\n{text}");
}

fn service(layer: &MetricsLayer) -> tower_kernels::middleware::metrics::Metrics<Probe> {
    layer.layer(probe(8).0)
}

async fn call<S: Service<Request>>(service: &mut S, request: Request) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

#[tokio::test(start_paused = true)]
async fn a_call_is_counted_by_operation_backend_and_outcome() {
    let metrics = MetricsLayer::new();
    let mut service = service(&metrics);
    call(&mut service, Request::new(Act::Answer)).await.unwrap();
    call(&mut service, Request::new(Act::Answer)).await.unwrap();
    call(&mut service, Request::new(Act::Fail(ErrorKind::Overloaded))).await.unwrap_err();
    call(&mut service, Request::new(Act::Refuse(ErrorKind::TooLarge))).await.unwrap();
    let text = metrics.render();
    has(&text, r#"kernel_requests_total{operation="linalg/saxpy",backend="CPU",outcome="ok"} 2"#);
    has(&text, r#"kernel_requests_total{operation="linalg/saxpy",outcome="overloaded"} 1"#);
    has(&text, r#"kernel_requests_total{operation="linalg/saxpy",backend="CPU",outcome="too_large"} 1"#);
    has(&text, r#"kernel_requests_in_flight{operation="linalg/saxpy"} 0"#);
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test(start_paused = true)]
async fn times_and_sizes_fall_into_their_buckets() {
    let metrics = MetricsLayer::new();
    let mut service = service(&metrics);
    let request = Request { bytes: Some(100), ..Request::new(Act::Take(SECOND)) };
    call(&mut service, request).await.unwrap();
    let text = metrics.render();
    let ok = r#"operation="linalg/saxpy",backend="CPU",outcome="ok""#;
    has(&text, &format!(r#"kernel_request_duration_seconds_bucket{{le="0.536870912",{ok}}} 0"#));
    has(&text, &format!(r#"kernel_request_duration_seconds_bucket{{le="1.073741824",{ok}}} 1"#));
    has(&text, &format!(r#"kernel_request_duration_seconds_bucket{{le="+Inf",{ok}}} 1"#));
    has(&text, &format!("kernel_request_duration_seconds_count{{{ok}}} 1"));
    let one = r#"operation="linalg/saxpy""#;
    has(&text, &format!(r#"kernel_request_payload_bytes_bucket{{le="64.0",{one}}} 0"#));
    has(&text, &format!(r#"kernel_request_payload_bytes_bucket{{le="256.0",{one}}} 1"#));
    has(&text, &format!("kernel_request_payload_bytes_sum{{{one}}} 100.0"));
    let on = r#"operation="linalg/saxpy",backend="CPU""#;
    has(&text, &format!("kernel_queue_duration_seconds_sum{{{on}}} 0.000005"));
    has(&text, &format!("kernel_batch_size_sum{{{on}}} 4.0"));
    has(&text, &format!("kernel_duration_estimate_ratios_sum{{{on}}} 4.0"));
    has(&text, &format!(r#"kernel_duration_estimate_ratios_bucket{{le="4.0",{on}}} 1"#));
    has(&text, &format!(r#"kernel_duration_estimate_ratios_bucket{{le="2.0",{on}}} 0"#));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_its_end_is_cancelled_and_no_longer_in_flight() {
    let metrics = MetricsLayer::new();
    let handle = metrics.handle();
    let mut service = service(&metrics);
    call(&mut service, Request::new(Act::Answer)).await.unwrap();
    let unpolled = service.ready().await.unwrap().call(Request::new(Act::Never));
    let polled = tokio::spawn(service.ready().await.unwrap().call(Request::new(Act::Never)));
    tokio::task::yield_now().await;
    assert_eq!(handle.in_flight(), 2);
    has(&handle.render(), r#"kernel_requests_in_flight{operation="linalg/saxpy"} 2"#);
    drop(unpolled);
    polled.abort();
    assert!(polled.await.unwrap_err().is_cancelled());
    assert_eq!(handle.in_flight(), 0);
    has(&handle.render(), r#"kernel_requests_total{operation="linalg/saxpy",outcome="cancelled"} 2"#);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_and_not_a_cancellation() {
    let metrics = MetricsLayer::new();
    let mut service = service(&metrics);
    let call = tokio::spawn(service.ready().await.unwrap().call(Request::new(Act::Panic)));
    assert!(call.await.unwrap_err().is_panic());
    has(&metrics.render(), r#"kernel_requests_total{operation="linalg/saxpy",outcome="internal"} 1"#);
    assert_eq!(metrics.handle().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_no_longer_in_flight_while_its_future_is_kept() {
    let metrics = MetricsLayer::new();
    let mut service = service(&metrics);
    let mut call = Box::pin(service.ready().await.unwrap().call(Request::new(Act::Answer)));
    call.as_mut().await.unwrap();
    assert_eq!(metrics.handle().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_layers_inside_are_counted() {
    let metrics = MetricsLayer::new().operations(["linalg/saxpy"]);
    let mut service = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(RateLimiterLayer::new(1, SECOND * 100))
        .layer(TimeoutLayer::new(SECOND))
        .service(probe(1).0);
    call(&mut service, Request::new(Act::Never)).await.unwrap_err();
    call(&mut service, Request::new(Act::Answer)).await.unwrap_err();
    let text = metrics.render();
    for outcome in ["deadline_exceeded", "rate_limited"] {
        has(&text, &format!(r#"kernel_requests_total{{operation="linalg/saxpy",outcome="{outcome}"}} 1"#));
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_knows_make_no_series() {
    let metrics = MetricsLayer::new();
    let mut service = service(&metrics);
    // Whatever can be answered without a look at the name says nothing of it.
    let mut sent = 0;
    for kind in [
        ErrorKind::NotFound,
        ErrorKind::RateLimited,
        ErrorKind::Overloaded,
        ErrorKind::InvalidArgument,
        ErrorKind::Unsupported,
    ] {
        for number in 0..50 {
            let request = Request::of(&format!("made-up/{number}"), Act::Fail(kind));
            call(&mut service, request).await.unwrap_err();
            drop(service.ready().await.unwrap().call(Request::of(&format!("dropped/{number}"), Act::Never)));
            sent += 1;
        }
    }
    let text = metrics.render();
    assert!(!text.contains("made-up") && !text.contains("dropped"), "{text}");
    has(&text, r#"kernel_requests_total{operation="unknown",outcome="not_found"} 50"#);
    has(&text, &format!(r#"kernel_requests_total{{operation="unknown",outcome="cancelled"}} {sent}"#));

    // An answer does, and from then on the name's refusals are its own.
    call(&mut service, Request::of("graph/pagerank", Act::Answer)).await.unwrap();
    call(&mut service, Request::of("graph/pagerank", Act::Fail(ErrorKind::NotFound))).await.unwrap_err();
    let text = metrics.render();
    has(&text, r#"kernel_requests_total{operation="graph/pagerank",backend="CPU",outcome="ok"} 1"#);
    has(&text, r#"kernel_requests_total{operation="graph/pagerank",outcome="not_found"} 1"#);
}

#[tokio::test]
async fn around_a_service_without_kernels_nothing_is_said_of_kernels() {
    let metrics = MetricsLayer::new();
    let families = || {
        let page = metrics.render();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned);
        (types.collect::<Vec<_>>(), page)
    };
    assert_eq!(families().0, ["kernel_requests_in_flight gauge"], "nothing has been called");

    let hello = service_fn(|_: http::Request<()>| async { Ok::<_, std::convert::Infallible>(http::Response::new(())) });
    metrics.layer(hello).oneshot(http::Request::new(())).await.unwrap();
    let (types, page) = families();
    assert_eq!(
        types,
        ["kernel_requests counter", "kernel_request_duration_seconds histogram", "kernel_requests_in_flight gauge",]
    );
    has(&page, r#"kernel_requests_total{operation="GET",outcome="ok"} 1"#);
    assert!(!page.contains("backend"), "{page}");
}

/// A page of the program's own has the metrics of several layers and others, in either format.
#[test]
fn pages_can_be_joined() {
    let handles = ["front", "back"].map(|prefix| MetricsLayer::new().prefix(prefix).handle());
    let own = "# HELP shop_opened Times that the shop has opened.\n# TYPE shop_opened counter\nshop_opened_total 3\n";
    let page = handles[0].render() + own + &handles[1].render();
    let mut headers = http::HeaderMap::new();
    let text = respond(&page, &headers).into_body();
    headers.insert("accept", "application/openmetrics-text".parse().unwrap());
    let open_metrics = respond(&page, &headers).into_body();
    for (page, counter) in [(&text, "shop_opened_total"), (&open_metrics, "shop_opened")] {
        let page = std::str::from_utf8(page).unwrap();
        let types: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let counter = format!("{counter} counter");
        assert_eq!(types, ["front_requests_in_flight gauge", &counter, "back_requests_in_flight gauge"]);
        has(page, "shop_opened_total 3");
    }
    assert!(!text.windows(5).any(|part| part == b"# EOF"));
    assert!(open_metrics.ends_with(b"\n# EOF\n"));
    assert_eq!(open_metrics.windows(5).filter(|part| *part == b"# EOF").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_names_count_as_other() {
    let metrics = MetricsLayer::new().max_operations(3);
    let mut service = service(&metrics);
    for number in 0..10 {
        call(&mut service, Request::of(&format!("kernel/{number}"), Act::Answer)).await.unwrap();
    }
    let text = metrics.render();
    has(&text, r#"kernel_requests_total{operation="kernel/2",backend="CPU",outcome="ok"} 1"#);
    has(&text, r#"kernel_requests_total{operation="other",backend="CPU",outcome="ok"} 7"#);
    assert!(!text.contains("kernel/3"));
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_layer_count_together_and_other_layers_apart() {
    let metrics = MetricsLayer::new().prefix("front");
    call(&mut service(&metrics), Request::new(Act::Answer)).await.unwrap();
    call(&mut service(&metrics.clone()), Request::new(Act::Answer)).await.unwrap();
    let handle: MetricsHandle = metrics.handle();
    has(&handle.render(), r#"front_requests_total{operation="linalg/saxpy",backend="CPU",outcome="ok"} 2"#);
    assert!(!MetricsLayer::new().render().contains("saxpy"));
}

#[tokio::test(start_paused = true)]
async fn names_are_escaped() {
    let metrics = MetricsLayer::new();
    call(&mut service(&metrics), Request::of("a\"b\\c\nd", Act::Answer)).await.unwrap();
    has(&metrics.render(), r#"kernel_requests_total{operation="a\"b\\c\nd",backend="CPU",outcome="ok"} 1"#);
}

#[test]
fn threads_lose_no_count() {
    let metrics = MetricsLayer::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    let mut service = service(&metrics);
                    for _ in 0..5000 {
                        call(&mut service, Request::new(Act::Answer)).await.unwrap();
                    }
                });
            });
        }
    });
    has(&metrics.render(), r#"kernel_requests_total{operation="linalg/saxpy",backend="CPU",outcome="ok"} 20000"#);
    assert_eq!(metrics.handle().in_flight(), 0);
}

#[test]
fn a_service_that_panics_in_call_is_counted_too() {
    let metrics = MetricsLayer::new().operations(["linalg/saxpy"]);
    let mut service = metrics.layer(probe(1).0);
    // Called without being polled ready, the probe panics.
    let call = AssertUnwindSafe(|| drop(service.call(Request::new(Act::Answer))));
    std::panic::catch_unwind(call).unwrap_err();
    has(&metrics.render(), r#"kernel_requests_total{operation="linalg/saxpy",outcome="internal"} 1"#);
    assert_eq!(metrics.handle().in_flight(), 0);
}

#[tokio::test]
async fn what_a_device_has_timed_is_counted_by_phase() {
    let metrics = MetricsLayer::new();
    let answer = service_fn(|timed: KernelRequest| async move {
        let mut execution = Execution::new("CUDA");
        if timed.tenant.is_some() {
            let mut times = DeviceTimes::default();
            (times.kernel, times.download) = (Duration::from_micros(40), Duration::from_micros(3));
            times.bound = Some(Duration::from_micros(30));
            execution.set_device_times(times);
        }
        Ok::<_, KernelError>(KernelResponse::new(Payload::json("{}"), execution))
    });
    let mut service = metrics.layer(answer);
    let mut call = async |timed: bool| {
        let mut request = KernelRequest::new("linalg/saxpy", Payload::json("{}"));
        request.tenant = timed.then(|| "timed".into());
        service.ready().await.unwrap().call(request).await.unwrap();
        metrics.render()
    };
    let page = call(false).await;
    assert!(!page.contains("device"), "nothing was timed:\n{page}");
    call(true).await;
    let page = call(true).await;
    let labels = r#"{operation="linalg/saxpy",backend="CUDA""#;
    for line in [
        format!(r#"kernel_device_duration_seconds_count{labels},phase="kernel"}} 2"#),
        format!(r#"kernel_device_duration_seconds_sum{labels},phase="kernel"}} 0.00008"#),
        format!(r#"kernel_device_duration_seconds_count{labels},phase="download"}} 2"#),
        format!("kernel_device_roofline_ratios_count{labels}}} 2"),
        format!("kernel_queue_duration_seconds_count{labels}}} 3"),
    ] {
        has(&page, &line);
    }
    has(&page, r#"kernel_device_roofline_ratios_bucket{le="1.0",operation="linalg/saxpy",backend="CUDA"} 2"#);
    assert!(!page.contains(r#"phase="upload""#), "nothing was uploaded:\n{page}");
}
