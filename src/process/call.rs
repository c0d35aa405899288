//! Calls from a thread of one process to a thread of another.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::control::Link;
use super::incoming::NoBlock;
use super::mailbox::{Direction, INLINE, Look, Mailbox, next_turn};
use super::message::{Message, Parts, Received};
use super::pool::{AllocError, OutOfSharedMemory};

/// How long a caller sleeps until it polls, at first and at most.
const FIRST_SLEEP: Duration = Duration::from_millis(1);
const LONGEST_SLEEP: Duration = Duration::from_millis(10);

/// How long a message waits for the announcement of its segment. The other process has sent that before, so only the thread
/// that reads it may be late.
const ANNOUNCEMENT_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 10 });

/// What a caller that waits is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Continue,
    /// Ask the other side to stop, and wait on for its response.
    Cancel,
    /// Wait no longer. The mailbox is then of no more use.
    GiveUp,
}

/// Why a call has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The other process has ended, or has closed its side.
    Died,
    /// The other process sent what cannot be; it has been killed.
    Corrupt(String),
    /// The request does not fit into the shared memory. It has not been sent.
    OutOfSharedMemory(OutOfSharedMemory),
    /// The system gave no memory for the request. It has not been sent.
    Failed(String),
    /// `poll` said so, now or in an earlier call.
    GaveUp,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died => f.write_str("the process has ended"),
            Self::Corrupt(what) => write!(f, "the process sent an invalid message: {what}"),
            Self::OutOfSharedMemory(error) => error.fmt(f),
            Self::Failed(what) => write!(f, "no shared memory: {what}"),
            Self::GaveUp => f.write_str("the process does not respond"),
        }
    }
}

impl std::error::Error for CallError {}

/// Why a message could not be sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// It has not been sent; a smaller one can be.
    OutOfSharedMemory(OutOfSharedMemory),
    /// The system gave no memory. It has not been sent; one of at most 8 KiB can be.
    Failed(String),
    /// The other process does not read the control socket, or has ended.
    Closed(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfSharedMemory(error) => error.fmt(f),
            Self::Failed(what) => write!(f, "no shared memory: {what}"),
            Self::Closed(what) => write!(f, "control socket: {what}"),
        }
    }
}

impl std::error::Error for SendError {}

/// Why there are no more requests.
#[derive(Debug)]
pub(crate) enum Closed {
    /// The other process has ended, or has closed its side.
    Ended,
    /// It sent what cannot be.
    Corrupt(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the calling process has ended or closed its side"),
            Self::Corrupt(what) => write!(f, "the calling process sent an invalid message: {what}"),
        }
    }
}

impl std::error::Error for Closed {}

/// One side of a mailbox.
#[derive(Debug)]
struct Side {
    link: Arc<Link>,
    mailbox: Mailbox,
    spin: Duration,
    /// As the word of the mailbox has it, as far as this side knows.
    turn: u32,
    /// Where the pool has the block of the last message that needed one.
    last_block: usize,
}

impl Side {
    /// Writes a message and passes the turn on.
    fn send(&mut self, direction: Direction, message: Message<'_>) -> Result<(), SendError> {
        let too_large = || OutOfSharedMemory { need: u64::MAX, budget: self.link.outgoing.budget() };
        let len = message.area_len().ok_or_else(|| SendError::OutOfSharedMemory(too_large()))?;
        if len <= INLINE {
            let header = message.write(self.mailbox.area(direction), &self.link.copy_threads);
            self.mailbox.write_header(direction, header, 0);
        } else {
            let allocation = self.link.outgoing.alloc(len, &mut self.last_block).map_err(|error| match error {
                AllocError::OutOfSharedMemory(error) => SendError::OutOfSharedMemory(error),
                AllocError::System(error) => SendError::Failed(error.to_string()),
            })?;
            self.link.announce(&allocation).map_err(|error| SendError::Closed(error.to_string()))?;
            let header = message.write(allocation.block.area(), &self.link.copy_threads);
            self.mailbox.write_header(direction, header, allocation.block.number());
            allocation.block.publish();
        }
        self.turn = next_turn(self.turn);
        self.mailbox.pass(self.turn);
        Ok(())
    }

