//! Memory that two processes share.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};

use crate::copy::CopyThreads;

/// Memory that two processes share: a memfd of a fixed size, mapped whole, readable and writable.
///
/// Its size is sealed. A process that could truncate it would make the other one die of `SIGBUS` when that reads past the
/// new end. Whoever receives a descriptor checks the seals before it maps it.
///
/// The memory stays mapped as long as the `Segment` lives, whatever happens to the other process and to the descriptor.
#[derive(Debug)]
pub(crate) struct Segment {
    map: MmapRaw,
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

impl Segment {
    /// Creates `len` bytes of zeros, and the descriptor with which another process can map them.
    pub(crate) fn create(len: usize) -> io::Result<(Self, OwnedFd)> {
        let descriptor = memfd_create("tower-kernels", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, len as u64)?;
        fcntl_add_seals(&descriptor, SEALS)?;
        Ok((Self { map: MmapOptions::new().len(len).map_raw(&descriptor)? }, descriptor))
    }

    /// Maps memory that another process created.
    ///
    /// Fails with `InvalidData` unless it is a memfd whose size is sealed.
    pub(crate) fn from_fd(descriptor: impl AsFd) -> io::Result<Self> {
        let descriptor = descriptor.as_fd();
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("shared memory: {what}"));
        let seals = fcntl_get_seals(descriptor).map_err(|_| invalid("not a memfd"))?;
        if !seals.contains(SEALS) {
            return Err(invalid("its size is not sealed"));
        }
        let len = usize::try_from(fstat(descriptor)?.st_size).map_err(|_| invalid("impossible size"))?;
        if len == 0 {
            return Err(invalid("empty"));
        }
        Ok(Self { map: MmapOptions::new().len(len).map_raw(&descriptor)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// The start of the memory, aligned to a page. The other process can write to it at any time.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// As [`as_ptr`](Self::as_ptr), never null.
    pub(crate) fn start(&self) -> NonNull<u8> {
        NonNull::new(self.as_ptr()).expect("a map is not at address 0")
    }

    /// The four bytes at `offset`, as a word that both processes read and write.
    ///
    /// # Panics
    /// If `offset` is not aligned, or outside.
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < self.len() && self.len() - offset >= 4);
        // SAFETY: in bounds and aligned, as just checked and as a map begins at a page; mapped as long as `self` lives; and
        // only accessed atomically.
        unsafe { AtomicU32::from_ptr(self.as_ptr().add(offset).cast()) }
    }

    /// As [`word`](Self::word), eight bytes.
    pub(super) fn long_word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.len() && self.len() - offset >= 8);
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.as_ptr().add(offset).cast()) }
    }

    /// A part of the memory, for messages.
    ///
    /// # Panics
    /// If it is outside.
    pub(super) fn area(&self, offset: usize, len: usize) -> Area<'_> {
        assert!(offset <= self.len() && self.len() - offset >= len);
        Area { segment: self, offset, len }
    }
}

/// A part of a segment: where a message lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area<'a> {
    segment: &'a Segment,
    offset: usize,
    len: usize,
}

impl Area<'_> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Copies `bytes` to `offset`, with the help of `threads` if they are many.
    ///
    /// # Panics
    /// If they end outside.
    pub(super) fn write(&self, offset: usize, bytes: &[u8], threads: &CopyThreads) {
        assert!(offset <= self.len && self.len - offset >= bytes.len());
        // SAFETY: in bounds, as just checked and as `Segment::area` has. `bytes` lie elsewhere: a received message may be sent
        // on, but its segment is one that the other process writes. No other thread of this process accesses an area that a
        // message is written to, and bytes that may be uninitialised have no invalid values.
        let to = unsafe {
            let start = self.segment.as_ptr().add(self.offset + offset);
            std::slice::from_raw_parts_mut(start.cast::<MaybeUninit<u8>>(), bytes.len())
        };
        threads.copy(bytes, to);
    }

    /// Copies a part out.
    ///
    /// # Panics
    /// If it is not inside.
    pub(super) fn read(&self, part: Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes, part);
        bytes
    }

    /// As [`read`](Self::read), to the end of `bytes`, which are not moved if they have the capacity.
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>, part: Range<usize>) {
        assert!(part.start <= part.end && part.end <= self.len);
        let len = part.len();
        bytes.reserve(len);
        // SAFETY: in bounds as in `write`, and there is room for it; all of it is written before the length says so. The other
        // process may write meanwhile: then the copy has some mixture of old and new bytes.
        unsafe {
            let from = self.segment.as_ptr().add(self.offset + part.start);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr().add(bytes.len()), len);
            bytes.set_len(bytes.len() + len);
        }
    }

    /// The eight bytes at `offset`, loaded once.
    pub(super) fn load(&self, offset: usize) -> u64 {
        self.segment.long_word(self.offset + offset).load(Ordering::Relaxed)
    }
}
