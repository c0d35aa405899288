//! The queue under loom: no request that waits is left without a dispatcher that knows of it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::queue::{Limits, Next, Queue};

/// The queue of requests that tell whether they are cancelled.
type RequestQueue = Queue<u8, Arc<AtomicBool>>;

fn queue(in_flight: usize) -> Arc<RequestQueue> {
    let limits = Limits { requests: 2, weight: u64::MAX, in_flight, delay: Duration::ZERO, capacity: 2 };
    Arc::new(Queue::new(limits, Arc::default()))
}

/// A waker that counts, for a thread that blocks until it has been woken. (Not by parking: loom lets a thread that is joining
/// another not be unparked.)
#[derive(Default)]
struct CountingWaker {
    wakes: Mutex<usize>,
    changed: Condvar,
}

impl CountingWaker {
    fn wakes(&self) -> usize {
        *self.wakes.lock().unwrap()
    }

    fn wait_past(&self, seen: usize) {
        let mut wakes = self.wakes.lock().unwrap();
        while *wakes == seen {
            wakes = self.changed.wait(wakes).unwrap();
        }
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        *self.wakes.lock().unwrap() += 1;
        self.changed.notify_one();
    }
}

/// Blocks until the queue has changed.
fn wait_for_change(queue: &RequestQueue) {
    let counter = Arc::new(CountingWaker::default());
    let waker = Waker::from(Arc::clone(&counter));
    let mut changed = pin!(queue.changed.notified());
    loop {
        let seen = counter.wakes();
        if changed.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
        counter.wait_past(seen);
    }
}

/// Does what the dispatcher's task does, with batches that are done at once. Returns how many requests were in them.
fn dispatch(queue: &Arc<RequestQueue>) -> usize {
    let mut served = 0;
    loop {
        match queue.next(Instant::now) {
            Next::End => return served,
            Next::Send => {
                if let Some((in_flight, members)) = queue.take(Instant::now) {
                    served += members.len();
                    drop(in_flight);
                }
            }
            Next::NotBefore(_) => unreachable!("there is no delay"),
            Next::Blocked => wait_for_change(queue),
        }
    }
}

/// Makes a request, and is the dispatcher if there is none. Returns whether it waits, and how many requests were served here.
fn request(queue: &Arc<RequestQueue>, is_ready: bool) -> (bool, usize) {
    if is_ready && queue.try_call(&0, usize::MAX).is_some() {
        return (false, 0);
    }
    let (_, start_dispatcher) = queue.push(0, usize::MAX, 0, Instant::now(), Arc::default());
    (true, if start_dispatcher { dispatch(queue) } else { 0 })
}

#[test]
fn loom_every_request_that_waits_is_served() {
    loom::model(|| {
        let queue = queue(1);
        let other = Arc::clone(&queue);
        let thread = thread::spawn(move || request(&other, false).1);
        let served = request(&queue, false).1;
        assert_eq!(served + thread.join().unwrap(), 2);
        assert_eq!(queue.level(), (0, 0));
        assert!(queue.is_empty());
    });
}

#[test]
fn loom_the_end_of_a_call_wakes_the_dispatcher_that_waits_for_it() {
    loom::model(|| {
        let queue = queue(1);
        let in_flight = queue.try_call(&0, usize::MAX).unwrap();
        let thread = thread::spawn(move || drop(in_flight));
        // Either it is called directly, or its dispatcher is woken by the end of the call.
        let (waits, served) = request(&queue, true);
        assert_eq!(served, usize::from(waits));
        thread.join().unwrap();
        assert_eq!(queue.level(), (0, 0));
    });
}

#[test]
fn loom_a_cancelled_request_is_served_or_removed_and_the_dispatcher_ends() {
    loom::model(|| {
        let queue = queue(1);
        let in_flight = queue.try_call(&0, usize::MAX).unwrap();
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let (batch, start_dispatcher) = queue.push(0, usize::MAX, 0, Instant::now(), Arc::clone(&is_cancelled));
        assert!(start_dispatcher, "there is none");
        let canceller = thread::spawn(move || {
            is_cancelled.store(true, Ordering::SeqCst);
            batch.cancel(|is_cancelled| is_cancelled.load(Ordering::SeqCst));
        });
        let other = Arc::clone(&queue);
        let dispatcher = thread::spawn(move || dispatch(&other));
        canceller.join().unwrap();
        drop(in_flight);
        assert!(dispatcher.join().unwrap() <= 1);
        assert_eq!(queue.level(), (0, 0));
    });
}
