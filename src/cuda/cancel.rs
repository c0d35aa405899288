//! Cancellation: how the runtime learns of it, and how running kernels do.
//!
//! Some of the driver's calls (freeing memory, loading a module) wait for everything that runs on the device, and block the
//! calls of all other threads meanwhile, even a query of a stream. The thread of a kernel that runs until its cancel flag is
//! set could then not set it, and the device would never finish. So the flags of such kernels are set by a
//! [`CancelWatcher`], a thread that never calls the driver.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::CudaError;

/// Says whether the work of a [`LaunchContext`](super::LaunchContext) is still wanted.
pub trait CancelCheck: Send + Sync {
    /// The error type of the launch context's methods.
    type Error: From<CudaError>;

    /// Checks whether to go on.
    ///
    /// # Errors
    /// The reason to stop. Once it has failed it always fails.
    fn check(&self) -> Result<(), Self::Error>;
}

/// A [`CancelCheck`] of any error type.
pub(crate) trait IsCancelled: Send + Sync {
    fn is_cancelled(&self) -> bool;
}

impl<C: CancelCheck> IsCancelled for C {
    fn is_cancelled(&self) -> bool {
        self.check().is_err()
    }
}

/// The check of work that nobody can cancel.
#[derive(Debug)]
pub(crate) struct NeverCancelled;

impl CancelCheck for NeverCancelled {
    type Error = CudaError;

    fn check(&self) -> Result<(), CudaError> {
        Ok(())
    }
}

/// How late a kernel may learn that it is cancelled.
const INTERVAL: Duration = Duration::from_millis(1);

/// A thread that sets the cancel flags of running kernels. Dropping it ends the thread.
pub(super) struct CancelWatcher(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watched: Vec<Entry>,
    ended: bool,
}

struct Entry {
    check: *const dyn IsCancelled,
    flag: *const AtomicU32,
}

// SAFETY: both pointers are to values that are `Sync`, and `CancelWatcher::watch` requires that they outlive the entry.
unsafe impl Send for Entry {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.ended {
            for Entry { check, flag } in &state.watched {
                // SAFETY: the entry exists, so its guard does too, whose drop needs the lock that is held here.
                if unsafe { &**check }.is_cancelled() {
                    // SAFETY: as above.
                    unsafe { &**flag }.store(1, Ordering::Release);
                }
            }
            state = if state.watched.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed.wait_timeout(state, INTERVAL).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}

impl CancelWatcher {
    pub(super) fn start(ordinal: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watcher = Arc::clone(&shared);
        std::thread::Builder::new().name(format!("cuda{ordinal}-cancel")).spawn(move || watcher.run())?;
        Ok(Self(shared))
    }

    /// Sets `flag` to 1 once `check` says that the work is cancelled, until the guard is dropped.
    ///
    /// # Safety
    /// `check`, what it borrows, and what `flag` points to live until the guard has been dropped.
    pub(super) unsafe fn watch(&self, check: &dyn IsCancelled, flag: *const AtomicU32) -> WatchGuard {
        // SAFETY: only the lifetime changes, which the caller ensures.
        let check = unsafe { std::mem::transmute::<&dyn IsCancelled, &'static dyn IsCancelled>(check) };
        self.0.lock().watched.push(Entry { check, flag });
        self.0.changed.notify_one();
        WatchGuard { shared: Arc::clone(&self.0), flag: flag.addr() }
    }
}

impl Drop for CancelWatcher {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl fmt::Debug for CancelWatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelWatcher").field("watched", &self.0.lock().watched.len()).finish()
    }
}

/// Keeps a flag watched until it is dropped.
pub(super) struct WatchGuard {
    shared: Arc<Shared>,
    flag: usize,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.shared.lock().watched.retain(|entry| entry.flag.addr() != self.flag);
    }
}

impl fmt::Debug for WatchGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchGuard")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    #[derive(Default)]
    struct Check {
        cancelled: AtomicBool,
        deadline: Option<Instant>,
    }

    impl CancelCheck for Check {
        type Error = CudaError;

        fn check(&self) -> Result<(), CudaError> {
            let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_late || self.cancelled.load(Ordering::Relaxed) { Err(CudaError::Cancelled) } else { Ok(()) }
        }
    }

    #[test]
    fn a_flag_is_set_on_cancellation_or_once_the_deadline_has_passed() {
        let watcher = CancelWatcher::start(0).unwrap();
        let flags = [const { AtomicU32::new(0) }; 3];
        let soon = Instant::now() + Duration::from_millis(20);
        let checks = [Check::default(), Check { deadline: Some(soon), ..Check::default() }, Check::default()];
        // SAFETY: checks and flags outlive the guards, which are dropped before the end of this function.
        let guards: Vec<_> =
            checks.iter().zip(&flags).map(|(check, flag)| unsafe { watcher.watch(check, flag) }).collect();
        let set = || [0, 1, 2].map(|index: usize| flags[index].load(Ordering::Acquire));
        assert_eq!(set()[0], 0);
        checks[0].cancelled.store(true, Ordering::Relaxed);
        let start = Instant::now();
        while set() != [1, 1, 0] {
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", set());
            std::thread::sleep(INTERVAL);
        }
        drop(guards);
        assert!(watcher.0.lock().watched.is_empty());
    }
}
