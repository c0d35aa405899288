use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use ::axum::Router;
use ::axum::body::Body as AxumBody;
use ::axum::extract::NestedPath;
use ::axum::routing::{self, any};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::util::MapFutureLayer;
use tower_layer::{Layer, Stack};
use tower_service::Service;

use super::request_ids::RequestIdLayer;
use super::{KernelRoutes, RouterConfig, cors};
use crate::backends::Local;
use crate::error::AnyError;
use crate::layers::{MetricsLayer, OptionalLayer, TimeoutLayer};
use crate::middleware::metrics::MetricsHandle;
use crate::pipeline::KernelSource;
use crate::servers::http::{MountPath, ResponseBody, Rest, RestService, RestState, enabled_operations, rest_setters};
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// Number of kernels with time series of their own.
const OPERATIONS: usize = 512;
/// Its maximum: each kernel has about thirty series, which Prometheus has to store.
const MOST_OPERATIONS: usize = 1024;

/// Builds an [`axum::Router`](::axum::Router) for kernels, over any `Service<KernelRequest>`. The [module](super) lists
/// its routes.
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
pub struct KernelRouter<S = KernelService<Local>> {
    service: S,
    state: RestState,
}

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
        Self { service, state: RestState::new(kernels, config) }
    }

    rest_setters!();

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
        self.state.metrics = Some(metrics);
        self
    }

    fn state(&self) -> &RestState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut RestState {
        &mut self.state
    }

    /// Builds the router. It has a fallback that responds with problem documents; to merge it with another router that
    /// has a fallback, call `reset_fallback` on one of them.
    pub fn into_router(self) -> Router
    where
        S: Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let cors_enabled = self.state.config.cors_enabled;
        let routes = self.routes();
        let router = if cors_enabled { routes.layer(cors::layer()) } else { routes };
        prepared(router)
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
        S: Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        L: Layer<routing::Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request<AxumBody>, Response = Response<AxumBody>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request<AxumBody>>>::Future: Send + 'static,
    {
        let cors_enabled = self.state.config.cors_enabled;
        let request_ids = RequestIdLayer::new(&self.state);
        let (routes, layer) = (self.routes(), Stack::new(layer, request_ids));
        // One layer, as each costs the router a box per request.
        let router = if cors_enabled { routes.layer(Stack::new(layer, cors::layer())) } else { routes.layer(layer) };
        prepared(router)
    }

    /// Builds a service of the routes alone, inside of a layer if there is one, as by
    /// [`into_router_with`](Self::into_router_with).
    ///
    /// It responds as the router does, in fewer instructions: axum would match the path and box the future once more.
    /// It is for servers that have no other routes. Metrics are those of [`metrics`](Self::metrics) or of a pipeline; it
    /// adds none.
    ///
    /// ```
    /// use tower_kernels::axum::{KernelRouter, RouterConfig};
    /// use tower_kernels::layers::{ErrorResponseLayer, RateLimiterLayer};
    /// use tower_kernels::service::KernelRegistry;
    /// use tower::{ServiceBuilder, ServiceExt};
    /// # use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let limited = ServiceBuilder::new()
    ///     .layer(ErrorResponseLayer::new())
    ///     .layer(RateLimiterLayer::new(100, Duration::from_secs(1)))
    ///     .into_inner();
    /// let router = KernelRouter::new(KernelRegistry::new(), RouterConfig::default());
    /// let service = router.into_service(Some(limited));
    /// let request = http::Request::get("/health/live").body(axum::body::Body::empty()).unwrap();
    /// assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    /// # }
    /// ```
    pub fn into_service<L, B>(
        self,
        layer: Option<L>,
    ) -> impl Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
    where
        S: Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
        L: Layer<KernelRoutes<S>>,
        L::Service: Service<Request<B>, Response = Response<ResponseBody>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let Self { service, state } = self;
        // Their futures are boxed, so that requests that pass none of them do not carry space for them.
        let cors = state.config.cors_enabled.then(|| Stack::new(cors::layer(), MapFutureLayer::new(Box::pin)));
        let request_ids = RequestIdLayer::new(&state);
        let layer = layer.map(|layer| Stack::new(Stack::new(layer, request_ids), MapFutureLayer::new(Box::pin)));
        let routes = KernelRoutes::new(Rest::new(service, state));
        OptionalLayer::new(cors).layer(OptionalLayer::new(layer).layer(routes))
    }

    fn routes(self) -> Router
    where
        S: RestService + Sync,
    {
        let Self { service, mut state } = self;
        if state.metrics.is_some() {
            return routes(Rest::new(service, state));
        }
        let layer = metrics_of(&state.registry);
        state.metrics = Some(layer.handle());
        // The handler drops the call at the deadline. Without the timeout inside, metrics would count it as cancelled.
        let service = layer.layer(TimeoutLayer::new(state.limits.timeout).layer(service));
        routes(Rest::new(service, state))
    }
}

/// Adds the path of each operation to a router. All methods of a path have one handler, as do all other paths, so that
/// axum writes no response of its own.
fn routes<S: RestService + Sync>(rest: Rest<S>) -> Router {
    let operations = enabled_operations(&rest.state);
    let paths: BTreeSet<_> = operations.map(|operation| axum_path(operation.full_path(&rest.state.config))).collect();
    // axum clones a handler several times for a request.
    let rest = Arc::new(rest);
    let handler = move |request: Request<AxumBody>| respond(rest, request);
    // `/` is left to the fallback, so that a router that is merged with this one can have a route there.
    let paths = paths.into_iter().filter(|path| path != "/");
    let router = paths.fold(Router::new(), |router, path| router.route(&path, any(handler.clone())));
    router.fallback(handler)
}

/// Makes services of the handlers now. axum does so for each request to a router that was never given a state, unless
/// `axum::serve` serves it.
fn prepared(router: Router) -> Router {
    router.with_state(())
}

/// The path of a route in axum's form, where nothing can follow a parameter of several segments.
fn axum_path(path: String) -> String {
    match path.split_once("{*") {
        Some((before, parameter)) => {
            let name = parameter.split('}').next().unwrap_or_default();
            format!("{before}{{*{name}}}")
        }
        None => path,
    }
}

async fn respond<S: RestService>(rest: Arc<Rest<S>>, mut request: Request<AxumBody>) -> Response<AxumBody> {
    if request.uri().path() == "/"
        && let Some(path) = request.extensions().get::<NestedPath>().map(|path| path.as_str().to_owned())
    {
        request.extensions_mut().insert(MountPath(path));
    }
    Rest::clone(&rest).respond(request).await.map(AxumBody::new)
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
        f.debug_struct("KernelRouter").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axum_path_ends_with_a_parameter_of_several_segments() {
        for (path, expected) in [
            ("/kernels", "/kernels"),
            ("/docs/{file}", "/docs/{file}"),
            ("/api/kernels/{*id}", "/api/kernels/{*id}"),
            ("/api/kernels/{*id}/execute", "/api/kernels/{*id}"),
        ] {
            assert_eq!(axum_path(path.to_owned()), expected);
        }
    }

    #[test]
    #[should_panic = "RouterConfig::prefix: \"/*p\" is not the beginning of a path"]
    fn a_router_is_not_made_with_a_prefix_that_nobody_could_ask_for() {
        let config = RouterConfig { prefix: "/*p".to_owned(), ..RouterConfig::default() };
        drop(KernelRouter::new(KernelRegistry::new(), config));
    }
}
