//! The queue before the lanes, and which of them are awake for it. The order of what waits is the [fair](super::fair)
//! queue's.
//!
//! Waking a thread costs more than a small job, so nobody is woken while a lane is awake and looking. In return a lane
//! that stops looking looks at the queue once more: the last to find work wakes another if there is more, and one that
//! goes to sleep is on the list of sleepers before its last look.
//!
//! Tasks that have waited elsewhere meanwhile come back through a [`Return`], and go before those that are queued.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::fair::{Charge, FairQueue, Turn};
use crate::request::Share;

/// The side that fills the queue. Once it is dropped the lanes work off what is queued, and end.
#[derive(Debug)]
pub(super) struct Entrance<T> {
    places: usize,
    lanes: Arc<Awake<T>>,
}

/// A lane's side.
#[derive(Debug)]
pub(super) struct Exit<T> {
    lanes: Arc<Awake<T>>,
    spin: Duration,
}

/// The way back to the front of the queue. It keeps no lane from ending.
#[derive(Debug)]
pub(super) struct Return<T>(Arc<Awake<T>>);

#[derive(Debug)]
struct Awake<T> {
    queue: Mutex<FairQueue<T>>,
    /// How many wait in it, so that nobody takes the lock for nothing.
    waiting: AtomicUsize,
    /// Whether the entrance has been dropped.
    closed: AtomicBool,
    looking: AtomicUsize,
    /// The last to have gone to sleep is the first to be woken: its caches are the warmest.
    asleep: Mutex<Vec<Thread>>,
    returned: Mutex<VecDeque<(T, Share)>>,
    /// How many have returned, so that nobody takes the lock for nothing.
    returns: AtomicUsize,
}

/// Why there is no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nothing {
    Yet,
    /// The entrance has been dropped.
    Ever,
}

impl<T> Awake<T> {
    fn queue(&self) -> MutexGuard<'_, FairQueue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<(T, Charge), Nothing> {
        if let Some((task, share)) = self.take_returned() {
            return Ok((task, self.queue().begin(share)));
        }
        // Before the look at the queue, so that nothing is pushed between the two.
        let nothing = if self.closed.load(Ordering::SeqCst) { Nothing::Ever } else { Nothing::Yet };
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return Err(nothing);
        }
        let mut queue = self.queue();
        let next = queue.pop();
        self.waiting.store(queue.len(), Ordering::SeqCst);
        next.ok_or(nothing)
    }

    fn take_returned(&self) -> Option<(T, Share)> {
        if self.returns.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let task = returned.pop_front()?;
        self.returns.store(returned.len(), Ordering::SeqCst);
        Some(task)
    }

    /// Against the fence in `next`: either a lane sees the task that has been put there before, or this sees that no lane
    /// looks any more.
    fn wake_one_unless_looked(&self) {
        fence(Ordering::SeqCst);
        if self.looking.load(Ordering::SeqCst) == 0 {
            self.wake_one();
        }
    }

    fn asleep(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_one(&self) {
        let sleeper = self.asleep().pop();
        if let Some(thread) = sleeper {
            thread.unpark();
        }
    }
}

/// A queue of `places` for lanes that look for work for `spin` before they sleep.
pub(super) fn queue<T>(places: usize, spin: Duration) -> (Entrance<T>, Exit<T>) {
    let lanes = Arc::new(Awake {
        queue: Mutex::new(FairQueue::new()),
        waiting: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
        looking: AtomicUsize::new(0),
        asleep: Mutex::default(),
        returned: Mutex::default(),
        returns: AtomicUsize::new(0),
    });
    (Entrance { places, lanes: Arc::clone(&lanes) }, Exit { lanes, spin })
}

impl<T> Entrance<T> {
    /// Queues a task; gives it back where the queue is full.
    pub(super) fn push(&self, task: T, turn: Turn) -> Result<(), T> {
        let mut queue = self.lanes.queue();
        if queue.len() >= self.places {
            return Err(task);
        }
        queue.push(task, turn);
        self.lanes.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        self.lanes.wake_one_unless_looked();
        Ok(())
    }

    /// The way back for tasks that have been taken and not been done.
    pub(super) fn returns(&self) -> Return<T> {
        Return(Arc::clone(&self.lanes))
    }
}

