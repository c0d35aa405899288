use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use tower::BoxError;

use crate::error::{Classification, Classify, ErrorKind, provide};

/// An error of any type with its kind. Its text and its sources are those of the error.
#[derive(Debug)]
pub struct ClassifiedError {
    classification: Classification,
    error: BoxError,
}

impl ClassifiedError {
    /// Creates an error with this classification.
    pub fn new(classification: impl Into<Classification>, error: impl Into<BoxError>) -> Self {
        Self { classification: classification.into(), error: error.into() }
    }

    /// Returns the original error if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }

    /// Returns the original error.
    pub fn into_inner(self) -> BoxError {
        self.error
    }
}

impl fmt::Display for ClassifiedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for ClassifiedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        self.error.source()
    }
}

impl Classify for ClassifiedError {
    fn kind(&self) -> ErrorKind {
        self.classification.kind
    }

    fn retry_after(&self) -> Option<Duration> {
        self.classification.retry_after
    }

    fn challenge(&self) -> Option<HeaderValue> {
        self.classification.challenge.clone()
    }
}