    /// Reads the message that has come with the turn.
    fn receive(&mut self, direction: Direction) -> Result<Received, NoBlock> {
        self.turn = next_turn(self.turn);
        let (header, segment) = self.mailbox.read_header(direction);
        if segment == 0 {
            let area = self.mailbox.area(direction);
            return Ok(Parts::read(area, header).map_err(NoBlock::Corrupt)?.copy(area, header.kind));
        }
        let block = self.link.incoming.take(segment, ANNOUNCEMENT_TIMEOUT)?;
        let parts = Parts::read(block.area(), header).map_err(NoBlock::Corrupt)?;
        Ok(parts.share(block, header.kind))
    }

    /// Spins until the turn has come, but not for longer than it may.
    fn spin(&self) -> Look {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                match self.mailbox.look(self.turn) {
                    Look::Waiting(_) => std::hint::spin_loop(),
                    other => return other,
                }
            }
            if start.elapsed() >= self.spin {
                return self.mailbox.look(self.turn);
            }
        }
    }
}

/// The side of a mailbox that calls: one call at a time.
#[derive(Debug)]
pub(crate) struct Caller {
    side: Side,
    /// What the calls after an error end with.
    broken: Option<CallError>,
}

impl Caller {
    pub(super) fn new(link: Arc<Link>, mailbox: Mailbox, spin: Duration) -> Self {
        Self { side: Side { link, mailbox, spin, turn: 0, last_block: 0 }, broken: None }
    }

    /// Sends the message and waits for the response.
    ///
    /// Spins for the time of [`ChildConfig::spin`](super::ChildConfig::spin) and then sleeps; `poll` is called each time that
    /// it has slept, after one millisecond at first and after ten later. When the other process ends, it wakes at once.
    pub(crate) fn call(
        &mut self,
        message: Message<'_>,
        poll: &mut dyn FnMut() -> Waiting,
    ) -> Result<Received, CallError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.side.link.is_closed() {
            return Err(self.closed());
        }
        let result = self.try_call(message, poll);
        if let Err(error) = &result {
            match error {
                CallError::OutOfSharedMemory(_) | CallError::Failed(_) => {}
                CallError::Corrupt(reason) => {
                    self.side.link.fail(reason.clone());
                    self.broken = Some(error.clone());
                }
                CallError::Died | CallError::GaveUp => self.broken = Some(error.clone()),
            }
        }
        result
    }

    fn try_call(&mut self, message: Message<'_>, poll: &mut dyn FnMut() -> Waiting) -> Result<Received, CallError> {
        self.side.send(Direction::Request, message).map_err(|error| match error {
            SendError::OutOfSharedMemory(error) => CallError::OutOfSharedMemory(error),
            SendError::Failed(what) => CallError::Failed(what),
            SendError::Closed(_) if self.side.link.is_closed() => self.closed(),
            SendError::Closed(what) => CallError::Corrupt(format!("its control socket takes nothing: {what}")),
        })?;
        self.wait(poll)?;
        self.side.receive(Direction::Response).map_err(|error| match error {
            NoBlock::Closed => self.closed(),
            NoBlock::Corrupt(what) => CallError::Corrupt(what),
        })
    }

    fn wait(&self, poll: &mut dyn FnMut() -> Waiting) -> Result<(), CallError> {
        let mut look = self.side.spin();
        let mut sleep = FIRST_SLEEP;
        loop {
            match look {
                Look::Arrived => return Ok(()),
                Look::Waiting(_) if self.side.link.is_closed() => return Err(self.closed()),
                Look::Waiting(word) => {
                    self.side.mailbox.sleep(word, Some(sleep));
                    sleep = (sleep * 2).min(LONGEST_SLEEP);
                }
                Look::Closed if self.side.link.is_closed() => return Err(self.closed()),
                Look::Closed => {
                    return Err(CallError::Corrupt("the called thread ended without a response".to_owned()));
                }
                Look::Corrupt(turn) => {
                    return Err(CallError::Corrupt(format!("turn {turn} in turn {}", self.side.turn)));
                }
            }
            look = self.side.mailbox.look(self.side.turn);
            if matches!(look, Look::Waiting(_)) {
                match poll() {
                    Waiting::Continue => {}
                    Waiting::Cancel => self.side.mailbox.cancelled().store(self.side.turn, Ordering::Relaxed),
                    Waiting::GiveUp => return Err(CallError::GaveUp),
                }
            }
        }
    }

    /// Has the callee poll for a call that will soon come, if it sleeps.
    pub(crate) fn wake(&self) {
        self.side.mailbox.wake();
    }

    /// Whether the other process had taken the request of the last call before it ended.
    pub(crate) fn was_taken(&self) -> bool {
        self.side.mailbox.started().load(Ordering::Relaxed) == self.side.turn
    }

    /// Why the link is closed.
    fn closed(&self) -> CallError {
        self.side.link.corrupt().map_or(CallError::Died, |what| CallError::Corrupt(what.to_owned()))
    }
}

