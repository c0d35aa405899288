//! Memory that a device process shares with its parent, as a device reads it.

use std::sync::Arc;

use crate::cuda::{ForeignPages, PinnedMemory};
use crate::process::Segment;

/// A segment that is pinned, which is undone when this is dropped.
#[derive(Debug)]
pub(crate) struct PinnedSegment {
    // In this order: fields are dropped in that of their declaration.
    _pages: ForeignPages,
    _segment: Arc<Segment>,
}

/// Pins a segment if it is large, so that the device reads from it what its sender has written, without a copy by this process.
/// Returns `None` where it cannot be pinned.
pub(crate) fn pin_segment(memory: &PinnedMemory, segment: &Arc<Segment>) -> Option<PinnedSegment> {
    // SAFETY: what is returned keeps the segment mapped.
    #[allow(unsafe_code)]
    let pages = unsafe { memory.pin_foreign(segment.start(), segment.len()) }?;
    Some(PinnedSegment { _pages: pages, _segment: Arc::clone(segment) })
}
