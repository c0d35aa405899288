//! Another process that writes what cannot be: everything of it is an error, in words.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::super::control::{self, Link};
use super::super::mailbox::{Direction, INLINE, Look, Mailbox};
use super::super::message::{Header, Parts};
use super::*;

const NO_MESSAGE: Header = Header { kind: 1, sections: 0, head_len: 0 };

/// Calls a thread that runs `hostile` with its mailbox when the request has come. Returns the error of the call, which is to be
/// that of each later one.
fn error_of_call(hostile: impl FnOnce(&Mailbox, BorrowedFd<'_>) + Send) -> String {
    let (ours, theirs) = mailboxes(1);
    let (socket, their_socket) = sockets();
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let (link, control) =
        Link::start(socket, 1 << 20, ours, CopyThreads::default(), move || end.store(true, Ordering::Relaxed)).unwrap();
    let mut caller = Caller::new(Arc::clone(&link), link.mailboxes[0].clone(), Duration::ZERO);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for_request(&theirs[0]);
            hostile(&theirs[0], their_socket.as_fd());
        });
        call(&mut caller, 1, b"head", &[]).unwrap_err()
    });
    assert!(ended.load(Ordering::Relaxed), "the other process is to be ended");
    assert_eq!(call(&mut caller, 1, &[], &[]).unwrap_err(), error);
    assert_eq!(control.recv(None).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    let CallError::Corrupt(what) = error else { panic!("{error:?}") };
    what
}

fn wait_for_request(mailbox: &Mailbox) {
    let until = Instant::now() + LONG;
    while mailbox.look(0) != Look::Arrived && Instant::now() < until {
        std::thread::yield_now();
    }
}

#[test]
fn impossible_turns() {
    for turn in [0, 3, 4, 1 << 29, u32::MAX >> 2] {
        assert_eq!(error_of_call(|mailbox, _| mailbox.pass(turn)), format!("turn {turn} in turn 1"));
    }
    let error = error_of_call(|mailbox, _| mailbox.close());
    assert_eq!(error, "the called thread ended without a response");
}

#[test]
fn impossible_messages_in_the_mailbox() {
    let cases: &[(u32, u64, u64, &str)] = &[
        (u32::MAX, 0, 0, "the table of sections is"),
        (INLINE as u32 / 8 + 1, 0, 0, "the table of sections is"),
        (0, INLINE as u64 + 1, 0, "the head is"),
        (0, u64::MAX, 0, "the head is"),
        (1, INLINE as u64 - 7, 0, "the head is"),
        (1, u64::MAX - 7, 0, "the head is"),
        (1, 0, INLINE as u64 - 63, "a section is"),
        (1, 0, u64::MAX, "a section is"),
        (1, 0, u64::MAX - 63, "a section is"),
        (1, INLINE as u64 - 8, 0, "a section is"),
        // Empty sections, but too many of them.
        (200, 0, 0, "a section is"),
    ];
    for &(sections, head_len, section_len, what) in cases {
        let error = error_of_call(|mailbox, _| {
            let table = (0..(sections as usize).min(INLINE / 8)).flat_map(|_| section_len.to_ne_bytes());
            mailbox.area(Direction::Response).write(0, &table.collect::<Vec<_>>(), &CopyThreads::default());
            mailbox.write_header(Direction::Response, Header { kind: 1, sections, head_len }, 0);
            mailbox.pass(2);
        });
        assert_eq!(
            error,
            format!("{what} outside of the message's {INLINE} bytes"),
            "{sections} {head_len} {section_len}"
        );
    }
}

#[test]
fn a_message_in_a_segment_that_is_unknown() {
    let error = error_of_call(|mailbox, _| {
        mailbox.write_header(Direction::Response, NO_MESSAGE, 77);
        mailbox.pass(2);
    });
    assert_eq!(error, "a message is in segment 77, which is unknown");
}

#[test]
fn two_messages_in_one_segment() {
    let (ours, theirs) = mailboxes(2);
    let (socket, their_socket) = sockets();
    let (link, _control) = Link::start(socket, 1 << 20, ours, CopyThreads::default(), || ()).unwrap();
    let (segment, descriptor) = Segment::create(128 << 10).unwrap();
    segment.area(64, 8).write(0, &1u64.to_ne_bytes(), &CopyThreads::default());
    control::send(their_socket.as_fd(), control::SEGMENT, &5u32.to_ne_bytes(), &[descriptor.as_fd()]).unwrap();
    let respond = |index: usize| {
        let mut caller = Caller::new(Arc::clone(&link), link.mailboxes[index].clone(), Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                wait_for_request(&theirs[index]);
                let one_section = Header { kind: 1, sections: 1, head_len: 0 };
                theirs[index].write_header(Direction::Response, one_section, 5);
                theirs[index].pass(2);
            });
            call(&mut caller, 1, &[], &[])
        })
    };
    let first = respond(0).unwrap();
    let error = CallError::Corrupt("a message is in segment 5, where an earlier one still is".to_owned());
    assert_eq!(respond(1).unwrap_err(), error);
    // What was received before is still there.
    assert_eq!(first.sections[0].len(), 1);
}

