//! The middleware stack without a server: typed inputs and outputs, without a codec.
//!
//! ```text
//! cargo run --release --example service_builder
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tower::{Service, ServiceBuilder, ServiceExt};
use tower_kernels::error::{Classify, chain};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;

    let metrics = MetricsLayer::new();
    let mut service = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(100, Duration::from_secs(1)))
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .service(KernelService::new(registry));

    let input = SaxpyInput { a: 2.0, x: vec![1.0, 2.0, 3.0].into(), y: vec![10.0, 20.0, 30.0].into() };
    let request = KernelRequest::new("linalg/saxpy", Payload::typed(input)).with_timeout(Duration::from_millis(500));
    let response = service.ready().await?.call(request).await?;
    let output = response.payload.downcast::<SaxpyOutput>().ok_or("saxpy returns its own type")?;
    println!("2x + y = {:?}, {:?}", output.y.to_vec(), response.execution);

    let request = KernelRequest::new("risk/option-pricing", Payload::json(r#"{"spot": [-1.0]}"#));
    if let Err(error) = service.ready().await?.call(request).await {
        println!("rejected, {}: {}", error.kind(), chain(&error));
    }
    println!("\n{}", metrics.render());
    Ok(())
}
