use std::convert::Infallible;
use std::fmt;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use http_body::Body;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthReporter;
use tower_service::Service;

use super::MAX_QUESTION_BYTES;
use super::proto::kernel_server::SERVICE_NAME;

/// The standard's [`grpc.health.v1.Health`](https://grpc.io/docs/guides/health-checking/): says of the whole server (the
/// empty name) and of `tower_kernels.v1.Kernel` whether they serve.
///
/// It begins with yes. Clones share what they say, so keep one to take the server out of its balancers before it stops:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_kernels::grpc::HealthService;
///
/// let health = HealthService::new();
/// let router = tonic::transport::Server::builder().add_service(health.clone());
/// // Told to stop:
/// health.set_serving(false).await;
/// // No new calls from here on, and those who watch hold nothing up:
/// health.close().await;
/// # drop(router);
/// # }
/// ```
#[derive(Clone)]
pub struct HealthService {
    inner: HealthServer<tonic_health::server::HealthService>,
    reporter: HealthReporter,
}

impl HealthService {
    /// One that says that it serves.
    pub fn new() -> Self {
        let reporter = HealthReporter::new();
        // The lock inside is nobody else's yet, so this completes at once; Tokio's budget is the one thing that could
        // hold it up.
        tokio::task::unconstrained(reporter.set_service_status(SERVICE_NAME, ServingStatus::Serving))
            .now_or_never()
            .expect("nobody else holds the lock");
        let inner = HealthServer::new(tonic_health::server::HealthService::from_health_reporter(reporter.clone()))
            .max_decoding_message_size(MAX_QUESTION_BYTES);
        Self { inner, reporter }
    }

    /// Says from now on that both serve, or that both do not; those who watch are told.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", status).await;
        self.reporter.set_service_status(SERVICE_NAME, status).await;
    }

    /// Ends what watches, so that a connection on which somebody does can be closed: a watch has no end of its own, and
    /// a graceful one waits for the answers on their way. Who asks from now on is told that nothing of the name is known.
    pub async fn close(&self) {
        let mut reporter = self.reporter.clone();
        reporter.clear_service_status("").await;
        reporter.clear_service_status(SERVICE_NAME).await;
    }
}

impl Default for HealthService {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Service<http::Request<B>> for HealthService
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<B>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.inner.call(request)
    }
}

impl NamedService for HealthService {
    const NAME: &'static str = tonic_health::pb::health_server::SERVICE_NAME;
}

impl fmt::Debug for HealthService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthService").finish_non_exhaustive()
    }
}
