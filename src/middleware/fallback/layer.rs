use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tower_layer::Layer;
use tower_service::Service;

use super::counts::Counts;
use super::policy::{Only, When};
use super::{Fallback, FallbackSnapshot};
use crate::error::{ErrorKind, ErrorKinds};
use crate::middleware::clone_source::CloneSource;

/// Calls a fallback service when the primary one fails. See the [module](super).
///
/// Clones share the counts. The methods that configure the layer begin with new counts, so configure first and clone after.
pub struct FallbackLayer<F, R, C = ErrorKinds> {
    shared: Arc<Shared<C>>,
    fallback: CloneSource<F>,
    request: PhantomData<fn(R)>,
}

/// What a layer, its clones and their services share.
pub(super) struct Shared<C> {
    pub(super) policy: Arc<C>,
    pub(super) counts: Arc<Counts>,
}

impl<F, R> FallbackLayer<F, R> {
    /// Creates a layer that calls `fallback` after errors of the kinds `Unavailable` and `Overloaded`, which the rejections of
    /// an open circuit breaker are too.
    pub fn new(fallback: F) -> Self {
        Self::with(CloneSource::new(fallback), ErrorKinds::of(&[ErrorKind::Unavailable, ErrorKind::Overloaded]))
    }

    /// Sets after which kinds of errors the fallback is called.
    #[must_use]
    pub fn on(self, kinds: impl Into<ErrorKinds>) -> Self {
        Self::with(self.fallback, kinds.into())
    }

    /// Calls the fallback after the errors for which `accepts_error` returns `true`.
    ///
    /// ```
    /// use tower_kernels::layers::FallbackLayer;
    /// use tower_kernels::middleware::circuit_breaker::CircuitBreakerError;
    ///
    /// # let small_device = ();
    /// let when_open = FallbackLayer::<_, http::Request<()>>::new(small_device)
    ///     .when(|error: &CircuitBreakerError<std::io::Error>| matches!(error, CircuitBreakerError::Open { .. }));
    /// ```
    #[must_use]
    pub fn when<E, Q>(self, accepts_error: Q) -> FallbackLayer<F, R, When<Q, E>>
    where
        Q: Fn(&E) -> bool,
    {
        FallbackLayer::with(self.fallback, When { accepts_error, error: PhantomData })
    }
}

impl<F, R, C> FallbackLayer<F, R, C> {
    fn with(fallback: CloneSource<F>, policy: C) -> Self {
        let shared = Arc::new(Shared { policy: Arc::new(policy), counts: Arc::default() });
        Self { shared, fallback, request: PhantomData }
    }

    /// Calls the fallback only for requests for which `accepts_request` returns `true`, such as those that may run twice, as
    /// a service can fail after it has begun. Other requests are not cloned. Choose the errors first.
    ///
    /// ```
    /// use tower_kernels::layers::FallbackLayer;
    /// use tower_kernels::request::RequestContext;
    /// use tower_kernels::service::KernelRequest;
    ///
    /// # let cpu = ();
    /// let small_requests = FallbackLayer::new(cpu)
    ///     .only(|request: &KernelRequest| request.payload_bytes().is_some_and(|bytes| bytes < 1 << 20));
    /// ```
    #[must_use]
    pub fn only<Q>(self, accepts_request: Q) -> FallbackLayer<F, R, Only<C, Q, R>>
    where
        Q: Fn(&R) -> bool,
    {
        let errors = Arc::clone(&self.shared.policy);
        FallbackLayer::with(self.fallback, Only { errors, accepts_request, request: PhantomData })
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> FallbackSnapshot {
        self.shared.counts.snapshot()
    }
}

impl<S: Service<R>, F, R, C> Layer<S> for FallbackLayer<F, R, C> {
    type Service = Fallback<S, F, R, C>;

    fn layer(&self, primary: S) -> Self::Service {
        Fallback::new(primary, self.fallback.clone(), Arc::clone(&self.shared))
    }
}

// By hand, as a derive would require `C: Clone`.
impl<F, R, C> Clone for FallbackLayer<F, R, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), fallback: self.fallback.clone(), request: PhantomData }
    }
}

impl<F, R, C> fmt::Debug for FallbackLayer<F, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer").field("counts", &self.shared.counts).finish_non_exhaustive()
    }
}
