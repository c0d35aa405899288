//! [`Pages`]: anonymous maps in huge pages, for large arrays.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// A huge page on x86-64, and on 64-bit ARM with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// An anonymous map in huge pages. A kernel writes its output once, and faulting in fresh pages costs more than writing to
/// them: 512 small pages take some 700 µs, the huge page in their place some 70 µs.
pub(crate) struct Pages {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl Pages {
    /// Maps `len` zeroed bytes. `None` where the system has no huge pages or no address space left.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        // One page more than needed, because the system aligns a map to small pages and the bytes are to begin at a huge
        // one. Pages that are not touched take no memory.
        let mapped = len.checked_next_multiple_of(HUGE_PAGE)?.checked_add(HUGE_PAGE)?;
        let map = MmapMut::map_anon(mapped).ok()?;
        advise(&map).ok()?;
        let start = map.as_ptr().align_offset(HUGE_PAGE);
        Some(Self { map, start, len })
    }

    /// As [`zeroed`](Self::zeroed), and not inherited by a forked process. A device keeps writing to the physical pages
    /// that were pinned; copy-on-write after a fork would give this process others.
    #[cfg(feature = "cuda")]
    pub(crate) fn unforked(len: usize) -> Option<Self> {
        let pages = Self::zeroed(len)?;
        #[cfg(target_os = "linux")]
        pages.map.advise(memmap2::Advice::DontFork).ok()?;
        Some(pages)
    }
}

#[cfg(target_os = "linux")]
fn advise(map: &MmapMut) -> io::Result<()> {
    map.advise(memmap2::Advice::HugePage)
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &MmapMut) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.start..][..self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::{HUGE_PAGE, Pages};

    #[test]
    fn pages_begin_at_a_huge_one_and_are_zero_and_apart() {
        assert!(Pages::zeroed(usize::MAX).is_none(), "more than there can be");
        assert!(Pages::zeroed(usize::MAX / 2).is_none(), "more than the system maps");
        let lengths = [1, HUGE_PAGE, HUGE_PAGE + 1, 3 * HUGE_PAGE - 8];
        // A system without huge pages has none to give.
        let mut all: Vec<Pages> = lengths.into_iter().filter_map(Pages::zeroed).collect();
        for (index, pages) in all.iter_mut().enumerate() {
            assert!(pages.as_ptr().addr().is_multiple_of(HUGE_PAGE));
            assert_eq!(pages.len(), lengths[index]);
            assert!(pages.iter().all(|byte| *byte == 0));
            pages.fill(index as u8 + 1);
        }
        for (index, pages) in all.iter().enumerate() {
            assert!(pages.iter().all(|byte| *byte == index as u8 + 1));
        }
    }
}
