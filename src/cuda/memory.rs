//! Device memory in chunks, the arena that a lane cuts its buffers from, and pinned host memory.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::CUdeviceptr;

use super::device::Device;
use super::driver::Driver;
use super::error::Failure;
use crate::backends::worker_pool::Reservation;

/// A piece of device memory of its own.
#[derive(Debug)]
pub(crate) struct Chunk {
    driver: &'static Driver,
    address: CUdeviceptr,
    len: usize,
}

impl Chunk {
    /// The context must be current.
    pub(crate) fn new(driver: &'static Driver, len: usize) -> Result<Self, Failure> {
        let mut address = 0;
        // SAFETY: `address` lives across the call.
        Failure::check("cuMemAlloc", unsafe { (driver.cuMemAlloc_v2)(&raw mut address, len) })?;
        Ok(Self { driver, address, len })
    }

    /// What to ask for where `bytes` are needed: powers of two up to 64 MiB, and multiples of that above, so that
    /// requests of about one size find what they need in place.
    pub(crate) fn rounded(bytes: usize) -> usize {
        const STEP: usize = 64 << 20;
        if bytes <= STEP { bytes.next_power_of_two().max(2 << 20) } else { bytes.next_multiple_of(STEP) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once. Whoever drops a chunk has seen its stream idle.
        // It fails only where the device is lost or the process is ending, which have freed it.
        unsafe { (self.driver.cuMemFree_v2)(self.address) };
    }
}

/// Device memory for one request at a time: a bump allocator, emptied as a whole.
#[derive(Debug)]
pub(crate) struct Arena {
    /// The first is the lane's own. The last is the one in use.
    chunks: Vec<Held>,
    /// Of the last one.
    used: usize,
    /// What this request was said to need, and what it has taken.
    declared: usize,
    taken: usize,
    /// What the last request took, where that was more than it was said to need.
    wanted: usize,
    generation: u64,
}

/// A chunk, and the reservation on the device's memory that it is held by; the lane's own needs none.
#[derive(Debug)]
struct Held {
    chunk: Chunk,
    reservation: Option<Reservation>,
}

/// Where buffers start: what the driver's own allocator and 128-byte cache lines want.
const ALIGNMENT: usize = 256;
/// What a lane has for itself, so that small requests ask nobody.
pub(crate) const OWN: usize = 2 << 20;
/// Up to here a chunk that is too small is followed by one of twice its size.
const DOUBLED: usize = 64 << 20;

fn next_generation() -> u64 {
    // Distinct in the process: a buffer of another lane is as stale as one of an earlier request.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Arena {
    /// The context must be current.
    pub(crate) fn new(driver: &'static Driver) -> Result<Self, Failure> {
        let own = Held { chunk: Chunk::new(driver, OWN)?, reservation: None };
        Ok(Self { chunks: vec![own], used: 0, declared: 0, taken: 0, wanted: 0, generation: next_generation() })
    }

    /// Of the buffers that are valid now.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |held| held.chunk.len())
    }

    fn hold(&mut self, chunk: Chunk, reservation: Reservation) {
        self.chunks.push(Held { chunk, reservation: Some(reservation) });
        self.used = 0;
    }

    /// Sees to it that the next `bytes` in all come from one chunk, which `reservation` is for where they are more than
    /// [`OWN`]. For an arena without buffers.
    pub(crate) fn reserve(
        &mut self,
        device: &Device,
        bytes: usize,
        reservation: Option<Reservation>,
    ) -> Result<(), Failure> {
        self.declared = bytes;
        // What such a request took last time it may well take again.
        if self.wanted > bytes.max(OWN)
            && let Ok((chunk, reservation)) = device.chunk(self.wanted, None)
        {
            self.hold(chunk, reservation);
        } else if bytes > OWN {
            let (chunk, reservation) = device.chunk(bytes, reservation)?;
            self.hold(chunk, reservation);
        }
        Ok(())
    }

