//! [`PinnedMemory`]: a pool of page-locked host memory, which devices read and write directly.
//!
//! A copy between host and device runs at the rate of the bus only if the host's memory is *pinned*: its pages stay at
//! their physical addresses. Other memory is copied through staging memory, by the host. Pinning takes longer than copying,
//! so the pool reuses pinned memory, in slabs.
//!
//! There are three uses. Large tensors of a request that have to be copied because they are not aligned are copied to the
//! pool by a worker; a tensor that already lies in the pool, as part of an earlier response, is not copied. Large results
//! are downloaded to the pool, and stay there until the response is dropped. Callers that pass typed inputs can allocate
//! them with [`PinnedMemory`]. Where the pool is exhausted, all of this goes through staging memory. Arrays of JSON
//! documents are never put into the pool: to parse them takes a hundred times as long as the copy.

mod pool;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

#[cfg(all(feature = "isolation", target_os = "linux"))]
pub(crate) use pool::ForeignPages;
pub(super) use pool::PageLock;
use pool::{Pool, PoolUsage, Slab};

use crate::buffer::{Buffer, Element, ExternalMemory};
use crate::copy::CopyThreads;

/// The size in bytes from which on an array is put into pinned memory.
pub(super) const LARGE: usize = 1 << 20;

/// An eighth of the host's memory or of the control group's limit, whichever is less.
pub(super) fn default_limit() -> usize {
    let read = |path| std::fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").and_then(|text| memory_total(&text));
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = groups.into_iter().find_map(|path| read(path)?.trim().parse::<usize>().ok());
    total.into_iter().chain(limit).min().map_or(256 << 20, |bytes| bytes / 8)
}

fn memory_total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// A pool of pinned host memory: see [`CudaBackend::pinned_memory`](crate::backends::cuda::CudaBackend::pinned_memory).
///
/// ```no_run
/// use tower_kernels::backends::cuda::CudaBackend;
/// use tower_kernels::service::Buffer;
///
/// let backend = CudaBackend::open(0)?;
/// let memory = backend.pinned_memory().expect("a device that is not isolated");
/// let mut x: Buffer<f32> = memory.zeroed(1 << 20).unwrap_or_else(|| Buffer::zeroed(1 << 20));
/// x.fill(1.0);
/// # Ok::<(), tower_kernels::cuda::Unavailable>(())
/// ```
///
/// Clones allocate from the same pool. Buffers may outlive the backend, and are ordinary memory from then on.
#[derive(Clone)]
pub struct PinnedMemory {
    pool: Arc<Pool>,
    copy_threads: CopyThreads,
}

impl PinnedMemory {
    pub(super) fn new(limit: usize, locker: Box<dyn PageLock>, copy_threads: CopyThreads) -> Self {
        Self { pool: Pool::new(limit, locker), copy_threads }
    }

    /// Allocates `len` zeros. Returns `None` if [`CudaConfig::pinned_bytes`](super::CudaConfig::pinned_bytes) are in use, or
    /// the system cannot pin pages.
    ///
    /// The allocation takes at least 2 MiB, and at most four times the size of the elements. Where the pool has no idle slab
    /// of that size, a new one is pinned, which blocks the thread for some 160 µs a megabyte.
    pub fn zeroed<T: Element>(&self, len: usize) -> Option<Buffer<T>> {
        let mut pinned = self.take(len.checked_mul(size_of::<T>())?)?;
        // The slab may hold data of another request.
        pinned.get_mut()?.fill(0);
        Some(pinned.into_buffer())
    }

    /// Allocates a copy of `elements`. Otherwise as [`zeroed`](Self::zeroed).
    pub fn copy_of<T: Element>(&self, elements: &[T]) -> Option<Buffer<T>> {
        self.copy_bytes(bytemuck::cast_slice(elements)).map(Pinned::into_buffer)
    }

    /// Allocates a copy of the elements in `bytes` if they are at least [`LARGE`].
    pub(crate) fn copy_of_large<T: Element>(&self, bytes: &[u8]) -> Option<Buffer<T>> {
        let pinned = (bytes.len() >= LARGE).then(|| self.copy_bytes(bytes))??;
        Some(pinned.into_buffer())
    }

