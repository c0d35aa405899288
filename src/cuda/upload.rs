//! Copies from host to device: directly from pinned memory, and otherwise through staging memory of a fixed size.
//!
//! Small arrays are collected in a *slab*, a range of staging memory and one of the arena, and copied together before the
//! next launch. Large arrays are copied in pieces: while the bus moves one, the host fills the next.

use std::ffi::c_void;

use cudarc::driver::sys::CUdeviceptr;

use super::CudaError;
use super::cancel::IsCancelled;
use super::driver::Driver;
use super::event::Event;
use super::memory::{HostAccess, Staging};
use super::pinned::Pinned;
use super::stream_executor::StreamExecutor;
use super::timer::Phase;

/// The size of a piece of staging memory, and the number of pieces.
pub(super) const PIECE: usize = 2 << 20;
pub(super) const PIECES: usize = 4;
/// The size of a slab. A larger array is worth a copy of its own.
pub(super) const SLAB: usize = 256 << 10;
/// The alignment of arrays in a slab, which is that of all buffers.
const ALIGNMENT: usize = 256;

/// Staging memory for uploads.
#[derive(Debug)]
pub(super) struct Uploads {
    staging: Staging,
    /// Reached when the device has read the piece.
    events: [Event; PIECES],
    /// Whether a copy from the piece may still be queued.
    unread: [bool; PIECES],
    /// The piece that is being filled, and its bytes that are in use.
    piece: usize,
    filled: usize,
    slab: Slab,
}

/// Small arrays that are copied together. Bytes up to `sent` are queued and must not change in staging memory.
#[derive(Debug, Default)]
struct Slab {
    staging: usize,
    address: CUdeviceptr,
    len: usize,
    used: usize,
    sent: usize,
}

impl Uploads {
    pub(super) fn new(driver: &'static Driver) -> Result<Self, CudaError> {
        Ok(Self {
            staging: Staging::new(driver, PIECE * PIECES, HostAccess::Upload)?,
            events: [Event::new(driver)?, Event::new(driver)?, Event::new(driver)?, Event::new(driver)?],
            unread: [false; PIECES],
            piece: 0,
            filled: 0,
            slab: Slab::default(),
        })
    }

    /// Frees all staging memory. The stream is idle.
    pub(super) fn reset(&mut self) {
        (self.unread, self.piece, self.filled, self.slab) = ([false; PIECES], 0, 0, Slab::default());
    }
}

impl StreamExecutor {
    /// Copies `bytes` to the arena. The copy is complete at the next launch or download.
    pub(super) fn upload(&mut self, bytes: &[u8], check: &dyn IsCancelled) -> Result<CUdeviceptr, CudaError> {
        if bytes.len() <= SLAB {
            return self.upload_in_slab(bytes, check);
        }
        let address = self.arena.alloc(&self.device, bytes.len())?;
        self.copy_to_device(bytes, address, check)?;
        self.pause_timer();
        Ok(address)
    }

