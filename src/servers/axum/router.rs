use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use ::axum::response::Response;
use ::axum::routing::{get, post};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Uri};
use prometheus_client::registry::Registry;
use tower_http::cors::{Any, CorsLayer};
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "docs")]
use super::docs;
use super::openapi::{self, OpenApi};
use super::outcomes::Outcomes;
use super::route::Route;
use super::{DrainHandle, RouterConfig, execute, health, kernels, metrics};
use crate::backends::Local;
use crate::error::{Classify, ErrorKind};
#[cfg(feature = "hyper")]
use crate::hyper::Connections;
use crate::layers::{MetricsLayer, TimeoutLayer};
use crate::middleware::metrics::MetricsHandle;
use crate::pipeline::PipelineHandle;
use crate::servers::http::{HEAD_LENGTH, Limits, Problem, RequestId};
use crate::service::{HostMemory, KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// The most that a request may take, its wait for a place to run included, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many kernels have time series of their own, where there are no more.
const OPERATIONS: usize = 512;
/// The most that ever have: each has some thirty series, and what scrapes them has to hold them all.
const MOST_OPERATIONS: usize = 1024;

#[cfg(feature = "tls")]
type OptionalTls = Option<crate::servers::hyper::Tls>;
#[cfg(not(feature = "tls"))]
type OptionalTls = ();

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
    pipeline: Option<PipelineHandle>,
    tls: OptionalTls,
    limits: Limits,
    #[cfg(feature = "hyper")]
    connections: Vec<(&'static str, Connections)>,
    openapi: bool,
    more_metrics: Vec<MoreMetrics>,
}

/// Adds metrics to a page.
pub(super) type MoreMetrics = Box<dyn Fn(&mut Registry) + Send + Sync>;

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
        let limits = Limits::new(config.max_request_size);
        Self {
            service,
            registry,
            config,
            timeout: TIMEOUT,
            devices: None,
            drain,
            metrics: None,
            pipeline: None,
            tls: OptionalTls::default(),
            limits,
            #[cfg(feature = "hyper")]
            connections: Vec::new(),
            openapi: true,
            more_metrics: Vec::new(),
        }
    }

    /// Sets the most that a request may take, from its arrival to its answer; 30 s where nothing is said. Clients may
    /// ask for less.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the most bytes that the output of a request may have in its encoded form; 64 MiB where nothing is said. A
    /// larger one is refused before the run where the kernel's [footprint](crate::service::Kernel::footprint) tells, and
    /// as soon as it is too long where it does not.
    #[must_use]
    pub fn max_response_size(mut self, bytes: u64) -> Self {
        self.limits.max_response_size = bytes;
        self
    }

    /// Limits the memory that requests hold at one time: the same for all servers that are given clones. Without it there
    /// is no limit but on each of them.
    #[must_use]
    pub fn memory(mut self, memory: HostMemory) -> Self {
        self.limits.memory = memory;
        self
    }

    /// Lets `/health` and `/health/ready` look at these devices: those that the service runs on.
    #[must_use]
    pub fn devices(mut self, devices: Local) -> Self {
        self.devices = Some(devices);
        self
    }

    /// Shows these figures on `/metrics`, and counts nothing of its own: for a service with a [`MetricsLayer`] around it,
    /// whose calls come from elsewhere too. Have a [`TimeoutLayer`] inside of it: without one a call is dropped when its
    /// time is up, and counts as `cancelled` where its caller is told `deadline_exceeded`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use tower::ServiceBuilder;
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::layers::{MetricsLayer, TimeoutLayer};
    /// use tower_kernels::service::{KernelRegistry, KernelService};
    ///
    /// let registry = Arc::new(KernelRegistry::new());
    /// let metrics = MetricsLayer::new();
    /// let pipeline = ServiceBuilder::new()
    ///     .layer(metrics.clone())
    ///     .layer(TimeoutLayer::new(Duration::from_secs(30)))
    ///     .service(KernelService::new(Arc::clone(&registry)));
    /// let rest = KernelRouter::with_service(pipeline.clone(), registry, RouterConfig::default());
    /// let app = rest.metrics(metrics.handle()).into_router(); // and `pipeline` goes to gRPC as well
    /// ```
    #[must_use]
    pub fn metrics(mut self, metrics: MetricsHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Shows the figures of a [`PipelineLayer`](crate::pipeline::PipelineLayer) on `/metrics`, in place of
    /// [`metrics`](Self::metrics), and on `/health` the circuits that are not closed.
    #[must_use]
    pub fn pipeline(mut self, pipeline: PipelineHandle) -> Self {
        self.metrics = Some(pipeline.metrics());
        self.pipeline = Some(pipeline);
        self
    }

    /// Shows on `/metrics` when the certificate of a server expires, how often it was replaced, and handshakes that failed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::servers::hyper::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Shows the figures of a listener's connections on `/metrics`, under this name: those of a
    /// [`Server`](crate::hyper::Server). Each listener has a name of its own.
    #[cfg(feature = "hyper")]
    #[must_use]
    pub fn connections(mut self, listener: &'static str, connections: Connections) -> Self {
        self.connections.push((listener, connections));
        self
    }

    /// Shows metrics of your own on `/metrics` as well: `register` adds them each time that the page is asked for.
    ///
    /// ```
    /// use prometheus_client::metrics::gauge::Gauge;
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::service::KernelRegistry;
    ///
    /// let temperature: Gauge = Gauge::default();
    /// let router = KernelRouter::new(KernelRegistry::new(), RouterConfig::default())
    ///     .more_metrics(move |page| page.register("room_temperature", "Of the room", temperature.clone()));
    /// ```
    #[must_use]
    pub fn more_metrics(mut self, register: impl Fn(&mut Registry) + Send + Sync + 'static) -> Self {
        self.more_metrics.push(Box::new(register));
        self
    }

    /// Whether there is `/openapi.json`, and `/docs` with the feature `docs`: yes where nothing is said. Both are at the
    /// root, as `/health` is, and a program that has its own there turns these off.
    #[must_use]
    pub fn openapi(mut self, enabled: bool) -> Self {
        self.openapi = enabled;
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
        let Self { service, registry, config, timeout, devices, drain, metrics, .. } = self;
        let (pipeline, tls, limits, openapi, more_metrics) =
            (self.pipeline, self.tls, self.limits, self.openapi, self.more_metrics);
        #[cfg(feature = "hyper")]
        let connections = self.connections;
        let routes: Vec<_> = Route::of(&config, openapi).collect();
        let (outcomes, openapi) = (Outcomes::new(), Arc::default());
        if let Some(metrics) = metrics {
            return Shared {
                service,
                registry,
                config,
                timeout,
                devices,
                drain,
                metrics,
                pipeline,
                tls,
                limits,
                #[cfg(feature = "hyper")]
                connections,
                outcomes,
                openapi,
                more_metrics,
            }
            .into_router(&routes);
        }
        let kernels = registry.list();
        // Where not all can have series, those that are called first get them, and not those that come first by id.
        let known = if kernels.len() <= MOST_OPERATIONS { &*kernels } else { &[] };
        let layer = MetricsLayer::new()
            .max_operations(kernels.len().clamp(OPERATIONS, MOST_OPERATIONS))
            .operations(known.iter().map(|kernel| &kernel.info().id));
        // The wait for the answer ends at the deadline, and with it the call: where nothing below the metrics notices
        // that first, it is counted as one that its caller has left.
        let (metrics, service) = (layer.handle(), layer.layer(TimeoutLayer::new(timeout).layer(service)));
        Shared {
            service,
            registry,
            config,
            timeout,
            devices,
            drain,
            metrics,
            pipeline,
            tls,
            limits,
            #[cfg(feature = "hyper")]
            connections,
            outcomes,
            openapi,
            more_metrics,
        }
        .into_router(&routes)
    }
}

