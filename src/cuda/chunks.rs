//! Device memory that no run uses: kept for the next run that needs it, and freed after a while.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::memory::Chunk;

/// Idle chunks, with the times since when they are.
#[derive(Debug, Default)]
pub(super) struct Chunks(Mutex<Vec<(Chunk, Instant)>>);

impl Chunks {
    fn lock(&self) -> MutexGuard<'_, Vec<(Chunk, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the smallest chunk that holds `bytes` and is not four times as large, if `may_take` agrees to its size.
    pub(super) fn take(&self, bytes: usize, may_take: impl FnOnce(usize) -> bool) -> Option<Chunk> {
        let mut idle = self.lock();
        let fits = |at: &usize| idle[*at].0.len() >= bytes && idle[*at].0.len() / 4 <= bytes;
        let best = (0..idle.len()).filter(fits).min_by_key(|&at| idle[at].0.len())?;
        may_take(idle[best].0.len()).then(|| idle.swap_remove(best).0)
    }

    /// Adds a chunk that no queued work uses any more.
    pub(super) fn add(&self, chunk: Chunk) {
        self.lock().push((chunk, Instant::now()));
    }

    /// The size of all chunks.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().iter().map(|(chunk, _)| chunk.len() as u64).sum()
    }

    /// Frees all chunks. The driver waits for everything that runs on the device. The context must be current.
    pub(super) fn clear(&self) {
        // Freed after the lock is released.
        let idle = std::mem::take(&mut *self.lock());
        drop(idle);
    }

    /// Frees the chunks that have been idle for `ttl`, as long as `may_free` returns true.
    pub(super) fn trim(&self, ttl: Duration, may_free: impl Fn() -> bool) {
        while may_free() {
            let chunk = {
                let mut idle = self.lock();
                let Some(at) = idle.iter().position(|(_, since)| since.elapsed() >= ttl) else { return };
                idle.swap_remove(at).0
            };
            drop(chunk);
        }
    }
}

/// A thread that frees idle memory, periodically and when it is woken. Dropping this ends the thread and waits for it.
#[derive(Debug)]
pub(super) struct Trimmer {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Trim,
    End,
}

impl Trimmer {
    /// Starts a thread that calls `trim` four times in each `ttl`, and when it is woken.
    pub(super) fn start(ordinal: u32, ttl: Duration, mut trim: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (messages, received) = bounded(1);
        let pause = (ttl / 4).max(Duration::from_millis(10));
        let work = move || {
            while let Ok(Message::Trim) | Err(RecvTimeoutError::Timeout) = received.recv_timeout(pause) {
                trim();
            }
        };
        let thread = std::thread::Builder::new().name(format!("cuda{ordinal}-trim")).spawn(work)?;
        Ok(Self { messages, thread: Some(thread) })
    }

    /// Returns a function that wakes the thread, and that never blocks.
    pub(super) fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let messages = self.messages.clone();
        move || {
            // Where the channel is full, the thread is about to trim anyway.
            let _ = messages.try_send(Message::Trim);
        }
    }
}

impl Drop for Trimmer {
    fn drop(&mut self) {
        // It fails if the thread has panicked.
        let _ = self.messages.send(Message::End);
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}
