//! The four layers around a plain HTTP service that knows nothing of kernels.
//!
//! `cargo run --example reuse_layers`

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use http::{Request, Response};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_kernels::error::Classify;
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::request::{Deadline, Operation, Tenant};

/// Thumbnails of small pictures are there at once; of large ones, too late.
async fn thumbnail(request: Request<&'static str>) -> Result<Response<String>, Infallible> {
    let answer = match (request.uri().path(), request.extensions().get::<Deadline>()) {
        ("/small.png", Some(Deadline(by))) => {
            let left = by.saturating_duration_since(std::time::Instant::now());
            Response::new(format!("done, with {} ms to spare", left.as_millis()))
        }
        ("/large.png", _) => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Response::new("done, but nobody waits for it".to_owned())
        }
        _ => {
            let mut answer = Response::new("no such picture".to_owned());
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            answer
        }
    };
    Ok(answer)
}

fn request(tenant: &str, path: &str) -> Result<Request<&'static str>, http::Error> {
    Request::builder()
        .uri(path)
        .extension(Operation::from_static("thumbnail"))
        .extension(Tenant(tenant.into()))
        .body("")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let metrics = MetricsLayer::new().prefix("pictures");
    let mut service = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(3, Duration::from_secs(60)).per_tenant())
        .layer(TimeoutLayer::new(Duration::from_millis(100)))
        .service(service_fn(thumbnail));

    let calls = [
        ("ann", "/small.png"),
        ("ann", "/large.png"),
        ("ann", "/missing.png"),
        ("ann", "/small.png"),
        ("bob", "/small.png"),
    ];
    for (tenant, path) in calls {
        match service.ready().await?.call(request(tenant, path)?).await {
            Ok(response) => println!("{tenant} {path}: {} {}", response.status(), response.body()),
            Err(error) => {
                let kind = error.kind();
                println!("{tenant} {path}: {} {kind}, retry after {:?}", kind.http_status(), error.retry_after());
            }
        }
    }
    // A client that leaves: the future is dropped, and so is the work.
    drop(service.ready().await?.call(request("bob", "/large.png")?));

    println!("\nGET /metrics\n");
    let all = metrics.render();
    for line in all.lines().filter(|line| !line.contains("_bucket")) {
        println!("{line}");
    }
    Ok(())
}
