//! The socket between two processes, and what both sides of it share.
//!
//! Packets (`SOCK_SEQPACKET`) of at most [`MAX_PACKET`] bytes; the first byte says what each is: one of [`Control`], or the
//! announcement of a segment or that one is given up (see [`incoming`](super::incoming)). Each process has a thread that
//! reads them, as a segment may be announced while nobody waits for a message.

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown, sockopt,
};

use super::incoming::IncomingSegments;
use super::mailbox::Mailbox;
use super::pool::{Allocation, SegmentPool};
use super::segment::Segment;
use crate::copy::CopyThreads;

/// The longest packet, in bytes.
const MAX_PACKET: usize = (64 << 10) + 1;
/// The most descriptors of a packet.
const MAX_DESCRIPTORS: usize = 8;
/// Packets that have been read and that nobody has asked for. When there are as many, no more are read.
const MAX_UNREAD: usize = 16;
/// How long a packet may wait for the other process to read earlier ones.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// First bytes of packets.
const MESSAGE: u8 = 0;
pub(super) const SEGMENT: u8 = 1;
pub(super) const RETIRED: u8 = 2;
/// The first packet to a child, before its reader is started.
pub(super) const SETUP: u8 = 3;

/// A packet, without its first byte.
pub(super) type Packet = (Vec<u8>, Vec<OwnedFd>);

/// Messages between two processes that are no calls: the first ones, settings, the request to end. They arrive in order.
#[derive(Debug)]
pub(crate) struct Control {
    link: Arc<Link>,
    received: Mutex<Receiver<Packet>>,
}

impl Control {
    /// Sends at most 64 KiB and 8 descriptors. The other process gets duplicates of them.
    ///
    /// Fails with `InvalidInput` for more, with `TimedOut` if the other process has not read earlier messages for five
    /// seconds, and with another kind if it has ended.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.link.send(MESSAGE, bytes, descriptors)
    }

    /// Has `on_mapped` called with each segment that the other process announces from now on, and keeps what it returns until
    /// that process gives the segment up. Only the first call of this counts.
    pub(crate) fn on_mapped(
        &self,
        on_mapped: impl Fn(&Arc<Segment>) -> Option<Box<dyn Any + Send + Sync>> + Send + Sync + 'static,
    ) {
        self.link.incoming.on_mapped(on_mapped);
    }

    /// Waits for the next message. If nobody calls this, the other process cannot announce segments after a while; a
    /// `Control` that is of no more use has to be dropped.
    ///
    /// Fails with `TimedOut`, or with `UnexpectedEof` when the other process has ended or has closed its side.
    pub(crate) fn recv(&self, timeout: Option<Duration>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let packet = match timeout {
            Some(timeout) => received.recv_timeout(timeout),
            None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        packet.map_err(|error| match error {
            RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
            RecvTimeoutError::Disconnected => {
                let reason = self.link.corrupt().unwrap_or("the other process has closed the control socket");
                io::Error::new(io::ErrorKind::UnexpectedEof, reason)
            }
        })
    }
}

