//! Mailboxes: where the two threads of a call hand it to each other.
//!
//! # The word
//!
//! The processes take turns, and the word of a mailbox says whose turn it is. Turns are counted: at an even number the
//! caller may write a request, at an odd one the callee reads it and writes the response. Whoever has the turn passes it on
//! by writing the next number ([`Mailbox::pass`]), and only then looks at nothing of the message any more.
//!
//! ```text
//! caller              word    callee
//! writes request      2n
//! pass(2n + 1)  --->  2n+1
//!                             reads request, runs it, writes response
//!                     2n+2    <--- pass(2n + 2)
//! reads response
//! ```
//!
//! Whoever waits spins first, and then sleeps in a futex on the word. Two bits beside the number are for that:
//! * [`SLEEPING`]: somebody sleeps, or is about to. Whoever waits sets it, if the word is still the one that it has seen, and
//!   then calls `futex(WAIT)` with the value that it has written; the kernel puts it to sleep only if the word is that. The
//!   other side passes the turn on by a *swap*, and wakes if the word that it replaced had the bit. So either the swap comes
//!   first, and the sleeper's exchange or its `WAIT` fails; or the swap finds the bit, and wakes. No wake-up is lost.
//! * [`CLOSED`]: the other process has ended. It changes the word, so that a `WAIT` which is just beginning fails, as above.
//!   Somebody's `pass` can overwrite it; so it is no more than a wake-up, and the fact itself is a flag in the memory of
//!   each process ([`Link::is_closed`](super::control::Link::is_closed)), set before.
//!
//! The other process may write anything to the word at any time. Each look at it is one load, and what is neither the turn that
//! has been passed on nor the one that follows is an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::futex;

use super::message::Header;
use super::segment::{Area, Segment};

/// Messages up to this length lie in the mailbox itself, and are copied out of it. Longer ones are in blocks, where their
/// sections need no second copy: from about 4 KiB on that is faster, but a block for each takes memory and a mapping.
pub(super) const INLINE: usize = 8 << 10;

/// Offsets in a mailbox. What different processes write is in different cache lines.
const WORD: usize = 0;
const STARTED: usize = 32;
const CANCELLED: usize = 64;
const HEADERS: [usize; 2] = [128, 192];
const AREAS: [usize; 2] = [4096, 4096 + INLINE];
const SIZE: usize = 4096 + 2 * INLINE;

/// Offsets in a header.
const KIND: usize = 0;
const SEGMENT: usize = 4;
const SECTIONS: usize = 8;
const HEAD_LEN: usize = 16;

const SLEEPING: u32 = 1;
const CLOSED: u32 = 2;
/// The turn is in the bits above.
const TURN_SHIFT: u32 = 2;
const MAX_TURN: u32 = u32::MAX >> TURN_SHIFT;

/// The turn after `turn`. The last one is odd, so it is followed by 0, which is even.
pub(super) fn next_turn(turn: u32) -> u32 {
    if turn == MAX_TURN { 0 } else { turn + 1 }
}

/// Which message of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request = 0,
    Response = 1,
}

/// What a look at the word shows to one who waits for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It has come.
    Arrived,
    /// Not yet; the whole word, for [`Mailbox::sleep`].
    Waiting(u32),
    Closed,
    /// The turn is one that cannot be.
    Corrupt(u32),
}

/// A place in shared memory for one call at a time between two threads.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    segment: Arc<Segment>,
    base: usize,
}

impl Mailbox {
    /// The length of the segment for so many mailboxes; `None` if there is none as long.
    pub(super) fn segment_len(count: usize) -> Option<usize> {
        count.checked_mul(SIZE).filter(|&len| len > 0)
    }

    /// All mailboxes of a segment.
    pub(super) fn all(segment: Segment) -> Vec<Self> {
        let count = segment.len() / SIZE;
        let segment = Arc::new(segment);
        (0..count).map(|index| Self { segment: Arc::clone(&segment), base: index * SIZE }).collect()
    }

    fn word(&self) -> &AtomicU32 {
        self.segment.word(self.base + WORD)
    }

    /// The turn of the last request that the callee has taken.
    pub(super) fn started(&self) -> &AtomicU32 {
        self.segment.word(self.base + STARTED)
    }

    /// The turn whose call is cancelled.
    pub(super) fn cancelled(&self) -> &AtomicU32 {
        self.segment.word(self.base + CANCELLED)
    }

    /// The area for a message in the mailbox itself.
    pub(super) fn area(&self, direction: Direction) -> Area<'_> {
        self.segment.area(self.base + AREAS[direction as usize], INLINE)
    }

    /// Writes where and what the message is. `segment` is 0 if it is in the mailbox itself.
    pub(super) fn write_header(&self, direction: Direction, header: Header, segment: u32) {
        let base = self.base + HEADERS[direction as usize];
        self.segment.word(base + KIND).store(header.kind, Ordering::Relaxed);
        self.segment.word(base + SEGMENT).store(segment, Ordering::Relaxed);
        self.segment.word(base + SECTIONS).store(header.sections, Ordering::Relaxed);
        self.segment.long_word(base + HEAD_LEN).store(header.head_len, Ordering::Relaxed);
    }

    /// Reads what [`write_header`](Self::write_header) wrote, each field once.
    pub(super) fn read_header(&self, direction: Direction) -> (Header, u32) {
        let base = self.base + HEADERS[direction as usize];
        let header = Header {
            kind: self.segment.word(base + KIND).load(Ordering::Relaxed),
            sections: self.segment.word(base + SECTIONS).load(Ordering::Relaxed),
            head_len: self.segment.long_word(base + HEAD_LEN).load(Ordering::Relaxed),
        };
        (header, self.segment.word(base + SEGMENT).load(Ordering::Relaxed))
    }

    /// Passes the turn on, and wakes the other side. What was written before, it sees.
    pub(super) fn pass(&self, turn: u32) {
        let word = self.word();
        if word.swap(turn << TURN_SHIFT, Ordering::AcqRel) & SLEEPING != 0 {
            let _ = futex::wake(word, futex::Flags::empty(), 1);
        }
    }

    /// Wakes the other side if it sleeps, as a message will soon come.
    pub(super) fn wake(&self) {
        let word = self.word();
        if word.load(Ordering::Relaxed) & SLEEPING != 0 {
            let _ = futex::wake(word, futex::Flags::empty(), 1);
        }
    }

    /// Looks whether the turn after `turn`, which is the other side's, has come.
    pub(super) fn look(&self, turn: u32) -> Look {
        let word = self.word().load(Ordering::Acquire);
        match word >> TURN_SHIFT {
            now if now == next_turn(turn) => Look::Arrived,
            now if now != turn => Look::Corrupt(now),
            _ if word & CLOSED != 0 => Look::Closed,
            _ => Look::Waiting(word),
        }
    }

    /// Sleeps while the word is `seen`, up to `timeout`.
    pub(super) fn sleep(&self, seen: u32, timeout: Option<Duration>) {
        let word = self.word();
        let asleep = seen | SLEEPING;
        if seen != asleep && word.compare_exchange(seen, asleep, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        // Whatever ends it, the caller looks again.
        let _ = futex::wait(word, futex::Flags::empty(), asleep, timeout.as_ref());
    }

    /// Wakes whoever sleeps, as the other process has ended.
    pub(super) fn close(&self) {
        let word = self.word();
        word.fetch_or(CLOSED, Ordering::AcqRel);
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
    }
}
