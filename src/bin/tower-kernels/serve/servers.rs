//! The listeners, and what answers behind them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_kernels::axum::{DrainHandle, KernelRouter};
use tower_kernels::grpc::{HealthService, KernelGrpcServer, StreamShutdown, reflection, reflection_v1alpha};
#[cfg(unix)]
use tower_kernels::hyper::SocketFile;
use tower_kernels::hyper::{ListenAddress, Listener, Server, Tls};
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
    /// Where they listen; nowhere if they are off.
    pub(super) rest: Vec<ListenAddress>,
    pub(super) grpc: Vec<ListenAddress>,
    /// Those of Unix domain sockets, which are removed at the end, however it comes.
    #[cfg(unix)]
    socket_files: Vec<SocketFile>,
}

impl Servers {
    pub(super) fn new(config: &Config, auth: Option<Authentication>, tls: Option<Tls>, memory: HostMemory) -> Self {
        let requests = RequestMetrics::new().access_log(config.log.access);
        let shown = requests.clone();
        Self {
            rest_server: server(config, tls.as_ref()).cors(config.rest.cors),
            grpc_server: server(config, tls.as_ref()),
            drain: config.drain.limit.0,
            auth,
            tls,
            memory,
            stopping: CancellationToken::new(),
            running: JoinSet::new(),
            requests,
            more_metrics: vec![Arc::new(move |registry| shown.register(registry))],
            rest: Vec::new(),
            grpc: Vec::new(),
            #[cfg(unix)]
            socket_files: Vec::new(),
        }
    }

    /// Shows more on /metrics. To be said before REST is served.
    pub(super) fn also_show(&mut self, register: impl Fn(&mut Registry) + Send + Sync + 'static) {
        self.more_metrics.push(Arc::new(register));
    }

    /// Serves REST, where it is to be. What comes back says later that it is draining.
    pub(super) async fn rest(
        &mut self,
        config: &Config,
        pipeline: &LocalPipeline,
    ) -> Result<Option<DrainHandle>, Failure> {
        let Some(listener) = self.bind("REST", &config.rest.listen).await? else { return Ok(None) };
        self.rest = addresses("REST", &listener)?;
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
            Some(auth) => auth.around_rest(router, &self.requests),
            None => router.into_router(),
        };
        let service = TowerToHyperService::new(self.requests.layer(Transport::Rest).layer(router));
        let server = std::mem::take(&mut self.rest_server);
        let (stop, limit) = (self.stop_signal(), self.drain);
        self.running.spawn(async move { ("REST", server.serve(listener, service, stop, limit).await) });
        Ok(Some(drain))
    }

    /// Serves gRPC, where it is to be.
    pub(super) async fn grpc(
        &mut self,
        config: &Config,
        pipeline: &LocalPipeline,
        health: HealthService,
        streams: &StreamShutdown,
    ) -> Result<(), Failure> {
        let Some(listener) = self.bind("gRPC", &config.grpc.listen).await? else { return Ok(()) };
        self.grpc = addresses("gRPC", &listener)?;
        let kernels = KernelGrpcServer::with_service(pipeline.clone(), pipeline, config.grpc.service(config.timeout.0))
            .memory(self.memory.clone())
            .stream_shutdown(streams.clone());
        let routes = Routes::new(kernels.into_service())
            .add_service(health)
            .add_service(streams.wrap(reflection()))
            .add_service(streams.wrap(reflection_v1alpha()))
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
        Ok(())
    }

    /// Listens, where it is to.
    async fn bind(&mut self, name: &str, listen: &Listen) -> Result<Option<Listener>, Failure> {
        let Some(address) = &listen.0 else { return Ok(None) };
        let bound = Listener::bind(address).await;
        let listener =
            bound.map_err(|error| Exit::Address.because(format!("{name} cannot listen on {address}: {error}")))?;
        #[cfg(unix)]
        self.socket_files.extend(listener.socket_file());
        Ok(Some(listener))
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

    /// Tells clients that they will stop, and stops once the notice is over.
    pub(super) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until they have stopped; says whether all that was worked on was answered within the limit.
    pub(super) async fn stopped(&mut self) -> Result<bool, Failure> {
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
    let server = Server::new(config.connections.server())
        .reserve(config.connections.health_reserve, is_probe)
        .notice(config.drain.notice.0);
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

fn addresses(name: &str, listener: &Listener) -> Result<Vec<ListenAddress>, Failure> {
    listener.local_addresses().map_err(|error| Exit::Address.because(format!("{name} has no address: {error}")))
}
