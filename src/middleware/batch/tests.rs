//! The shared state under loom: nobody who waits is left without a dispatcher that knows of him.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::crew::Crew;
use super::queue::{Call, Entered, Limits, Member, Next, Queue};

/// A caller that may have left.
struct Caller(Arc<AtomicBool>);

impl Member for Caller {
    fn is_here(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }
}

type Line = Queue<u8, Caller, ()>;

fn queue(in_flight: usize) -> Arc<Line> {
    Arc::new(Queue::new(Limits { requests: 2, weight: u64::MAX, in_flight, delay: Duration::ZERO }))
}

/// A waker that counts, for a thread that waits until it has been rung. (Not by parking: loom lets a thread that is joining
/// another not be unparked.)
#[derive(Default)]
struct Bell {
    rung: Mutex<usize>,
    changed: Condvar,
}

impl Bell {
    fn rung(&self) -> usize {
        *self.rung.lock().unwrap()
    }

    fn wait_past(&self, seen: usize) {
        let mut rung = self.rung.lock().unwrap();
        while *rung == seen {
            rung = self.changed.wait(rung).unwrap();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() += 1;
        self.changed.notify_one();
    }
}

/// What the dispatcher's task does: it looks until nothing waits, and sleeps only when it has left its waker. Every batch is
/// done at once. Gives how many members it has seen.
fn dispatch(queue: &Line) -> usize {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut served = 0;
    loop {
        let rung = bell.rung();
        match queue.next(Instant::now, &waker, None) {
            Next::End => return served,
            Next::Ripe => {
                if let Some(batch) = queue.take() {
                    served += batch.members.len();
                    queue.done(&batch.crew.key).wake();
                }
            }
            Next::OperationIndex(_) => unreachable!("there is no delay"),
            Next::Blocked => bell.wait_past(rung),
        }
    }
}

/// Enters, and is the dispatcher where there is none. Gives how many members that has served.
fn enter(queue: &Line, key: u8, can_go: bool) -> (Option<Arc<Crew<u8, ()>>>, Arc<AtomicBool>, usize) {
    let left = Arc::new(AtomicBool::new(false));
    let entered = queue.enter(key, can_go, 0, || (), Instant::now, || Caller(Arc::clone(&left)));
    match entered {
        Entered::Direct(key) => {
            queue.done(&key).wake();
            (None, left, 0)
        }
        Entered::Waits(crew, Call::Start) => (Some(crew), left, dispatch(queue)),
        Entered::Waits(crew, call) => {
            call.wake();
            (Some(crew), left, 0)
        }
    }
}

#[test]
fn loom_everyone_who_waits_is_served_by_somebody() {
    loom::model(|| {
        let queue = queue(1);
        let other = Arc::clone(&queue);
        let thread = thread::spawn(move || enter(&other, 0, false).2);
        let served = enter(&queue, 0, false).2;
        assert_eq!(served + thread.join().unwrap(), 2);
        assert_eq!(queue.level(), (0, 0));
        assert!(queue.is_empty());
    });
}

#[test]
fn loom_the_end_of_a_call_wakes_the_dispatcher_that_waits_for_it() {
    loom::model(|| {
        let queue = queue(1);
        let Entered::Direct(key) = queue.enter(0, true, 0, || (), Instant::now, || unreachable!("it need not wait"))
        else {
            panic!("nothing is in its way")
        };
        let other = Arc::clone(&queue);
        let thread = thread::spawn(move || other.done(&key).wake());
        // Either it goes at once, or its dispatcher is woken by the end of the call.
        let (crew, _, served) = enter(&queue, 0, true);
        assert_eq!(served, usize::from(crew.is_some()));
        thread.join().unwrap();
        assert_eq!(queue.level(), (0, 0));
    });
}

#[test]
fn loom_who_leaves_is_served_or_taken_out_and_the_dispatcher_ends() {
    loom::model(|| {
        let queue = queue(1);
        let Entered::Direct(key) = queue.enter(0, true, 0, || (), Instant::now, || unreachable!("it need not wait"))
        else {
            panic!("nothing is in its way")
        };
        let left = Arc::new(AtomicBool::new(false));
        let waits = queue.enter(0, true, 0, || (), Instant::now, || Caller(Arc::clone(&left)));
        let Entered::Waits(crew, Call::Start) = waits else { panic!("the key has enough in flight") };
        let other = Arc::clone(&queue);
        let leaver = thread::spawn(move || {
            left.store(true, Ordering::SeqCst);
            crew.leave();
            other.left(&crew).1.wake();
        });
        let other = Arc::clone(&queue);
        let dispatcher = thread::spawn(move || dispatch(&other));
        leaver.join().unwrap();
        queue.done(&key).wake();
        assert!(dispatcher.join().unwrap() <= 1);
        assert_eq!(queue.level(), (0, 0));
    });
}

#[test]
fn loom_the_last_who_leaves_is_seen_by_the_task_that_runs_the_batch() {
    loom::model(|| {
        let crew = Arc::new(Crew::new(0_u8, (), 0));
        crew.join();
        crew.join();
        let leavers: Vec<_> = (0..2)
            .map(|_| {
                let crew = Arc::clone(&crew);
                thread::spawn(move || crew.leave())
            })
            .collect();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let rung = bell.rung();
        if !crew.has_left(&waker) {
            bell.wait_past(rung);
            assert!(crew.has_left(&waker), "it was woken before the last had left");
        }
        leavers.into_iter().for_each(|leaver| leaver.join().unwrap());
    });
}
