use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use ::axum::extract::Request;
use ::axum::middleware::from_fn;
use ::axum::response::Response;
use ::axum::routing::{self, get, post};
use http::{Method, Uri};
use tower_layer::{Layer, Stack};
use tower_service::Service;

#[cfg(feature = "docs")]
use super::docs;
use super::openapi::{self, OpenApi, Security, SecurityScheme};
use super::outcomes::Outcomes;
use super::request_ids::RequestIdLayer;
use super::route::Route;
use super::unread::{drop_body, without_body};
use super::{DrainHandle, RouterConfig, cors, execute, health, kernels, metrics};
use crate::backends::Local;
use crate::error::{AnyError, ErrorKind};
#[cfg(feature = "hyper")]
use crate::hyper::Connections;
use crate::layers::{MetricsLayer, TimeoutLayer};
use crate::middleware::metrics::MetricsHandle;
use crate::pipeline::KernelSource;
use crate::pipeline::PipelineHandle;
use crate::request::request_id::RequestId;
use crate::servers::http::{Limits, Problem, limit_setters};
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// Default timeout of a request, including the wait for readiness.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Number of kernels with time series of their own.
const OPERATIONS: usize = 512;
/// Its maximum: each kernel has about thirty series, which Prometheus has to store.
const MOST_OPERATIONS: usize = 1024;

#[cfg(feature = "tls")]
type OptionalTls = Option<crate::servers::hyper::Tls>;
#[cfg(not(feature = "tls"))]
type OptionalTls = ();

/// Builds an [`axum::Router`](::axum::Router) for kernels, over any `Service<KernelRequest>`. The [module](super) lists
/// its routes.
pub struct KernelRouter<S = KernelService<Local>> {
    service: S,
    /// Metrics of the router, if the service has none.
    metrics: Option<MetricsHandle>,
    openapi: bool,
    security: Option<Security>,
    state: State,
}

/// State of the handlers, besides the service and its metrics.
pub(super) struct State {
    pub(super) registry: Arc<KernelRegistry>,
    pub(super) config: RouterConfig,
    pub(super) devices: Option<Local>,
    pub(super) drain: DrainHandle,
    pub(super) pipeline: Option<PipelineHandle>,
    pub(super) tls: OptionalTls,
    pub(super) limits: Limits,
    #[cfg(feature = "hyper")]
    pub(super) connections: Vec<(&'static str, Connections)>,
    pub(super) outcomes: Outcomes,
    pub(super) openapi: Arc<OpenApi>,
    pub(super) more_metrics: Vec<MoreMetrics>,
}

/// Returns further metrics as OpenMetrics text.
pub(super) type MoreMetrics = Box<dyn Fn() -> String + Send + Sync>;

impl KernelRouter {
    /// Creates a router over a [`KernelService`] with the devices of this machine, and no layers but metrics.
    ///
    /// # Panics
    /// If [`RouterConfig::check`] fails.
    #[track_caller]
    pub fn new(registry: impl Into<Arc<KernelRegistry>>, config: RouterConfig) -> Self {
        let service = KernelService::new(registry);
        Self::with_service(service.clone(), &service, config)
    }
}

impl<S> KernelRouter<S> {
    /// Creates a router over any service. `kernels` is the [`LocalPipeline`](crate::pipeline::LocalPipeline) or
    /// [`KernelService`] inside of it: the source of the list of kernels, the devices of `/health` and `/metrics`, and
    /// the readiness, and for a pipeline of its metrics, circuits and timeout.
    ///
    /// # Panics
    /// If [`RouterConfig::check`] fails.
    ///
    /// ```
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::backends::Local;
    /// use tower_kernels::pipeline::{PipelineConfig, PipelineLayer};
    /// use tower_kernels::service::KernelRegistry;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pipeline = PipelineLayer::new(KernelRegistry::new(), PipelineConfig::default())?.over(Local::detect());
    /// let router = KernelRouter::with_service(pipeline.clone(), &pipeline, RouterConfig::default());
    /// # let _: axum::Router = router.into_router();
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn with_service(service: S, kernels: &impl KernelSource, config: RouterConfig) -> Self {
        if let Err(error) = config.check() {
            panic!("RouterConfig::prefix: {error}");
        }
        let pipeline = kernels.pipeline();
        let timeout = pipeline.as_ref().map_or(TIMEOUT, |pipeline| pipeline.config().timeout);
        let state = State {
            registry: Arc::clone(kernels.registry()),
            limits: Limits::new(timeout, config.max_request_size),
            config,
            devices: kernels.devices().cloned(),
            drain: DrainHandle::default(),
            pipeline,
            tls: OptionalTls::default(),
            #[cfg(feature = "hyper")]
            connections: Vec::new(),
            outcomes: Outcomes::new(),
            openapi: Arc::default(),
            more_metrics: Vec::new(),
        };
        let metrics = state.pipeline.as_ref().map(PipelineHandle::metrics);
        Self { service, metrics, openapi: true, security: None, state }
    }

