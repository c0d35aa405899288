//! Messages, and how they lie in shared memory.
//!
//! A message lies in an area that begins at a multiple of [`ALIGNMENT`]: a table with the length of each section (`u64`), the
//! head, and the sections, each at the next multiple of [`ALIGNMENT`]. An empty section takes as much as one of one byte, so
//! that the number of sections is bounded by the size of the area.

use std::ops::Range;

use bytes::Bytes;

use super::incoming::IncomingBlock;
use super::segment::Area;
use crate::copy::CopyThreads;

/// What sections are aligned to, in bytes: a cache line, and what SIMD code and the CUDA driver like.
pub(crate) const ALIGNMENT: usize = 64;

/// A message to another process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// What the message is, to those who send and receive it.
    pub(crate) kind: u32,
    /// The small part, which is copied on either side.
    pub(crate) head: &'a [u8],
    /// Arrays: copied into shared memory.
    pub(crate) sections: &'a [Bytes],
}

/// A message from another process.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) kind: u32,
    /// A copy.
    pub(crate) head: Vec<u8>,
    /// The sections, each aligned to 64 bytes (but for empty ones).
    ///
    /// Large ones are not copied: they are the shared memory, and stay valid after the other process has ended. The memory is
    /// free for the sender's next message when the last of them is dropped.
    ///
    /// A sender that breaks the rules can change the bytes at any time. So a reader must take them for numbers, or copy them
    /// before it checks something that it relies on later, such as that they are UTF-8 or that an index is in bounds.
    pub(crate) sections: Vec<Bytes>,
}

/// What tells how to read an area; it lies in a mailbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) sections: u32,
    pub(super) head_len: u64,
}

fn aligned(offset: usize) -> Option<usize> {
    offset.checked_next_multiple_of(ALIGNMENT)
}

impl Message<'_> {
    /// The length of the area that the message needs; `None` if no memory is as large.
    pub(super) fn area_len(&self) -> Option<usize> {
        let table = self.sections.len().checked_mul(8)?;
        let mut end = table.checked_add(self.head.len())?;
        for section in self.sections {
            end = aligned(end)?.checked_add(section.len().max(1))?;
        }
        (u32::try_from(self.sections.len()).is_ok() && end <= isize::MAX as usize).then_some(end)
    }

    /// Writes the message, with the help of `threads` where it is large.
    ///
    /// # Panics
    /// If the area is shorter than [`area_len`](Self::area_len).
    pub(super) fn write(&self, area: Area<'_>, threads: &CopyThreads) -> Header {
        for (index, section) in self.sections.iter().enumerate() {
            area.write(8 * index, &(section.len() as u64).to_ne_bytes(), threads);
        }
        let mut end = 8 * self.sections.len();
        area.write(end, self.head, threads);
        end += self.head.len();
        for section in self.sections {
            let start = end.next_multiple_of(ALIGNMENT);
            area.write(start, section, threads);
            end = start + section.len().max(1);
        }
        Header { kind: self.kind, sections: self.sections.len() as u32, head_len: self.head.len() as u64 }
    }
}

/// Where the parts of a received message are in its area; all of them inside.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) head: Range<usize>,
    pub(super) sections: Vec<Range<usize>>,
}

impl Parts {
    /// Reads the table. Fails, in words, if something of it is not inside of the area.
    pub(super) fn read(area: Area<'_>, header: Header) -> Result<Self, String> {
        let outside = |what: &str| format!("{what} outside of the message's {} bytes", area.len());
        let table = usize::try_from(header.sections).ok().and_then(|count| count.checked_mul(8));
        let table = table.filter(|&table| table <= area.len()).ok_or_else(|| outside("the table of sections is"))?;
        let head_end = usize::try_from(header.head_len).ok().and_then(|len| len.checked_add(table));
        let head_end = head_end.filter(|&end| end <= area.len()).ok_or_else(|| outside("the head is"))?;
        let mut sections = Vec::new();
        let mut end = head_end;
        for index in 0..table / 8 {
            let place = || {
                let len = usize::try_from(area.load(8 * index)).ok()?;
                let start = aligned(end)?;
                let next = start.checked_add(len.max(1)).filter(|&next| next <= area.len())?;
                Some((start..start + len, next))
            };
            let (section, next) = place().ok_or_else(|| outside("a section is"))?;
            sections.push(section);
            end = next;
        }
        Ok(Self { head: table..head_end, sections })
    }

    /// Copies the message out of its area.
    pub(super) fn copy(self, area: Area<'_>, kind: u32) -> Received {
        let head = area.read(self.head.clone());
        let start = self.sections.first().map_or(0, |first| first.start);
        let end = self.sections.last().map_or(0, |last| last.end);
        // A vector begins at no multiple of `ALIGNMENT`: the copy begins at the first one in it.
        let mut bytes: Vec<u8> = Vec::with_capacity(end - start + ALIGNMENT);
        let padding = bytes.as_ptr().align_offset(ALIGNMENT);
        bytes.resize(padding, 0);
        area.append_to(&mut bytes, start..end);
        let bytes = Bytes::from(bytes);
        let section = |part: &Range<usize>| bytes.slice(part.start - start + padding..part.end - start + padding);
        Received { kind, head, sections: self.sections.iter().map(section).collect() }
    }

    /// The message with its sections where they are: in the block, which is free when all of them have been dropped.
    pub(super) fn share(self, block: IncomingBlock, kind: u32) -> Received {
        let head = block.area().read(self.head);
        let bytes = block.into_bytes();
        Received { kind, head, sections: self.sections.into_iter().map(|part| bytes.slice(part)).collect() }
    }
}
