use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use serde::Serialize;
use tower_service::Service;
use tracing::Instrument;

use crate::backends::Local;
use crate::error::{AnyError, ErrorKind};
use crate::middleware::metrics::MetricsHandle;
use crate::middleware::tracing::RequestScope;
use crate::pipeline::KernelSource;
use crate::request::request_id::RequestId;
use crate::servers::http::{Limits, Problem, ResponseBody, Target, document, execute, limit_setters};
use crate::servers::unread_body::UnreadBody;
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// Serves a `Service<KernelRequest>` over REST as a hyper service. See the [module](super) for its routes.
///
/// Clones are cheap: use one per connection.
#[derive(Clone)]
pub struct KernelHttpService<S> {
    service: S,
    registry: Arc<KernelRegistry>,
    metrics: Option<MetricsHandle>,
    limits: Limits,
}

impl KernelHttpService<KernelService<Local>> {
    /// Creates a service over a [`KernelService`] with the devices of this machine, and no layers.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        let service = KernelService::new(registry);
        Self::with_service(service.clone(), &service)
    }
}

impl<S> KernelHttpService<S> {
    /// Creates a service over any service. `kernels` is the [`LocalPipeline`](crate::pipeline::LocalPipeline) or
    /// [`KernelService`] inside it: the source of the kernel list and, for a pipeline, of the metrics and the timeout.
    ///
    /// A service that records metrics itself needs a [`TimeoutLayer`](crate::layers::TimeoutLayer) inside its metrics
    /// layer. Without it a call that reaches its deadline is dropped, and is counted as `cancelled` although its client
    /// gets `deadline_exceeded`.
    pub fn with_service(service: S, kernels: &impl KernelSource) -> Self {
        let pipeline = kernels.pipeline();
        let timeout = pipeline.as_ref().map_or(Duration::from_secs(30), |pipeline| pipeline.config().timeout);
        let (registry, metrics) = (Arc::clone(kernels.registry()), pipeline.map(|pipeline| pipeline.metrics()));
        Self { service, registry, metrics, limits: Limits::new(timeout, 64 << 20) }
    }

    /// Sets the metrics of `GET /metrics`, in the [format](crate::middleware::metrics::Format) that the request
    /// prefers.
    #[must_use]
    pub fn metrics(mut self, metrics: MetricsHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    limit_setters!(limits);

    /// Sets the maximum size of a request body, in bytes. Default: 64 MiB.
    #[must_use]
    pub fn max_request_size(mut self, bytes: usize) -> Self {
        self.limits.max_request_size = bytes;
        self
    }
}

impl<S, B> ::hyper::service::Service<Request<B>> for KernelHttpService<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + 'static,
    S::Error: AnyError,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, request: Request<B>) -> ResponseFuture {
        let (mut parts, body) = request.into_parts();
        let request_id = RequestId::from_headers(&parts.headers);
        let span = RequestScope::enter_handler(&mut parts.extensions, request_id.as_str());
        let _entered = span.enter();
        let unread = UnreadBody::of(parts.version, &parts.headers);
        let respond_now = |response, body: B| {
            if body.is_end_stream() {
                return ResponseFuture::ready(response);
            }
            ResponseFuture::running(unread.finish(body, response))
        };
        let target = match self.route(&parts, &request_id) {
            Ok(Route::Respond(response)) => return respond_now(response, body),
            Ok(Route::Execute(target)) => target,
            Err(problem) => return respond_now(problem.into_response(&request_id), body),
        };
        let (service, limits) = (self.service.clone(), self.limits.clone());
        let response = async move {
            let mut body = pin!(body);
            match execute(service, &parts, &request_id, target, body.as_mut(), &limits).await {
                Ok(output) => output.into_response(&request_id),
                Err(problem) => unread.finish(body, problem.into_response(&request_id)).await,
            }
        };
        ResponseFuture::running(response.instrument(span.clone()))
    }
}

enum Route {
    Execute(Target),
    Respond(Response<ResponseBody>),
}

impl<S> KernelHttpService<S> {
    fn route(&self, parts: &Parts, request_id: &RequestId) -> Result<Route, Problem> {
        let (method, path) = (&parts.method, parts.uri.path());
        let response = if path == "/execute" {
            check_method(method, Method::POST)?;
            return Ok(Route::Execute(Target::Document));
        } else if let Some(id) = path.strip_prefix("/kernels/") {
            let to_run = id.strip_suffix("/execute");
            if let (Some(id), &Method::POST) = (to_run, method) {
                return Ok(Route::Execute(Target::Input(id.to_owned())));
            }
            let Some(description) = self.registry.describe(id) else {
                return Err(match to_run {
                    Some(_) => Problem::method_not_allowed("POST"),
                    None => Problem::new(ErrorKind::NotFound, format!("no kernel has the id `{id}`")),
                });
            };
            check_method(method, Method::GET)?;
            json(&description, request_id)?
        } else if path == "/kernels" {
            check_method(method, Method::GET)?;
            let kernels = self.registry.list();
            json(&kernels.iter().map(|kernel| kernel.info()).collect::<Vec<_>>(), request_id)?
        } else if let ("/metrics", Some(metrics)) = (path, &self.metrics) {
            check_method(method, Method::GET)?;
            let mut response = metrics.respond(&parts.headers).map(ResponseBody::from);
            response.headers_mut().insert(RequestId::HEADER, request_id.value().clone());
            response
        } else {
            return Err(Problem::new(ErrorKind::NotFound, format!("no route for {path}")));
        };
        Ok(Route::Respond(response))
    }
}

/// Checks the method. HEAD is allowed where GET is: hyper omits the body.
fn check_method(method: &Method, expected: Method) -> Result<(), Problem> {
    let is_get = expected == Method::GET;
    if *method == expected || (is_get && method == Method::HEAD) {
        return Ok(());
    }
    Err(Problem::method_not_allowed(if is_get { "GET, HEAD" } else { "POST" }))
}

fn json(value: &impl Serialize, request_id: &RequestId) -> Result<Response<ResponseBody>, Problem> {
    match serde_json::to_vec(value) {
        Ok(body) => Ok(document(StatusCode::OK, "application/json", body.into(), request_id)),
        Err(error) => Err(Problem::new(ErrorKind::Internal, error.to_string())),
    }
}

impl<S: fmt::Debug> fmt::Debug for KernelHttpService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelHttpService")
            .field("service", &self.service)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Response future of a [`KernelHttpService`]. Dropping it cancels the work.
pub struct ResponseFuture {
    state: State,
}

enum State {
    /// The response of a request that needs no kernel.
    Ready(Ready<Response<ResponseBody>>),
    /// Boxed, as every connection stores a future and that of a whole stack is large.
    Running(Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>),
}

impl ResponseFuture {
    fn ready(response: Response<ResponseBody>) -> Self {
        Self { state: State::Ready(ready(response)) }
    }

    fn running(future: impl Future<Output = Response<ResponseBody>> + Send + 'static) -> Self {
        Self { state: State::Running(Box::pin(future)) }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Ready(ready) => Pin::new(ready).poll(cx),
            State::Running(future) => future.as_mut().poll(cx),
        }
        .map(Ok)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ready(_) => "ready",
            State::Running(_) => "running",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish()
    }
}
