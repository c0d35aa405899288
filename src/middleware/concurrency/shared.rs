//! What all services of one layer share, and what a running call holds of it.

use std::sync::Arc;

use super::gate::Gate;
use super::limit::{Begin, End, Limit};

/// Places to run, so many at a time.
pub(super) trait Places {
    /// What is known of who has a place.
    type Held: Copy;

    /// Gives a place back.
    fn leave(&self, held: Self::Held);
    /// From now on there are so many. Too many that are inside stay until they leave.
    fn resize(&self, limit: usize);
    /// Lets in those who wait and for whom there is room.
    fn let_in(&self);
    fn limit(&self) -> usize;
    fn inside(&self) -> usize;
    fn waiting(&self) -> usize;
}

#[derive(Debug)]
pub(super) struct Shared<L, P = Gate> {
    pub(super) places: P,
    pub(super) limit: L,
}

impl<L: Limit, P: Places> Shared<L, P> {
    /// A call begins at a place that is held.
    #[inline]
    pub(super) fn begin<R>(self: &Arc<Self>, held: P::Held, request: &R) -> Running<L, P>
    where
        L: Begin<R>,
    {
        let mark = self.limit.begin(request, || self.places.inside());
        Running { shared: Arc::clone(self), held, mark: Some(mark) }
    }
}

/// A place that a call runs in. Dropped before the call's [end](Self::end), it counts as a call that was cancelled.
#[derive(Debug)]
pub(super) struct Running<L: Limit, P: Places = Gate> {
    shared: Arc<Shared<L, P>>,
    held: P::Held,
    /// `None` once the end has been told.
    mark: Option<L::Mark>,
}

impl<L: Limit, P: Places> Running<L, P> {
    /// The call has ended so.
    #[inline]
    pub(super) fn end<T, E>(mut self, result: &Result<T, E>)
    where
        L: End<T, E>,
    {
        let shared = &self.shared;
        if let Some(mark) = self.mark.take() {
            shared.limit.end(mark, result, |limit| shared.places.resize(limit));
            if L::CHANGES {
                shared.places.let_in();
            }
        }
    }
}

impl<L: Limit, P: Places> Drop for Running<L, P> {
    #[inline]
    fn drop(&mut self) {
        if L::CHANGES
            && let Some(mark) = self.mark.take()
        {
            self.shared.limit.cancelled(mark, |limit| self.shared.places.resize(limit));
            self.shared.places.let_in();
        }
        self.shared.places.leave(self.held);
    }
}
