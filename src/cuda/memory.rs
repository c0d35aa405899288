//! Device memory: chunks, and the [`Arena`] that buffers are allocated from; and pinned staging memory.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::CUdeviceptr;

use super::device::Device;
use super::driver::Driver;
use super::{CudaError, ReservedMemory};

/// An allocation of device memory.
#[derive(Debug)]
pub(super) struct Chunk {
    driver: &'static Driver,
    address: CUdeviceptr,
    len: usize,
}

impl Chunk {
    /// Allocates `len` bytes. The context must be current.
    pub(super) fn new(driver: &'static Driver, len: usize) -> Result<Self, CudaError> {
        let mut address = 0;
        // SAFETY: `address` lives across the call.
        CudaError::check("cuMemAlloc", unsafe { (driver.cuMemAlloc_v2)(&raw mut address, len) })?;
        Ok(Self { driver, address, len })
    }

    /// The size of a chunk for `bytes`: a power of two up to 64 MiB, and a multiple of that above, so that runs of similar
    /// sizes reuse chunks.
    pub(super) fn rounded(bytes: usize) -> usize {
        const STEP: usize = 64 << 20;
        if bytes <= STEP { bytes.next_power_of_two().max(2 << 20) } else { bytes.next_multiple_of(STEP) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once. A chunk is dropped after its stream was idle. It fails only where the
        // device is lost or the process is ending, which frees it.
        unsafe { (self.driver.cuMemFree_v2)(self.address) };
    }
}

/// A bump allocator for the buffers of one run at a time.
#[derive(Debug)]
pub(super) struct Arena {
    /// The first is permanent. Buffers are allocated from the last.
    chunks: Vec<ReservedChunk>,
    /// Bytes of the last chunk that are in use.
    used: usize,
    /// Bytes that this run was declared to need, and that it has allocated.
    declared: usize,
    allocated: usize,
    /// Bytes that the last run allocated, where that was more than it had declared; otherwise 0.
    undeclared: usize,
    /// Identifies the run, and so its buffers.
    generation: u64,
}

/// A chunk and its reservation. The permanent chunk has none.
#[derive(Debug)]
struct ReservedChunk {
    chunk: Chunk,
    reservation: Option<Box<dyn ReservedMemory>>,
}

/// The alignment of buffers: that of the driver's own allocator, and more than a cache line of 128 bytes.
const ALIGNMENT: usize = 256;
/// The size of an arena's permanent chunk, which needs no reservation.
pub(super) const INITIAL_ARENA: usize = 2 << 20;
/// Up to this size a chunk that is full is followed by one of twice its size.
const MAX_DOUBLED: usize = 64 << 20;

fn next_generation() -> u64 {
    // Unique in the process: a buffer of another executor is as stale as one of an earlier run.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Arena {
    /// Allocates the permanent chunk. The context must be current.
    pub(super) fn new(driver: &'static Driver) -> Result<Self, CudaError> {
        let permanent = ReservedChunk { chunk: Chunk::new(driver, INITIAL_ARENA)?, reservation: None };
        Ok(Self {
            chunks: vec![permanent],
            used: 0,
            declared: 0,
            allocated: 0,
            undeclared: 0,
            generation: next_generation(),
        })
    }

    /// The generation of the buffers that are valid now.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| last.chunk.len())
    }

    fn push(&mut self, (chunk, reservation): (Chunk, Box<dyn ReservedMemory>)) {
        self.chunks.push(ReservedChunk { chunk, reservation: Some(reservation) });
        self.used = 0;
    }

    /// Prepares the empty arena for `bytes` of buffers in one chunk, for which `reservation` was made if they are more than
    /// [`INITIAL_ARENA`].
    pub(super) fn reserve(
        &mut self,
        device: &Device,
        bytes: usize,
        reservation: Option<Box<dyn ReservedMemory>>,
    ) -> Result<(), CudaError> {
        self.declared = bytes;
        // The next run often needs as much as the last one.
        if self.undeclared > bytes.max(INITIAL_ARENA)
            && let Ok(chunk) = device.chunk(self.undeclared, None)
        {
            self.push(chunk);
        } else if bytes > INITIAL_ARENA {
            self.push(device.chunk(bytes, reservation)?);
        }
        Ok(())
    }