/// The side of a mailbox that is called. If it is dropped before it has responded to a request, such as by a panic, the call
/// ends with [`CallError::Corrupt`].
#[derive(Debug)]
pub(crate) struct Callee {
    side: Side,
}

impl Callee {
    pub(super) fn new(link: Arc<Link>, mailbox: Mailbox, spin: Duration) -> Self {
        Self { side: Side { link, mailbox, spin, turn: 0, last_block: 0 } }
    }

    /// Waits for the next request: spins, and then sleeps until it has come or the other process has ended.
    ///
    /// # Panics
    /// If there was no response to the last one.
    pub(crate) fn next(&mut self) -> Result<Received, Closed> {
        assert!(!self.is_called(), "there was no response to the last request");
        let mut look = self.side.spin();
        loop {
            match look {
                Look::Arrived => break,
                Look::Waiting(_) | Look::Closed if self.side.link.is_closed() => return Err(self.closed()),
                Look::Waiting(word) => self.side.mailbox.sleep(word, None),
                Look::Closed => return Err(Closed::Ended),
                Look::Corrupt(turn) => return Err(Closed::Corrupt(format!("turn {turn} in turn {}", self.side.turn))),
            }
            // It may have been woken ahead of the request.
            look = self.side.spin();
        }
        self.side.mailbox.started().store(next_turn(self.side.turn), Ordering::Relaxed);
        self.side.receive(Direction::Request).map_err(|error| match error {
            NoBlock::Closed => self.closed(),
            NoBlock::Corrupt(what) => Closed::Corrupt(what),
        })
    }

    /// Returns whether the caller has asked to stop this request, for any thread and for as long as it is kept.
    pub(crate) fn cancel_check(&self) -> CancelCheck {
        CancelCheck { mailbox: self.side.mailbox.clone(), turn: self.side.turn }
    }

    /// Sends the response.
    ///
    /// # Panics
    /// If there is no request.
    pub(crate) fn respond(&mut self, message: Message<'_>) -> Result<(), SendError> {
        assert!(self.is_called(), "a response without a request");
        self.side.send(Direction::Response, message)
    }

    /// Sends a packet that cannot be.
    #[cfg(test)]
    pub(super) fn break_socket(&self) {
        self.side.link.send(99, b"", &[]).unwrap();
    }

    /// Whether a request waits for its response.
    fn is_called(&self) -> bool {
        self.side.turn % 2 == 1
    }

    fn closed(&self) -> Closed {
        self.side.link.corrupt().map_or(Closed::Ended, |what| Closed::Corrupt(what.to_owned()))
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        if self.is_called() {
            self.side.mailbox.close();
        }
    }
}

/// Whether the caller of a request has asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct CancelCheck {
    mailbox: Mailbox,
    turn: u32,
}

impl CancelCheck {
    /// One load.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.mailbox.cancelled().load(Ordering::Relaxed) == self.turn
    }
}
