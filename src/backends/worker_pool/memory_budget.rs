//! [`MemoryBudget`]: admits tasks while the memory that they need is available, and queues the others.
//!
//! A task reserves the memory that it needs before it starts. Where that is not available it waits in this queue, not on a
//! worker, so that workers run tasks that need less. Tasks are admitted in the order they came, with one exception: a task
//! may overtake the head of the queue if there is memory for both at once. All tasks that overtook one head never reserve
//! more than the capacity less what that head needs, so they never delay it: it starts no later than when the tasks that
//! ran before it became the head have ended.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// The memory of one device, and the tasks of type `T` that wait for it.
pub(crate) struct MemoryBudget<T> {
    capacity: u64,
    state: Mutex<State<T>>,
    /// Notified when a task begins to wait, and when the budget is closed.
    changed: Condvar,
    /// Takes tasks that have waited, with their reservations.
    on_admitted: OnceLock<OnAdmitted<T>>,
    /// Has memory freed that no task uses.
    on_shortage: OnceLock<Box<dyn Fn() + Send + Sync>>,
    waits: AtomicU64,
    rejections: AtomicU64,
}

type OnAdmitted<T> = Box<dyn Fn(T, Reservation<T>) + Send + Sync>;

struct State<T> {
    /// Bytes reserved.
    reserved: u64,
    /// Bytes of these that tasks have reserved which overtook the current head.
    overtaking: u64,
    waiting: VecDeque<(u64, T)>,
    /// Number of the current head: counts the tasks that have been at the head of the queue.
    head: u64,
    closed: bool,
}

/// Bytes of a device's memory that are reserved until this is dropped.
pub(crate) struct Reservation<T> {
    budget: Arc<MemoryBudget<T>>,
    bytes: u64,
    /// The number of the head that the task overtook, if it did.
    overtook: Option<u64>,
}

/// The result of [`MemoryBudget::request`].
pub(crate) enum Admission<T> {
    /// The memory is reserved.
    Admitted(T, Reservation<T>),
    /// The task waits, and is passed to the budget's callback once its memory is reserved.
    Queued,
    /// The task needs more than the capacity.
    TooLarge(T),
}

/// How much of a budget is reserved, and how often it was not enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BudgetUsage {
    /// Bytes.
    pub(crate) reserved: u64,
    /// Tasks that wait now.
    pub(crate) waiting: usize,
    /// Tasks that have had to wait.
    pub(crate) waits: u64,
    /// Tasks that failed for want of memory.
    pub(crate) rejections: u64,
}

impl<T> State<T> {
    /// Reserves `bytes` for a task that is not the head of the queue, which it may overtake. Returns the number of the head
    /// that it overtook, if there is one; `None` where the task has to wait.
    fn try_admit(&mut self, capacity: u64, bytes: u64) -> Option<Option<u64>> {
        let free = capacity.saturating_sub(self.reserved);
        let overtook = match self.waiting.front() {
            _ if bytes > free => return None,
            None => None,
            Some((head, _)) if self.overtaking + bytes <= capacity.saturating_sub(*head) => Some(self.head),
            Some(_) => return None,
        };
        self.reserved += bytes;
        if overtook.is_some() {
            self.overtaking += bytes;
        }
        Some(overtook)
    }

    /// Records that the head has left the queue.
    fn next_head(&mut self) {
        self.head += 1;
        self.overtaking = 0;
    }
}

