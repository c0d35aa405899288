//! The queue before the lanes, and which of them are awake for it.
//!
//! Waking a thread costs more than a small job, so nobody is woken while a lane is awake and looking. In return a lane
//! that stops looking looks at the queue once more: the last to find work wakes another if there is more, and one that
//! goes to sleep is on the list of sleepers before its last look.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

/// The side that fills the queue. Once it is dropped the lanes work off what is queued, and end.
#[derive(Debug)]
pub(super) struct Entrance<T> {
    /// `None` only while it is being dropped.
    sender: Option<Sender<T>>,
    lanes: Arc<Awake>,
}

/// A lane's side.
#[derive(Debug)]
pub(super) struct Exit<T> {
    receiver: Receiver<T>,
    lanes: Arc<Awake>,
    spin: Duration,
}

#[derive(Debug, Default)]
struct Awake {
    looking: AtomicUsize,
    /// The last to have gone to sleep is the first to be woken: its caches are the warmest.
    asleep: Mutex<Vec<Thread>>,
}

impl Awake {
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
    let (sender, receiver) = bounded(places);
    let lanes = Arc::new(Awake::default());
    (Entrance { sender: Some(sender), lanes: Arc::clone(&lanes) }, Exit { receiver, lanes, spin })
}

impl<T> Entrance<T> {
    /// Queues a task; gives it back where the queue is full or nobody holds an exit.
    pub(super) fn push(&self, task: T) -> Result<(), T> {
        match &self.sender {
            Some(sender) => sender.try_send(task).map_err(crossbeam_channel::TrySendError::into_inner)?,
            None => return Err(task),
        }
        // Against the fence in `next`: either the lane sees the task, or this sees that the lane no longer looks.
        fence(Ordering::SeqCst);
        if self.lanes.looking.load(Ordering::SeqCst) == 0 {
            self.lanes.wake_one();
        }
        Ok(())
    }
}

impl<T> Drop for Entrance<T> {
    fn drop(&mut self) {
        self.sender = None;
        self.lanes.asleep().drain(..).for_each(|thread| thread.unpark());
    }
}

impl<T> Clone for Exit<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), lanes: Arc::clone(&self.lanes), spin: self.spin }
    }
}

impl<T> Exit<T> {
    /// The next task; `None` once the entrance has been dropped and the queue is empty.
    pub(super) fn next(&self) -> Option<T> {
        loop {
            self.lanes.looking.fetch_add(1, Ordering::SeqCst);
            let found = self.look();
            let was_last = self.lanes.looking.fetch_sub(1, Ordering::SeqCst) == 1;
            fence(Ordering::SeqCst);
            match found {
                Ok(task) => {
                    if was_last && !self.receiver.is_empty() {
                        self.lanes.wake_one();
                    }
                    return Some(task);
                }
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            let this = std::thread::current();
            self.lanes.asleep().push(this.clone());
            fence(Ordering::SeqCst);
            // The entrance unparks whom it finds on the list when it is dropped, so that is seen here or there.
            let last_look = self.receiver.try_recv();
            if matches!(last_look, Err(TryRecvError::Empty)) {
                std::thread::park();
            }
            // It may have woken by itself. Whoever was woken for a task that another lane took sleeps again.
            self.lanes.asleep().retain(|thread| thread.id() != this.id());
            match last_look {
                Ok(task) => return Some(task),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
        }
    }

    /// How many tasks wait.
    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    /// A task, if there is one.
    pub(super) fn try_next(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    fn look(&self) -> Result<T, TryRecvError> {
        let mut found = self.receiver.try_recv();
        if !self.spin.is_zero() && matches!(found, Err(TryRecvError::Empty)) {
            let start = Instant::now();
            while matches!(found, Err(TryRecvError::Empty)) && start.elapsed() < self.spin {
                std::hint::spin_loop();
                found = self.receiver.try_recv();
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
                        while let Some(task) = exit.next() {
                            done.fetch_add(task, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            drop(exit);
            let mut pushed = 0;
            for round in 0..2_000_u64 {
                for _ in 0..=round % 4 {
                    entrance.push(1).unwrap();
                    pushed += 1;
                }
                let start = Instant::now();
                while done.load(Ordering::SeqCst) < pushed {
                    assert!(start.elapsed() < Duration::from_secs(10), "a task was left in the queue");
                    std::thread::yield_now();
                }
            }
            drop(entrance);
            lanes.into_iter().for_each(|lane| lane.join().unwrap());
        }
    }
}
