use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::{Cache, Store};

/// Keeps answers and gives them again. See the [module](super).
///
/// Clones share what is kept. [`ttl`](Self::ttl) begins with nothing, so configure first and clone after. The type of what
/// is kept, `L`, follows from the service that the layer is put around.
pub struct CacheLayer<P, L> {
    repeats: Arc<P>,
    store: Arc<L>,
}

impl<P, K, T> CacheLayer<P, Store<K, T>> {
    /// Keeps up to `max_bytes` of questions and answers, of those requests that `repeats` takes for repeats of each
    /// other.
    pub fn new(max_bytes: u64, repeats: P) -> Self {
        Self { repeats: Arc::new(repeats), store: Arc::new(Store::new(max_bytes, None)) }
    }

    /// Sets how long an answer is given again; for as long as there is room if nothing is said.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { repeats: self.repeats, store: Arc::new(Store::new(self.store.max_bytes(), Some(ttl))) }
    }

    /// How many calls were answered with what was kept.
    pub fn hits(&self) -> u64 {
        self.store.hits()
    }

    /// How many calls asked what could have been kept, and was not. Those that are no repeats of anything count for neither.
    pub fn misses(&self) -> u64 {
        self.store.misses()
    }

    /// How many answers are kept.
    pub fn entries(&self) -> usize {
        self.store.entries()
    }

    /// The memory that is taken, in bytes.
    pub fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// The most memory that is taken, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.store.max_bytes()
    }

    /// The most that one question and its answer may take, in bytes: the table is cut into parts of one size, from
    /// 8 MiB on into two or more.
    pub fn max_entry_bytes(&self) -> u64 {
        self.store.max_entry_bytes()
    }

    /// How long an answer is given again; `None` for as long as there is room.
    pub fn time_to_live(&self) -> Option<Duration> {
        self.store.ttl()
    }

    /// Forgets all answers, those that are being worked on included.
    pub fn clear(&self) {
        self.store.clear();
    }

    /// Forgets the answers to the questions that `which` chooses, and looks at each of them for that. Answers that are being
    /// worked on are not kept when they come, whatever their question.
    pub fn invalidate(&self, which: impl Fn(&K) -> bool) {
        self.store.invalidate(which);
    }
}

impl<S, P, L> Layer<S> for CacheLayer<P, L> {
    type Service = Cache<S, P, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Cache::new(inner, Arc::clone(&self.repeats), Arc::clone(&self.store))
    }
}

// By hand: what is kept is shared.
impl<P, L> Clone for CacheLayer<P, L> {
    fn clone(&self) -> Self {
        Self { repeats: Arc::clone(&self.repeats), store: Arc::clone(&self.store) }
    }
}

impl<P, L: fmt::Debug> fmt::Debug for CacheLayer<P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer").field("store", &self.store).finish_non_exhaustive()
    }
}
