//! Layers around a tonic server: rejections become gRPC statuses.
//!
//! `cargo run --example layers_tonic --no-default-features --features error-response,concurrency,timeout,tracing`

use std::time::Duration;

use tonic::transport::Server;
use tower::ServiceBuilder;
use tower_kernels::layers::{ConcurrencyLayer, ErrorResponseLayer, TimeoutLayer, TracingLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let (_, health) = tonic_health::server::health_reporter();
    let layers = ServiceBuilder::new()
        .layer(ErrorResponseLayer::grpc())
        .layer(TracingLayer::new())
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .layer(ConcurrencyLayer::new(64));
    println!("listening on http://127.0.0.1:50051");
    Server::builder().layer(layers).add_service(health).serve("127.0.0.1:50051".parse()?).await?;
    Ok(())
}