impl<S> fmt::Debug for KernelRouter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, config, timeout, devices, drain, metrics, pipeline, tls, limits, openapi, .. } = self;
        f.debug_struct("KernelRouter")
            .field("registry", registry)
            .field("config", config)
            .field("timeout", timeout)
            .field("devices", devices)
            .field("drain", drain)
            .field("metrics", metrics)
            .field("pipeline", pipeline)
            .field("tls", tls)
            .field("limits", limits)
            .field("openapi", openapi)
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
    pub(super) pipeline: Option<PipelineHandle>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "there is nothing to show"))]
    pub(super) tls: OptionalTls,
    pub(super) limits: Limits,
    #[cfg(feature = "hyper")]
    pub(super) connections: Vec<(&'static str, Connections)>,
    pub(super) outcomes: Outcomes,
    pub(super) openapi: Arc<OpenApi>,
    pub(super) more_metrics: Vec<MoreMetrics>,
}

impl<S> Shared<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + Sync + 'static,
    S::Error: Classify + Error + 'static,
    S::Future: Send,
{
    fn into_router(self, routes: &[Route]) -> Router {
        let config = self.config.clone();
        let add = |router: Router<Arc<Self>>, route: &Route| {
            let methods = match route {
                Route::Kernels => get(kernels::list),
                Route::Kernel => get(kernels::describe).post(execute::of_input).fallback(kernels::other_method),
                Route::Execute => post(execute::of_document),
                Route::Health => get(health::health),
                Route::Live => get(health::live),
                Route::Ready => get(health::ready),
                Route::Metrics => get(metrics::metrics),
                Route::OpenApi => get(openapi::openapi),
                #[cfg(feature = "docs")]
                Route::Docs => get(docs::docs),
                #[cfg(feature = "docs")]
                Route::DocsPage => get(docs::page),
                #[cfg(feature = "docs")]
                Route::DocsFile => get(docs::file),
            };
            router.route(&route.path(&config), methods)
        };
        let router = routes.iter().fold(Router::new(), add);
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
        .expose_headers([RequestId::HEADER, RETRY_AFTER, HEAD_LENGTH])
        .max_age(Duration::from_secs(3600))
}

async fn not_found(uri: Uri, headers: HeaderMap) -> Response {
    let problem = Problem::new(ErrorKind::NotFound, format!("nothing is at {}", uri.path()));
    problem.into_response(&RequestId::of(&headers))
}

/// axum itself says in `Allow` which methods the path takes.
async fn method_not_allowed(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    Problem::no_such_method(format!("{} takes no {method}", uri.path())).into_response(&RequestId::of(&headers))
}
