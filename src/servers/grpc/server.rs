use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tower_service::Service;

use super::config::GrpcConfig;
use super::dispatch::Dispatch;
use super::future::ResponseFuture;
use super::handler::Handler;
use super::health::HealthService;
use super::inference::InferenceGrpcService;
use super::memory::{CallMemory, RequestBody};
use super::put_operand::UploadLimits;
use super::shutdown::StreamShutdown;
use super::status::Rejection;
use crate::backends::Local;
use crate::error::AnyError;
use crate::middleware::tracing::RequestScope;
use crate::pipeline::KernelSource;
use crate::request::metadata::{HeaderFormat, RequestMetadata};
use crate::request::request_id::RequestId;
use crate::servers::inference::InferenceExtensions;
use crate::servers::operands::{MAX_OPERAND_SIZE, OPERAND_TIMEOUT};
use crate::service::{HostMemory, InvalidInput, KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// Service that a [`KernelGrpcServer`] can serve: any cloneable `Service<KernelRequest>` whose error is an
/// [`AnyError`].
///
/// It is implemented for [`KernelService`] and any stack of [`layers`](crate::layers) over it. `Sync` is required by
/// tonic's router.
pub trait Pipeline:
    Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Pipeline for S where
    S: Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send> + Clone + Send + Sync + 'static
{
}

/// Builds the gRPC service `tower_kernels.v1.Kernel`. The [module](super) has an example.
#[derive(Clone)]
pub struct KernelGrpcServer<S = KernelService<Local>> {
    service: S,
    registry: Arc<KernelRegistry>,
    health: HealthService,
    config: GrpcConfig,
    memory: HostMemory,
    shutdown: StreamShutdown,
    upload_limits: UploadLimits,
    inference: InferenceExtensions,
}

impl KernelGrpcServer {
    /// Creates a server over a [`KernelService`] with the devices of this machine.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        let service = KernelService::new(registry);
        Self::with_service(service.clone(), &service, GrpcConfig::default())
    }
}

impl<S: Pipeline> KernelGrpcServer<S> {
    /// Creates a server over any service. `kernels` is the [`LocalPipeline`](crate::pipeline::LocalPipeline) or
    /// [`KernelService`] inside of it: the source of the list of kernels and of the devices for
    /// [`health`](Self::health).
    ///
    /// One that counts its calls has a [`TimeoutLayer`](crate::layers::TimeoutLayer) inside of its metrics: without it
    /// a call is dropped at its deadline, and counts as `cancelled` although its caller gets `DEADLINE_EXCEEDED`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower::ServiceBuilder;
    /// use tower_kernels::grpc::{GrpcConfig, KernelGrpcServer};
    /// use tower_kernels::layers::{MetricsLayer, TimeoutLayer, TracingLayer};
    /// use tower_kernels::service::{KernelRegistry, KernelService};
    ///
    /// let kernels = KernelService::new(KernelRegistry::new());
    /// let pipeline = ServiceBuilder::new()
    ///     .layer(MetricsLayer::new())
    ///     .layer(TracingLayer::new())
    ///     .layer(TimeoutLayer::new(Duration::from_secs(5)))
    ///     .service(kernels.clone());
    /// let config = GrpcConfig { timeout: Duration::from_secs(5), ..GrpcConfig::default() };
    /// let server = KernelGrpcServer::with_service(pipeline, &kernels, config);
    /// let router = tonic::transport::Server::builder().add_service(server.health()).add_service(server.into_service());
    /// # drop(router);
    /// ```
    pub fn with_service(service: S, kernels: &impl KernelSource, config: GrpcConfig) -> Self {
        let (registry, health) = (Arc::clone(kernels.registry()), HealthService::of(kernels));
        let (memory, shutdown) = (HostMemory::unlimited(), StreamShutdown::new());
        let upload_limits = UploadLimits { max_size: MAX_OPERAND_SIZE, timeout: OPERAND_TIMEOUT };
        let inference = InferenceExtensions::new();
        Self { service, registry, health, config, memory, shutdown, upload_limits, inference }
    }

    /// Returns the standard health service of this server. It reports not serving while the devices cannot run the
    /// kernels. Clones share their status: keep one to report not serving before the server stops.
    pub fn health(&self) -> HealthService {
        self.health.clone()
    }

    /// Limits the memory of all requests together. Clones are one limit, which several servers can share. The tensors of
    /// uploaded operands count to their [limits](crate::service::OperandLimits) instead. Default: no limit.
    #[must_use]
    pub fn memory(mut self, memory: HostMemory) -> Self {
        self.memory = memory;
        self
    }

