//! A server on a socket of its own, and a kernel that takes as long as it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::Stream;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
use tower_kernels::service::{Buffer, Context, Cost, Invalid, Kernel, KernelError, KernelInfo, KernelRegistry};

/// How many naps are being taken, in one server.
#[derive(Clone, Default)]
pub(crate) struct Naps(Arc<AtomicUsize>);

impl Naps {
    pub(crate) async fn until(&self, count: usize) {
        let begun = Instant::now();
        while self.0.load(Ordering::SeqCst) != count {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} naps", self.0.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Runs for as long as it is told to, or until its caller has left; at 13 it panics.
struct Nap(Naps);

#[derive(Deserialize, JsonSchema)]
struct Millis {
    millis: u64,
}

#[derive(Serialize, JsonSchema)]
struct Slept {
    millis: Buffer<u64>,
}

impl Kernel for Nap {
    type Input = Millis;
    type Output = Slept;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/nap", "1.0.0", "Sleeps.").alias("nap")
    }

    fn validate(&self, _: &Millis) -> Result<(), Invalid> {
        Ok(())
    }

    fn cost(&self, input: &Millis) -> Cost {
        Cost { operations: input.millis.saturating_mul(2_000_000), ..Cost::default() }
    }

    fn run_cpu(&self, input: &Millis, context: &Context<'_>) -> Result<Slept, KernelError> {
        struct Awake<'a>(&'a AtomicUsize);
        impl Drop for Awake<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.0.fetch_add(1, Ordering::SeqCst);
        let _awake = Awake(&self.0.0);
        assert_ne!(input.millis, 13, "no nap of 13 ms");
        let end = Instant::now() + Duration::from_millis(input.millis);
        while Instant::now() < end {
            context.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Slept { millis: vec![input.millis].into() })
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) naps: Naps,
    pub(crate) health: HealthService,
}

pub(crate) fn registry() -> (Arc<KernelRegistry>, Naps) {
    let (registry, naps) = (Arc::new(KernelRegistry::new()), Naps::default());
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(Nap(naps.clone())).unwrap();
    (registry, naps)
}

impl Running {
    pub(crate) async fn start() -> Self {
        let (registry, naps) = registry();
        Self::serve(KernelGrpcServer::new(registry), naps).await
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
