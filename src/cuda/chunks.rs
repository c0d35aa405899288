//! Device memory between requests, for whichever lane needs it next, and how it goes back to the driver.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::memory::Chunk;

/// Chunks that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Mutex<Vec<(Chunk, Instant)>>);

impl Chunks {
    fn lock(&self) -> MutexGuard<'_, Vec<(Chunk, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest that holds `bytes` and is not four times as large, if `may_have` agrees to its size.
    pub(crate) fn take(&self, bytes: usize, may_have: impl FnOnce(usize) -> bool) -> Option<Chunk> {
        let mut idle = self.lock();
        let fits = |at: &usize| idle[*at].0.len() >= bytes && idle[*at].0.len() / 4 <= bytes;
        let best = (0..idle.len()).filter(fits).min_by_key(|&at| idle[at].0.len())?;
        may_have(idle[best].0.len()).then(|| idle.swap_remove(best).0)
    }

    /// Takes a chunk that no work uses any more.
    pub(crate) fn give(&self, chunk: Chunk) {
        self.lock().push((chunk, Instant::now()));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lock().iter().map(|(chunk, _)| chunk.len() as u64).sum()
    }

    /// Everything goes back to the driver, which waits for all that runs on the device. The context must be current.
    pub(crate) fn clear(&self) {
        // Freed with the lock let go.
        let idle = std::mem::take(&mut *self.lock());
        drop(idle);
    }

    /// What nobody has used for `unused` goes back, as long as `may` says that it is a good time.
    pub(crate) fn trim(&self, unused: Duration, may: impl Fn() -> bool) {
        while may() {
            let chunk = {
                let mut idle = self.lock();
                let Some(at) = idle.iter().position(|(_, since)| since.elapsed() >= unused) else { return };
                idle.swap_remove(at).0
            };
            drop(chunk);
        }
    }
}

/// A thread that now and then gives back what has long been idle. It ends with this, which waits for it.
#[derive(Debug)]
pub(crate) struct Trimmer {
    /// `None` only while it is being dropped.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trimmer {
    /// `trim` is called four times in each `unused`.
    pub(crate) fn start(ordinal: u32, unused: Duration, mut trim: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (running, ended) = bounded(0);
        let pause = (unused / 4).max(Duration::from_millis(10));
        let work = move || {
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                trim();
            }
        };
        let thread = std::thread::Builder::new().name(format!("cuda{ordinal}-trim")).spawn(work)?;
        Ok(Self { running: Some(running), thread: Some(thread) })
    }
}

impl Drop for Trimmer {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // It has said on the standard error why, if it panicked.
            let _ = thread.join();
        }
    }
}