    /// Sets the maximum size of an uploaded [operand](crate::service::Operands), in bytes. Default: 16 GiB.
    #[must_use]
    pub fn max_operand_size(mut self, bytes: usize) -> Self {
        self.upload_limits.max_size = bytes;
        self
    }

    /// Sets the maximum time of the upload of an [operand](crate::service::Operands). Default: 10 minutes. Clients can
    /// set a shorter one.
    #[must_use]
    pub fn operand_timeout(mut self, timeout: Duration) -> Self {
        self.upload_limits.timeout = timeout;
        self
    }

    /// Sets the handle that ends open `ExecuteStream`s and uploads at shutdown.
    #[must_use]
    pub fn stream_shutdown(mut self, shutdown: StreamShutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Enables extensions of the Open Inference Protocol that are off by default, such as shared memory.
    #[must_use]
    pub fn inference_extensions(mut self, extensions: InferenceExtensions) -> Self {
        self.inference = extensions;
        self
    }

    /// Builds the service of the Open Inference Protocol, in which kernels are models, for tonic's `Server::add_service`.
    ///
    /// ```
    /// use tower_kernels::grpc::KernelGrpcServer;
    /// use tower_kernels::service::KernelRegistry;
    ///
    /// let server = KernelGrpcServer::new(KernelRegistry::new());
    /// let router = tonic::transport::Server::builder()
    ///     .add_service(server.clone().into_inference_service())
    ///     .add_service(server.into_service());
    /// # drop(router);
    /// ```
    pub fn into_inference_service(self) -> InferenceGrpcService<S> {
        InferenceGrpcService::new(self.into_service())
    }

    /// Builds the service for tonic's `Server::add_service`.
    pub fn into_service(self) -> KernelGrpcService<S> {
        let Self { service, registry, health, config, memory, shutdown, upload_limits, inference } = self;
        let config = Arc::new(config);
        let handler =
            Handler { service, registry, health, config: Arc::clone(&config), shutdown, upload_limits, inference };
        let mut inner = Dispatch::new(handler)
            .max_decoding_message_size(config.max_request_size)
            .max_encoding_message_size(config.max_response_size);
        if config.compressed_requests {
            inner = inner.accept_compressed(CompressionEncoding::Gzip);
        }
        if config.compress_responses {
            inner = inner.send_compressed(CompressionEncoding::Gzip);
        }
        KernelGrpcService { inner, config, memory }
    }
}

impl<S> fmt::Debug for KernelGrpcServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelGrpcServer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The gRPC service `tower_kernels.v1.Kernel`.
pub struct KernelGrpcService<S> {
    inner: Dispatch<S>,
    config: Arc<GrpcConfig>,
    memory: HostMemory,
}

impl<S, B> Service<http::Request<B>> for KernelGrpcService<S>
where
    S: Pipeline,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Dispatch<S> as Service<http::Request<RequestBody<B>>>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> ResponseFuture {
        let request_id = RequestId::ensure(request.headers_mut());
        let span = RequestScope::enter_handler(request.extensions_mut(), request_id.as_str());
        let entered = span.enter();
        let future = self.respond(request);
        drop(entered);
        future.in_span(span)
    }
}

impl<S: Pipeline> KernelGrpcService<S> {
    fn respond<B>(&mut self, mut request: http::Request<B>) -> ResponseFuture
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        match RequestMetadata::from_headers(request.headers(), request.extensions(), HeaderFormat::Grpc) {
            Ok(metadata) => {
                if let (Some(scope), Some(tenant)) = (request.extensions().get::<RequestScope>(), &metadata.tenant) {
                    scope.set_tenant(tenant);
                }
                let deadline = metadata.clone().limit_timeout(self.config.timeout);
                request.extensions_mut().insert(metadata);
                let call = CallMemory::new(self.memory.clone(), self.config.max_response_size);
                request.extensions_mut().insert(call.clone());
                let max = self.config.max_request_size;
                let request = request.map(|body| RequestBody::new(body, call.clone(), max));
                ResponseFuture::run(self.inner.call(request), call, deadline)
            }
            Err(invalid) => ResponseFuture::reject(Rejection::from(InvalidInput::from(invalid)).into_status(None)),
        }
    }
}

impl<S> NamedService for KernelGrpcService<S> {
    const NAME: &'static str = super::proto::SERVICE_NAME;
}

// By hand, as the pipeline is behind an `Arc` and need not be `Clone` here.
impl<S> Clone for KernelGrpcService<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), config: Arc::clone(&self.config), memory: self.memory.clone() }
    }
}

impl<S> fmt::Debug for KernelGrpcService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelGrpcService").field("config", &self.config).finish_non_exhaustive()
    }
}
