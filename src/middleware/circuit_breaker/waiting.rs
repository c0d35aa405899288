use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Who waits for the inner service, or for the circuit, and is to look again when the circuit changes.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Waiters {
    /// Wakes all of them. They keep their lines until they leave them.
    pub(super) fn wake(&self) {
        let wakers: Vec<_> = self.lock().wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().wakers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits, for as long as this lives.
#[derive(Debug)]
pub(super) struct Waiting {
    waiters: Arc<Waiters>,
    line: u64,
}

impl Waiting {
    /// Has `waker` woken, in place of the one that `waiting` had.
    pub(super) fn register(waiting: &mut Option<Self>, waiters: &Arc<Waiters>, waker: &Waker) {
        let mut lines = waiters.lock();
        let waiting = waiting.get_or_insert_with(|| {
            lines.next += 1;
            Self { waiters: Arc::clone(waiters), line: lines.next }
        });
        lines.wakers.insert(waiting.line, waker.clone());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiters.lock().wakers.remove(&self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::{Waiters, Waiting};
    use std::sync::Arc;
    use std::task::Waker;

    #[test]
    fn one_who_waits_has_one_line_however_often_it_registers() {
        let waiters = Arc::<Waiters>::default();
        let (mut first, mut second) = (None, None);
        for _ in 0..3 {
            Waiting::register(&mut first, &waiters, Waker::noop());
            Waiting::register(&mut second, &waiters, Waker::noop());
        }
        assert_eq!(waiters.len(), 2);
        drop(first);
        assert_eq!(waiters.len(), 1);
        drop(second);
        assert_eq!(waiters.len(), 0);
    }
}
