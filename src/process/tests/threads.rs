//! Calls between two threads of one process, through two mappings of the same memory.

use std::sync::atomic::Ordering;

use super::super::mailbox::{Look, next_turn};
use super::super::message::ALIGNMENT;
use super::*;

/// Calls with 0 to 3 sections of up to 200 KiB together, cut out of random bytes, and compares what comes back.
fn call_at_random(caller: &mut Caller, random: &SplitMix64, bytes: &Bytes, times: usize) {
    for _ in 0..times {
        let mut left = below(random, 200 << 10);
        let sections: Vec<Bytes> = (0..below(random, 4))
            .map(|_| {
                let len = below(random, left + 1);
                left -= len;
                let start = below(random, bytes.len() - len);
                bytes.slice(start..start + len)
            })
            .collect();
        let head = bytes.slice(..below(random, 300));
        let kind = random.next() as u32;
        let response = call(caller, kind, &head, &sections).unwrap();
        check_echo(&response, kind, &head, &sections);
    }
}

fn check_echo(response: &Received, kind: u32, head: &[u8], sections: &[Bytes]) {
    assert_eq!(response.kind, kind);
    assert_eq!(response.head, head);
    assert!(response.sections == sections, "the sections of the response differ");
    for section in response.sections.iter().filter(|section| !section.is_empty()) {
        assert!(section.as_ptr().addr().is_multiple_of(ALIGNMENT));
    }
}

#[test]
fn random_messages_arrive_as_they_were_sent() {
    // Some of the four spin, and some only sleep, while all of them share the pools.
    for spin in [Duration::ZERO, Duration::from_micros(50)] {
        let Pair { callers, callees, caller_link, .. } = pair(2, 64 << 20, spin);
        let bytes = random_bytes(1, 400 << 10);
        std::thread::scope(|scope| {
            // The callees wait without a timeout, and end.
            let _end = EndOnDrop(&caller_link);
            for mut callee in callees {
                scope.spawn(move || assert!(matches!(echo(&mut callee), Closed::Ended)));
            }
            let calling: Vec<_> = callers
                .into_iter()
                .zip(1..)
                .map(|(mut caller, seed)| {
                    let bytes = &bytes;
                    scope.spawn(move || call_at_random(&mut caller, &SplitMix64::new(seed), bytes, 2500))
                })
                .collect();
            for thread in calling {
                thread.join().unwrap();
            }
        });
    }
}

#[test]
fn a_callee_that_is_woken_ahead_of_its_calls_takes_them() {
    let Pair { mut callers, mut callees, caller_link, .. } = pair(1, 1 << 20, Duration::ZERO);
    std::thread::scope(|scope| {
        let _end = EndOnDrop(&caller_link);
        scope.spawn(|| echo(&mut callees[0]));
        for kind in 0..1000 {
            // Before it has gone to sleep, while it sleeps, or as it wakes by itself.
            for _ in 0..kind % 4 {
                callers[0].wake();
                std::thread::yield_now();
            }
            assert_eq!(call(&mut callers[0], kind, b"head", &[]).unwrap().kind, kind);
        }
    });
}

#[test]
fn large_messages_are_shared_and_their_memory_is_used_again() {
    let Pair { mut callers, mut callees, caller_link, .. } = pair(1, 160 << 20, Duration::ZERO);
    let sections = [random_bytes(1, 32 << 20), random_bytes(2, 100), Bytes::new()];
    std::thread::scope(|scope| {
        let _end = EndOnDrop(&caller_link);
        scope.spawn(|| echo(&mut callees[0]));
        for kind in 0..6 {
            // More of them than have room side by side.
            let response = call(&mut callers[0], kind, b"head", &sections).unwrap();
            check_echo(&response, kind, b"head", &sections);
        }
        let held = call(&mut callers[0], 7, b"", &sections[..1]).unwrap();
        let other = call(&mut callers[0], 8, b"", &[random_bytes(3, 32 << 20)]).unwrap();
        // What is held is not overwritten, also after the connection has ended.
        caller_link.shutdown();
        drop(callers);
        drop(other);
        check_echo(&held, 7, b"", &sections[..1]);
    });
}

