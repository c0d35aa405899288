//! Serves kernels with plain hyper 1.x behind a pipeline of layers, and shuts down gracefully on Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --release --features hyper --example hyper_server -- [127.0.0.1:8080]
//! ```
//! `POST /execute` runs a kernel, `GET /kernels` lists them, `GET /kernels/{id}` describes one, `GET /metrics` is for
//! Prometheus. A client that disconnects cancels its kernel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_kernels::hyper::{KernelHttpService, listen};
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{KernelRegistry, KernelService};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;
    serve(listen(address.parse()?)?, registry, stop_signal()).await?;
    Ok(())
}

/// Serves until `stop` completes, then waits up to 30 s for requests in flight.
pub(crate) async fn serve(
    listener: TcpListener,
    registry: Arc<KernelRegistry>,
    stop: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let kernels = KernelService::new(Arc::clone(&registry));
    eprintln!("{} kernels on {}", registry.len(), kernels.backend().status());
    let metrics = MetricsLayer::new().operations(registry.list().iter().map(|kernel| kernel.info().id.clone()));
    let pipeline = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(100_000, Duration::from_secs(1)))
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .service(kernels.clone());
    let kernels = KernelHttpService::with_service(pipeline, &kernels).metrics(metrics.handle());
    eprintln!("listening on http://{}", listener.local_addr()?);
    tower_kernels::hyper::serve(listener, kernels, stop, Duration::from_secs(30)).await
}

async fn stop_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! { result = tokio::signal::ctrl_c() => result, _ = terminate.recv() => Ok(()) }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
