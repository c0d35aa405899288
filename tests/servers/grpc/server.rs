//! A server on a socket of its own.

use std::net::SocketAddr;
use std::sync::Arc;
#[cfg(feature = "hyper")]
use std::time::Duration;

use futures::Stream;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
#[cfg(feature = "hyper")]
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tower_kernels::grpc::{
    ExecuteRequest, ExecuteStreamRequest, GrpcConfig, HealthService, KernelClient, KernelGrpcServer, Pipeline,
    reflection, reflection_v1alpha,
};

use tower_kernels::pipeline::RegistryOnly;
use tower_kernels::service::KernelRegistry;

use crate::support::kernels::{Naps, registry};

/// Which server it is that serves tonic's routes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// tonic's own.
    Tonic,
    /// The crate's, as the program has it.
    #[cfg(feature = "hyper")]
    Hyper,
}

#[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "for what is tested with both servers"))]
pub(crate) struct Running {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) naps: Naps,
    pub(crate) health: HealthService,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), StdError>>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        let (registry, naps) = registry();
        Self::serve(KernelGrpcServer::new(registry), naps).await
    }

    /// These kernels and no others.
    pub(crate) async fn of(registry: Arc<KernelRegistry>) -> Self {
        Self::serve(KernelGrpcServer::new(registry), Naps::default()).await
    }

    pub(crate) async fn with_config(config: GrpcConfig) -> Self {
        let (registry, naps) = registry();
        let service = tower_kernels::service::KernelService::new(registry);
        Self::serve(KernelGrpcServer::with_service(service.clone(), &service, config), naps).await
    }

    pub(crate) async fn over(pipeline: impl Pipeline, config: GrpcConfig) -> Self {
        let (registry, naps) = registry();
        Self::serve(KernelGrpcServer::with_service(pipeline, &RegistryOnly::new(registry), config), naps).await
    }

    /// One of each kind.
    #[cfg(feature = "hyper")]
    pub(crate) async fn both(config: GrpcConfig) -> impl Iterator<Item = Self> {
        let start = async |kind| {
            let (registry, naps) = registry();
            let service = tower_kernels::service::KernelService::new(registry);
            Self::serve_by(kind, KernelGrpcServer::with_service(service.clone(), &service, config.clone()), naps).await
        };
        [start(Kind::Tonic).await, start(Kind::Hyper).await].into_iter()
    }

    /// Behind the crate's own server, which knows the address of each client.
    #[cfg(feature = "hyper")]
    pub(crate) async fn serve_by_hyper<S: Pipeline>(server: KernelGrpcServer<S>, naps: Naps) -> Self {
        Self::serve_by(Kind::Hyper, server, naps).await
    }

    pub(crate) async fn serve<S: Pipeline>(server: KernelGrpcServer<S>, naps: Naps) -> Self {
        Self::serve_by(Kind::Tonic, server, naps).await
    }

    async fn serve_by<S: Pipeline>(kind: Kind, server: KernelGrpcServer<S>, naps: Naps) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = server.health();
        let routes = Routes::new(health.clone())
            .add_service(reflection())
            .add_service(reflection_v1alpha())
            .add_service(server.clone().into_inference_service())
            .add_service(server.into_service());
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            if stopped.await.is_err() {
                // The test is over, and so is the runtime soon.
                std::future::pending::<()>().await;
            }
        };
        let ended = match kind {
            Kind::Tonic => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let serve = Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stopped);
                tokio::spawn(async { serve.await.map_err(Into::into) })
            }
            #[cfg(feature = "hyper")]
            Kind::Hyper => {
                let service = TowerToHyperService::new(routes.prepare().into_axum_router());
                let stopped = async {
                    stopped.await;
                    Ok(())
                };
                let serve = tower_kernels::hyper::serve(listener, service, stopped, Duration::from_secs(30));
                tokio::spawn(async { serve.await.map_err(Into::into) })
            }
        };
        Self { kind, address, naps, health, stop, ended }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> KernelClient<Channel> {
        KernelClient::new(self.channel().await)
    }

    /// A client that sends `grpc-timeout` and, unlike tonic's channel, keeps no timer of its own: what it is told is what
    /// the server says.
    pub(crate) fn patient_client(&self) -> KernelClient<legacy::Client<HttpConnector, Body>> {
        let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        KernelClient::with_origin(client, format!("http://{}", self.address).parse().unwrap())
    }

    /// The output of a kernel on a JSON document.
    pub(crate) async fn execute(&self, kernel_id: &str, input: &str) -> Result<String, Status> {
        let request = ExecuteRequest { kernel_id: kernel_id.to_owned(), input: input.to_owned() };
        Ok(self.client().await.execute(request).await?.into_inner().output)
    }
}

/// A client's own runtime. Dropped, it closes the client's sockets, as the end of a process does.
pub(crate) struct Elsewhere(Option<Runtime>);

impl Elsewhere {
    /// Streams `requests` to the server and reads no answer.
    pub(crate) fn stream<R>(server: SocketAddr, requests: R) -> Self
    where
        R: Stream<Item = ExecuteStreamRequest> + Send + 'static,
    {
        Self::run(async move {
            let mut client = KernelClient::connect(format!("http://{server}")).await.unwrap();
            let responses = client.execute_stream(requests).await.unwrap();
            std::future::pending::<()>().await;
            drop(responses);
        })
    }

    /// Calls the server once.
    #[cfg(feature = "hyper")]
    pub(crate) fn execute(server: SocketAddr, request: ExecuteRequest) -> Self {
        Self::run(async move {
            let mut client = KernelClient::connect(format!("http://{server}")).await.unwrap();
            let response = client.execute(request).await;
            panic!("it is answered: {response:?}");
        })
    }

    pub(crate) fn run(client: impl Future<Output = ()> + Send + 'static) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(client);
        Self(Some(runtime))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

pub(crate) fn nap(millis: u64) -> ExecuteRequest {
    ExecuteRequest { kernel_id: "test/nap".to_owned(), input: format!(r#"{{"millis": {millis}}}"#) }
}
