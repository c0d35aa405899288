//! Serves kernels as a REST API with axum, and shuts down gracefully on Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --release --features axum,hyper --example axum_server -- [127.0.0.1:8080]
//! curl localhost:8080/kernels/linalg/saxpy/execute -H 'content-type: application/json' \
//!     -d '{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}'
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::hyper::{Server, listen};
use tower_kernels::service::KernelRegistry;

/// Time between failing `/health/ready` and closing connections: longer than a load balancer's probe interval.
const NOTICE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;
    let listener = listen(address.parse()?)?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    Ok(serve(listener, registry, stop_signal()).await?)
}

/// Serves until `stop` completes, then waits up to 30 s for requests in flight.
pub(crate) async fn serve(
    listener: TcpListener,
    registry: Arc<KernelRegistry>,
    stop: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let router = KernelRouter::new(registry, RouterConfig::default());
    let draining = router.drain_handle();
    let stopped = async move {
        stop.await?;
        draining.drain();
        Ok(())
    };
    let service = TowerToHyperService::new(router.into_router());
    Server::default().notice(NOTICE).serve(listener, service, stopped, Duration::from_secs(30)).await
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
