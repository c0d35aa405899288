use std::sync::Arc;

use tower_layer::Layer;
use tower_service::Service;

use super::policy::Shared;
use super::{Fallback, FallbackSnapshot};
use crate::error::{ErrorKind, ErrorKinds};
use crate::middleware::clone_source::CloneSource;
use crate::middleware::derive::{derive_clone, derive_debug};

/// Calls a fallback service when the primary one fails. See the [module](super).
///
/// Clones share the counts.
#[must_use]
pub struct FallbackLayer<F, R, C = ErrorKinds> {
    shared: Shared<F, R, C>,
}

derive_clone!(FallbackLayer::<F, R, C> { shared });
derive_debug!(FallbackLayer::<F, R, C> { shared });

impl<F, R> FallbackLayer<F, R> {
    /// Creates a layer that calls `fallback` after errors of the kinds `Unavailable` and `Overloaded`, which the rejections of
    /// an open circuit breaker are too.
    pub fn new(fallback: F) -> Self {
        let errors = Arc::new(ErrorKinds::of(&[ErrorKind::Unavailable, ErrorKind::Overloaded]));
        let fallback = CloneSource::new(fallback);
        Self { shared: Shared { fallback, errors, accepts_request: None, counts: Arc::default() } }
    }

    /// Sets after which kinds of errors the fallback is called.
    pub fn on(mut self, kinds: impl Into<ErrorKinds>) -> Self {
        self.shared.errors = Arc::new(kinds.into());
        self
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
    pub fn when<E, Q>(self, accepts_error: Q) -> FallbackLayer<F, R, Q>
    where
        Q: Fn(&E) -> bool,
    {
        let Shared { fallback, accepts_request, counts, .. } = self.shared;
        FallbackLayer { shared: Shared { fallback, errors: Arc::new(accepts_error), accepts_request, counts } }
    }
}

impl<F, R, C> FallbackLayer<F, R, C> {
    /// Calls the fallback only for requests for which `accepts_request` returns `true`, such as those that may run twice, as
    /// a service can fail after it has begun. Other requests are not cloned.
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
    pub fn only(mut self, accepts_request: impl Fn(&R) -> bool + Send + Sync + 'static) -> Self {
        self.shared.accepts_request = Some(Arc::new(accepts_request));
        self
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> FallbackSnapshot {
        *self.shared.counts.lock()
    }
}

impl<S: Service<R>, F, R, C> Layer<S> for FallbackLayer<F, R, C> {
    type Service = Fallback<S, F, R, C>;

    fn layer(&self, primary: S) -> Self::Service {
        Fallback::new(primary, Arc::new(self.shared.clone()))
    }
}