    limit_setters!(state.limits);

    /// Uses the metrics of a [`MetricsLayer`] of the service, instead of those of the router: for a service that is
    /// shared with other servers. Put a [`TimeoutLayer`] inside of the layer; otherwise calls that exceed their
    /// deadline are dropped and counted as `cancelled`, though their response is `deadline_exceeded`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower::ServiceBuilder;
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::layers::{MetricsLayer, TimeoutLayer};
    /// use tower_kernels::service::{KernelRegistry, KernelService};
    ///
    /// let kernels = KernelService::new(KernelRegistry::new());
    /// let metrics = MetricsLayer::new();
    /// let pipeline = ServiceBuilder::new()
    ///     .layer(metrics.clone())
    ///     .layer(TimeoutLayer::new(Duration::from_secs(30)))
    ///     .service(kernels.clone());
    /// let rest = KernelRouter::with_service(pipeline.clone(), &kernels, RouterConfig::default());
    /// let app = rest.metrics(metrics.handle()).into_router(); // and `pipeline` goes to gRPC as well
    /// ```
    #[must_use]
    pub fn metrics(mut self, metrics: MetricsHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Adds metrics of TLS: expiry and reloads of the certificate, and failed handshakes.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::servers::hyper::Tls) -> Self {
        self.state.tls = Some(tls);
        self
    }

    /// Adds metrics of the connections of a [`Server`](crate::hyper::Server), with this value of the label `listener`,
    /// which must be unique.
    #[cfg(feature = "hyper")]
    #[must_use]
    pub fn connections(mut self, listener: &'static str, connections: Connections) -> Self {
        self.state.connections.push((listener, connections));
        self
    }

    /// Adds further metrics to `/metrics`: `render` is called for each request to it, and returns OpenMetrics text.
    ///
    /// ```
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::layers::MetricsLayer;
    /// use tower_kernels::service::KernelRegistry;
    ///
    /// let shop = MetricsLayer::new().prefix("shop").handle();
    /// let router = KernelRouter::new(KernelRegistry::new(), RouterConfig::default())
    ///     .more_metrics(move || shop.render())
    ///     .more_metrics(|| "# HELP room_temperature Of the room.\n# TYPE room_temperature gauge\nroom_temperature 21\n".into());
    /// ```
    #[must_use]
    pub fn more_metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.state.more_metrics.push(Box::new(render));
        self
    }

    /// Enables `/openapi.json`, and `/docs` with the feature `docs`. Enabled by default. Disable them if the program
    /// has routes of its own at these paths.
    #[must_use]
    pub fn openapi(mut self, enabled: bool) -> Self {
        self.openapi = enabled;
        self
    }

    /// Describes authentication in the OpenAPI document, so that Swagger UI has a button for credentials. Clients use
    /// one of `schemes`. `exempt` returns whether a request needs none, as for
    /// [`AuthenticateLayer::exempt`](crate::layers::AuthenticateLayer::exempt).
    ///
    /// This changes the document only. Add the layer that authenticates with
    /// [`into_router_with`](Self::into_router_with).
    #[must_use]
    pub fn security(
        mut self,
        schemes: impl IntoIterator<Item = SecurityScheme>,
        exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.security = Some(Security::new(schemes, exempt));
        self
    }

    /// Returns the handle that marks the router as draining.
    pub fn drain_handle(&self) -> DrainHandle {
        self.state.drain.clone()
    }

    /// Builds the router. It has a fallback that responds with problem documents; to merge it with another router that
    /// has a fallback, call `reset_fallback` on one of them.
    pub fn into_router(self) -> Router
    where
        S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + Sync + 'static,
        S::Error: AnyError,
        S::Future: Send,
    {
        let cors_enabled = self.state.config.cors_enabled;
        let routes = self.routes();
        if cors_enabled { routes.layer(cors::layer()) } else { routes }
    }

