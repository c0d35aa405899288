use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, Classify, ErrorKind, chain, provide};
use crate::middleware::batch::BatchError;
use crate::middleware::circuit_breaker::CircuitBreakerError;
use crate::middleware::coalesce::CoalesceError;
use crate::middleware::load_shed::LoadShedError;
use crate::middleware::priority_queue::PriorityQueueError;
use crate::middleware::rate_limit::RateLimitError;
use crate::middleware::timeout::TimeoutError;
use crate::service::KernelError;

/// The error of the stack around kernels with the error `E`.
pub(super) type Nested<E> = RateLimitError<CoalesceError<Shared<E>>>;
/// The part of it that coalesced calls share.
pub(super) type Shared<E> = LoadShedError<CircuitBreakerError<TimeoutError<PriorityQueueError<E>>>>;

/// Why a call of a [`Pipeline`](super::Pipeline) failed: a layer rejected it, or the kernels failed.
///
/// Its text begins with the [setting](Self::setting) of the layer that rejected the call, or is that of the kernels,
/// down to the invalid field of the input. Its [source](Error::source) is the error of the kernels: a [`KernelError`]
/// in a [`LocalPipeline`](super::LocalPipeline). A layer's rejection has no source.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::error::Error;
/// use tower::ServiceExt;
/// use tower_kernels::backends::Local;
/// use tower_kernels::error::ErrorKind;
/// use tower_kernels::pipeline::{PipelineConfig, PipelineError, PipelineLayer};
/// use tower_kernels::service::{KernelError, KernelRegistry, KernelRequest, Payload};
///
/// let registry = KernelRegistry::new();
/// tower_kernels::kernels::register_all(&registry)?;
/// let pipeline = PipelineLayer::new(registry, PipelineConfig::default())?.over(Local::detect());
///
/// let request = KernelRequest::new("linalg/saxpy", Payload::json(r#"{"a": 2.0, "x": ["one"], "y": [1.0]}"#));
/// let error: PipelineError = pipeline.oneshot(request).await.unwrap_err();
/// assert!(error.to_string().starts_with("the input is invalid: x[0]: "), "{error}");
/// assert_eq!((error.kind(), error.setting()), (ErrorKind::InvalidArgument, None));
/// assert!(error.source().unwrap().is::<KernelError>());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PipelineError {
    inner: Inner,
}

#[derive(Clone, Debug)]
enum Inner {
    RateLimit(RateLimitError<Infallible>),
    Coalesce(CoalesceError<Infallible>),
    /// Shared by the calls of a run.
    Shared(Arc<dyn SharedError>),
}

/// A [`Shared`] without the type of the kernels' error.
trait SharedError: fmt::Debug + Send + Sync {
    /// The whole error. Its text is that of the layer that returned it.
    fn whole(&self) -> &dyn AnyError;

    /// What returned it.
    fn origin(&self) -> Origin<'_>;
}

enum Origin<'a> {
    /// The layer of this setting.
    Layer(&'static str),
    Kernels(&'a (dyn Error + 'static)),
}

impl<E: AnyError + Send + Sync> SharedError for Shared<E> {
    fn whole(&self) -> &dyn AnyError {
        self
    }

    fn origin(&self) -> Origin<'_> {
        let Self::Inner(error) = self else { return Origin::Layer("load_shed") };
        let CircuitBreakerError::Inner(error) = error else { return Origin::Layer("circuit_breaker") };
        let TimeoutError::Inner(error) = error else { return Origin::Layer("timeout") };
        let PriorityQueueError::Inner(error) = error else { return Origin::Layer("queue") };
        of_backend(error.as_error())
    }
}

/// Distinguishes errors of batching, in the backend of a [`LocalPipeline`](super::LocalPipeline), from those of the
/// kernels.
fn of_backend<'a>(error: &'a (dyn Error + 'static)) -> Origin<'a> {
    match error.downcast_ref::<BatchError<KernelError>>() {
        None => Origin::Kernels(error),
        Some(BatchError::Inner(error)) => Origin::Kernels(error),
        Some(BatchError::Shared(error)) => Origin::Kernels(&**error),
        Some(_) => Origin::Layer("batch"),
    }
}

impl PipelineError {
    pub(super) fn new<E: AnyError + Send + Sync>(error: Nested<E>) -> Self {
        let inner = match error {
            RateLimitError::Limited { retry_after } => Inner::RateLimit(RateLimitError::Limited { retry_after }),
            RateLimitError::Inner(CoalesceError::Elapsed) => Inner::Coalesce(CoalesceError::Elapsed),
            RateLimitError::Inner(CoalesceError::Panicked) => Inner::Coalesce(CoalesceError::Panicked),
            RateLimitError::Inner(CoalesceError::Inner(error)) => Inner::Shared(error),
        };
        Self { inner }
    }

    /// The kind of rejection or failure; the [table](crate::error) maps it to statuses.
    pub fn kind(&self) -> ErrorKind {
        self.classified().classify().kind
    }

    /// Time after which the same request can succeed, if known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.classified().classify().retry_after
    }

    /// The field of [`PipelineConfig`](super::PipelineConfig) that sets the layer which rejected the call, such as
    /// `rate_limit`. `None` if the kernels failed.
    pub fn setting(&self) -> Option<&'static str> {
        match &self.inner {
            Inner::RateLimit(_) => Some("rate_limit"),
            Inner::Coalesce(_) => Some("coalesce"),
            Inner::Shared(shared) => match shared.origin() {
                Origin::Layer(setting) => Some(setting),
                Origin::Kernels(_) => None,
            },
        }
    }

    fn classified(&self) -> &dyn AnyError {
        match &self.inner {
            Inner::RateLimit(error) => error,
            Inner::Coalesce(error) => error,
            Inner::Shared(shared) => shared.whole(),
        }
    }
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.setting(), self.source()) {
            (Some(setting), _) => write!(f, "{setting}: {}", self.classified()),
            (None, Some(kernels)) => write!(f, "{}", chain(kernels)),
            (None, None) => write!(f, "{}", self.classified()),
        }
    }
}

impl Error for PipelineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match &self.inner {
            Inner::Shared(shared) => match shared.origin() {
                Origin::Kernels(error) => Some(error),
                Origin::Layer(_) => None,
            },
            Inner::RateLimit(_) | Inner::Coalesce(_) => None,
        }
    }
}

impl Classify for PipelineError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after()
    }

    fn challenge(&self) -> Option<HeaderValue> {
        self.classified().classify().challenge
    }

    fn classification(&self) -> Classification {
        self.classified().classify()
    }
}
