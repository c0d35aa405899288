//! Host to device: at once from pinned memory, and otherwise through staging of a fixed size.
//!
//! Small arrays gather in a *slab*, which has a place in staging and one in the arena, and cross in one copy at the next
//! launch. Large ones cross in pieces: while the bus moves one piece the host fills the next.

use std::ffi::c_void;

use cudarc::driver::sys::CUdeviceptr;

use super::driver::Driver;
use super::engine::Engine;
use super::error::Failure;
use super::memory::{Pin, Staging};
use super::pinned::Pinned;
use super::stream::Event;
use super::timer::Phase;
use crate::service::RunContext;

/// What crosses at a time, and how many of these there are.
pub(crate) const PIECE: usize = 2 << 20;
pub(crate) const PIECES: usize = 4;
/// The most that waits for the next launch. A larger array is worth a copy of its own.
pub(crate) const SLAB: usize = 256 << 10;
/// Of arrays in a slab, as of all buffers.
const ALIGNMENT: usize = 256;

#[derive(Debug)]
pub(crate) struct Uploads {
    pinned: Staging,
    /// Reached when the device has read the piece.
    events: [Event; PIECES],
    unread: [bool; PIECES],
    piece: usize,
    filled: usize,
    slab: Slab,
}

/// Arrays on their way. Those up to `sent` are queued for the device and must not change in staging.
#[derive(Debug, Default)]
struct Slab {
    staging: usize,
    address: CUdeviceptr,
    len: usize,
    used: usize,
    sent: usize,
}

impl Uploads {
    pub(crate) fn new(driver: &'static Driver) -> Result<Self, Failure> {
        Ok(Self {
            pinned: Staging::new(driver, PIECE * PIECES, Pin::Upload)?,
            events: [Event::new(driver)?, Event::new(driver)?, Event::new(driver)?, Event::new(driver)?],
            unread: [false; PIECES],
            piece: 0,
            filled: 0,
            slab: Slab::default(),
        })
    }

    /// The stream is idle: all of staging is free.
    pub(crate) fn reset(&mut self) {
        (self.unread, self.piece, self.filled, self.slab) = ([false; PIECES], 0, 0, Slab::default());
    }
}

