//! A bounded queue from any threads to worker threads, fair among the [shares](crate::request::Share) of its tasks: see
//! [`order`] for what is taken next.
//!
//! Waking a thread costs more than a small job, so a sender wakes a worker only if none is searching for work. In return,
//! the last worker to stop searching because it found a task wakes another one if there are more.
//!
//! Tasks that come back to the queue through [`Requeue`] are taken before all others.

mod order;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use self::order::FairQueue;
pub(crate) use self::order::{Charge, QueueKey};
use crate::request::Share;

/// Puts tasks into the queue. Once it is dropped, the workers finish the queued tasks and end.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    capacity: usize,
    shared: Arc<Shared<T>>,
}

/// Takes tasks from the queue; each worker has a clone.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    idle_spin: Duration,
}

/// Puts tasks back to the front of the queue. It does not keep the workers from ending.
#[derive(Debug)]
pub(crate) struct Requeue<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// The number of tasks in the queue, for workers that spin without the lock.
    len: AtomicUsize,
}

#[derive(Debug)]
struct State<T> {
    queue: FairQueue<T>,
    requeued: VecDeque<(T, Share)>,
    /// Whether the sender was dropped.
    is_closed: bool,
    /// Workers that look for a task.
    searching: usize,
    /// Workers that sleep. The last to have gone to sleep is woken first, as its caches are the warmest.
    parked: Vec<Thread>,
}

impl<T> State<T> {
    fn len(&self) -> usize {
        self.queue.len() + self.requeued.len()
    }

    fn take(&mut self) -> Option<(T, Charge)> {
        match self.requeued.pop_front() {
            Some((task, share)) => Some((task, self.queue.charge(share))),
            None => self.queue.pop(),
        }
    }

    /// Returns the worker to wake for a task that was added.
    fn worker_to_wake(&mut self) -> Option<Thread> {
        if self.searching == 0 { self.parked.pop() } else { None }
    }
}

impl<T> Shared<T> {
    /// Changes the queue, and wakes a worker for what was added.
    fn add(&self, mut state: MutexGuard<'_, State<T>>, add: impl FnOnce(&mut State<T>)) {
        add(&mut state);
        self.len.store(state.len(), Ordering::Relaxed);
        let worker = state.worker_to_wake();
        drop(state);
        if let Some(worker) = worker {
            worker.unpark();
        }
    }

    fn take(&self, state: &mut State<T>) -> Option<(T, Charge)> {
        let task = state.take();
        self.len.store(state.len(), Ordering::Relaxed);
        task
    }
}

/// Creates a queue of `capacity` tasks. A worker without work spins for `idle_spin` before it sleeps.
pub(crate) fn channel<T>(capacity: usize, idle_spin: Duration) -> (Sender<T>, Receiver<T>) {
    let state = State {
        queue: FairQueue::new(),
        requeued: VecDeque::new(),
        is_closed: false,
        searching: 0,
        parked: Vec::new(),
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), len: AtomicUsize::new(0) });
    (Sender { capacity, shared: Arc::clone(&shared) }, Receiver { shared, idle_spin })
}

impl<T> Sender<T> {
    /// Queues a task; returns it if the queue is full.
    pub(crate) fn send(&self, task: T, key: QueueKey) -> Result<(), T> {
        let state = self.shared.state.lock();
        if state.queue.len() >= self.capacity {
            return Err(task);
        }
        self.shared.add(state, |state| state.queue.push(task, key));
        Ok(())
    }

    /// Returns the handle for tasks that were taken and not run.
    pub(crate) fn requeue(&self) -> Requeue<T> {
        Requeue(Arc::clone(&self.shared))
    }
}

impl<T> Requeue<T> {
    /// Puts a task to the front of the queue.
    pub(crate) fn send(&self, task: T, share: Share) {
        self.0.add(self.0.state.lock(), |state| state.requeued.push_back((task, share)));
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        state.parked.drain(..).for_each(|worker| worker.unpark());
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), idle_spin: self.idle_spin }
    }
}

impl<T> Receiver<T> {
    /// Waits for a task. Returns it with the charge to its share; `None` once the sender was dropped and the queue is empty.
    pub(crate) fn recv(&self) -> Option<(T, Charge)> {
        let mut state = self.shared.state.lock();
        state.searching += 1;
        loop {
            let (task, is_closed);
            (task, is_closed, state) = self.search(state);
            state.searching -= 1;
            if let Some(task) = task {
                let worker = if state.len() > 0 { state.worker_to_wake() } else { None };
                drop(state);
                if let Some(worker) = worker {
                    worker.unpark();
                }
                return Some(task);
            }
            if is_closed {
                return None;
            }
            let this = std::thread::current();
            state.parked.push(this.clone());
            drop(state);
            std::thread::park();
            state = self.shared.state.lock();
            // It may have woken without having been taken off the list.
            state.parked.retain(|worker| worker.id() != this.id());
            state.searching += 1;
        }
    }

    /// Looks for a task, for as long as an idle worker spins. Returns whether the queue is closed as well.
    fn search<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
    ) -> (Option<(T, Charge)>, bool, MutexGuard<'a, State<T>>) {
        let mut task = self.shared.take(&mut state);
        if task.is_none() && !self.idle_spin.is_zero() && !state.is_closed {
            drop(state);
            let start = Instant::now();
            while self.shared.len.load(Ordering::Relaxed) == 0 && start.elapsed() < self.idle_spin {
                std::hint::spin_loop();
            }
            state = self.shared.state.lock();
            task = self.shared.take(&mut state);
        }
        let is_closed = state.is_closed;
        (task, is_closed, state)
    }

    /// Charges the task's share for the time that the task has run.
    pub(crate) fn complete(&self, charge: Charge, ran: Duration) {
        self.shared.state.lock().queue.complete(charge, ran);
    }

    /// Returns the number of tasks in the queue.
    pub(crate) fn len(&self) -> usize {
        self.shared.state.lock().len()
    }

    /// Takes a task without waiting.
    pub(crate) fn try_recv(&self) -> Option<T> {
        let mut state = self.shared.state.lock();
        self.shared.take(&mut state).map(|(task, _)| task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Every task is run, whether workers search or sleep when it comes, and workers end with the sender. A wake-up that
    /// is lost leaves a task in the queue until the next one is sent, so each is waited for before the next is sent.
    #[test]
    fn no_wake_up_is_lost() {
        for idle_spin in [Duration::ZERO, Duration::from_micros(5)] {
            let (sender, receiver) = channel(64, idle_spin);
            let done = Arc::new(AtomicU64::new(0));
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    let (receiver, done) = (receiver.clone(), Arc::clone(&done));
                    std::thread::spawn(move || {
                        while let Some((task, charge)) = receiver.recv() {
                            receiver.complete(charge, Duration::ZERO);
                            done.fetch_add(task, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            drop(receiver);
            let mut sent = 0;
            for round in 0..2_000_u64 {
                for _ in 0..=round % 4 {
                    sender.send(1, QueueKey::default()).unwrap();
                    sent += 1;
                }
                let start = Instant::now();
                while done.load(Ordering::SeqCst) < sent {
                    assert!(start.elapsed() < Duration::from_secs(60), "a task was left in the queue");
                    std::thread::yield_now();
                }
            }
            drop(sender);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
        }
    }
}