    /// Queues the copy of `bytes` to device memory that outlives the work which is queued on the stream.
    pub(super) fn copy_to_device(
        &mut self,
        bytes: &[u8],
        address: CUdeviceptr,
        check: &dyn IsCancelled,
    ) -> Result<(), CudaError> {
        if let Some(pinned) = self.device.pinned.share(bytes) {
            return self.send_pinned(pinned, address);
        }
        if self.device.pinned.is_in_foreign(bytes) {
            return self.send_foreign(bytes, address);
        }
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            check_cancelled(check)?;
            let staging = self.stage(piece.len(), check)?;
            // SAFETY: `stage` returns bytes that no copy uses.
            let to = unsafe { self.uploads.staging.bytes(staging, piece.len()) };
            // SAFETY: `copy` only writes bytes that are initialised.
            self.device.copy_threads.copy(piece, unsafe { &mut *(std::ptr::from_mut(to) as *mut _) });
            self.send(staging, address + (index * PIECE) as CUdeviceptr, piece.len())?;
        }
        Ok(())
    }

    /// As [`upload`](Self::upload), for the concatenation of all parts.
    pub(super) fn upload_parts(&mut self, parts: &[&[u8]], check: &dyn IsCancelled) -> Result<CUdeviceptr, CudaError> {
        let Some(len) = parts.iter().try_fold(0_usize, |len, part| len.checked_add(part.len())) else {
            // Parts may be the same memory many times over. The arena fails, as no device has so much.
            return self.arena.alloc(&self.device, usize::MAX);
        };
        if len <= SLAB {
            let (staging, address) = self.alloc_in_slab(len, check)?;
            let mut at = staging;
            for part in parts {
                // SAFETY: within the allocation, which is as large as all parts together; no copy uses it yet.
                unsafe { self.uploads.staging.bytes(at, part.len()) }.copy_from_slice(part);
                at += part.len();
            }
            return Ok(address);
        }
        let address = self.arena.alloc(&self.device, len)?;
        let mut sent = 0;
        let (mut staging, mut size, mut filled) = (0, 0, 0);
        for &(mut part) in parts {
            while !part.is_empty() {
                if filled == size {
                    check_cancelled(check)?;
                    size = PIECE.min(len - sent);
                    staging = self.stage(size, check)?;
                    filled = 0;
                }
                let (now, later) = part.split_at(part.len().min(size - filled));
                // SAFETY: `stage` returns bytes that no copy uses.
                let to = unsafe { self.uploads.staging.bytes(staging + filled, now.len()) };
                // SAFETY: `copy` only writes bytes that are initialised.
                self.device.copy_threads.copy(now, unsafe { &mut *(std::ptr::from_mut(to) as *mut _) });
                filled += now.len();
                if filled == size {
                    self.send(staging, address + sent as CUdeviceptr, size)?;
                    sent += size;
                }
                part = later;
            }
        }
        self.pause_timer();
        Ok(address)
    }

    fn upload_in_slab(&mut self, bytes: &[u8], check: &dyn IsCancelled) -> Result<CUdeviceptr, CudaError> {
        let (staging, address) = self.alloc_in_slab(bytes.len(), check)?;
        // SAFETY: allocated for these bytes, and no copy uses them yet.
        unsafe { self.uploads.staging.bytes(staging, bytes.len()) }.copy_from_slice(bytes);
        Ok(address)
    }

    /// Allocates `len` bytes, at most [`SLAB`], in staging memory and on the device, after all that has been sent of the
    /// slab.
    fn alloc_in_slab(&mut self, len: usize, check: &dyn IsCancelled) -> Result<(usize, CUdeviceptr), CudaError> {
        let padded = len.max(1).next_multiple_of(ALIGNMENT);
        if self.uploads.slab.len - self.uploads.slab.used < padded {
            self.flush()?;
            let address = self.arena.alloc(&self.device, SLAB)?;
            let staging = self.stage(SLAB, check)?;
            self.uploads.slab = Slab { staging, address, len: SLAB, used: 0, sent: 0 };
        }
        let slab = &mut self.uploads.slab;
        let allocated = (slab.staging + slab.used, slab.address + slab.used as CUdeviceptr);
        slab.used += padded;
        Ok(allocated)
    }

    /// Queues the copy of the arrays that the slab has collected.
    pub(super) fn flush(&mut self) -> Result<(), CudaError> {
        let Slab { staging, address, used, sent, .. } = self.uploads.slab;
        if used > sent {
            self.uploads.slab.sent = used;
            self.send(staging + sent, address + sent as CUdeviceptr, used - sent)?;
        }
        Ok(())
    }

    /// Allocates `len` bytes of staging memory, at most a piece, that no copy uses.
    fn stage(&mut self, len: usize, check: &dyn IsCancelled) -> Result<usize, CudaError> {
        if PIECE - self.uploads.filled < len {
            // The event must cover all copies from this piece, so the slab, which lies in it, ends too.
            self.flush()?;
            let uploads = &mut self.uploads;
            uploads.slab = Slab::default();
            uploads.events[uploads.piece].record(&mut self.stream)?;
            uploads.unread[uploads.piece] = true;
            let next = (uploads.piece + 1) % PIECES;
            if uploads.unread[next] {
                self.stream.wait(Some(&uploads.events[next]), check)?;
                uploads.unread[next] = false;
            }
            (uploads.piece, uploads.filled) = (next, 0);
        }
        let uploads = &mut self.uploads;
        let at = uploads.piece * PIECE + uploads.filled;
        uploads.filled += len.next_multiple_of(ALIGNMENT);
        Ok(at)
    }

    /// Queues a copy from pinned memory.
    fn send_pinned(&mut self, from: Pinned, address: CUdeviceptr) -> Result<(), CudaError> {
        let (source, len) = (from.start().as_ptr().cast::<c_void>(), from.len);
        // Held until `end` or a download has seen the stream idle, so that the memory is neither reused nor changed.
        self.in_flight.push(from);
        self.timer.enter(Some(Phase::Upload), &mut self.stream);
        self.stream.expect_copy(len);
        // SAFETY: the source is pinned, and held until the copy is done. The target is a buffer of the arena or a
        // copy that is being made, which outlives the queued work.
        self.stream.queue("cuMemcpyHtoDAsync", |driver, stream| unsafe {
            (driver.cuMemcpyHtoDAsync_v2)(address, source, len, stream)
        })
    }

    /// Queues a copy from pinned pages that belong to the input of the run. The caller of [`end`](Self::end) holds it until then.
    fn send_foreign(&mut self, from: &[u8], address: CUdeviceptr) -> Result<(), CudaError> {
        self.timer.enter(Some(Phase::Upload), &mut self.stream);
        self.stream.expect_copy(from.len());
        // SAFETY: the source is pinned, and held until the end of the run. The target is as in `send_pinned`.
        self.stream.queue("cuMemcpyHtoDAsync", |driver, stream| unsafe {
            (driver.cuMemcpyHtoDAsync_v2)(address, from.as_ptr().cast(), from.len(), stream)
        })
    }

    /// Queues a copy from staging memory.
    fn send(&mut self, staging: usize, address: CUdeviceptr, len: usize) -> Result<(), CudaError> {
        let from = self.uploads.staging.at(staging);
        self.timer.enter(Some(Phase::Upload), &mut self.stream);
        // SAFETY: the source is pinned and unchanged until the copy is done: `stage` waits for that before it reuses the
        // piece. The target is a buffer of the arena or a copy that is being made, which outlives the queued work.
        self.stream.queue("cuMemcpyHtoDAsync", |driver, stream| unsafe {
            (driver.cuMemcpyHtoDAsync_v2)(address, from, len, stream)
        })
    }
}

pub(super) fn check_cancelled(check: &dyn IsCancelled) -> Result<(), CudaError> {
    if check.is_cancelled() { Err(CudaError::Cancelled) } else { Ok(()) }
}