impl<T> MemoryBudget<T> {
    /// A budget of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Arc<Self> {
        let state = State { reserved: 0, overtaking: 0, waiting: VecDeque::new(), head: 0, closed: false };
        Arc::new(Self {
            capacity,
            state: Mutex::new(state),
            changed: Condvar::new(),
            on_admitted: OnceLock::new(),
            on_shortage: OnceLock::new(),
            waits: AtomicU64::new(0),
            rejections: AtomicU64::new(0),
        })
    }

    /// Sets the callback for tasks that have waited. Called once, before any task waits.
    pub(crate) fn on_admitted(&self, callback: impl Fn(T, Reservation<T>) + Send + Sync + 'static) {
        assert!(self.on_admitted.set(Box::new(callback)).is_ok(), "the callback of a budget is set once");
    }

    /// Sets the callback that has reserved memory freed which no task uses, while there is a [shortage](Self::shortage).
    /// Called once.
    pub(crate) fn on_shortage(&self, callback: impl Fn() + Send + Sync + 'static) {
        assert!(self.on_shortage.set(Box::new(callback)).is_ok(), "the callback of a budget is set once");
    }

    /// Returns the bytes that the task at the head of the queue needs besides those that are free; 0 if no task waits.
    pub(crate) fn shortage(&self) -> u64 {
        let state = self.state();
        let head = state.waiting.front().map_or(0, |&(bytes, _)| bytes);
        head.saturating_sub(self.capacity.saturating_sub(state.reserved))
    }

    /// Has memory freed if there is a shortage.
    pub(super) fn relieve_shortage(&self) {
        if let Some(on_shortage) = self.on_shortage.get().filter(|_| self.shortage() > 0) {
            on_shortage();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that can be reserved in all.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    fn reservation(self: &Arc<Self>, bytes: u64, overtook: Option<u64>) -> Reservation<T> {
        Reservation { budget: Arc::clone(self), bytes, overtook }
    }

    /// Reserves `bytes` for `task`, or queues it until they are available.
    pub(crate) fn request(self: &Arc<Self>, bytes: u64, task: T) -> Admission<T> {
        if bytes > self.capacity {
            self.count_rejection();
            return Admission::TooLarge(task);
        }
        let mut state = self.state();
        if let Some(overtook) = state.try_admit(self.capacity, bytes) {
            drop(state);
            return Admission::Admitted(task, self.reservation(bytes, overtook));
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        state.waiting.push_back((bytes, task));
        drop(state);
        self.changed.notify_one();
        Admission::Queued
    }

    /// Reserves `bytes` more for a task that runs, and so must not wait: it could wait for itself.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation<T>> {
        let mut state = self.state();
        if bytes > self.capacity.saturating_sub(state.reserved) {
            return None;
        }
        state.reserved += bytes;
        drop(state);
        Some(self.reservation(bytes, None))
    }

    /// Counts a task that failed for want of memory.
    pub(crate) fn count_rejection(&self) {
        self.rejections.fetch_add(1, Ordering::Relaxed);
    }

    /// Admits the waiting tasks that there is memory for.
    fn admit_waiting(self: &Arc<Self>, mut state: MutexGuard<'_, State<T>>) {
        let mut admitted = Vec::new();
        let mut index = 0;
        while let Some(&(bytes, _)) = state.waiting.get(index) {
            let overtook = if index > 0 {
                state.try_admit(self.capacity, bytes)
            } else if bytes <= self.capacity.saturating_sub(state.reserved) {
                state.reserved += bytes;
                state.next_head();
                Some(None)
            } else {
                None
            };
            match overtook {
                Some(overtook) => admitted.extend(state.waiting.remove(index).map(|(_, task)| (task, bytes, overtook))),
                None => index += 1,
            }
        }
        drop(state);
        for (task, bytes, overtook) in admitted {
            let reservation = self.reservation(bytes, overtook);
            if let Some(on_admitted) = self.on_admitted.get() {
                on_admitted(task, reservation);
            }
        }
    }

    /// Removes the waiting tasks for which `reason` returns one, and returns each with it.
    pub(super) fn remove_waiting<E>(self: &Arc<Self>, mut reason: impl FnMut(&T) -> Option<E>) -> Vec<(T, E)> {
        let mut state = self.state();
        let mut removed = Vec::new();
        let mut index = 0;
        while let Some((_, task)) = state.waiting.get(index) {
            if let Some(reason) = reason(task) {
                removed.extend(state.waiting.remove(index).map(|(_, task)| (task, reason)));
                if index == 0 {
                    state.next_head();
                }
            } else {
                index += 1;
            }
        }
        if !removed.is_empty() {
            self.admit_waiting(state);
        }
        removed
    }

    /// Blocks until a task waits. Returns `false` once the budget is closed.
    pub(super) fn block_until_waiting(&self) -> bool {
        let mut state = self.state();
        while state.waiting.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }

    /// Drops all waiting tasks, and has [`block_until_waiting`](Self::block_until_waiting) return. No task may request
    /// memory afterwards.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        drop(waiting);
    }

    pub(crate) fn usage(&self) -> BudgetUsage {
        let state = self.state();
        BudgetUsage {
            reserved: state.reserved,
            waiting: state.waiting.len(),
            waits: self.waits.load(Ordering::Relaxed),
            rejections: self.rejections.load(Ordering::Relaxed),
        }
    }
}

impl<T> fmt::Debug for MemoryBudget<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, .. } = self;
        f.debug_struct("MemoryBudget").field("capacity", capacity).field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl<T> Reservation<T> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Grows the reservation to `bytes` if they are available and no task waits: waiting tasks come first.
    pub(crate) fn try_grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut state = self.budget.state();
        if more > 0 && (!state.waiting.is_empty() || more > self.budget.capacity.saturating_sub(state.reserved)) {
            return false;
        }
        state.reserved += more;
        self.bytes += more;
        true
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.reserved -= self.bytes;
        if self.overtook == Some(state.head) {
            state.overtaking -= self.bytes;
        }
        if !state.waiting.is_empty() {
            self.budget.admit_waiting(state);
        }
    }
}

impl<T> fmt::Debug for Reservation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation[{} bytes]", self.bytes)
    }
}