#[test]
fn no_wake_up_is_lost() {
    // Neither side spins or has a timeout, so a lost wake-up is a hang. The test would run into the timeout of its last wait.
    let (ours, theirs) = mailboxes(1);
    const TURNS: u32 = 100_000;
    let wait = |mailbox: &Mailbox, turn| loop {
        match mailbox.look(turn) {
            Look::Arrived => return next_turn(turn),
            Look::Waiting(word) => mailbox.sleep(word, None),
            other => panic!("{other:?}"),
        }
    };
    let (done, finished) = std::sync::mpsc::channel();
    for (mailbox, mine) in [(ours, true), (theirs, false)] {
        let mailbox = mailbox[0].clone();
        let done = done.clone();
        std::thread::spawn(move || {
            let mut turn = 0;
            if mine {
                mailbox.pass(1);
                turn = 1;
            }
            while turn < TURNS {
                turn = wait(&mailbox, turn);
                if turn < TURNS {
                    turn = next_turn(turn);
                    mailbox.pass(turn);
                }
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..2 {
        finished.recv_timeout(LONG).expect("a wake-up is lost");
    }
}

#[test]
fn a_cancelled_call_ends_with_its_response() {
    let Pair { mut callers, mut callees, caller_link, .. } = pair(1, 0, Duration::ZERO);
    std::thread::scope(|scope| {
        let _end = EndOnDrop(&caller_link);
        scope.spawn(|| {
            let callee = &mut callees[0];
            for _ in 0..2 {
                let request = callee.next().unwrap();
                let check = callee.cancel_check();
                while request.kind == 1 && !callee.cancel_check().is_cancelled() {
                    std::thread::yield_now();
                }
                assert_eq!(check.is_cancelled(), callee.cancel_check().is_cancelled());
                callee
                    .respond(Message { kind: callee.cancel_check().is_cancelled().into(), head: &[], sections: &[] })
                    .unwrap();
            }
        });
        let response = callers[0].call(Message { kind: 1, head: &[], sections: &[] }, &mut || Waiting::Cancel).unwrap();
        assert_eq!(response.kind, 1);
        // The next call is not cancelled.
        assert_eq!(call(&mut callers[0], 0, &[], &[]).unwrap().kind, 0);
    });
}

#[test]
fn a_caller_gives_up() {
    let Pair { mut callers, callees, .. } = pair(1, 0, Duration::ZERO);
    let mut polls = 0;
    let mut poll = || {
        polls += 1;
        if polls == 3 { Waiting::GiveUp } else { Waiting::Continue }
    };
    let message = Message { kind: 1, head: &[], sections: &[] };
    assert_eq!(callers[0].call(message, &mut poll).unwrap_err(), CallError::GaveUp);
    // The mailbox still belongs to the callee.
    assert_eq!(callers[0].call(message, &mut patient()).unwrap_err(), CallError::GaveUp);
    assert_eq!(polls, 3);
    drop(callees);
}

#[test]
fn memory_is_bounded() {
    // Room for one block of 1 MiB and one of the smallest.
    let budget = (1 << 20) + (16 << 10) + (32 << 10);
    let Pair { mut callers, mut callees, caller_link, .. } = pair(1, budget, Duration::ZERO);
    let large = [random_bytes(1, 1 << 20)];
    std::thread::scope(|scope| {
        let _end = EndOnDrop(&caller_link);
        scope.spawn(|| {
            let mut kept = Vec::new();
            while let Ok(request) = callees[0].next() {
                let kind = request.kind;
                match kind {
                    0 => kept.push(request),
                    1 => kept.clear(),
                    _ => drop(request),
                }
                callees[0].respond(Message { kind, head: &[], sections: &[] }).unwrap();
            }
        });
        let caller = &mut callers[0];
        call(caller, 0, &[], &large).unwrap();
        let out_of_memory = OutOfSharedMemory { need: (1 << 20) + (16 << 10), budget };
        assert_eq!(call(caller, 2, &[], &large).unwrap_err(), CallError::OutOfSharedMemory(out_of_memory));
        // It has not been sent, so the mailbox still works.
        call(caller, 2, &[0; 12 << 10], &[]).unwrap();
        call(caller, 1, &[], &[]).unwrap();
        call(caller, 2, &[], &large).unwrap();
        // One that is larger than the budget, and one that fits into a larger block.
        let both = [random_bytes(1, 600 << 10), random_bytes(1, 500 << 10)];
        let error = call(caller, 2, &[], &both).unwrap_err();
        assert!(error.to_string().contains("2113536 bytes of shared memory needed"), "{error}");
        call(caller, 2, &[], &[random_bytes(1, 500 << 10)]).unwrap();
        call(caller, 2, &[], &large).unwrap();
    });
}

#[test]
fn control_messages_arrive_in_order_with_their_descriptors() {
    let Pair { caller_control, callee_control, caller_link, .. } = pair(1, 0, Duration::ZERO);
    let (segment, descriptor) = Segment::create(4096).unwrap();
    segment.word(8).store(7, Ordering::Relaxed);
    use std::os::fd::AsFd;
    caller_control.send(b"first", &[]).unwrap();
    caller_control.send(&[1; 64 << 10], &[descriptor.as_fd(), descriptor.as_fd()]).unwrap();
    assert_eq!(callee_control.recv(Some(LONG)).unwrap().0, b"first");
    let (bytes, descriptors) = callee_control.recv(None).unwrap();
    assert_eq!((bytes, descriptors.len()), (vec![1; 64 << 10], 2));
    assert_eq!(Segment::from_fd(&descriptors[1]).unwrap().word(8).load(Ordering::Relaxed), 7);

    let kind = |result: std::io::Result<_>| result.map(|_: (Vec<u8>, Vec<OwnedFd>)| ()).unwrap_err().kind();
    assert_eq!(kind(callee_control.recv(Some(Duration::from_millis(1)))), std::io::ErrorKind::TimedOut);
    let error = caller_control.send(&[1; (64 << 10) + 1], &[]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    caller_link.shutdown();
    assert_eq!(kind(callee_control.recv(None)), std::io::ErrorKind::UnexpectedEof);
}
