//! "Tower Middleware".

#![expect(clippy::let_and_return, reason = "the page's blocks end with their `let`")]

use std::convert::Infallible;
use std::future::pending;
use std::time::{Duration, Instant};

use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::request::Execution;
use tower_kernels::service::{KernelRequest, KernelResponse, KernelService, Payload};

use super::{CYCLE, assert_scores, input, registry};

fn request() -> KernelRequest {
    KernelRequest::new("graph/betweenness-centrality", Payload::json(input().to_string()))
}

#[track_caller]
fn assert_response(response: KernelResponse) {
    let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
    assert_scores(&serde_json::from_slice(&output).unwrap(), CYCLE);
}

#[tokio::test]
async fn kernel_service() -> Result<(), BoxError> {
    let (registry, request) = (registry(), request());
    {
        use tower::ServiceExt;
        use tower_kernels::service::KernelService;

        let mut service = KernelService::new(registry);

        // Execute via Tower Service trait — dispatches to real kernels
        let response = service.ready().await?.call(request).await?;

        assert_response(response);
    }
    Ok(())
}

mod timeout_layer {
    use super::{Duration, Layer, ServiceBuilder};
    use tower_kernels::layers::TimeoutLayer;

    pub(super) fn block<S>(kernel_service: S) -> <TimeoutLayer as Layer<S>>::Service {
        let layer = TimeoutLayer::new(Duration::from_secs(30));
        let service = ServiceBuilder::new().layer(layer).service(kernel_service);
        service
    }
}

#[tokio::test]
async fn timeout_layer_lets_what_is_in_time_through() {
    use tower::ServiceExt;
    let mut service = timeout_layer::block(KernelService::new(registry()));
    assert_response(service.ready().await.unwrap().call(request()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn timeout_layer_ends_what_takes_longer() {
    use tower::ServiceExt;
    let begun = tokio::time::Instant::now();
    let never = service_fn(|_: KernelRequest| pending::<Result<KernelResponse, Infallible>>());
    let mut service = timeout_layer::block(never);
    let error = service.ready().await.unwrap().call(request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    // A timer's tick is a millisecond.
    let took = begun.elapsed();
    assert!((Duration::from_secs(30)..=Duration::from_millis(30_001)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn rate_limiting() {
    use tower::ServiceExt;
    let layer = {
        use tower_kernels::layers::RateLimiterLayer;

        let layer = RateLimiterLayer::new(
            100, // requests per second
            Duration::from_secs(1),
        );
        layer
    };
    let nothing = || KernelResponse::new(Payload::json("null"), Execution::new("none"));
    let mut service = layer.layer(service_fn(|_: KernelRequest| async move { Ok::<_, Infallible>(nothing()) }));
    let begun = Instant::now();
    let mut passed = 0;
    for call in 0..500 {
        match service.ready().await.unwrap().call(request()).await {
            Ok(_) => passed += 1,
            Err(error) => {
                assert!(call >= 100, "refused the call {call}");
                assert_eq!(error.kind(), ErrorKind::RateLimited);
                assert!(error.retry_after().is_some());
            }
        }
    }
    let due = 100.0 + begun.elapsed().as_secs_f64() * 100.0 + 1.0;
    assert!((100.0..=due).contains(&f64::from(passed)), "{passed} of at most {due}");
}

#[tokio::test]
async fn middleware_stack() {
    use tower::ServiceExt;
    let registry = registry();
    let mut service = {
        use tower::ServiceBuilder;
        use tower_kernels::layers::{RateLimiterLayer, TimeoutLayer, TracingLayer};
        use tower_kernels::service::KernelService;

        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::new(Duration::from_secs(30)))
            .layer(RateLimiterLayer::new(100, Duration::from_secs(1)))
            .layer(TracingLayer::new())
            .service(KernelService::new(registry));
        service
    };
    assert_response(service.ready().await.unwrap().call(request()).await.unwrap());
    // The layers within are at work: a flood is refused by the limit, whatever the kernels would take.
    let mut rejected = 0;
    for _ in 0..300 {
        let request = KernelRequest::new("linalg/saxpy", Payload::json(r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#));
        if let Err(error) = service.ready().await.unwrap().call(request).await {
            assert_eq!(error.kind(), ErrorKind::RateLimited, "{error:?}");
            rejected += 1;
        }
    }
    assert!(rejected > 0);
}
