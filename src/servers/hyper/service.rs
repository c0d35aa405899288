use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::backends::Local;
use crate::error::AnyError;
use crate::middleware::metrics::MetricsHandle;
use crate::pipeline::KernelSource;
use crate::servers::http::{ResponseBody, ResponseFuture, Rest, RestState, RouterConfig, rest_setters};
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// Default maximum size of a request body: 64 MiB.
const MAX_REQUEST_SIZE: usize = 64 << 20;

/// Serves a `Service<KernelRequest>` over REST as a hyper service. See the [module](super) for its routes.
///
/// Clones are cheap: use one per connection.
#[derive(Clone)]
pub struct KernelHttpService<S> {
    rest: Rest<S>,
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
        let config = RouterConfig { max_request_size: MAX_REQUEST_SIZE, ..RouterConfig::default() };
        Self { rest: Rest::new(service, RestState::new(kernels, config)) }
    }

    rest_setters!();

    /// Sets the metrics of `GET /metrics`, in the [format](crate::middleware::metrics::Format) that the request
    /// prefers.
    #[must_use]
    pub fn metrics(mut self, metrics: MetricsHandle) -> Self {
        self.state_mut().metrics = Some(metrics);
        self
    }

    /// Sets the maximum size of a request body, in bytes. Default: 64 MiB.
    #[must_use]
    pub fn max_request_size(mut self, bytes: usize) -> Self {
        self.state_mut().limits.max_request_size = bytes;
        self
    }

    fn state(&self) -> &RestState {
        &self.rest.state
    }

    /// The state of this service, which clones made before do not see.
    fn state_mut(&mut self) -> &mut RestState {
        Arc::make_mut(&mut self.rest.state)
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
        ResponseFuture::new(self.rest.clone().respond(request))
    }
}

impl<S: fmt::Debug> fmt::Debug for KernelHttpService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelHttpService").field("rest", &self.rest).finish()
    }
}
