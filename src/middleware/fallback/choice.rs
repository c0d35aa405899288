use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::{AnyError, ErrorKinds};

/// Which errors and which requests another service is to have a try at.
pub trait Choose<R, E> {
    /// Whether the other service may run the request at all. Without, it need not be cloned.
    fn may_run(&self, request: &R) -> bool;

    /// Whether this error is a reason to.
    fn is_reason(&self, error: &E) -> bool;
}

/// Errors of these kinds, of any request.
impl<R, E: AnyError> Choose<R, E> for ErrorKinds {
    #[inline]
    fn may_run(&self, _: &R) -> bool {
        true
    }

    fn is_reason(&self, error: &E) -> bool {
        self.contains(error.classify().kind)
    }
}

/// Errors that a closure chooses, of any request.
pub struct When<C, E> {
    pub(super) is_reason: C,
    pub(super) of: PhantomData<fn(&E)>,
}

impl<R, E, C: Fn(&E) -> bool> Choose<R, E> for When<C, E> {
    #[inline]
    fn may_run(&self, _: &R) -> bool {
        true
    }

    fn is_reason(&self, error: &E) -> bool {
        (self.is_reason)(error)
    }
}

/// As another choice has it, but only requests that a closure chooses.
pub struct Only<C, Q, R> {
    pub(super) errors: Arc<C>,
    pub(super) may_run: Q,
    pub(super) of: PhantomData<fn(&R)>,
}

impl<R, E, C: Choose<R, E>, Q: Fn(&R) -> bool> Choose<R, E> for Only<C, Q, R> {
    #[inline]
    fn may_run(&self, request: &R) -> bool {
        (self.may_run)(request) && self.errors.may_run(request)
    }

    fn is_reason(&self, error: &E) -> bool {
        self.errors.is_reason(error)
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
