//! [`BackgroundCopy`]: copies the tensors of large bodies on another thread than the one that receives them.

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::servers::body_memory::BodyMemory;
use crate::servers::sections::{SectionError, Sections};

/// Bodies of at least this size are copied in the background.
const LARGE_BODY: u64 = 64 << 20;

/// Smaller frames are copied as they arrive, as each can hold a read buffer far larger than itself.
const LARGE_FRAME: u64 = 16 << 10;

/// Bytes from which frames are copied in one task of the blocking pool: about 100 µs, with clearing the new pages.
const BATCH: u64 = 512 << 10;

/// Copies received frames to their tensors. Of a large body, one batch of frames is copied on the blocking pool while the next
/// is received: copying and clearing new pages takes as long as receiving.
pub(super) struct BackgroundCopy {
    memory: BodyMemory,
    /// Whether large frames are copied in batches on the blocking pool, and not as they arrive.
    in_background: bool,
    /// Frames that have not been copied, and their size.
    frames: Vec<Bytes>,
    bytes: u64,
    state: State,
}

enum State {
    /// The tensors, between two batches.
    Idle(Box<Sections>),
    /// A task that copies a batch, and returns the tensors.
    Copying(JoinHandle<Result<Box<Sections>, SectionError>>),
    /// An error was returned.
    Failed,
}

impl BackgroundCopy {
    pub(super) fn new(sections: Sections, memory: &BodyMemory) -> Self {
        // One batch is being copied and one collected, which must be a small part of what the request may have.
        let has_memory = memory.request().memory().max_per_request() >= 16 * BATCH;
        let is_large = sections.total_bytes() >= LARGE_BODY;
        let (frames, state) = (Vec::new(), State::Idle(Box::new(sections)));
        Self { memory: memory.clone(), in_background: is_large && has_memory, frames, bytes: 0, state }
    }

    /// Adds a frame, whose memory has been reserved.
    ///
    /// # Errors
    /// Those of [`Sections::push`], also for earlier frames.
    pub(super) async fn push(&mut self, frame: Bytes) -> Result<(), SectionError> {
        let length = frame.len() as u64;
        let in_background = self.in_background && (LARGE_FRAME..=BATCH).contains(&length);
        self.bytes += length;
        self.frames.push(frame);
        if in_background && self.bytes < BATCH {
            return Ok(());
        }
        let sections = self.sections().await?;
        let (frames, memory) = (std::mem::take(&mut self.frames), self.memory.clone());
        self.bytes = 0;
        self.state = if in_background {
            State::Copying(spawn_blocking(move || copy(sections, frames, &memory)))
        } else {
            State::Idle(copy(sections, frames, &memory)?)
        };
        Ok(())
    }

    /// Returns the tensors once all frames have been copied.
    ///
    /// # Errors
    /// Those of [`Sections::push`].
    pub(super) async fn finish(mut self) -> Result<Sections, SectionError> {
        let sections = self.sections().await?;
        Ok(*copy(sections, self.frames, &self.memory)?)
    }

    /// Waits for the batch that is being copied.
    async fn sections(&mut self) -> Result<Box<Sections>, SectionError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(sections) => Ok(sections),
            State::Copying(task) => match task.await {
                Ok(copied) => copied,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime shuts down, and drops this future as well.
                    Err(_) => std::future::pending().await,
                },
            },
            State::Failed => unreachable!("nothing is pushed after an error"),
        }
    }
}

/// Copies frames, and releases their memory.
fn copy(mut sections: Box<Sections>, frames: Vec<Bytes>, memory: &BodyMemory) -> Result<Box<Sections>, SectionError> {
    for frame in frames {
        sections.push(&frame, memory)?;
        memory.request().shrink(frame.len() as u64);
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::sections::{Data, Input};
    use crate::service::{DType, HostMemory};

    fn sections(bytes: usize) -> Sections {
        let input = |name: &str, bytes| Input {
            name: name.to_owned(),
            dtype: DType::U8,
            shape: vec![bytes],
            data: Data::Follows(bytes),
        };
        Sections::new(vec![input("a", 100), input("b", bytes)], usize::MAX, None).unwrap()
    }

    #[tokio::test]
    async fn frames_of_any_length_come_in_order_and_their_memory_is_released() {
        let memory = HostMemory::new(1 << 30);
        for bytes in [1000, LARGE_BODY as usize] {
            let request = memory.reservation(0);
            let body = BodyMemory::of_request(&request);
            let data: Vec<u8> = (0..100 + bytes).map(|at| (at % 251) as u8).collect();
            let mut copy = BackgroundCopy::new(sections(bytes), &body);
            let (mut rest, mut lengths) =
                (&data[..], [5, LARGE_FRAME as usize, 400 << 10, 3 << 20, 100].into_iter().cycle());
            while !rest.is_empty() {
                let (frame, after) = rest.split_at(lengths.next().unwrap().min(rest.len()));
                request.grow(frame.len() as u64).unwrap();
                copy.push(Bytes::copy_from_slice(frame)).await.unwrap();
                rest = after;
            }
            let tensors = copy.finish().await.unwrap().finish().unwrap();
            assert!(
                tensors.get("a").unwrap().data()[..] == data[..100]
                    && tensors.get("b").unwrap().data()[..] == data[100..]
            );
            assert_eq!(request.bytes(), 100 + bytes as u64, "the tensors are left");
        }
    }

    #[tokio::test]
    async fn an_error_in_the_background_is_returned_by_a_later_call() {
        let memory = HostMemory::new(256 << 20);
        let request = memory.reservation(0);
        let other = memory.reservation(0);
        other.grow(120 << 20).unwrap();
        let mut copy = BackgroundCopy::new(sections(127 << 20), &BodyMemory::of_request(&request));
        let frame = Bytes::from(vec![0; BATCH as usize]);
        let mut failed = false;
        for _ in 0..6 {
            request.grow(frame.len() as u64).unwrap();
            match copy.push(frame.clone()).await {
                Ok(()) => {}
                Err(error) => {
                    assert!(matches!(error, SectionError::Memory(_)), "{error:?}");
                    failed = true;
                    break;
                }
            }
        }
        assert!(failed, "there are {} of {} bytes", memory.used(), memory.max());
    }
}
