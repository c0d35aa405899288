//! Those of one batch, and whether any of them is still there.

use std::task::Waker;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Crew<K, H> {
    pub(super) key: K,
    /// The way to what they share with all others, here so that not each of them holds it: a counter that all threads
    /// count on is the slowest thing on a request's way.
    pub(super) home: H,
    /// Batches are numbered as they begin.
    pub(super) number: u64,
    /// Those who still want an answer.
    aboard: AtomicUsize,
    /// Of the task that runs the batch.
    runner: Mutex<Option<Waker>>,
}

impl<K, H> Crew<K, H> {
    pub(super) fn new(key: K, home: H, number: u64) -> Self {
        Self { key, home, number, aboard: AtomicUsize::new(0), runner: Mutex::new(None) }
    }

    pub(super) fn join(&self) {
        self.aboard.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them wants no answer any more. The last one wakes the task that runs the batch.
    pub(super) fn leave(&self) {
        if self.aboard.fetch_sub(1, Ordering::SeqCst) == 1 {
            let runner = self.runner.lock().take();
            if let Some(waker) = runner {
                waker.wake();
            }
        }
    }

    /// Whether all have left; if not, `waker` is woken once they have.
    pub(super) fn has_left(&self, waker: &Waker) -> bool {
        let mut runner = self.runner.lock();
        if !runner.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *runner = Some(waker.clone());
        }
        drop(runner);
        // After the waker is there: either this sees that the last has left, or the last sees the waker.
        self.aboard.load(Ordering::SeqCst) == 0
    }
}
