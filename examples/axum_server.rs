//! Kernels as a REST API, and a graceful end on Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --release --features axum --example axum_server -- [127.0.0.1:8080]
//! curl localhost:8080/kernels/linalg/saxpy/execute -H 'content-type: application/json' \
//!     -d '{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}'
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::service::KernelRegistry;

/// Between the moment when `/health/ready` says no and the one when connections are refused: long enough for a load
/// balancer to have asked.
const NOTICE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;
    let listener = TcpListener::bind(&address).await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    Ok(serve(listener, registry, stop_signal()).await?)
}

/// Serves until `stop` completes, and then until every request in flight has been answered.
pub(crate) async fn serve(
    listener: TcpListener,
    registry: Arc<KernelRegistry>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = KernelRouter::new(registry, RouterConfig::default());
    let draining = router.drain_handle();
    let stopped = async move {
        stop.await;
        draining.drain();
        tokio::time::sleep(NOTICE).await;
    };
    axum::serve(listener, router.into_router()).with_graceful_shutdown(stopped).await
}

async fn stop_signal() {
    let interrupted = async { tokio::signal::ctrl_c().await.expect("the handler can be installed") };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("the handler can be installed");
        tokio::select! { () = interrupted => {}, _ = terminate.recv() => {} }
    }
    #[cfg(not(unix))]
    interrupted.await;
}
