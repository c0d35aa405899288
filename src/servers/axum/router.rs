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
use prometheus_client::registry::Registry;
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
use crate::servers::http::{Limits, Problem, RequestId, limit_setters};
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

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
pub struct KernelRouter<S = KernelService<Local>> {
    service: S,
    /// Where the service does not count its calls, the router does.
    metrics: Option<MetricsHandle>,
    openapi: bool,
    security: Option<Security>,
    state: State,
}

/// What all handlers share beside the service and its metrics.
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

/// Adds metrics to a page.
pub(super) type MoreMetrics = Box<dyn Fn(&mut Registry) + Send + Sync>;

impl KernelRouter {
    /// Over a [`KernelService`] on what this machine has, with no layers but the metrics.
    ///
    /// # Panics
    /// Where [`RouterConfig::check`] fails: the prefix is not the beginning of a path.
    #[track_caller]
    pub fn new(registry: impl Into<Arc<KernelRegistry>>, config: RouterConfig) -> Self {
        let service = KernelService::new(registry);
        Self::with_service(service.clone(), &service, config)
    }
}

impl<S> KernelRouter<S> {
    /// Over a service of your own, around these `kernels`: a [`LocalPipeline`](crate::pipeline::LocalPipeline) or a
    /// [`KernelService`]. From them come the list of kernels, the devices on `/health` and `/metrics`, and the readiness; of a
    /// pipeline its metrics, its circuits and its timeout as well.
    ///
    /// # Panics
    /// Where [`RouterConfig::check`] fails: the prefix is not the beginning of a path.
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

    /// Shows these figures on `/metrics`, and counts nothing of its own: for a service with a [`MetricsLayer`] around it,
    /// whose calls come from elsewhere too. Have a [`TimeoutLayer`] inside of it: without one a call is dropped when its
    /// time is up, and counts as `cancelled` where its caller is told `deadline_exceeded`.
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

    /// Shows on `/metrics` when the certificate of a server expires, how often it was replaced, and handshakes that failed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::servers::hyper::Tls) -> Self {
        self.state.tls = Some(tls);
        self
    }

    /// Shows the figures of a listener's connections on `/metrics`, under this name: those of a
    /// [`Server`](crate::hyper::Server). Each listener has a name of its own.
    #[cfg(feature = "hyper")]
    #[must_use]
    pub fn connections(mut self, listener: &'static str, connections: Connections) -> Self {
        self.state.connections.push((listener, connections));
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
        self.state.more_metrics.push(Box::new(register));
        self
    }

    /// Whether there is `/openapi.json`, and `/docs` with the feature `docs`: yes where nothing is said. Both are at the
    /// root, as `/health` is, and a program that has its own there turns these off.
    #[must_use]
    pub fn openapi(mut self, enabled: bool) -> Self {
        self.openapi = enabled;
        self
    }

    /// Says in the OpenAPI document how clients authenticate, so that its page has a button for their credentials: any one
    /// of `schemes` will do. `exempt` says which requests need none, as it says to
    /// [`AuthenticateLayer::exempt`](crate::layers::AuthenticateLayer::exempt).
    ///
    /// It is the document alone that this changes. What checks the credentials goes around the routes:
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

    /// What says, later, that the server is draining.
    pub fn drain_handle(&self) -> DrainHandle {
        self.state.drain.clone()
    }

    /// The routes. It has a fallback of its own, so that what is not found is a problem document too; to merge it with
    /// another router that has one, call `reset_fallback` on either.
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

    /// The routes inside of a layer that may answer in their place, such as one that authenticates.
    ///
    /// A layer around the [router](Self::into_router) would do, but for what is around the layer here: its responses name
    /// the request, in `x-request-id` and in their problem documents, and scripts of other origins may read them where
    /// [`RouterConfig::cors_enabled`](super::RouterConfig) lets them in; their preflights need no credentials.
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
        // One layer for the router, for which each costs a box a request.
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
            // The wait for the answer ends at the deadline, and with it the call: where nothing below the metrics notices
            // that first, it is counted as one that its caller has left.
            let service = layer.layer(TimeoutLayer::new(state.limits.timeout).layer(service));
            return Shared { service, metrics: layer.handle(), state }.into_routes(&routes);
        };
        Shared { service, metrics, state }.into_routes(&routes)
    }
}

/// Metrics for these kernels.
fn metrics_of(registry: &KernelRegistry) -> MetricsLayer {
    let kernels = registry.list();
    // Where not all can have series, those that are called first get them, and not those that come first by id.
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

/// What all handlers share.
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
            // Those that need no body deal with one all the same.
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
        let leads_to_docs = routes.contains(&Route::OpenApi) && cfg!(feature = "docs");
        router
            .fallback(move |request: Request| not_found(request, leads_to_docs))
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::new(self))
    }
}

/// What no route takes. `/` leads to the page of the documentation: no route, so that a router that is merged with this
/// one can have its own.
#[cfg_attr(not(feature = "docs"), expect(unused_variables, reason = "there is no page"))]
async fn not_found(request: Request, leads_to_docs: bool) -> Response {
    without_body(request, |head| {
        let request_id = RequestId::of(&head.headers);
        #[cfg(feature = "docs")]
        if leads_to_docs && head.uri.path() == "/" && matches!(head.method, Method::GET | Method::HEAD) {
            return docs::from_root(&head.extensions, &request_id);
        }
        let problem = Problem::new(ErrorKind::NotFound, format!("nothing is at {}", head.uri.path()));
        problem.into_response(&request_id)
    })
    .await
}

/// axum itself says in `Allow` which methods the path takes.
async fn method_not_allowed(request: Request) -> Response {
    without_body(request, |head| {
        let problem = Problem::no_such_method(format!("{} takes no {}", head.uri.path(), head.method));
        problem.into_response(&RequestId::of(&head.headers))
    })
    .await
}
