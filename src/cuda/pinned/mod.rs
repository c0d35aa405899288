//! Host memory that devices read and write on their own.
//!
//! A copy between the host and a device runs at the speed of the bus where the host's side is *pinned*: its pages stay
//! where they are. Other memory goes through a lane's staging, which costs a copy by the host. Pinning takes longer than
//! copying, so pinned memory is kept in a pool of slabs.
//!
//! Three ways lead to it. Large tensors of a request that have to be copied, because they are not aligned, are copied into
//! it on a lane; one that lies in the pool, as part of an earlier answer, stays where it is. Large results are downloaded into it, and stay there until whoever got the response has dropped it.
//! And callers that pass typed inputs get it from [`PinnedMemory`]. Where there is none to be had, all of this works as
//! before, through staging. So do arrays of a JSON document: reading their digits takes a hundred times as long as the
//! copy.

mod pool;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use pool::PageLock;
use pool::{Lent, Level, Pool};

use super::copy::Copiers;
use crate::buffer::{Buffer, Element, ExternalMemory};

/// From how many bytes on an array is worth a slab.
pub(crate) const LARGE: usize = 1 << 20;

/// An eighth of the host's memory, or of what this process's control group may use.
pub(crate) fn default_limit() -> usize {
    let read = |path| std::fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").and_then(|text| memory_total(&text));
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let most = groups.into_iter().find_map(|path| read(path)?.trim().parse::<usize>().ok());
    total.into_iter().chain(most).min().map_or(256 << 20, |bytes| bytes / 8)
}

fn memory_total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// Gives out pinned memory: see [`CudaBackend::pinned_memory`](super::CudaBackend::pinned_memory).
///
/// ```no_run
/// use tower_kernels::backends::cuda::CudaBackend;
/// use tower_kernels::service::Buffer;
///
/// let backend = CudaBackend::open(0)?;
/// let memory = backend.pinned_memory();
/// let mut x: Buffer<f32> = memory.zeroed(1 << 20).unwrap_or_else(|| Buffer::zeroed(1 << 20));
/// x.fill(1.0);
/// # Ok::<(), tower_kernels::cuda::Unavailable>(())
/// ```
///
/// Clones give out of the same pool. What was given out outlives the backend, and is ordinary memory from then on.
#[derive(Clone)]
pub struct PinnedMemory {
    pool: Arc<Pool>,
    copiers: Copiers,
}

impl PinnedMemory {
    pub(crate) fn new(limit: usize, locker: Box<dyn PageLock>, copiers: Copiers) -> Self {
        Self { pool: Pool::new(limit, locker), copiers }
    }

    /// So many zeros. `None` where [`CudaConfig::pinned_bytes`](super::CudaConfig::pinned_bytes) are in use, or the system
    /// pins no pages.
    ///
    /// It takes 2 MiB at least, and at most four times what was asked for. A slab that is not in the pool yet is pinned
    /// first, some 160 µs a megabyte: not for a thread that serves others.
    pub fn zeroed<T: Element>(&self, len: usize) -> Option<Buffer<T>> {
        let mut pinned = self.take(len.checked_mul(size_of::<T>())?)?;
        // What another request has left is nobody's business.
        pinned.get_mut()?.fill(0);
        Some(pinned.into_buffer())
    }

    /// A copy of these elements. As [`zeroed`](Self::zeroed) otherwise.
    pub fn copy_of<T: Element>(&self, elements: &[T]) -> Option<Buffer<T>> {
        self.copy_bytes(bytemuck::cast_slice(elements)).map(Pinned::into_buffer)
    }

    /// A copy of the elements that these bytes are, where there are many of them.
    pub(crate) fn copy_of_many<T: Element>(&self, bytes: &[u8]) -> Option<Buffer<T>> {
        let pinned = (bytes.len() >= LARGE).then(|| self.copy_bytes(bytes))??;
        Some(pinned.into_buffer())
    }

    /// These bytes once more, where they lie in the pool.
    pub(in crate::cuda) fn share(&self, bytes: &[u8]) -> Option<Pinned> {
        // Small arrays lie somewhere else, nearly always.
        let (lent, offset) = (bytes.len() >= LARGE).then(|| self.pool.find(bytes))??;
        Some(Pinned { lent, offset, len: bytes.len() })
    }

    fn copy_bytes(&self, bytes: &[u8]) -> Option<Pinned> {
        let pinned = self.take(bytes.len())?;
        // SAFETY: nobody else knows of these bytes yet, and `copy` only writes bytes that are initialised.
        let to = unsafe { std::slice::from_raw_parts_mut(pinned.start().as_ptr().cast(), bytes.len()) };
        self.copiers.copy(bytes, to);
        Some(pinned)
    }

    /// So many bytes, which hold what their last user has left.
    pub(crate) fn take(&self, len: usize) -> Option<Pinned> {
        Some(Pinned { lent: self.pool.take(len)?, offset: 0, len })
    }

    pub(crate) fn trim(&self, unused: Duration, may: impl Fn() -> bool) {
        self.pool.trim(unused, may);
    }

    /// Has everything unpinned. Only pinned memory goes; what is in use stays where it is.
    pub(crate) fn end(&self) {
        self.pool.end();
    }

    pub(crate) fn level(&self) -> Level {
        self.pool.level()
    }
}

impl fmt::Debug for PinnedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedMemory").field(&self.pool).finish()
    }
}

/// Bytes of a slab, shared by whoever holds a clone. They change only while there is one holder.
#[derive(Clone)]
pub(crate) struct Pinned {
    lent: Arc<Lent>,
    offset: usize,
    pub(crate) len: usize,
}

impl Pinned {
    pub(crate) fn start(&self) -> NonNull<u8> {
        debug_assert!(self.len <= self.lent.len() && self.offset <= self.lent.len() - self.len);
        // SAFETY: `offset` lies within the slab.
        unsafe { self.lent.address().add(self.offset) }
    }

    /// A buffer over the bytes, which are aligned for every [`Element`].
    pub(in crate::cuda) fn into_buffer<T: Element>(self) -> Buffer<T> {
        Buffer::from_external(Box::new(self))
    }

    /// The bytes, to be changed; `None` while they are shared, with a device too.
    pub(crate) fn get_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: within the slab, whose pages were zeroed when they were mapped; `&mut self` is the only holder, and stays
        // so while the slice is borrowed. No device writes: who has one write holds a clone until that is done.
        Lent::is_alone(&mut self.lent)
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
        // SAFETY: within the slab, whose pages were zeroed when they were mapped. They do not change while they are
        // borrowed: that takes a `&mut` of the only holder. A device writes only to what no slice has been made of yet.
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
