//! Tells running kernels that their callers have left, whatever their lanes are doing.
//!
//! Some of the driver's calls (freeing memory, loading a module) wait for everything that runs on the device, and hold up
//! the calls of all other threads meanwhile, even a look at a stream. The lane of a kernel that runs until it is told to
//! stop could then not tell it, and nobody would ever go on. So the flags of such kernels are watched by a thread that
//! never calls the driver.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::service::RunContext;

/// How late a kernel may learn that its caller has left.
const INTERVAL: Duration = Duration::from_millis(1);

/// The thread, which ends with this.
pub(crate) struct Watch(Arc<Shared>);

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
    context: RunContext<'static>,
    flag: *const AtomicU32,
}

// SAFETY: a context is `Sync`, and so is what the pointer points at; `Watch::over` is promised that both last.
unsafe impl Send for Entry {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.ended {
            for Entry { context, flag } in &state.watched {
                if context.check().is_err() {
                    // SAFETY: the entry is there, and whoever removes it needs the lock that is held here.
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

impl Watch {
    pub(crate) fn start(ordinal: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watcher = Arc::clone(&shared);
        std::thread::Builder::new().name(format!("cuda{ordinal}-watch")).spawn(move || watcher.watch())?;
        Ok(Self(shared))
    }

    /// Sets `flag` to 1 once the caller behind `context` has left or its deadline has passed, until the answer is dropped.
    ///
    /// # Safety
    /// What `context` borrows and what `flag` points at live until the answer has been dropped.
    pub(crate) unsafe fn over(&self, context: &RunContext<'_>, flag: *const AtomicU32) -> Watched {
        // SAFETY: only the lifetime changes, and the caller answers for that.
        let context = unsafe { std::mem::transmute::<RunContext<'_>, RunContext<'static>>(*context) };
        self.0.lock().watched.push(Entry { context, flag });
        self.0.changed.notify_one();
        Watched { shared: Arc::clone(&self.0), flag: flag.addr() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("watched", &self.0.lock().watched.len()).finish()
    }
}

/// A flag that is being watched, until this is dropped.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    flag: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.lock().watched.retain(|entry| entry.flag.addr() != self.flag);
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::sync::oneshot;

    #[test]
    fn a_flag_is_raised_when_the_caller_leaves_or_its_time_is_up() {
        let watch = Watch::start(0).unwrap();
        let flags = [const { AtomicU32::new(0) }; 3];
        let (reply, answer) = oneshot::channel::<()>();
        let (patient_reply, _patient) = oneshot::channel::<()>();
        let (is_closed, is_patient_closed) = (|| reply.is_closed(), || patient_reply.is_closed());
        let soon = Instant::now() + Duration::from_millis(20);
        let contexts = [
            RunContext::new(Some(&is_closed), None),
            RunContext::new(None, Some(soon)),
            RunContext::new(Some(&is_patient_closed), None),
        ];
        // SAFETY: contexts and flags outlive what is dropped before the end of this function.
        let watched: Vec<_> =
            contexts.iter().zip(&flags).map(|(context, flag)| unsafe { watch.over(context, flag) }).collect();
        let raised = || [0, 1, 2].map(|index: usize| flags[index].load(Ordering::Acquire));
        assert_eq!(raised()[0], 0);
        drop(answer);
        let start = Instant::now();
        while raised() != [1, 1, 0] {
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", raised());
            std::thread::sleep(INTERVAL);
        }
        drop(watched);
        assert!(watch.0.lock().watched.is_empty());
    }
}