/// What the two sides of a connection between processes have, each its own.
pub(super) struct Link {
    socket: OwnedFd,
    pub(super) outgoing: SegmentPool,
    pub(super) incoming: IncomingSegments,
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) copy_threads: CopyThreads,
    is_closed: AtomicBool,
    /// What the other process did that cannot be, if that is why the link is closed.
    corrupt: OnceLock<String>,
    /// Ends the other process, where this one may.
    end_other: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("is_closed", &self.is_closed)
            .field("corrupt", &self.corrupt)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Has every packet read by a thread until the other process closes its side, or sends what cannot be; then closes the
    /// link and calls `end_other`.
    pub(super) fn start(
        socket: OwnedFd,
        budget: u64,
        mailboxes: Vec<Mailbox>,
        copy_threads: CopyThreads,
        end_other: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<(Arc<Self>, Control)> {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SEND_TIMEOUT))?;
        let link = Arc::new(Self {
            socket,
            outgoing: SegmentPool::new(budget),
            incoming: IncomingSegments::new(budget),
            mailboxes,
            copy_threads,
            is_closed: AtomicBool::new(false),
            corrupt: OnceLock::new(),
            end_other: Box::new(end_other),
        });
        let (sender, receiver) = sync_channel(MAX_UNREAD);
        let reader = Arc::clone(&link);
        std::thread::Builder::new().name("process-control".to_owned()).spawn(move || match reader.read(&sender) {
            Ok(()) => {
                reader.close();
                (reader.end_other)();
            }
            Err(reason) => reader.fail(reason),
        })?;
        Ok((Arc::clone(&link), Control { link, received: Mutex::new(receiver) }))
    }

    /// Reads packets until the end. Fails, in words, at one that cannot be.
    fn read(&self, messages: &SyncSender<Packet>) -> Result<(), String> {
        loop {
            let Some((kind, (bytes, mut descriptors))) = receive(self.socket.as_fd())? else { return Ok(()) };
            match (kind, descriptors.len()) {
                // Nobody wants them if the receiver is dropped.
                (MESSAGE, _) => drop(messages.send((bytes, descriptors))),
                (SEGMENT, 1) => self.incoming.add(number(&bytes)?, descriptors.remove(0))?,
                (RETIRED, 0) => self.incoming.retire(number(&bytes)?)?,
                (kind, count) => return Err(format!("control packet of kind {kind} with {count} descriptors")),
            }
        }
    }

    pub(super) fn send(&self, kind: u8, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(self.socket.as_fd(), kind, bytes, descriptors)
    }

    /// Tells the other process what has to be told before the block is used.
    pub(super) fn announce(&self, allocation: &Allocation) -> io::Result<()> {
        for number in &allocation.retired {
            self.send(RETIRED, &number.to_ne_bytes(), &[])?;
        }
        match &allocation.new {
            Some(descriptor) => self.send(SEGMENT, &allocation.block.number().to_ne_bytes(), &[descriptor.as_fd()]),
            None => Ok(()),
        }
    }

    /// Ends everything that waits for the other process.
    ///
    /// The flag is in this process's own memory: the other one cannot take it back.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.incoming.close();
        for mailbox in &self.mailboxes {
            mailbox.close();
        }
    }

    /// Ends the other process, as that has sent what cannot be, and closes the link.
    pub(super) fn fail(&self, reason: String) {
        let _ = self.corrupt.set(reason);
        // First, as the other process sees both of the next, and would end by itself.
        (self.end_other)();
        self.close();
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// What the other process sent that cannot be, if that is why the link is closed.
    pub(super) fn corrupt(&self) -> Option<&str> {
        self.corrupt.get().map(String::as_str)
    }

    /// Sends nothing more, as if this process had ended: the other one reads the end of the socket.
    #[cfg(test)]
    pub(super) fn shutdown(&self) {
        let _ = shutdown(&self.socket, Shutdown::Write);
    }
}

fn number(bytes: &[u8]) -> Result<u32, String> {
    let bytes = bytes.try_into().map_err(|_| format!("control packet with a number of {} bytes", bytes.len()))?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Sends one packet.
pub(super) fn send(socket: BorrowedFd<'_>, kind: u8, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.len() >= MAX_PACKET || descriptors.len() > MAX_DESCRIPTORS {
        let message =
            format!("{} bytes with {} descriptors: 64 KiB with 8 are the most", bytes.len(), descriptors.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    loop {
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(bytes)];
        match sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet, and its first byte; `None` at the end. Fails, in words, if it cannot be.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<(u8, Packet)>, String> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(format!("control socket: {error}")),
        }
    };
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err("control packet with more bytes or descriptors than are allowed".to_owned());
    }
    // Every packet has a first byte.
    let Some((&kind, rest)) = bytes[..received.bytes].split_first() else { return Ok(None) };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(Some((kind, (rest.to_vec(), descriptors))))
}
