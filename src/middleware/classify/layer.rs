use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tower::BoxError;
use tower_layer::Layer;

use super::{Classified, ClassifiedError};
use crate::error::{Classification, Classify, ErrorKind, classify_with};

/// Gives errors a kind by their type. See the [module](super).
#[derive(Clone, Default)]
#[must_use]
pub struct ClassifyLayer {
    rules: Vec<Rule>,
    /// The kind of errors that match no rule.
    otherwise: Option<ErrorKind>,
}

/// Returns the classification of an error, or `None` if it is not of the rule's type.
type Rule = Arc<dyn Fn(&(dyn Error + 'static)) -> Option<Classification> + Send + Sync>;

impl ClassifyLayer {
    /// Creates a layer with the [built-in rules](fn@crate::error::classify).
    pub fn new() -> Self {
        Self::default()
    }

    /// Classifies errors of type `E` with a closure, which returns an [`ErrorKind`] or a [`Classification`].
    pub fn errors<E, C>(mut self, classify: impl Fn(&E) -> C + Send + Sync + 'static) -> Self
    where
        E: Error + 'static,
        C: Into<Classification>,
    {
        self.rules.push(Arc::new(move |error| error.downcast_ref().map(|error| classify(error).into())));
        self
    }

    /// Classifies errors of type `E` by their own [`Classify`].
    pub fn keep<E: Classify + Error + 'static>(self) -> Self {
        self.errors(E::classification)
    }

    /// Sets the kind of errors that match no rule. [`ErrorKind::Internal`] by default.
    pub fn otherwise(mut self, kind: ErrorKind) -> Self {
        self.otherwise = Some(kind);
        self
    }

    /// Classifies an error by the rules.
    pub(super) fn classify(&self, error: impl Into<BoxError>) -> ClassifiedError {
        let error = error.into();
        let rules = |error: &(dyn Error + 'static)| self.rules.iter().find_map(|rule| rule(error));
        ClassifiedError::new(classify_with(&*error, rules, self.otherwise.unwrap_or(ErrorKind::Internal)), error)
    }
}

impl fmt::Debug for ClassifyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules, otherwise } = self;
        f.debug_struct("ClassifyLayer").field("rules", &rules.len()).field("otherwise", otherwise).finish()
    }
}

impl<S> Layer<S> for ClassifyLayer {
    type Service = Classified<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Classified::new(inner, Arc::new(self.clone()))
    }
}