    pub(crate) fn alloc(&mut self, device: &Device, bytes: usize) -> Result<CUdeviceptr, Failure> {
        // Of no bytes too, a buffer has an address of its own, which a kernel may form and not use.
        let bytes = bytes.max(1).checked_next_multiple_of(ALIGNMENT);
        let Some(bytes) = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) else {
            let (free, total) = device.memory()?;
            return Err(Failure::OutOfMemory { need: u64::MAX, free, total });
        };
        if self.len() - self.used < bytes {
            let double = self.len().min(DOUBLED) * 2;
            let (chunk, reservation) = device.chunk(bytes.max(double), None).or_else(|_| device.chunk(bytes, None))?;
            self.hold(chunk, reservation);
        }
        let Some(Held { chunk, .. }) = self.chunks.last() else { unreachable!("the lane's own is always there") };
        let address = chunk.address + self.used as CUdeviceptr;
        self.used += bytes;
        self.taken += bytes;
        Ok(address)
    }

    /// Ends the life of all buffers. Nothing on the device may use them any more.
    pub(crate) fn reset(&mut self, device: &Device) {
        self.generation = next_generation();
        self.wanted = if self.taken > self.declared.max(OWN) { self.taken } else { 0 };
        (self.used, self.taken, self.declared) = (0, 0, 0);
        for Held { chunk, reservation } in self.chunks.drain(1..) {
            device.chunks.give(chunk);
            // After the chunk, for who is let in by this to find it.
            drop(reservation);
        }
    }
}

/// What pinned memory is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pin {
    /// Written by the host in order and read by the device: write-combined, which the host must not read.
    Upload,
    /// Written by the device and read by the host.
    Download,
    /// Seen by running kernels.
    Mapped,
}

/// Page-locked host memory, which the device reads and writes on its own. Zeroed at first.
#[derive(Debug)]
pub(crate) struct Staging {
    driver: &'static Driver,
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory that has one owner.
unsafe impl Send for Staging {}

impl Staging {
    pub(crate) fn new(driver: &'static Driver, len: usize, pin: Pin) -> Result<Self, Failure> {
        // CU_MEMHOSTALLOC_PORTABLE 1, _DEVICEMAP 2, _WRITECOMBINED 4.
        let flags = match pin {
            Pin::Upload => 1 | 4,
            Pin::Download => 1,
            Pin::Mapped => 1 | 2,
        };
        let mut address = ptr::null_mut();
        // SAFETY: `address` lives across the call.
        Failure::check("cuMemHostAlloc", unsafe { (driver.cuMemHostAlloc)(&raw mut address, len, flags) })?;
        let Some(address) = NonNull::new(address.cast::<u8>()) else {
            return Err(Failure::Code("cuMemHostAlloc succeeded and gave no memory".to_owned()));
        };
        // SAFETY: `len` bytes from `address` on are this value's from here on.
        unsafe { address.write_bytes(0, len) };
        Ok(Self { driver, address, len })
    }

    pub(crate) fn at(&self, offset: usize) -> *mut c_void {
        assert!(offset <= self.len, "an offset past the end of pinned memory");
        // SAFETY: within the allocation or one past its end.
        unsafe { self.address.add(offset).cast().as_ptr() }
    }

    /// The bytes `offset..offset + len`.
    ///
    /// # Safety
    /// No copy from or to these bytes is under way.
    pub(crate) unsafe fn bytes(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(len <= self.len && offset <= self.len - len, "a range past the end of pinned memory");
        // SAFETY: within the allocation, which was initialised in `new`; the caller answers for the device, and
        // `&mut self` for the host.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr().add(offset), len) }
    }

    /// The address that kernels know it by.
    pub(crate) fn device_address(&self) -> Result<CUdeviceptr, Failure> {
        let mut address = 0;
        // SAFETY: `address` lives across the call; the memory is pinned.
        let code = unsafe { (self.driver.cuMemHostGetDevicePointer_v2)(&raw mut address, self.at(0), 0) };
        Failure::check("cuMemHostGetDevicePointer", code)?;
        Ok(address)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once; the owner has seen its stream idle, or the device is lost and
        // copies nothing any more. It fails only where the process is ending.
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
