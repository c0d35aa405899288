//! Calls that are made while something of the layer's own has to be dropped should they panic.

use tower_service::Service;

/// A future that is longer than this is moved by a function; a shorter one costs less to move than to avoid it.
const LONG: usize = 256;

/// Calls `service`, and makes the future of the layer of what comes back and of what is `kept` for the call.
///
/// What is kept belongs to the caller until then, and is dropped there if the call panics. It is not passed by value, as a
/// function that has something to drop cannot have the inner future made where it is to stay, and would move it there.
#[inline(always)]
pub(super) fn call_beside<S, R, G, F>(
    service: &mut S,
    request: R,
    kept: &mut G,
    future: impl FnOnce(S::Future, &mut G) -> F,
) -> F
where
    S: Service<R>,
{
    if size_of::<S::Future>() > LONG {
        return call_long(service, request, kept, future);
    }
    future(service.call(request), kept)
}

#[inline(never)]
fn call_long<S, R, G, F>(service: &mut S, request: R, kept: &mut G, future: impl FnOnce(S::Future, &mut G) -> F) -> F
where
    S: Service<R>,
{
    future(service.call(request), kept)
}
