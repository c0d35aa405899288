//! Counts the modules that are still to be loaded in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of modules that background threads have not loaded yet.
#[derive(Debug, Default)]
pub(super) struct PendingModules(Arc<AtomicUsize>);

impl PendingModules {
    /// Adds modules, which count until the returned guard says that they are loaded, or is dropped.
    pub(super) fn add(&self, count: usize) -> PendingGuard {
        self.0.fetch_add(count, Ordering::Relaxed);
        PendingGuard { pending: Arc::clone(&self.0), remaining: count }
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// The modules of one background thread. If the thread panics, the drop removes those that it did not load, so that
/// readiness does not wait for them: they are loaded at their first use.
#[derive(Debug)]
pub(super) struct PendingGuard {
    pending: Arc<AtomicUsize>,
    remaining: usize,
}

impl PendingGuard {
    /// Loads each module, and counts it as done whether or not it loads.
    pub(super) fn load_each<M>(mut self, modules: impl IntoIterator<Item = M>, mut load: impl FnMut(M)) {
        for module in modules {
            load(module);
            self.remaining -= 1;
            self.pending.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        if self.remaining > 0 {
            self.pending.fetch_sub(self.remaining, Ordering::Release);
        }
        if std::thread::panicking() {
            let count = self.remaining;
            tracing::error!(
                "the thread that loads device code panicked; {count} kernels load theirs at their first use"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PendingModules;

    #[test]
    fn modules_count_until_each_is_loaded() {
        let pending = PendingModules::default();
        let mut counts = Vec::new();
        pending.add(3).load_each(0..3, |_| counts.push(pending.count()));
        assert_eq!((counts, pending.count()), (vec![3, 2, 1], 0));
    }

    #[test]
    fn a_panic_of_the_thread_leaves_no_module_pending() {
        let pending = PendingModules::default();
        let (guard, other) = (pending.add(3), pending.add(1));
        let load = move || guard.load_each(0..3, |module| assert!(module != 1, "planted"));
        let panic = std::thread::spawn(load).join().unwrap_err();
        assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("planted")));
        assert_eq!(pending.count(), 1, "those of another thread");
        drop(other);
        assert_eq!(pending.count(), 0);
    }
}
