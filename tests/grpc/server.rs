//! A server on a socket of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::Stream;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tower_kernels::grpc::{
    ExecuteRequest, ExecuteStreamRequest, GrpcConfig, HealthService, KernelClient, KernelGrpcServer, Pipeline,
    reflection, reflection_v1alpha,
};

use tower_kernels::service::KernelRegistry;

use crate::wire::kernels::{Naps, registry};

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) naps: Naps,
    pub(crate) health: HealthService,
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
        let service = tower_kernels::service::KernelService::new(Arc::clone(&registry));
        Self::serve(KernelGrpcServer::with_service(service, registry, config), naps).await
    }

    pub(crate) async fn over(pipeline: impl Pipeline, config: GrpcConfig) -> Self {
        let (registry, naps) = registry();
        Self::serve(KernelGrpcServer::with_service(pipeline, registry, config), naps).await
    }

    async fn serve<S: Pipeline>(server: KernelGrpcServer<S>, naps: Naps) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = HealthService::new();
        let serve = Server::builder()
            .add_service(health.clone())
            .add_service(reflection())
            .add_service(reflection_v1alpha())
            .add_service(server.into_service())
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(serve);
        Self { address, naps, health }
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
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let mut client = KernelClient::connect(format!("http://{server}")).await.unwrap();
            let answers = client.execute_stream(requests).await.unwrap();
            std::future::pending::<()>().await;
            drop(answers);
        });
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
