use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::BoxError;
use tower::load::Load;
use tower_service::Service;

use super::backend::PipelineBackend;
use super::error::{self, PipelineError};
use super::future::PipelineFuture;
use super::handle::PipelineHandle;
use super::layer::PipelineLayer;
use super::source::KernelSource;
use super::tenants::Tenants;
use crate::backends::Local;
use crate::error::AnyError;
#[cfg(feature = "cache")]
use crate::middleware::cache::{Cache, Store};
use crate::middleware::circuit_breaker::{CircuitBreaker, PerOperation};
use crate::middleware::coalesce::{Coalesce, Flights};
use crate::middleware::concurrency::ConcurrencyLimit;
use crate::middleware::load_shed::{LoadShed, Predicted};
use crate::middleware::metrics::Metrics;
use crate::middleware::optional::Optional;
use crate::middleware::priority_queue::PriorityQueue;
use crate::middleware::rate_limit::{ByTenant, PerKey, RateLimiter};
use crate::middleware::retry::Retry;
use crate::middleware::timeout::Timeout;
use crate::middleware::tracing::Tracing;
use crate::service::{KernelCacheKey, KernelRegistry, KernelRequest, KernelResponse, KernelService, OwnedKernelKey};

/// Returns whether a request may be retried.
pub(super) type IsIdempotent = Box<dyn Fn(&KernelRequest) -> bool + Send + Sync>;
/// The rate limits of tenants.
pub(super) type TenantLimits = PerKey<Arc<str>, ByTenant>;
/// The cached responses.
#[cfg(feature = "cache")]
pub(super) type KernelStore = Store<OwnedKernelKey, KernelResponse>;

// The stack, from the inside out. `Optional` contains the type of the inner service twice, so only the two layers that
// have a cost while they are off use it. The others have a setting that turns them off.
pub(super) type WithConcurrency<S> = Optional<ConcurrencyLimit<S>, S>;
pub(super) type WithQueue<S> = Optional<PriorityQueue<WithConcurrency<S>>, WithConcurrency<S>>;
pub(super) type WithRetry<S> = Retry<WithQueue<S>, IsIdempotent>;
pub(super) type WithTimeout<S> = Timeout<WithRetry<S>>;
pub(super) type WithCircuitBreaker<S> = CircuitBreaker<WithTimeout<S>, PerOperation>;
pub(super) type WithLoadShed<S> = LoadShed<WithCircuitBreaker<S>, Predicted>;
pub(super) type SharedCalls<S> =
    Flights<OwnedKernelKey, KernelResponse, error::Shared<<S as Service<KernelRequest>>::Error>>;
pub(super) type WithCoalesce<S> = Coalesce<WithLoadShed<S>, KernelCacheKey, SharedCalls<S>>;
#[cfg(feature = "cache")]
pub(super) type WithCache<S> = Cache<WithCoalesce<S>, KernelCacheKey, KernelStore>;
#[cfg(not(feature = "cache"))]
pub(super) type WithCache<S> = WithCoalesce<S>;
pub(super) type WithRateLimit<S> = RateLimiter<WithCache<S>, Option<Arc<TenantLimits>>>;
pub(super) type Stack<S> = Metrics<Tracing<WithRateLimit<S>>>;

/// A service that a pipeline can go around: a [`KernelService`], or one in other layers.
///
/// Implemented for every service with these bounds.
pub trait KernelHandler:
    Service<
        KernelRequest,
        Response = KernelResponse,
        Error: AnyError + Into<BoxError> + Send + Sync,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<S> KernelHandler for S where
    S: Service<
            KernelRequest,
            Response = KernelResponse,
            Error: AnyError + Into<BoxError> + Send + Sync,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// A kernel service with the layers of a [`PipelineLayer`](super::PipelineLayer). See the [module](super).
pub struct Pipeline<S: KernelHandler> {
    pub(super) stack: Stack<S>,
    pub(super) shared: Arc<Shared>,
}

/// The state that clones of a pipeline share besides that of their layers.
pub(super) struct Shared {
    pub(super) tenants: Tenants,
    pub(super) layer: PipelineLayer,
    /// `None` if the layer was put around a service and not over a backend.
    pub(super) devices: Option<Local>,
}

impl<S: KernelHandler> Pipeline<S> {
    /// Returns a handle that reads the state of all pipelines of the layer.
    pub fn handle(&self) -> PipelineHandle {
        self.shared.layer.handle()
    }
}

/// The kernels of this machine with the layers of a [`PipelineLayer`](super::PipelineLayer).
pub type LocalPipeline = Pipeline<KernelService<PipelineBackend>>;

impl KernelSource for LocalPipeline {
    fn registry(&self) -> &Arc<KernelRegistry> {
        &self.shared.layer.registry
    }

    fn devices(&self) -> Option<&Local> {
        self.shared.devices.as_ref()
    }

    fn pipeline(&self) -> Option<PipelineHandle> {
        Some(self.handle())
    }
}

impl<S: KernelHandler> Service<KernelRequest> for Pipeline<S> {
    type Response = KernelResponse;
    type Error = PipelineError;
    type Future = PipelineFuture<S>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PipelineError>> {
        self.stack.poll_ready(cx).map_err(PipelineError::new)
    }

    #[inline]
    fn call(&mut self, mut request: KernelRequest) -> Self::Future {
        self.shared.tenants.assign(&mut request);
        request.resolve_alias(&self.shared.layer.registry);
        // Before the cache, whose keys have the versions of operands.
        request.resolve_operands(&self.shared.layer.registry);
        PipelineFuture { inner: self.stack.call(request) }
    }
}

// A derived `Clone` would have bounds on the type of the stack.
impl<S: KernelHandler> Clone for Pipeline<S> {
    fn clone(&self) -> Self {
        Self { stack: self.stack.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: KernelHandler> fmt::Debug for Pipeline<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

impl<S: KernelHandler + Load> Load for Pipeline<S> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.stack.load()
    }
}
