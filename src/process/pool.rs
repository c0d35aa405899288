//! Blocks of shared memory for messages that do not fit into a mailbox.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::segment::{Area, Segment};
use crate::sync::Mutex;

/// Where a block's area begins in its segment; before it is the word that says whether the block is in use.
pub(super) const BLOCK_AREA: usize = 64;

/// The block is the sender's, for its next message.
pub(super) const FREE: u32 = 0;
/// The block holds a message that was sent, and that the receiver has not dropped.
pub(super) const IN_USE: u32 = 1;

/// The word of a block, in its segment. The sender sets it to [`IN_USE`], and the receiver to [`FREE`].
pub(super) fn block_word(segment: &Segment) -> &std::sync::atomic::AtomicU32 {
    segment.word(0)
}

/// A segment is as large as a power of two, from this on, and [`HEADROOM`].
const SMALLEST: usize = 16 << 10;

/// So that an array of the size of a power of two fits with its message's head.
const HEADROOM: usize = 16 << 10;

/// A message needs more shared memory than there is: the receiver has not yet dropped others, or it is larger than the
/// budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfSharedMemory {
    /// What the message needs, in bytes.
    pub(crate) need: u64,
    /// What all messages in one direction may take together, in bytes.
    pub(crate) budget: u64,
}

impl fmt::Display for OutOfSharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { need, budget } = self;
        write!(
            f,
            "{need} bytes of shared memory needed: messages in use leave less than that of the budget of {budget} bytes"
        )
    }
}

impl std::error::Error for OutOfSharedMemory {}

/// Why there is no block.
#[derive(Debug)]
pub(super) enum AllocError {
    OutOfSharedMemory(OutOfSharedMemory),
    /// The system has no memory or no descriptors.
    System(io::Error),
}

/// The blocks that one process sends its large messages in.
///
/// Each is a segment of its own, of one of a few sizes, and kept for later messages. All of them together stay within a
/// budget. Where a new block would exceed it, unused blocks of other sizes are given up.
#[derive(Debug)]
pub(super) struct SegmentPool {
    budget: u64,
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    segments: Vec<Arc<PoolSegment>>,
    /// Of all segments.
    bytes: u64,
    last_number: u32,
}

#[derive(Debug)]
struct PoolSegment {
    number: u32,
    segment: Segment,
    /// A [`Block`] of it exists in this process.
    held: AtomicBool,
}

impl PoolSegment {
    fn is_free(&self) -> bool {
        // Acquire: what the receiver read of the last message, it read before.
        !self.held.load(Ordering::Acquire) && block_word(&self.segment).load(Ordering::Acquire) == FREE
    }

    fn hold(self: &Arc<Self>) -> Block {
        self.held.store(true, Ordering::Relaxed);
        Block { segment: Arc::clone(self) }
    }
}

/// A block, and what has to be told to the other process before the block can be used.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) block: Block,
    /// The numbers of segments that the pool has given up.
    pub(super) retired: Vec<u32>,
    /// The descriptor of the block's segment, if it is a new one.
    pub(super) new: Option<OwnedFd>,
}

impl SegmentPool {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, state: Mutex::default() }
    }

    /// What all segments may take together, in bytes.
    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// Finds or creates a block with an area of at least `len` bytes. It is looked for from `at` on, where the caller's last one
    /// was found: that is most likely to be free again, and in the caches of both processes.
    pub(super) fn alloc(&self, len: usize, at: &mut usize) -> Result<Allocation, AllocError> {
        let out_of_memory = |need| AllocError::OutOfSharedMemory(OutOfSharedMemory { need, budget: self.budget });
        let size = segment_size(len).ok_or_else(|| out_of_memory(len as u64))?;
        if size as u64 > self.budget {
            return Err(out_of_memory(size as u64));
        }
        let mut state = self.state.lock();
        let start = if *at < state.segments.len() { *at } else { 0 };
        let mut free = |larger: bool| {
            let fits = |&index: &usize| {
                let segment = &state.segments[index];
                let has = segment.segment.len();
                (has == size || larger && has > size) && segment.is_free()
            };
            let found = (start..state.segments.len()).chain(0..start).find(fits)?;
            *at = found;
            Some(state.segments[found].hold())
        };
        let is_full = state.bytes + size as u64 > self.budget;
        if let Some(block) = free(false).or_else(|| is_full.then(|| free(true)).flatten()) {
            return Ok(Allocation { block, retired: Vec::new(), new: None });
        }
        let unused: u64 = state.segments.iter().filter(|s| s.is_free()).map(|s| s.segment.len() as u64).sum();
        if state.bytes - unused + size as u64 > self.budget {
            return Err(out_of_memory(size as u64));
        }
        let (segment, descriptor) = Segment::create(size).map_err(AllocError::System)?;
        let mut retired = Vec::new();
        while state.bytes + size as u64 > self.budget {
            let Some(index) = state.segments.iter().position(|segment| segment.is_free()) else { break };
            let segment = state.segments.swap_remove(index);
            state.bytes -= segment.segment.len() as u64;
            retired.push(segment.number);
        }
        state.last_number += 1;
        state.bytes += size as u64;
        let segment = Arc::new(PoolSegment { number: state.last_number, segment, held: AtomicBool::new(false) });
        let block = segment.hold();
        *at = state.segments.len();
        state.segments.push(segment);
        Ok(Allocation { block, retired, new: Some(descriptor) })
    }
}

/// The size of the segment whose area has `len` bytes; `None` if there is none as large.
fn segment_size(len: usize) -> Option<usize> {
    let beyond_headroom = len.checked_add(BLOCK_AREA)?.saturating_sub(HEADROOM);
    beyond_headroom.max(SMALLEST).checked_next_power_of_two()?.checked_add(HEADROOM)
}

/// Memory for one message of this process. After [`publish`](Self::publish) it is in use until the receiver has dropped the
/// message, and before that until the block is dropped.
#[derive(Debug)]
pub(super) struct Block {
    segment: Arc<PoolSegment>,
}

impl Block {
    /// The number of the segment, never 0.
    pub(super) fn number(&self) -> u32 {
        self.segment.number
    }

    /// The length of the whole segment in bytes.
    pub(super) fn segment_len(&self) -> usize {
        self.segment.segment.len()
    }

    pub(super) fn area(&self) -> Area<'_> {
        self.segment.segment.area(BLOCK_AREA, self.segment_len() - BLOCK_AREA)
    }

    /// Passes the block to the receiver. Its message must be sent after this.
    pub(super) fn publish(self) {
        block_word(&self.segment.segment).store(IN_USE, Ordering::Relaxed);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.segment.held.store(false, Ordering::Release);
    }
}
