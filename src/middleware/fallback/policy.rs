use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::{AnyError, ErrorKinds};

/// Which errors of which requests are handled by the fallback.
pub trait FallbackPolicy<R, E> {
    /// Whether the fallback may run `request`. If not, the request is not cloned.
    fn accepts_request(&self, request: &R) -> bool;

    /// Whether the fallback is called after `error`.
    fn accepts_error(&self, error: &E) -> bool;
}

/// Accepts errors of these kinds, for any request.
impl<R, E: AnyError> FallbackPolicy<R, E> for ErrorKinds {
    fn accepts_request(&self, _: &R) -> bool {
        true
    }

    fn accepts_error(&self, error: &E) -> bool {
        self.contains(error.classify().kind)
    }
}

/// Accepts errors by a closure, for any request.
pub struct When<C, E> {
    pub(super) accepts_error: C,
    pub(super) error: PhantomData<fn(&E)>,
}

impl<R, E, C: Fn(&E) -> bool> FallbackPolicy<R, E> for When<C, E> {
    fn accepts_request(&self, _: &R) -> bool {
        true
    }

    fn accepts_error(&self, error: &E) -> bool {
        (self.accepts_error)(error)
    }
}

/// Accepts errors as another policy does, for requests that a closure accepts.
pub struct Only<C, Q, R> {
    pub(super) errors: Arc<C>,
    pub(super) accepts_request: Q,
    pub(super) request: PhantomData<fn(&R)>,
}

impl<R, E, C: FallbackPolicy<R, E>, Q: Fn(&R) -> bool> FallbackPolicy<R, E> for Only<C, Q, R> {
    fn accepts_request(&self, request: &R) -> bool {
        (self.accepts_request)(request) && self.errors.accepts_request(request)
    }

    fn accepts_error(&self, error: &E) -> bool {
        self.errors.accepts_error(error)
    }
}

impl<C, E> fmt::Debug for When<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("When").finish_non_exhaustive()
    }
}

impl<C: fmt::Debug, Q, R> fmt::Debug for Only<C, Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Only").field("errors", &self.errors).finish_non_exhaustive()
    }
}
