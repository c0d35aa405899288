//! Device to host: at once into pinned memory, and otherwise through staging of a fixed size, where the bus fills one
//! piece while the host copies another out.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::driver::sys::CUdeviceptr;

use super::driver::Driver;
use super::engine::Engine;
use super::error::Failure;
use super::memory::{Pin, Staging};
use super::pinned::Pinned;
use super::stream::Event;
use super::timer::Phase;
use super::upload::{PIECE, PIECES};
use crate::service::RunContext;

#[derive(Debug)]
pub(crate) struct Downloads {
    pinned: Staging,
    /// Reached when the device has written the piece.
    events: [Event; PIECES],
    /// What is under way, in order.
    parts: VecDeque<Part>,
}

/// Bytes of staging that belong to an array.
#[derive(Debug)]
struct Part {
    piece: usize,
    staging: usize,
    array: usize,
    start: usize,
    len: usize,
}

/// An array on the device and where it is to go.
pub(crate) struct Target<'a> {
    pub(crate) from: CUdeviceptr,
    /// Initialised once the download has succeeded.
    pub(crate) to: &'a mut [MaybeUninit<u8>],
}

impl Downloads {
    pub(crate) fn new(driver: &'static Driver) -> Result<Self, Failure> {
        Ok(Self {
            pinned: Staging::new(driver, PIECE * PIECES, Pin::Download)?,
            events: [Event::new(driver)?, Event::new(driver)?, Event::new(driver)?, Event::new(driver)?],
            parts: VecDeque::new(),
        })
    }

    pub(crate) fn reset(&mut self) {
        self.parts.clear();
    }
}

impl Engine {
    /// Queues the copy of what begins at `from` into all of `to`, which has it after the next [`download`](Self::download).
    /// No slice of `to` may be made before.
    pub(crate) fn download_pinned(&mut self, from: CUdeviceptr, to: &Pinned) -> Result<(), Failure> {
        let (target, len) = (to.start().as_ptr().cast::<c_void>(), to.len);
        self.held.push(to.clone());
        self.timer.enter(Some(Phase::Download), &mut self.stream);
        self.stream.expect(len);
        // SAFETY: the source is a valid buffer of the arena; the target is pinned, was taken for this, and is held until
        // the stream has passed.
        self.stream.queue("cuMemcpyDtoHAsync", |driver, stream| unsafe {
            (driver.cuMemcpyDtoHAsync_v2)(target, from, len, stream)
        })
    }

    /// Fills every target, and sees the end of all that was queued before. Small ones share a piece, and so a wait.
    pub(crate) fn download(&mut self, targets: &mut [Target<'_>], context: &RunContext<'_>) -> Result<(), Failure> {
        self.flush()?;
        self.downloads.parts.clear();
        let (mut array, mut start) = (0, 0);
        let (mut queued, mut copied) = (0, 0);
        loop {
            while queued - copied < PIECES && array < targets.len() {
                self.queue_piece(queued % PIECES, targets, &mut array, &mut start)?;
                queued += 1;
                // The last piece is waited for by the stream's own end.
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
            self.stream.wait(event, context)?;
            self.copy_piece(copied % PIECES, targets);
            copied += 1;
        }
        self.pause_timer();
        // Where there was a piece, the wait for the last one has seen this.
        self.stream.wait(None, context)?;
        self.held.clear();
        Ok(())
    }

    /// Queues as much as fits into a piece, from `start` of `array` on.
    fn queue_piece(
        &mut self,
        piece: usize,
        targets: &[Target<'_>],
        array: &mut usize,
        start: &mut usize,
    ) -> Result<(), Failure> {
        let mut filled = 0;
        while let Some(target) = targets.get(*array) {
            let len = (target.to.len() - *start).min(PIECE - filled);
            if len > 0 {
                let staging = piece * PIECE + filled;
                let (to, from) = (self.downloads.pinned.at(staging), target.from + *start as CUdeviceptr);
                self.timer.enter(Some(Phase::Download), &mut self.stream);
                // SAFETY: the source is a valid buffer of the arena; the target is pinned, and the host touches it only
                // after it has seen the end of this copy.
                self.stream.queue("cuMemcpyDtoHAsync", |driver, stream| unsafe {
                    (driver.cuMemcpyDtoHAsync_v2)(to, from, len, stream)
                })?;
                self.downloads.parts.push_back(Part { piece, staging, array: *array, start: *start, len });
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

    /// Copies out what the device has written to a piece.
    fn copy_piece(&mut self, piece: usize, targets: &mut [Target<'_>]) {
        while self.downloads.parts.front().is_some_and(|part| part.piece == piece)
            && let Some(part) = self.downloads.parts.pop_front()
        {
            // SAFETY: the wait before this has seen the end of the copies to this piece.
            let from = unsafe { self.downloads.pinned.bytes(part.staging, part.len) };
            self.device.copiers.copy(from, &mut targets[part.array].to[part.start..part.start + part.len]);
        }
    }
}
