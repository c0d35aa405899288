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
use super::step::{Apart, AsItIs, Queue, Step};
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
use crate::middleware::priority_queue::PriorityQueue;
use crate::middleware::rate_limit::{ByTenant, PerKey, RateLimiter};
use crate::middleware::retry::Retry;
use crate::middleware::timeout::Timeout;
use crate::middleware::tracing::Tracing;
use crate::service::{KernelCacheKey, KernelRegistry, KernelRequest, KernelResponse, KernelService, OwnedKernelKey};

/// Whether a request can be run again.
pub(super) type Again = Box<dyn Fn(&KernelRequest) -> bool + Send + Sync>;
pub(super) type TenantLimits = PerKey<std::sync::Arc<str>, ByTenant>;
#[cfg(feature = "cache")]
pub(super) type KernelStore = Store<OwnedKernelKey, KernelResponse>;

type Error<S> = <S as Service<KernelRequest>>::Error;

// From the inside out. Each `Step` names what is inside it twice, so only those layers are in one that would cost
// something while they are off.
pub(super) type Limited<S> = Step<ConcurrencyLimit<S>, S, AsItIs>;
pub(super) type Queued<S> = Step<PriorityQueue<Limited<S>>, Limited<S>, Queue>;
pub(super) type Retried<S> = Apart<Retry<Queued<S>, Again>>;
pub(super) type Timely<S> = Apart<Timeout<Retried<S>>>;
pub(super) type Guarded<S> = Apart<CircuitBreaker<Timely<S>, PerOperation>>;
pub(super) type Shed<S> = Apart<LoadShed<Guarded<S>, Predicted>>;
pub(super) type ShedFuture<S> = <Shed<S> as Service<KernelRequest>>::Future;
pub(super) type FlightsOf<S> = Flights<OwnedKernelKey, ShedFuture<S>, KernelResponse, error::Shared<Error<S>>>;
pub(super) type Coalesced<S> = Apart<Coalesce<Shed<S>, KernelCacheKey, FlightsOf<S>>>;
#[cfg(feature = "cache")]
pub(super) type Cached<S> = Apart<Cache<Coalesced<S>, KernelCacheKey, KernelStore>>;
#[cfg(not(feature = "cache"))]
pub(super) type Cached<S> = Coalesced<S>;
pub(super) type RateLimited<S> = Apart<RateLimiter<Cached<S>, Option<std::sync::Arc<TenantLimits>>>>;
pub(super) type Stack<S> = Apart<Metrics<Apart<Tracing<RateLimited<S>>>>>;

/// What can be at the heart of a pipeline: a [`KernelService`], in layers of your own or
/// not.
pub trait Kernels:
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

impl<S> Kernels for S where
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

/// Kernels in the layers of a [`PipelineLayer`](super::PipelineLayer). See the [module](super).
pub struct ReadyPipeline<S: Kernels> {
    pub(super) stack: Stack<S>,
    pub(super) shared: Arc<Shared>,
}

/// What the clones of a pipeline share beside their layers.
pub(super) struct Shared {
    pub(super) tenants: Tenants,
    pub(super) layer: PipelineLayer,
    /// Those that its layer was put over.
    pub(super) devices: Option<Local>,
}

impl<S: Kernels> ReadyPipeline<S> {
    /// Reads how it is, with all other pipelines of its layer.
    pub fn handle(&self) -> PipelineHandle {
        self.shared.layer.handle()
    }
}

/// Kernels on this machine, in the layers of a [`PipelineLayer`](super::PipelineLayer).
pub type LocalPipeline = ReadyPipeline<KernelService<PipelineBackend>>;

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

impl<S: Kernels> Service<KernelRequest> for ReadyPipeline<S> {
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
        PipelineFuture { inner: self.stack.call(request) }
    }
}

// By hand: the type of the stack says what it needs, and no `S: Clone` is to be said twice.
impl<S: Kernels> Clone for ReadyPipeline<S> {
    fn clone(&self) -> Self {
        Self { stack: self.stack.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: Kernels> fmt::Debug for ReadyPipeline<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyPipeline").finish_non_exhaustive()
    }
}

impl<S: Kernels + Load> Load for ReadyPipeline<S> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.stack.load()
    }
}
