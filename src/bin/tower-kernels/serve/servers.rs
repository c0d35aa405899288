//! The REST and gRPC servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_kernels::axum::{DrainHandle, KernelRouter};
use tower_kernels::grpc::{HealthService, KernelGrpcServer, StreamShutdown, reflection, reflection_v1alpha};
#[cfg(unix)]
use tower_kernels::hyper::SocketFile;
use tower_kernels::hyper::{ListenAddress, Listener, Server, Tls};
use tower_kernels::inference::InferenceExtensions;
use tower_kernels::pipeline::LocalPipeline;
use tower_kernels::requests::{RequestMetrics, Transport};
use tower_kernels::service::HostMemory;
use tower_layer::Layer;

use super::auth::Authentication;
use crate::config::{Config, Inference, Listen};
use crate::exit::{Exit, Failure};

/// Returns metrics as OpenMetrics text.
type RenderMetrics = dyn Fn() -> String + Send + Sync;

/// The running servers and their addresses.
pub(super) struct Servers {
    /// Taken when it starts.
    rest_server: Server,
    grpc_server: Server,
    drain: Duration,
    pub(super) auth: Option<Authentication>,
    pub(super) tls: Option<Tls>,
    pub(super) memory: HostMemory,
    inference: InferenceExtensions,
    stopping: CancellationToken,
    running: JoinSet<(&'static str, io::Result<()>)>,
    requests: RequestMetrics,
    more_metrics: Vec<Arc<RenderMetrics>>,
    /// The addresses; empty if the server is off.
    pub(super) rest: Vec<ListenAddress>,
    pub(super) grpc: Vec<ListenAddress>,
    /// The files of Unix domain sockets, removed on drop.
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
            inference: inference_extensions(&config.inference),
            stopping: CancellationToken::new(),
            running: JoinSet::new(),
            requests,
            more_metrics: vec![Arc::new(move || shown.render())],
            rest: Vec::new(),
            grpc: Vec::new(),
            #[cfg(unix)]
            socket_files: Vec::new(),
        }
    }

    /// Adds metrics to /metrics. Must be called before REST is started.
    pub(super) fn add_metrics(&mut self, render: impl Fn() -> String + Send + Sync + 'static) {
        self.more_metrics.push(Arc::new(render));
    }

    /// Starts REST unless it is off. The returned handle starts its drain.
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
            .max_operand_size(config.operands.max_upload)
            .operand_timeout(config.operands.upload_timeout.0)
            .memory(self.memory.clone())
            .inference_extensions(self.inference.clone())
            .connections("rest", self.rest_server.connections())
            .connections("grpc", self.grpc_server.connections());
        let router = match &self.tls {
            Some(tls) => router.tls(tls.clone()),
            None => router,
        };
        let more = self.more_metrics.iter().cloned();
        let router = more.fold(router, |router, render| router.more_metrics(move || render()));
        let drain = router.drain_handle();
        let router = match &self.auth {
            Some(auth) => auth.describe(router),
            None => router,
        };
        let service = router.into_service(self.auth.as_ref().map(|auth| auth.rest_layer(&self.requests)));
        let service = TowerToHyperService::new(self.requests.layer(Transport::Rest).layer(service));
        let server = std::mem::take(&mut self.rest_server);
        let (stop, limit) = (self.stop_signal(), self.drain);
        self.running.spawn(async move { ("REST", server.serve(listener, service, stop, limit).await) });
        Ok(Some(drain))
    }

    /// Starts gRPC unless it is off.
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
            .max_operand_size(config.operands.max_upload)
            .operand_timeout(config.operands.upload_timeout.0)
            .memory(self.memory.clone())
            .inference_extensions(self.inference.clone())
            .stream_shutdown(streams.clone());
        let routes = Routes::new(kernels.clone().into_service())
            .add_service(kernels.into_inference_service())
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

    /// Binds a listener unless it is off.
    async fn bind(&mut self, name: &str, listen: &Listen) -> Result<Option<Listener>, Failure> {
        let Some(address) = &listen.0 else { return Ok(None) };
        let bound = Listener::bind(address).await;
        let listener =
            bound.map_err(|error| Exit::Address.failure(format!("{name} cannot listen on {address}: {error}")))?;
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

    /// Completes when a server ends unexpectedly.
    pub(super) async fn ended(&mut self) -> Failure {
        match self.running.join_next().await {
            Some(Ok((name, Err(error)))) => Exit::Failed.failure(format!("{name} ended unexpectedly: {error}")),
            Some(Ok((name, Ok(())))) => Exit::Failed.failure(format!("{name} ended unexpectedly")),
            Some(Err(error)) => Exit::Failed.failure(format!("a server ended unexpectedly: {error}")),
            None => Exit::Failed.failure("no server is running"),
        }
    }

    /// Starts the drain: clients are notified, and the servers stop after the notice.
    pub(super) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until the servers have stopped. Returns whether all requests completed within the limit.
    pub(super) async fn stopped(&mut self) -> Result<bool, Failure> {
        let mut all = true;
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(error))) if error.kind() == io::ErrorKind::TimedOut => {
                    tracing::error!(%error, "{name}: drain limit exceeded, requests were cancelled");
                    all = false;
                }
                Ok((name, Err(error))) => return Err(Exit::Failed.failure(format!("{name}: {error}"))),
                Err(error) => return Err(Exit::Failed.failure(format!("a server ended unexpectedly: {error}"))),
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

fn inference_extensions(config: &Inference) -> InferenceExtensions {
    let extensions = InferenceExtensions::new();
    // Elsewhere the setting is rejected.
    #[cfg(target_os = "linux")]
    let extensions = if config.shared_memory { extensions.system_shared_memory() } else { extensions };
    if config.model_control { extensions.model_control() } else { extensions }
}

/// Whether a path may be requested on a connection of the health reserve.
fn is_probe(path: &str) -> bool {
    let is_rest = matches!(path, "/health/live" | "/health/ready" | "/v2/health/live" | "/v2/health/ready");
    is_rest || matches!(path, "/health" | "/metrics") || is_grpc_probe(path)
}

/// Whether a path is one of gRPC that asks for the health of the server.
pub(super) fn is_grpc_probe(path: &str) -> bool {
    let inference = path.strip_prefix("/inference.GRPCInferenceService/");
    path.starts_with("/grpc.health.v1.Health/") || matches!(inference, Some("ServerLive" | "ServerReady"))
}

fn addresses(name: &str, listener: &Listener) -> Result<Vec<ListenAddress>, Failure> {
    listener
        .local_addresses()
        .map_err(|error| Exit::Address.failure(format!("{name}: cannot read the local address: {error}")))
}
