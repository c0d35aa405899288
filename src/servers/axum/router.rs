use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use ::axum::response::Response;
use ::axum::routing::{get, post};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode, Uri};
use tower_http::cors::{Any, CorsLayer};
use tower_layer::Layer;
use tower_service::Service;

use super::outcomes::Outcomes;
use super::{DrainHandle, RouterConfig, execute, health, kernels, metrics};
use crate::backends::Local;
use crate::error::{Classify, ErrorKind};
use crate::layers::MetricsLayer;
use crate::layers::metrics::MetricsHandle;
use crate::servers::http::{Problem, RequestId};
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// The most that a request may take, its wait for a place to run included, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many kernels have time series of their own, where there are no more.
const OPERATIONS: usize = 512;

/// Makes an [`axum::Router`](::axum::Router) over kernels, or over any service that takes requests for them. See the
/// [module](super) for its routes.
pub struct KernelRouter<S = KernelService> {
    service: S,
    registry: Arc<KernelRegistry>,
    config: RouterConfig,
    timeout: Duration,
    devices: Option<Local>,
    drain: DrainHandle,
    metrics: Option<MetricsHandle>,
}

impl KernelRouter {
    /// Over a [`KernelService`] on what this machine has, with no layers but the metrics.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>, config: RouterConfig) -> Self {
        let service = KernelService::new(registry);
        let (registry, devices) = (Arc::clone(service.registry()), service.backend().clone());
        Self::with_service(service, registry, config).devices(devices)
    }
}

impl<S> KernelRouter<S> {
    /// Over a pipeline of your own. The registry is what `/kernels` shows, so let it be the one of the service within.
    pub fn with_service(service: S, registry: impl Into<Arc<KernelRegistry>>, config: RouterConfig) -> Self {
        let (registry, drain) = (registry.into(), DrainHandle::default());
        Self { service, registry, config, timeout: TIMEOUT, devices: None, drain, metrics: None }
    }

    /// Sets the most that a request may take, from its arrival to its answer; 30 s where nothing is said. Clients may
    /// ask for less.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets `/health` and `/health/ready` look at these devices: those that the service runs on.
    #[must_use]
    pub fn devices(mut self, devices: Local) -> Self {
        self.devices = Some(devices);
        self
    }

    /// Shows these figures on `/metrics`, and counts nothing of its own: for a service with a [`MetricsLayer`] around it,
    /// whose calls come from elsewhere too.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower::ServiceBuilder;
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::layers::MetricsLayer;
    /// use tower_kernels::service::{KernelRegistry, KernelService};
    ///
    /// let registry = Arc::new(KernelRegistry::new());
    /// let metrics = MetricsLayer::new();
    /// let pipeline = ServiceBuilder::new().layer(metrics.clone()).service(KernelService::new(Arc::clone(&registry)));
    /// let rest = KernelRouter::with_service(pipeline.clone(), registry, RouterConfig::default());
    /// let app = rest.metrics(metrics.handle()).into_router(); // and `pipeline` goes to gRPC as well
    /// ```
    #[must_use]
    pub fn metrics(mut self, metrics: MetricsHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// What says, later, that the server is draining.
    pub fn drain_handle(&self) -> DrainHandle {
        self.drain.clone()
    }

    /// The routes. It has a fallback of its own, so that what is not found is a problem document too; to merge it with
    /// another router that has one, call `reset_fallback` on either.
    pub fn into_router(self) -> Router
    where
        S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + Sync + 'static,
        S::Error: Classify + Error + 'static,
        S::Future: Send,
    {
        let Self { service, registry, config, timeout, devices, drain, metrics } = self;
        let outcomes = Outcomes::new();
        if let Some(metrics) = metrics {
            return Shared { service, registry, config, timeout, devices, drain, metrics, outcomes }.into_router();
        }
        let layer = MetricsLayer::new()
            .max_operations(registry.len().max(OPERATIONS))
            .operations(registry.list().iter().map(|kernel| kernel.info().id.clone()));
        let (metrics, service) = (layer.handle(), layer.layer(service));
        Shared { service, registry, config, timeout, devices, drain, metrics, outcomes }.into_router()
    }
}

impl<S> fmt::Debug for KernelRouter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service: _, registry, config, timeout, devices, drain, metrics } = self;
        f.debug_struct("KernelRouter")
            .field("registry", registry)
            .field("config", config)
            .field("timeout", timeout)
            .field("devices", devices)
            .field("drain", drain)
            .field("metrics", metrics)
            .finish_non_exhaustive()
    }
}

/// What all handlers share.
pub(super) struct Shared<S> {
    pub(super) service: S,
    pub(super) registry: Arc<KernelRegistry>,
    pub(super) config: RouterConfig,
    pub(super) timeout: Duration,
    pub(super) devices: Option<Local>,
    pub(super) drain: DrainHandle,
    pub(super) metrics: MetricsHandle,
    pub(super) outcomes: Outcomes,
}

impl<S> Shared<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + Sync + 'static,
    S::Error: Classify + Error + 'static,
    S::Future: Send,
{
    fn into_router(self) -> Router {
        let config = self.config.clone();
        let mut router = Router::new()
            .route(&config.path("/kernels"), get(kernels::list))
            // An id holds slashes, so it takes the rest of the path, and with it what is done with the kernel.
            .route(&config.path("/kernels/{*path}"), get(kernels::describe).post(execute::of_input))
            .route(&config.path("/execute"), post(execute::of_document));
        if config.enable_health {
            router = router
                .route("/health", get(health::health))
                .route("/health/live", get(health::live))
                .route("/health/ready", get(health::ready));
        }
        if config.enable_metrics {
            router = router.route("/metrics", get(metrics::metrics));
        }
        let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
        let router = router.with_state(Arc::new(self));
        if config.cors_enabled { router.layer(cors()) } else { router }
    }
}

/// No credentials go with calls from other origins, so any may be let in.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(Any)
        .expose_headers([RequestId::HEADER, RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}

async fn not_found(uri: Uri, headers: HeaderMap) -> Response {
    let problem = Problem::new(ErrorKind::NotFound, format!("nothing is at {}", uri.path()));
    problem.into_response(&RequestId::of(&headers))
}

/// axum itself says in `Allow` which methods the path takes.
async fn method_not_allowed(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let detail = format!("{} takes no {method}", uri.path());
    Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", ErrorKind::InvalidArgument, detail)
        .into_response(&RequestId::of(&headers))
}
