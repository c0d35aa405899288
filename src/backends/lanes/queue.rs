//! The queue before the lanes, and which of them are awake for it.
//!
//! Waking a thread costs more than a small job, so nobody is woken while a lane is awake and looking. In return a lane
//! that stops looking looks at the queue once more: the last to find work wakes another if there is more, and one that
//! goes to sleep is on the list of sleepers before its last look.
//!
//! Tasks that have waited elsewhere meanwhile come back through a [`Return`], and go before those that are queued.

use std::collections::VecDeque;
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
    lanes: Arc<Awake<T>>,
}

/// A lane's side.
#[derive(Debug)]
pub(super) struct Exit<T> {
    receiver: Receiver<T>,
    lanes: Arc<Awake<T>>,
    spin: Duration,
}

/// The way back to the front of the queue. It keeps no lane from ending.
#[derive(Debug)]
pub(super) struct Return<T>(Arc<Awake<T>>);

#[derive(Debug)]
struct Awake<T> {
    looking: AtomicUsize,
    /// The last to have gone to sleep is the first to be woken: its caches are the warmest.
    asleep: Mutex<Vec<Thread>>,
    returned: Mutex<VecDeque<T>>,
    /// How many have returned, so that nobody takes the lock for nothing.
    returns: AtomicUsize,
}

impl<T> Awake<T> {
    fn take_returned(&self) -> Option<T> {
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
    let (sender, receiver) = bounded(places);
    let lanes = Arc::new(Awake {
        looking: AtomicUsize::new(0),
        asleep: Mutex::default(),
        returned: Mutex::default(),
        returns: AtomicUsize::new(0),
    });
    (Entrance { sender: Some(sender), lanes: Arc::clone(&lanes) }, Exit { receiver, lanes, spin })
}

impl<T> Entrance<T> {
    /// Queues a task; gives it back where the queue is full or nobody holds an exit.
    pub(super) fn push(&self, task: T) -> Result<(), T> {
        match &self.sender {
            Some(sender) => sender.try_send(task).map_err(crossbeam_channel::TrySendError::into_inner)?,
            None => return Err(task),
        }
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
    pub(super) fn push(&self, task: T) {
        let mut returned = self.0.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.push_back(task);
        self.0.returns.store(returned.len(), Ordering::SeqCst);
        drop(returned);
        self.0.wake_one_unless_looked();
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
                    if was_last && (!self.receiver.is_empty() || self.lanes.returns.load(Ordering::SeqCst) > 0) {
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
            let last_look = self.take();
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
        self.receiver.len() + self.lanes.returns.load(Ordering::Relaxed)
    }

    /// A task, if there is one.
    pub(super) fn try_next(&self) -> Option<T> {
        self.take().ok()
    }

    fn take(&self) -> Result<T, TryRecvError> {
        self.lanes.take_returned().map_or_else(|| self.receiver.try_recv(), Ok)
    }

    fn look(&self) -> Result<T, TryRecvError> {
        let mut found = self.take();
        if !self.spin.is_zero() && matches!(found, Err(TryRecvError::Empty)) {
            let start = Instant::now();
            while matches!(found, Err(TryRecvError::Empty)) && start.elapsed() < self.spin {
                std::hint::spin_loop();
                found = self.take();
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
