use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tower_layer::Layer;
use tower_service::Service;

use super::choice::{Only, When};
use super::stats::Counts;
use super::{Fallback, FallbackStats};
use crate::error::{ErrorKind, ErrorKinds};
use crate::middleware::clone_source::CloneSource;

/// Has another service answer what one cannot. See the [module](super).
///
/// Clones share the counts. The methods that configure the layer begin new ones, so configure first and clone after.
pub struct FallbackLayer<F, R, C = ErrorKinds> {
    shared: Arc<Shared<C>>,
    fallback: CloneSource<F>,
    of: PhantomData<fn(R)>,
}

/// What a layer, its clones and their services share.
pub(super) struct Shared<C> {
    pub(super) choice: Arc<C>,
    pub(super) counts: Counts,
}

impl<F, R> FallbackLayer<F, R> {
    /// Has `fallback` answer what fails as `Unavailable` or `Overloaded`, which an open circuit breaker's refusals are too.
    pub fn new(fallback: F) -> Self {
        Self::with(CloneSource::new(fallback), ErrorKinds::of(&[ErrorKind::Unavailable, ErrorKind::Overloaded]))
    }

    /// Sets the kinds of errors that the fallback has a try at.
    #[must_use]
    pub fn on(self, kinds: impl Into<ErrorKinds>) -> Self {
        Self::with(self.fallback, kinds.into())
    }

    /// Chooses the errors that the fallback has a try at.
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
    pub fn when<E, Q>(self, is_reason: Q) -> FallbackLayer<F, R, When<Q, E>>
    where
        Q: Fn(&E) -> bool,
    {
        FallbackLayer::with(self.fallback, When { is_reason, of: PhantomData })
    }
}

impl<F, R, C> FallbackLayer<F, R, C> {
    fn with(fallback: CloneSource<F>, choice: C) -> Self {
        Self {
            shared: Arc::new(Shared { choice: Arc::new(choice), counts: Counts::default() }),
            fallback,
            of: PhantomData,
        }
    }

    /// Only for requests that `may_run` chooses: those that it does no harm to run twice, for a service may fail after it
    /// has begun; those that the fallback is large enough for. The others need not be cloned. Say it last.
    ///
    /// ```
    /// use tower_kernels::layers::FallbackLayer;
    /// use tower_kernels::request::RequestContext;
    /// use tower_kernels::service::KernelRequest;
    ///
    /// # let cpu = ();
    /// let small_ones = FallbackLayer::new(cpu)
    ///     .only(|request: &KernelRequest| request.payload_bytes().is_some_and(|bytes| bytes < 1 << 20));
    /// ```
    #[must_use]
    pub fn only<Q>(self, may_run: Q) -> FallbackLayer<F, R, Only<C, Q, R>>
    where
        Q: Fn(&R) -> bool,
    {
        let errors = Arc::clone(&self.shared.choice);
        FallbackLayer::with(self.fallback, Only { errors, may_run, of: PhantomData })
    }

    /// What has been done so far, and is under way just now.
    pub fn stats(&self) -> FallbackStats {
        self.shared.counts.stats()
    }
}

impl<S: Service<R>, F, R, C> Layer<S> for FallbackLayer<F, R, C> {
    type Service = Fallback<S, F, R, C>;

    fn layer(&self, primary: S) -> Self::Service {
        Fallback::new(primary, self.fallback.clone(), Arc::clone(&self.shared))
    }
}

// By hand: a clone needs no `C: Clone`, the choice is shared.
impl<F, R, C> Clone for FallbackLayer<F, R, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), fallback: self.fallback.clone(), of: PhantomData }
    }
}

impl<F, R, C> fmt::Debug for FallbackLayer<F, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer").field("counts", &self.shared.counts).finish_non_exhaustive()
    }
}