    /// Allocates a buffer, from a new chunk where the last one is full.
    pub(super) fn alloc(&mut self, device: &Device, bytes: usize) -> Result<CUdeviceptr, CudaError> {
        // An empty buffer has an address of its own too, which kernels may compute with but not access.
        let bytes = bytes.max(1).checked_next_multiple_of(ALIGNMENT);
        let Some(bytes) = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) else {
            let (free, total) = device.memory()?;
            return Err(CudaError::OutOfMemory { need: u64::MAX, free, total });
        };
        if self.len() - self.used < bytes {
            let double = self.len().min(MAX_DOUBLED) * 2;
            self.push(device.chunk(bytes.max(double), None).or_else(|_| device.chunk(bytes, None))?);
        }
        let Some(ReservedChunk { chunk, .. }) = self.chunks.last() else {
            unreachable!("the permanent chunk is never removed")
        };
        let address = chunk.address + self.used as CUdeviceptr;
        self.used += bytes;
        self.allocated += bytes;
        Ok(address)
    }

    /// Invalidates all buffers, which no queued work may use any more.
    pub(super) fn reset(&mut self, device: &Device) {
        self.generation = next_generation();
        self.undeclared = if self.allocated > self.declared.max(INITIAL_ARENA) { self.allocated } else { 0 };
        (self.used, self.allocated, self.declared) = (0, 0, 0);
        for ReservedChunk { chunk, reservation } in self.chunks.drain(1..) {
            device.chunks.add(chunk);
            // After the chunk, so that work which this admits finds the chunk.
            drop(reservation);
        }
    }
}

/// How the host accesses staging memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum HostAccess {
    /// Written by the host in order and read by the device: write-combined, which is slow for the host to read.
    Upload,
    /// Written by the device and read by the host.
    Download,
    /// Mapped into the address space of running kernels.
    Mapped,
}

/// Pinned host memory of fixed size, zeroed at first.
#[derive(Debug)]
pub(super) struct Staging {
    driver: &'static Driver,
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory that has one owner.
unsafe impl Send for Staging {}

impl Staging {
    pub(super) fn new(driver: &'static Driver, len: usize, access: HostAccess) -> Result<Self, CudaError> {
        // CU_MEMHOSTALLOC_PORTABLE 1, _DEVICEMAP 2, _WRITECOMBINED 4.
        let flags = match access {
            HostAccess::Upload => 1 | 4,
            HostAccess::Download => 1,
            HostAccess::Mapped => 1 | 2,
        };
        let mut address = ptr::null_mut();
        // SAFETY: `address` lives across the call.
        CudaError::check("cuMemHostAlloc", unsafe { (driver.cuMemHostAlloc)(&raw mut address, len, flags) })?;
        let Some(address) = NonNull::new(address.cast::<u8>()) else {
            return Err(CudaError::Module("cuMemHostAlloc succeeded and gave no memory".to_owned()));
        };
        // SAFETY: `len` bytes at `address` were allocated for this value.
        unsafe { address.write_bytes(0, len) };
        Ok(Self { driver, address, len })
    }

    /// The address of a byte.
    pub(super) fn at(&self, offset: usize) -> *mut c_void {
        assert!(offset <= self.len, "an offset past the end of pinned memory");
        // SAFETY: within the allocation or one past its end.
        unsafe { self.address.add(offset).cast().as_ptr() }
    }

    /// The bytes `offset..offset + len`.
    ///
    /// # Safety
    /// No queued copy reads or writes these bytes.
    pub(super) unsafe fn bytes(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(len <= self.len && offset <= self.len - len, "a range past the end of pinned memory");
        // SAFETY: within the allocation, which was initialised in `new`; the caller excludes the device, and
        // `&mut self` the host.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr().add(offset), len) }
    }

    /// The address by which kernels access it.
    pub(super) fn device_address(&self) -> Result<CUdeviceptr, CudaError> {
        let mut address = 0;
        // SAFETY: `address` lives across the call; the memory is pinned.
        let code = unsafe { (self.driver.cuMemHostGetDevicePointer_v2)(&raw mut address, self.at(0), 0) };
        CudaError::check("cuMemHostGetDevicePointer", code)?;
        Ok(address)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once; its stream is idle, or the device is lost and copies nothing any
        // more. It fails only where the process is ending.
        unsafe { (self.driver.cuMemFreeHost)(self.address.as_ptr().cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::Chunk;

    #[test]
    fn chunks_are_rounded_up_and_never_by_more_than_double() {
        for bytes in [1, 4096, (2 << 20) + 1, 64 << 20, (64 << 20) + 1, 3 << 30] {
            let rounded = Chunk::rounded(bytes);
            assert!(rounded >= bytes && rounded <= (2 * bytes).max(2 << 20), "{bytes} -> {rounded}");
            assert_eq!(Chunk::rounded(rounded), rounded, "{bytes}");
        }
    }
}