    /// Another handle to `bytes` if they lie in the pool.
    pub(super) fn share(&self, bytes: &[u8]) -> Option<Pinned> {
        // Small arrays rarely lie in the pool.
        let (slab, offset) = (bytes.len() >= LARGE).then(|| self.pool.find(bytes))??;
        Some(Pinned { slab, offset, len: bytes.len() })
    }

    /// Pins a part of memory that two processes share: see [`Pool::pin_foreign`].
    ///
    /// # Safety
    /// The pages stay mapped until the result is dropped.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub(crate) unsafe fn pin_foreign(&self, pages: NonNull<u8>, len: usize) -> Option<ForeignPages> {
        // SAFETY: as the caller of this promises.
        (len >= LARGE).then(|| unsafe { self.pool.pin_foreign(pages, len) })?
    }

    /// Whether `bytes` lie in pages that are not the pool's, but pinned.
    pub(super) fn is_in_foreign(&self, bytes: &[u8]) -> bool {
        bytes.len() >= LARGE && self.pool.is_in_foreign(bytes)
    }

    fn copy_bytes(&self, bytes: &[u8]) -> Option<Pinned> {
        let pinned = self.take(bytes.len())?;
        // SAFETY: these bytes are not shared yet, and `copy` only writes initialised bytes.
        let to = unsafe { std::slice::from_raw_parts_mut(pinned.start().as_ptr().cast(), bytes.len()) };
        self.copy_threads.copy(bytes, to);
        Some(pinned)
    }

    /// Allocates `len` bytes, which hold the data of their last user.
    pub(super) fn take(&self, len: usize) -> Option<Pinned> {
        Some(Pinned { slab: self.pool.take(len)?, offset: 0, len })
    }

    /// Frees slabs that have been idle for `ttl`, as long as `may_free` returns true.
    pub(super) fn trim(&self, ttl: Duration, may_free: impl Fn() -> bool) {
        self.pool.trim(ttl, may_free);
    }

    /// Unpins all memory and closes the pool. Memory that is in use stays allocated, as ordinary memory.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    pub(crate) fn usage(&self) -> PoolUsage {
        self.pool.usage()
    }
}

impl fmt::Debug for PinnedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedMemory").field(&self.pool).finish()
    }
}

/// A range of a slab, shared by its clones. It is written to only while there is one handle to the slab.
#[derive(Clone)]
pub(super) struct Pinned {
    slab: Arc<Slab>,
    offset: usize,
    pub(super) len: usize,
}

impl Pinned {
    pub(super) fn start(&self) -> NonNull<u8> {
        debug_assert!(self.len <= self.slab.len() && self.offset <= self.slab.len() - self.len);
        // SAFETY: `offset` lies within the slab.
        unsafe { self.slab.address().add(self.offset) }
    }

    /// A buffer over the bytes, which are aligned for every [`Element`].
    pub(super) fn into_buffer<T: Element>(self) -> Buffer<T> {
        Buffer::from_external(Box::new(self))
    }

    /// The bytes for writing; `None` while another handle or a device shares them.
    pub(super) fn get_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: within the slab, whose pages were zeroed when they were mapped; `&mut self` is the only handle, and stays so
        // while the slice is borrowed. No device writes: a queued copy holds a clone until it is done.
        Slab::is_unique(&mut self.slab)
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) })
    }
}

impl ExternalMemory for Pinned {
    fn as_slice(&self) -> &[u8] {
        self
    }

    fn get_mut(&mut self) -> Option<&mut [u8]> {
        Self::get_mut(self)
    }

    fn share(&self) -> Box<dyn ExternalMemory> {
        Box::new(self.clone())
    }
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: within the slab, whose pages were zeroed when they were mapped. They are not written to while they are
        // borrowed: that takes a `&mut` of the only handle. A device writes only to memory of which no slice exists yet.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned[{}]", self.len)
    }
}
