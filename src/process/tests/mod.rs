//! Tests of calls between threads, which show what is checked, and between processes, which show what happens when one ends.

mod children;
mod hostile;
mod pool;
mod threads;
mod times;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::control::Link;
use super::mailbox::Mailbox;
use super::*;
use crate::copy::CopyThreads;
use crate::random::SplitMix64;

/// Long enough for a thread to run on a busy machine. What takes longer hangs.
const LONG: Duration = Duration::from_secs(60);

/// Both sides of a connection, in one process: each has its own mapping.
struct Pair {
    callers: Vec<Caller>,
    callees: Vec<Callee>,
    caller_link: Arc<Link>,
    caller_control: Control,
    callee_control: Control,
}

fn sockets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn mailboxes(count: usize) -> (Vec<Mailbox>, Vec<Mailbox>) {
    let (segment, descriptor) = Segment::create(Mailbox::segment_len(count).unwrap()).unwrap();
    (Mailbox::all(segment), Mailbox::all(Segment::from_fd(descriptor).unwrap()))
}

fn pair(count: usize, budget: u64, spin: Duration) -> Pair {
    let (caller_mailboxes, callee_mailboxes) = mailboxes(count);
    let (caller_socket, callee_socket) = sockets();
    let (caller_link, caller_control) =
        Link::start(caller_socket, budget, caller_mailboxes, CopyThreads::default(), || ()).unwrap();
    let (callee_link, callee_control) =
        Link::start(callee_socket, budget, callee_mailboxes, CopyThreads::default(), || ()).unwrap();
    let caller = |mailbox: &Mailbox| Caller::new(Arc::clone(&caller_link), mailbox.clone(), spin);
    let callee = |mailbox: &Mailbox| Callee::new(Arc::clone(&callee_link), mailbox.clone(), spin);
    let callers = caller_link.mailboxes.iter().map(caller).collect();
    let callees = callee_link.mailboxes.iter().map(callee).collect();
    Pair { callers, callees, caller_link, caller_control, callee_control }
}

/// For calls that have to end: gives up after a time in which all of them do.
fn patient() -> impl FnMut() -> Waiting {
    let until = Instant::now() + LONG;
    move || if Instant::now() < until { Waiting::Continue } else { Waiting::GiveUp }
}

fn call(caller: &mut Caller, kind: u32, head: &[u8], sections: &[Bytes]) -> Result<Received, CallError> {
    caller.call(Message { kind, head, sections }, &mut patient())
}

/// Responds to each request with the same message, until the caller ends.
fn echo(callee: &mut Callee) -> Closed {
    loop {
        match callee.next() {
            Ok(Received { kind, head, sections }) => {
                callee.respond(Message { kind, head: &head, sections: &sections }).unwrap();
            }
            Err(closed) => return closed,
        }
    }
}

/// A number below `limit`.
fn below(random: &SplitMix64, limit: usize) -> usize {
    random.up_to(limit as u64 - 1) as usize
}

/// Random bytes, the same for the same seed.
fn random_bytes(seed: u64, len: usize) -> Bytes {
    let random = SplitMix64::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| random.next().to_ne_bytes()).take(len).collect()
}

/// Ends the callees of a test, also of one that fails.
struct EndOnDrop<'a>(&'a Link);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

/// What child processes of these tests run. Run as a test of its own, it does nothing.
#[test]
fn child_main() {
    if let Some(inherited) = enter() {
        children::run_child(inherited);
    }
}
