use crate::request::RequestContext;

/// Which circuit a request belongs to.
pub trait CircuitKey<R> {
    /// Returns the key of the circuit; `None` for the one that requests without a key share.
    fn key(&self, request: &R) -> Option<impl AsRef<str>>;
}

/// One circuit for all requests.
#[derive(Clone, Copy, Debug)]
pub struct SingleCircuit;

impl<R> CircuitKey<R> for SingleCircuit {
    fn key(&self, _: &R) -> Option<impl AsRef<str>> {
        None::<&str>
    }
}

/// A circuit for each [operation](RequestContext::operation).
#[derive(Clone, Copy, Debug)]
pub struct PerOperation;

impl<R: RequestContext> CircuitKey<R> for PerOperation {
    fn key(&self, request: &R) -> Option<impl AsRef<str>> {
        Some(request.operation())
    }
}

/// A circuit for each key that a closure returns.
impl<R, K, F> CircuitKey<R> for F
where
    F: Fn(&R) -> Option<K>,
    K: AsRef<str>,
{
    fn key(&self, request: &R) -> Option<impl AsRef<str>> {
        self(request)
    }
}
