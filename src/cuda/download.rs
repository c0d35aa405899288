//! Copies from device to host: directly into pinned memory, and otherwise through staging memory of a fixed size, where
//! the bus fills one piece while the host copies another out.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::driver::sys::CUdeviceptr;

use super::CudaError;
use super::cancel::IsCancelled;
use super::driver::Driver;
use super::event::Event;
use super::memory::{HostAccess, Staging};
use super::pinned::Pinned;
use super::stream_executor::StreamExecutor;
use super::timer::Phase;
use super::upload::{PIECE, PIECES};

/// Staging memory for downloads.
#[derive(Debug)]
pub(super) struct Downloads {
    staging: Staging,
    /// Reached when the device has written the piece.
    events: [Event; PIECES],
    /// The queued copies, in order.
    parts: VecDeque<Part>,
}

/// A range of staging memory, and the range of an array that is copied through it.
#[derive(Debug)]
struct Part {
    piece: usize,
    offset: usize,
    array: usize,
    start: usize,
    len: usize,
}

/// A download: an array on the device and the memory that it is copied to.
pub(super) struct Target<'a> {
    pub(super) from: CUdeviceptr,
    /// Initialised once the download has succeeded.
    pub(super) to: &'a mut [MaybeUninit<u8>],
}

impl Downloads {
    pub(super) fn new(driver: &'static Driver) -> Result<Self, CudaError> {
        Ok(Self {
            staging: Staging::new(driver, PIECE * PIECES, HostAccess::Download)?,
            events: [Event::new(driver)?, Event::new(driver)?, Event::new(driver)?, Event::new(driver)?],
            parts: VecDeque::new(),
        })
    }

    /// Forgets all copies. The stream is idle.
    pub(super) fn reset(&mut self) {
        self.parts.clear();
    }
}

impl StreamExecutor {
    /// Queues a copy from `from` into all of `to`, which is complete after the next [`download`](Self::download). No slice of
    /// `to` may be made before.
    pub(super) fn download_pinned(&mut self, from: CUdeviceptr, to: &Pinned) -> Result<(), CudaError> {
        let (target, len) = (to.start().as_ptr().cast::<c_void>(), to.len);
        self.in_flight.push(to.clone());
        self.timer.enter(Some(Phase::Download), &mut self.stream);
        self.stream.expect_copy(len);
        // SAFETY: the source is a valid buffer of the arena; the target is pinned, was allocated for this, and is held until
        // the copy is done.
        self.stream.queue("cuMemcpyDtoHAsync", |driver, stream| unsafe {
            (driver.cuMemcpyDtoHAsync_v2)(target, from, len, stream)
        })
    }

    /// Fills every target, and waits for all work that was queued before. Small arrays share a piece, and so a wait.
    pub(super) fn download(&mut self, targets: &mut [Target<'_>], check: &dyn IsCancelled) -> Result<(), CudaError> {
        self.flush()?;
        self.downloads.parts.clear();
        let (mut array, mut start) = (0, 0);
        let (mut queued, mut copied) = (0, 0);
        loop {
            while queued - copied < PIECES && array < targets.len() {
                self.queue_piece(queued % PIECES, targets, &mut array, &mut start)?;
                queued += 1;
                // The wait for the last piece is a wait for the stream.
                if array < targets.len() {
                    self.downloads.events[(queued - 1) % PIECES].record(&mut self.stream)?;
                } else {
                    self.pause_timer();
                }
            }
            if copied == queued {
                break;
            }
            let is_last = copied + 1 == queued && array == targets.len();
            let event = (!is_last).then(|| &self.downloads.events[copied % PIECES]);
            self.stream.wait(event, check)?;
            self.copy_piece(copied % PIECES, targets);
            copied += 1;
        }
        self.pause_timer();
        // Waits only where there was no piece.
        self.stream.wait(None, check)?;
        self.in_flight.clear();
        Ok(())
    }

    /// Queues copies into one piece, from byte `start` of target `array` on.
    fn queue_piece(
        &mut self,
        piece: usize,
        targets: &[Target<'_>],
        array: &mut usize,
        start: &mut usize,
    ) -> Result<(), CudaError> {
        let mut filled = 0;
        while let Some(target) = targets.get(*array) {
            let len = (target.to.len() - *start).min(PIECE - filled);
            if len > 0 {
                let offset = piece * PIECE + filled;
                let (to, from) = (self.downloads.staging.at(offset), target.from + *start as CUdeviceptr);
                self.timer.enter(Some(Phase::Download), &mut self.stream);
                // SAFETY: the source is a valid buffer of the arena; the target is pinned, and the host touches it only
                // after it has seen the end of this copy.
                self.stream.queue("cuMemcpyDtoHAsync", |driver, stream| unsafe {
                    (driver.cuMemcpyDtoHAsync_v2)(to, from, len, stream)
                })?;
                self.downloads.parts.push_back(Part { piece, offset, array: *array, start: *start, len });
                filled = (filled + len).next_multiple_of(64).min(PIECE);
                *start += len;
            }
            if *start < target.to.len() {
                break;
            }
            (*array, *start) = (*array + 1, 0);
        }
        Ok(())
    }

    /// Copies the arrays in a piece to their targets.
    fn copy_piece(&mut self, piece: usize, targets: &mut [Target<'_>]) {
        while self.downloads.parts.front().is_some_and(|part| part.piece == piece)
            && let Some(part) = self.downloads.parts.pop_front()
        {
            // SAFETY: the wait before this has seen the end of the copies to this piece.
            let from = unsafe { self.downloads.staging.bytes(part.offset, part.len) };
            self.device.copy_threads.copy(from, &mut targets[part.array].to[part.start..part.start + part.len]);
        }
    }
}
