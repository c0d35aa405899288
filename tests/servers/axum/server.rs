//! Routers behind axum's own server, each on a port of its own.

use crate::support::kernels;
use std::ops::Deref;
#[cfg(feature = "hyper")]
use std::time::Duration;

use tokio::net::TcpSocket;
use tower_kernels::axum::{DrainHandle, KernelRouter, RouterConfig};

pub(crate) use crate::support::http_client::JSON;
use crate::support::http_client::Wire;

pub(crate) struct Server {
    wire: Wire,
    pub(crate) drain: DrainHandle,
}

impl Server {
    /// The catalogue and the kernels for tests, behind the default configuration.
    pub(crate) async fn start() -> Self {
        Self::with_config(RouterConfig::default()).await
    }

    pub(crate) async fn with_config(config: RouterConfig) -> Self {
        let router = KernelRouter::new(kernels::registry().0, config);
        let drain = router.drain_handle();
        Self { drain, ..Self::serve(router.into_router()).await }
    }

    pub(crate) async fn serve(router: axum::Router) -> Self {
        // Hundreds of clients connect in the same moment, more than wait in the backlog that `TcpListener::bind` asks for.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { wire: Wire { address }, drain: DrainHandle::default() }
    }

    /// Behind the crate's own server, which knows the address of each client.
    #[cfg(feature = "hyper")]
    pub(crate) async fn serve_by_hyper(router: axum::Router) -> Self {
        let listener = tower_kernels::hyper::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router);
        let serve = tower_kernels::hyper::serve(listener, service, std::future::pending(), Duration::from_secs(30));
        tokio::spawn(async move { serve.await.unwrap() });
        Self { wire: Wire { address }, drain: DrainHandle::default() }
    }
}

impl Deref for Server {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}
