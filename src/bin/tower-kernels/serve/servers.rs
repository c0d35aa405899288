//! The listeners, and what answers behind them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_kernels::axum::{DrainHandle, KernelRouter};
use tower_kernels::grpc::{HealthService, KernelGrpcServer, reflection, reflection_v1alpha};
use tower_kernels::hyper::{Server, Tls, listen};
use tower_kernels::pipeline::LocalPipeline;
use tower_kernels::requests::{RequestMetrics, Transport};
use tower_kernels::service::HostMemory;
use tower_layer::Layer;

use super::auth::Authentication;
use crate::config::{Config, Listen};
use crate::exit::{Exit, Failure};

/// Adds metrics to a page.
type MoreMetrics = dyn Fn(&mut Registry) + Send + Sync;

/// What listens, and where.
pub(super) struct Servers {
    /// Until it serves.
    rest_server: Server,
    grpc_server: Server,
    drain: Duration,
    pub(super) auth: Option<Authentication>,
    pub(super) tls: Option<Tls>,
    pub(super) memory: HostMemory,
    stopping: CancellationToken,
    running: JoinSet<(&'static str, io::Result<()>)>,
    requests: RequestMetrics,
    more_metrics: Vec<Arc<MoreMetrics>>,
    pub(super) rest: Option<SocketAddr>,
    pub(super) grpc: Option<SocketAddr>,
}

impl Servers {
    pub(super) fn new(config: &Config, auth: Option<Authentication>, tls: Option<Tls>, memory: HostMemory) -> Self {
        let requests = RequestMetrics::new();
        let shown = requests.clone();
        Self {
            rest_server: server(config, tls.as_ref()),
            grpc_server: server(config, tls.as_ref()),
            drain: config.drain.limit.0,
            auth,
            tls,
            memory,
            stopping: CancellationToken::new(),
            running: JoinSet::new(),
            requests,
            more_metrics: vec![Arc::new(move |registry| shown.register(registry))],
            rest: None,
            grpc: None,
        }
    }

    /// Shows more on /metrics. To be said before REST is served.
    pub(super) fn also_show(&mut self, register: impl Fn(&mut Registry) + Send + Sync + 'static) {
        self.more_metrics.push(Arc::new(register));
    }

    /// Serves REST, where it is to be. What comes back says later that it is draining.
    pub(super) fn rest(&mut self, config: &Config, pipeline: &LocalPipeline) -> Result<Option<DrainHandle>, Failure> {
        let Some((listener, address)) = bind("REST", config.rest.listen)? else { return Ok(None) };
        let router = KernelRouter::with_service(pipeline.clone(), pipeline, config.rest.router())
            .timeout(config.timeout.0)
            .max_response_size(config.rest.max_response_size)
            .memory(self.memory.clone())
            .connections("rest", self.rest_server.connections())
            .connections("grpc", self.grpc_server.connections());
        let router = match &self.tls {
            Some(tls) => router.tls(tls.clone()),
            None => router,
        };
        let more = self.more_metrics.iter().cloned();
        let router = more.fold(router, |router, register| router.more_metrics(move |registry| register(registry)));
        let drain = router.drain_handle();
        let router = match &self.auth {
            Some(auth) => auth.around_rest(router.into_router(), &self.requests),
            None => router.into_router(),
        };
        let service = TowerToHyperService::new(self.requests.layer(Transport::Rest).layer(router));
        let server = std::mem::take(&mut self.rest_server);
        let (stop, limit) = (self.stop_signal(), self.drain);
        self.running.spawn(async move { ("REST", server.serve(listener, service, stop, limit).await) });
        self.rest = Some(address);
        Ok(Some(drain))
    }

    /// Serves gRPC, where it is to be.
    pub(super) fn grpc(
        &mut self,
        config: &Config,
        pipeline: &LocalPipeline,
        health: HealthService,
    ) -> Result<(), Failure> {
        let Some((listener, address)) = bind("gRPC", config.grpc.listen)? else { return Ok(()) };
        let kernels = KernelGrpcServer::with_service(pipeline.clone(), pipeline, config.grpc.service(config.timeout.0))
            .memory(self.memory.clone());
        let routes = Routes::new(kernels.into_service())
            .add_service(health)
            .add_service(reflection())
            .add_service(reflection_v1alpha())
            .prepare()
            .into_axum_router();
        let routes = match &self.auth {
            Some(auth) => auth.around_grpc(routes, &self.requests),
            None => routes,
        };
        let service = TowerToHyperService::new(self.requests.layer(Transport::Grpc).layer(routes));
        let server = std::mem::take(&mut self.grpc_server);
        let (stop, limit) = (self.stop_signal(), self.drain);
        self.running.spawn(async move { ("gRPC", server.serve(listener, service, stop, limit).await) });
        self.grpc = Some(address);
        Ok(())
    }

    fn stop_signal(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let stopping = self.stopping.clone();
        async move {
            stopping.cancelled().await;
            Ok(())
        }
    }

    /// Completes when one of them has ended without having been told to: a defect.
    pub(super) async fn ended(&mut self) -> Failure {
        match self.running.join_next().await {
            Some(Ok((name, Err(error)))) => Exit::Failed.because(format!("{name} has ended: {error}")),
            Some(Ok((name, Ok(())))) => Exit::Failed.because(format!("{name} has ended without being told to")),
            Some(Err(error)) => Exit::Failed.because(format!("a server has ended: {error}")),
            None => Exit::Failed.because("there is no server"),
        }
    }

    /// Accepts no more, and waits for the requests in flight; says whether all were answered within the limit.
    pub(super) async fn stop(&mut self) -> Result<bool, Failure> {
        self.stopping.cancel();
        let mut all = true;
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(error))) if error.kind() == io::ErrorKind::TimedOut => {
                    tracing::error!(%error, "{name}: the drain limit has passed");
                    all = false;
                }
                Ok((name, Err(error))) => return Err(Exit::Failed.because(format!("{name}: {error}"))),
                Err(error) => return Err(Exit::Failed.because(format!("a server has ended: {error}"))),
            }
        }
        Ok(all)
    }
}

fn server(config: &Config, tls: Option<&Tls>) -> Server {
    let server = Server::new(config.connections.server()).reserve(config.connections.health_reserve, is_probe);
    match tls {
        Some(tls) => server.tls(tls.clone()),
        None => server,
    }
}

/// What may be asked over a connection that is kept for health probes.
fn is_probe(path: &str) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready" | "/metrics")
        || path.starts_with("/grpc.health.v1.Health/")
}

fn bind(name: &str, listen_on: Listen) -> Result<Option<(TcpListener, SocketAddr)>, Failure> {
    let Listen(Some(address)) = listen_on else { return Ok(None) };
    let bound = listen(address).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    match bound {
        Ok(bound) => Ok(Some(bound)),
        Err(error) => Err(Exit::Address.because(format!("{name} cannot listen on {address}: {error}"))),
    }
}
