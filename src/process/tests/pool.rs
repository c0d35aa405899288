//! The blocks of large messages.

use std::os::fd::AsFd;

use super::super::incoming::{IncomingSegments, NoBlock};
use super::super::pool::{AllocError, Allocation, SegmentPool};
use super::super::segment::Segment;
use super::*;

/// The segment of a block for one byte.
const SMALL: u64 = 32 << 10;

/// Sends the block to the other side.
fn publish(allocation: Allocation, incoming: &IncomingSegments) -> u32 {
    let Allocation { block, retired, new } = allocation;
    for number in retired {
        incoming.retire(number).unwrap();
    }
    if let Some(descriptor) = new {
        incoming.add(block.number(), descriptor).unwrap();
    }
    let number = block.number();
    block.publish();
    number
}

#[test]
fn a_block_is_used_again_when_its_message_has_been_dropped() {
    let (pool, incoming) = (SegmentPool::new(3 * SMALL), IncomingSegments::new(3 * SMALL));
    let first = publish(pool.alloc(1, &mut 0).unwrap(), &incoming);
    let received = incoming.take(first, LONG).unwrap().into_bytes();
    let part = received.slice(100..200);
    drop(received);

    let second = pool.alloc(1, &mut 0).unwrap();
    assert!(second.new.is_some(), "a part of the first message is in use");
    drop(part);
    let again = pool.alloc(1, &mut 0).unwrap();
    assert_eq!((again.block.number(), again.new.is_none()), (first, true));
    // A block that was never sent is free when it is dropped.
    let number = second.block.number();
    drop(second);
    assert_eq!(pool.alloc(1, &mut 0).unwrap().block.number(), number);
}

#[test]
fn blocks_of_other_sizes_are_given_up_within_the_budget() {
    let (pool, incoming) = (SegmentPool::new(4 * SMALL), IncomingSegments::new(4 * SMALL));
    let numbers: Vec<u32> = (0..4)
        .map(|_| pool.alloc(1, &mut 0).unwrap())
        .collect::<Vec<_>>()
        .into_iter()
        .map(|allocation| publish(allocation, &incoming))
        .collect();
    let mut received: Vec<_> = numbers.iter().map(|&number| incoming.take(number, LONG).unwrap()).collect();
    let large = 50 << 10;
    for _ in 0..3 {
        let Err(AllocError::OutOfSharedMemory(error)) = pool.alloc(large, &mut 0) else {
            panic!("there is no room for it")
        };
        assert_eq!(error, OutOfSharedMemory { need: (64 + 16) << 10, budget: 4 * SMALL });
        received.pop();
    }
    // With three of the four free it fits; nothing has been given up for those that did not.
    let allocation = pool.alloc(large, &mut 0).unwrap();
    assert_eq!(allocation.retired.len(), 3);
    let given_up = allocation.retired.clone();
    let number = publish(allocation, &incoming);
    for number in given_up {
        let unknown = incoming.take(number, Duration::ZERO).unwrap_err();
        assert_eq!(unknown, NoBlock::Corrupt(format!("a message is in segment {number}, which is unknown")));
    }
    // A small message takes the large block before it does without one.
    drop(incoming.take(number, LONG).unwrap());
    assert_eq!(pool.alloc(1, &mut 0).unwrap().block.number(), number);
}

#[test]
fn an_array_of_a_power_of_two_takes_little_more() {
    let pool = SegmentPool::new(1 << 40);
    for len in [1, 16 << 10, 128 << 10, 16 << 20] {
        let block = pool.alloc(len + 1024, &mut 0).unwrap().block;
        assert!(block.area().len() >= len + 1024);
        assert!(block.segment_len() <= len.next_power_of_two() + (32 << 10));
    }
    assert!(matches!(pool.alloc(usize::MAX - 10, &mut 0), Err(AllocError::OutOfSharedMemory(_))));
}

#[test]
fn only_sealed_memory_is_mapped() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let message = |descriptor: &OwnedFd| Segment::from_fd(descriptor).unwrap_err().to_string();
    let memory = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, 8192).unwrap();
    assert_eq!(message(&memory), "shared memory: its size is not sealed");
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    assert_eq!(
        message(&memory),
        "shared memory: its size is not sealed",
        "more seals, also against writing, could follow"
    );
    fcntl_add_seals(&memory, SealFlags::SEAL).unwrap();
    assert_eq!(Segment::from_fd(&memory).unwrap().len(), 8192);

    assert_eq!(message(&std::fs::File::open("/proc/self/exe").unwrap().into()), "shared memory: not a memfd");
    assert_eq!(message(&sockets().0), "shared memory: not a memfd");
    let empty = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    fcntl_add_seals(&empty, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    assert_eq!(message(&empty), "shared memory: empty");
    let unwritable = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&unwritable, 8192).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&unwritable, seals).unwrap();
    assert!(Segment::from_fd(&unwritable).is_err());

    let (_, descriptor) = Segment::create(4096).unwrap();
    assert!(ftruncate(descriptor.as_fd(), 0).is_err());
}