impl<T> Return<T> {
    /// Puts a task before all that are queued.
    pub(super) fn push(&self, task: T, share: Share) {
        let mut returned = self.0.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.push_back((task, share));
        self.0.returns.store(returned.len(), Ordering::SeqCst);
        drop(returned);
        self.0.wake_one_unless_looked();
    }
}

impl<T> Drop for Entrance<T> {
    fn drop(&mut self) {
        self.lanes.closed.store(true, Ordering::SeqCst);
        self.lanes.asleep().drain(..).for_each(|thread| thread.unpark());
    }
}

impl<T> Clone for Exit<T> {
    fn clone(&self) -> Self {
        Self { lanes: Arc::clone(&self.lanes), spin: self.spin }
    }
}

impl<T> Exit<T> {
    /// The next task, and what its share has been charged for it; `None` once the entrance has been dropped and the queue is
    /// empty.
    pub(super) fn next(&self) -> Option<(T, Charge)> {
        loop {
            self.lanes.looking.fetch_add(1, Ordering::SeqCst);
            let found = self.look();
            let was_last = self.lanes.looking.fetch_sub(1, Ordering::SeqCst) == 1;
            fence(Ordering::SeqCst);
            match found {
                Ok(task) => {
                    if was_last && self.len() > 0 {
                        self.lanes.wake_one();
                    }
                    return Some(task);
                }
                Err(Nothing::Ever) => return None,
                Err(Nothing::Yet) => {}
            }
            let this = std::thread::current();
            self.lanes.asleep().push(this.clone());
            fence(Ordering::SeqCst);
            // The entrance unparks whom it finds on the list when it is dropped, so that is seen here or there.
            let last_look = self.lanes.take();
            if matches!(last_look, Err(Nothing::Yet)) {
                std::thread::park();
            }
            // It may have woken by itself. Whoever was woken for a task that another lane took sleeps again.
            self.lanes.asleep().retain(|thread| thread.id() != this.id());
            match last_look {
                Ok(task) => return Some(task),
                Err(Nothing::Ever) => return None,
                Err(Nothing::Yet) => {}
            }
        }
    }

    /// A task that was taken has run for so long.
    pub(super) fn done(&self, charge: Charge, took: Duration) {
        self.lanes.queue().done(charge, took);
    }

    /// How many tasks wait.
    pub(super) fn len(&self) -> usize {
        self.lanes.waiting.load(Ordering::SeqCst) + self.lanes.returns.load(Ordering::SeqCst)
    }

    /// A task, if there is one.
    pub(super) fn try_next(&self) -> Option<T> {
        self.lanes.take().ok().map(|(task, _)| task)
    }

    fn look(&self) -> Result<(T, Charge), Nothing> {
        let mut found = self.lanes.take();
        if !self.spin.is_zero() && matches!(found, Err(Nothing::Yet)) {
            let start = Instant::now();
            while matches!(found, Err(Nothing::Yet)) && start.elapsed() < self.spin {
                std::hint::spin_loop();
                found = self.lanes.take();
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Every task is done, whether lanes look or sleep when it comes, and lanes end with the entrance. A wake-up that
    /// gets lost leaves a task undone until the next push, so each is waited for before the next is pushed.
    #[test]
    fn no_wake_up_is_lost() {
        for spin in [Duration::ZERO, Duration::from_micros(5)] {
            let (entrance, exit) = queue(64, spin);
            let done = Arc::new(AtomicU64::new(0));
            let lanes: Vec<_> = (0..3)
                .map(|_| {
                    let (exit, done) = (exit.clone(), Arc::clone(&done));
                    std::thread::spawn(move || {
                        while let Some((task, charge)) = exit.next() {
                            exit.done(charge, Duration::ZERO);
                            done.fetch_add(task, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            drop(exit);
            let mut pushed = 0;
            for round in 0..2_000_u64 {
                for _ in 0..=round % 4 {
                    entrance.push(1, Turn::default()).unwrap();
                    pushed += 1;
                }
                let start = Instant::now();
                while done.load(Ordering::SeqCst) < pushed {
                    assert!(start.elapsed() < Duration::from_secs(60), "a task was left in the queue");
                    std::thread::yield_now();
                }
            }
            drop(entrance);
            lanes.into_iter().for_each(|lane| lane.join().unwrap());
        }
    }
}
