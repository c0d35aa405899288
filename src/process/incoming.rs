//! The segments in which the other process sends its large messages.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::pool::{BLOCK_AREA, FREE, block_word};
use super::segment::{Area, Segment};

/// Called with a segment that has been mapped. What it returns is dropped when the segment is given up.
type OnMapped = dyn Fn(&Arc<Segment>) -> Option<Box<dyn Any + Send + Sync>> + Send + Sync;

/// The segments that the other process has announced, by number.
pub(super) struct IncomingSegments {
    /// How many bytes may be mapped. Twice the sender's budget: a segment that it gave up is mapped until this process has
    /// read so, and its successor already too.
    limit: u64,
    mapped: Arc<AtomicU64>,
    state: Mutex<State>,
    changed: Condvar,
    on_mapped: OnceLock<Box<OnMapped>>,
}

impl fmt::Debug for IncomingSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, mapped, state, .. } = self;
        f.debug_struct("IncomingSegments")
            .field("limit", limit)
            .field("mapped", mapped)
            .field("state", state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    segments: HashMap<u32, Arc<IncomingSegment>>,
    /// No more will be announced.
    is_closed: bool,
}

#[derive(Debug)]
struct IncomingSegment {
    segment: Arc<Segment>,
    _kept: Option<Box<dyn Any + Send + Sync>>,
    /// A message in it is in use by this process.
    is_held: AtomicBool,
    mapped: Arc<AtomicU64>,
}

impl Drop for IncomingSegment {
    fn drop(&mut self) {
        self.mapped.fetch_sub(self.segment.len() as u64, Ordering::Relaxed);
    }
}

/// Why there is no block of a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoBlock {
    /// The other process has ended, or has closed its socket.
    Closed,
    /// It says what cannot be.
    Corrupt(String),
}

impl IncomingSegments {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            limit: budget.saturating_mul(2),
            mapped: Arc::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            on_mapped: OnceLock::new(),
        }
    }

    /// Has `on_mapped` called with each segment that is added from now on. Only the first call of this counts.
    pub(super) fn on_mapped(
        &self,
        on_mapped: impl Fn(&Arc<Segment>) -> Option<Box<dyn Any + Send + Sync>> + Send + Sync + 'static,
    ) {
        let _ = self.on_mapped.set(Box::new(on_mapped));
    }

    /// Adds a segment that was announced. Fails, in words, if it may not be.
    pub(super) fn add(&self, number: u32, descriptor: OwnedFd) -> Result<(), String> {
        let segment = Segment::from_fd(descriptor).map_err(|error| error.to_string())?;
        let len = segment.len() as u64;
        if segment.len() <= BLOCK_AREA {
            return Err(format!("segment {number} has {len} bytes, too few for a block"));
        }
        // One thread adds; others only subtract.
        if self.mapped.load(Ordering::Relaxed).saturating_add(len) > self.limit {
            return Err(format!("segment {number} of {len} bytes exceeds the limit of {} bytes", self.limit));
        }
        self.mapped.fetch_add(len, Ordering::Relaxed);
        let segment = Arc::new(segment);
        let segment = IncomingSegment {
            _kept: self.on_mapped.get().and_then(|on_mapped| on_mapped(&segment)),
            segment,
            is_held: AtomicBool::new(false),
            mapped: Arc::clone(&self.mapped),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.segments.contains_key(&number) {
            return Err(format!("segment {number} is announced twice"));
        }
        state.segments.insert(number, Arc::new(segment));
        self.changed.notify_all();
        Ok(())
    }

    /// Removes a segment that the other process has given up.
    pub(super) fn retire(&self, number: u32) -> Result<(), String> {
        let removed = self.state.lock().unwrap_or_else(PoisonError::into_inner).segments.remove(&number);
        // Unmapped after the lock is released.
        removed.map(drop).ok_or_else(|| format!("segment {number} is given up, but unknown"))
    }

    /// No more segments will come; who waits for one stops to.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.changed.notify_all();
    }

    /// Takes the block of a message that has arrived. Its segment was announced before, but through a socket which another
    /// thread reads: so this waits for it, up to `timeout`.
    pub(super) fn take(&self, number: u32, timeout: Duration) -> Result<IncomingBlock, NoBlock> {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = loop {
            if let Some(segment) = state.segments.get(&number) {
                break Arc::clone(segment);
            }
            if state.is_closed {
                return Err(NoBlock::Closed);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoBlock::Corrupt(format!("a message is in segment {number}, which is unknown")));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(state);
        if segment.is_held.swap(true, Ordering::Acquire) {
            return Err(NoBlock::Corrupt(format!("a message is in segment {number}, where an earlier one still is")));
        }
        Ok(IncomingBlock { segment })
    }
}

/// A block with a message of the other process. Dropping it frees the block for that process's next message.
#[derive(Debug)]
pub(super) struct IncomingBlock {
    segment: Arc<IncomingSegment>,
}

impl IncomingBlock {
    pub(super) fn area(&self) -> Area<'_> {
        self.segment.segment.area(BLOCK_AREA, self.segment.segment.len() - BLOCK_AREA)
    }

    /// The area as bytes that free the block when the last of them is dropped.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for IncomingBlock {
    fn as_ref(&self) -> &[u8] {
        let segment = &self.segment.segment;
        // SAFETY: in bounds, as `IncomingSegments::add` has checked that the segment is longer than `BLOCK_AREA`, and mapped as
        // long as `self` lives. A sender that keeps to the rules does not write before the block is free again. For one that
        // does not, see `Received`: bytes have no invalid values, and nothing that is read from them is relied on.
        unsafe { std::slice::from_raw_parts(segment.as_ptr().add(BLOCK_AREA), segment.len() - BLOCK_AREA) }
    }
}

impl Drop for IncomingBlock {
    fn drop(&mut self) {
        // In this order: as soon as the sender reads `FREE`, the next message may be here.
        self.segment.is_held.store(false, Ordering::Relaxed);
        block_word(&self.segment.segment).store(FREE, Ordering::Release);
    }
}