impl Engine {
    /// A copy of `bytes` in the arena, complete at the next launch or download.
    pub(crate) fn upload(&mut self, bytes: &[u8], context: &RunContext<'_>) -> Result<CUdeviceptr, Failure> {
        if bytes.len() <= SLAB {
            return self.upload_in_slab(bytes, context);
        }
        let address = self.arena.alloc(&self.device, bytes.len())?;
        if let Some(pinned) = self.device.pinned.share(bytes) {
            self.send_pinned(pinned, address)?;
            self.pause_timer();
            return Ok(address);
        }
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            context.check().map_err(Failure::Stopped)?;
            let staging = self.stage(piece.len(), context)?;
            // SAFETY: `stage` gives bytes that no copy uses.
            let to = unsafe { self.uploads.pinned.bytes(staging, piece.len()) };
            // SAFETY: `copy` only writes bytes that are initialised.
            self.device.copiers.copy(piece, unsafe { &mut *(std::ptr::from_mut(to) as *mut _) });
            self.send(staging, address + (index * PIECE) as CUdeviceptr, piece.len())?;
        }
        self.pause_timer();
        Ok(address)
    }

    /// As [`upload`](Self::upload), of all parts one after the other.
    pub(crate) fn upload_parts(&mut self, parts: &[&[u8]], context: &RunContext<'_>) -> Result<CUdeviceptr, Failure> {
        let Some(len) = parts.iter().try_fold(0_usize, |len, part| len.checked_add(part.len())) else {
            // The same memory many times over; the arena says that there is not so much.
            return self.arena.alloc(&self.device, usize::MAX);
        };
        if len <= SLAB {
            let (staging, address) = self.room_in_slab(len, context)?;
            let mut at = staging;
            for part in parts {
                // SAFETY: within the room, since it is as large as all parts together; no copy uses it yet.
                unsafe { self.uploads.pinned.bytes(at, part.len()) }.copy_from_slice(part);
                at += part.len();
            }
            return Ok(address);
        }
        let address = self.arena.alloc(&self.device, len)?;
        let mut sent = 0;
        let (mut staging, mut room, mut filled) = (0, 0, 0);
        for &(mut part) in parts {
            while !part.is_empty() {
                if filled == room {
                    context.check().map_err(Failure::Stopped)?;
                    room = PIECE.min(len - sent);
                    staging = self.stage(room, context)?;
                    filled = 0;
                }
                let (now, later) = part.split_at(part.len().min(room - filled));
                // SAFETY: `stage` gives bytes that no copy uses.
                let to = unsafe { self.uploads.pinned.bytes(staging + filled, now.len()) };
                // SAFETY: `copy` only writes bytes that are initialised.
                self.device.copiers.copy(now, unsafe { &mut *(std::ptr::from_mut(to) as *mut _) });
                filled += now.len();
                if filled == room {
                    self.send(staging, address + sent as CUdeviceptr, room)?;
                    sent += room;
                }
                part = later;
            }
        }
        self.pause_timer();
        Ok(address)
    }

    fn upload_in_slab(&mut self, bytes: &[u8], context: &RunContext<'_>) -> Result<CUdeviceptr, Failure> {
        let (staging, address) = self.room_in_slab(bytes.len(), context)?;
        // SAFETY: the room is these bytes' alone, and no copy uses it yet.
        unsafe { self.uploads.pinned.bytes(staging, bytes.len()) }.copy_from_slice(bytes);
        Ok(address)
    }

    /// Room for so many bytes, at most [`SLAB`], in staging, and where they will be on the device. It is past all that
    /// has been sent of the slab.
    fn room_in_slab(&mut self, len: usize, context: &RunContext<'_>) -> Result<(usize, CUdeviceptr), Failure> {
        let taken = len.max(1).next_multiple_of(ALIGNMENT);
        if self.uploads.slab.len - self.uploads.slab.used < taken {
            self.flush()?;
            let address = self.arena.alloc(&self.device, SLAB)?;
            let staging = self.stage(SLAB, context)?;
            self.uploads.slab = Slab { staging, address, len: SLAB, used: 0, sent: 0 };
        }
        let slab = &mut self.uploads.slab;
        let room = (slab.staging + slab.used, slab.address + slab.used as CUdeviceptr);
        slab.used += taken;
        Ok(room)
    }

    /// Sends what has gathered in the slab.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let Slab { staging, address, used, sent, .. } = self.uploads.slab;
        if used > sent {
            self.uploads.slab.sent = used;
            self.send(staging + sent, address + sent as CUdeviceptr, used - sent)?;
        }
        Ok(())
    }

    /// `len` bytes of staging, at most a piece, that no copy uses.
    fn stage(&mut self, len: usize, context: &RunContext<'_>) -> Result<usize, Failure> {
        if PIECE - self.uploads.filled < len {
            // The event covers all copies from this piece, so none may follow: the slab ends here too.
            self.flush()?;
            let uploads = &mut self.uploads;
            uploads.slab = Slab::default();
            uploads.events[uploads.piece].record(&mut self.stream)?;
            uploads.unread[uploads.piece] = true;
            let next = (uploads.piece + 1) % PIECES;
            if uploads.unread[next] {
                self.stream.wait(Some(&uploads.events[next]), context)?;
                uploads.unread[next] = false;
            }
            (uploads.piece, uploads.filled) = (next, 0);
        }
        let uploads = &mut self.uploads;
        let at = uploads.piece * PIECE + uploads.filled;
        uploads.filled += len.next_multiple_of(ALIGNMENT);
        Ok(at)
    }

    /// Sends what the device can read by itself.
    fn send_pinned(&mut self, from: Pinned, address: CUdeviceptr) -> Result<(), Failure> {
        let (source, len) = (from.start().as_ptr().cast::<c_void>(), from.len);
        // Until `end`, or a download, has seen the stream idle: its slab goes to nobody else, and nobody changes it.
        self.held.push(from);
        self.timer.enter(Some(Phase::Upload), &mut self.stream);
        self.stream.expect(len);
        // SAFETY: the source is pinned, and held until the stream has passed. The target is a buffer of the arena, which
        // outlives the queued work.
        self.stream.queue("cuMemcpyHtoDAsync", |driver, stream| unsafe {
            (driver.cuMemcpyHtoDAsync_v2)(address, source, len, stream)
        })
    }

    fn send(&mut self, staging: usize, address: CUdeviceptr, len: usize) -> Result<(), Failure> {
        let from = self.uploads.pinned.at(staging);
        self.timer.enter(Some(Phase::Upload), &mut self.stream);
        // SAFETY: the source is pinned and stays as it is until the stream has passed: `stage` waits for that before it
        // hands the piece out again. The target is a buffer of the arena, which outlives the queued work.
        self.stream.queue("cuMemcpyHtoDAsync", |driver, stream| unsafe {
            (driver.cuMemcpyHtoDAsync_v2)(address, from, len, stream)
        })
    }
}
