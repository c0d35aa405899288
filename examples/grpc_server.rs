//! Serves kernels over gRPC with a pipeline of layers, health and reflection, and shuts down gracefully on Ctrl-C.
//!
//! ```text
//! cargo run --release --features grpc --example grpc_server -- [[::1]:50051]
//! cargo run --release --features grpc --example grpc_client
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Server;
use tower::ServiceBuilder;
use tower_kernels::grpc::{GrpcConfig, KernelGrpcServer, reflection, reflection_v1alpha};
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{KernelRegistry, KernelService};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "[::1]:50051".to_owned()).parse()?;
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;

    let kernels = KernelService::new(Arc::clone(&registry));
    eprintln!("{} kernels on {}, listening on {address}", registry.len(), kernels.backend().status());
    let pipeline = ServiceBuilder::new()
        .layer(MetricsLayer::new().operations(registry.list().iter().map(|kernel| kernel.info().id.clone())))
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(100_000, Duration::from_secs(1)))
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .service(kernels.clone());

    let server = KernelGrpcServer::with_service(pipeline, &kernels, GrpcConfig::default());
    let health = server.health();
    let stopping = health.clone();
    Server::builder()
        .add_service(health)
        .add_service(reflection())
        .add_service(reflection_v1alpha())
        .add_service(server.into_service())
        .serve_with_shutdown(address, async move {
            if let Err(error) = tokio::signal::ctrl_c().await {
                eprintln!("cannot wait for Ctrl-C, stopping: {error}");
            }
            // Fail health checks first, so that load balancers stop sending; requests in flight are completed.
            stopping.set_serving(false).await;
            // End health watches, which would otherwise delay the shutdown.
            stopping.close().await;
        })
        .await?;
    Ok(())
}