#[test]
fn impossible_packets() {
    let number = 5u32.to_ne_bytes();
    let (_small, small) = Segment::create(64).unwrap();
    let (_large, large) = Segment::create((2 << 20) + 1).unwrap();
    let (_fit, fit) = Segment::create(1 << 20).unwrap();
    let unsealed = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&unsealed, 8192).unwrap();
    fcntl_add_seals(&unsealed, SealFlags::GROW).unwrap();
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();

    type Packet<'a> = (u8, &'a [u8], Vec<&'a OwnedFd>);
    let segment = |descriptor| (control::SEGMENT, &number[..], vec![descriptor]);
    let cases: Vec<(Vec<Packet<'_>>, &str)> = vec![
        (vec![(9, b"", vec![])], "control packet of kind 9 with 0 descriptors"),
        (vec![(control::SETUP, b"", vec![])], "control packet of kind 3 with 0 descriptors"),
        (vec![(control::SEGMENT, &number, vec![])], "control packet of kind 1 with 0 descriptors"),
        (vec![(control::SEGMENT, &number, vec![&fit, &fit])], "control packet of kind 1 with 2 descriptors"),
        (vec![(control::SEGMENT, b"123", vec![&fit])], "control packet with a number of 3 bytes"),
        (vec![segment(&small)], "segment 5 has 64 bytes, too few for a block"),
        (vec![segment(&large)], "segment 5 of 2097153 bytes exceeds the limit of 2097152 bytes"),
        (vec![segment(&unsealed)], "shared memory: its size is not sealed"),
        (vec![segment(&file)], "shared memory: not a memfd"),
        (vec![segment(&fit), segment(&fit)], "segment 5 is announced twice"),
        (vec![(control::RETIRED, &number, vec![])], "segment 5 is given up, but unknown"),
        (vec![(control::RETIRED, &number, vec![&fit])], "control packet of kind 2 with 1 descriptors"),
    ];
    for (packets, expected) in cases {
        let error = error_of_call(|_, socket| {
            for (kind, bytes, descriptors) in packets {
                let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
                control::send(socket, kind, bytes, &descriptors).unwrap();
            }
            // Until it has been read: a socket that is closed is an end, and no error.
            wait_for_close(socket);
        });
        assert_eq!(error, expected);
    }
    let error = error_of_call(|_, socket| {
        rustix::net::send(socket, &[0; (64 << 10) + 2], rustix::net::SendFlags::empty()).unwrap();
        wait_for_close(socket);
    });
    assert_eq!(error, "control packet with more bytes or descriptors than are allowed");
}

/// Reads the end of the socket, which is there when the other side has failed.
fn wait_for_close(socket: BorrowedFd<'_>) {
    let mut byte = [0];
    let _ = rustix::net::recv(socket, &mut byte[..], rustix::net::RecvFlags::empty());
}

#[test]
fn random_areas_are_read_within_bounds() {
    let random = SplitMix64::new(1);
    const LEN: usize = 4096;
    let (segment, _) = Segment::create(LEN).unwrap();
    let area = segment.area(0, LEN);
    let mut valid = 0;
    for _ in 0..20_000 {
        // Lengths near to what is possible, and far from it.
        let length = |most: u64| {
            random.next() >> (64 - below(&random, 64).max(1))
                & if random.next().is_multiple_of(4) { u64::MAX } else { most }
        };
        let table: Vec<u8> = (0..LEN / 8).flat_map(|_| length(127).to_ne_bytes()).collect();
        area.write(0, &table, &CopyThreads::default());
        let header = Header { kind: 0, sections: length(15) as u32, head_len: length(1023) };
        if let Ok(parts) = Parts::read(area, header) {
            valid += 1;
            assert_eq!(parts.sections.len(), header.sections as usize);
            let mut end = 0;
            for part in std::iter::once(&parts.head).chain(&parts.sections) {
                assert!(end <= part.start && part.start <= part.end && part.end <= LEN, "{parts:?}");
                end = part.end;
            }
            let received = parts.copy(area, 0);
            assert_eq!(received.head.len() as u64, header.head_len);
        }
    }
    assert!((1000..19_000).contains(&valid), "{valid} of 20 000 are valid");
}