    /// Builds the router inside of a layer, such as one that authenticates.
    ///
    /// Unlike for a layer around the [router](Self::into_router), responses of the layer have the `x-request-id` and
    /// the headers of CORS (if [`RouterConfig::cors_enabled`](super::RouterConfig)), and preflights do not reach it.
    ///
    /// ```
    /// use tower::ServiceBuilder;
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::layers::{ErrorResponseLayer, RateLimiterLayer};
    /// use tower_kernels::service::KernelRegistry;
    /// # use std::time::Duration;
    ///
    /// let config = RouterConfig { cors_enabled: true, ..RouterConfig::default() };
    /// let limited = ServiceBuilder::new()
    ///     .layer(ErrorResponseLayer::new())
    ///     .layer(RateLimiterLayer::new(100, Duration::from_secs(1)));
    /// let app = KernelRouter::new(KernelRegistry::new(), config).into_router_with(limited);
    /// # let _: axum::Router = app;
    /// ```
    pub fn into_router_with<L>(self, layer: L) -> Router
    where
        S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + Sync + 'static,
        S::Error: AnyError,
        S::Future: Send,
        L: Layer<routing::Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let cors_enabled = self.state.config.cors_enabled;
        let (routes, layer) = (self.routes(), Stack::new(layer, RequestIdLayer));
        // One layer, as each costs the router a box per request.
        if cors_enabled { routes.layer(Stack::new(layer, cors::layer())) } else { routes.layer(layer) }
    }

    fn routes(self) -> Router
    where
        S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + Sync + 'static,
        S::Error: AnyError,
        S::Future: Send,
    {
        let Self { service, metrics, openapi, security, mut state } = self;
        state.openapi = Arc::new(OpenApi::new(security));
        let routes: Vec<_> = Route::of(&state.config, openapi).collect();
        let Some(metrics) = metrics else {
            let layer = metrics_of(&state.registry);
            // The handler drops the call at the deadline. Without the timeout inside, metrics would count it as
            // cancelled.
            let service = layer.layer(TimeoutLayer::new(state.limits.timeout).layer(service));
            return Shared { service, metrics: layer.handle(), state }.into_routes(&routes);
        };
        Shared { service, metrics, state }.into_routes(&routes)
    }
}

/// Creates the metrics of these kernels.
fn metrics_of(registry: &KernelRegistry) -> MetricsLayer {
    let kernels = registry.list();
    // If not all can have series, the first that are called get them, not the first by id.
    let known = if kernels.len() <= MOST_OPERATIONS { &*kernels } else { &[] };
    MetricsLayer::new()
        .max_operations(kernels.len().clamp(OPERATIONS, MOST_OPERATIONS))
        .operations(known.iter().map(|kernel| &kernel.info().id))
}

impl<S> fmt::Debug for KernelRouter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metrics, openapi, state, .. } = self;
        let State { registry, config, devices, drain, pipeline, tls, limits, .. } = state;
        f.debug_struct("KernelRouter")
            .field("registry", registry)
            .field("config", config)
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

/// State of the handlers.
pub(super) struct Shared<S> {
    pub(super) service: S,
    pub(super) metrics: MetricsHandle,
    state: State,
}

impl<S> Deref for Shared<S> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl<S> Shared<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + Sync + 'static,
    S::Error: AnyError,
    S::Future: Send,
{
    fn into_routes(self, routes: &[Route]) -> Router {
        let config = self.config.clone();
        let add = |router: Router<Arc<Self>>, route: &Route| {
            // Routes without a request body discard it.
            let methods = match route {
                Route::Kernels => get(kernels::list).layer(from_fn(drop_body)),
                Route::Kernel => {
                    let describe = get(kernels::describe).layer(from_fn(drop_body));
                    describe.post(execute::of_input).fallback(kernels::other_method)
                }
                Route::Execute => post(execute::of_document),
                Route::Health => get(health::health).layer(from_fn(drop_body)),
                Route::Live => get(health::live).layer(from_fn(drop_body)),
                Route::Ready => get(health::ready).layer(from_fn(drop_body)),
                Route::Metrics => get(metrics::metrics).layer(from_fn(drop_body)),
                Route::OpenApi => get(openapi::openapi).layer(from_fn(drop_body)),
                #[cfg(feature = "docs")]
                Route::Docs => get(docs::docs).layer(from_fn(drop_body)),
                #[cfg(feature = "docs")]
                Route::DocsPage => get(docs::page).layer(from_fn(drop_body)),
                #[cfg(feature = "docs")]
                Route::DocsFile => get(docs::file).layer(from_fn(drop_body)),
            };
            router.route(&route.path(&config), methods)
        };
        let router = routes.iter().fold(Router::new(), add);
        let redirects_to_docs = routes.contains(&Route::OpenApi) && cfg!(feature = "docs");
        router
            .fallback(move |request: Request| not_found(request, redirects_to_docs))
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::new(self))
    }
}

/// The fallback. `/` redirects to the documentation here and not in a route, so that a router that is merged with this
/// one can have a route there.
#[cfg_attr(not(feature = "docs"), expect(unused_variables, reason = "for the documentation"))]
async fn not_found(request: Request, redirects_to_docs: bool) -> Response {
    without_body(request, |head| {
        let request_id = RequestId::from_headers(&head.headers);
        #[cfg(feature = "docs")]
        if redirects_to_docs && head.uri.path() == "/" && matches!(head.method, Method::GET | Method::HEAD) {
            return docs::from_root(&head.extensions, &request_id);
        }
        let problem = Problem::new(ErrorKind::NotFound, format!("nothing is at {}", head.uri.path()));
        problem.into_response(&request_id)
    })
    .await
}

/// axum adds the `Allow` header.
async fn method_not_allowed(request: Request) -> Response {
    without_body(request, |head| {
        let problem = Problem::no_such_method(format!("{} does not allow {}", head.uri.path(), head.method));
        problem.into_response(&RequestId::from_headers(&head.headers))
    })
    .await
}
