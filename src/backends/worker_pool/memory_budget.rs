//! Who may use how much of a device's memory, and who waits for it.
//!
//! A task claims what it needs before it starts. Where that is not free it waits here, not on a lane, so that lanes run
//! what needs less. First come, first served, with one exception: a task may go past the first one that waits where
//! there is room for both of them at once. All that went past it together never hold more than the device has beside what
//! the first one needs, so it starts no later than when those have ended that ran before it was the first.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// The memory of one device, for tasks of type `T`.
pub(crate) struct Ledger<T> {
    capacity: u64,
    book: Mutex<Book<T>>,
    /// There is someone who waits, or the ledger has ended.
    changed: Condvar,
    /// Takes those who have waited, with their claims.
    next: OnceLock<Next<T>>,
    waits: AtomicU64,
    refusals: AtomicU64,
}

type Next<T> = Box<dyn Fn(T, Claim<T>) + Send + Sync>;

struct Book<T> {
    /// Bytes claimed.
    claimed: u64,
    /// Of these, by who went past the first of `waiting`.
    passed: u64,
    waiting: VecDeque<(u64, T)>,
    /// Counts the firsts that there have been.
    first: u64,
    ended: bool,
}

/// Bytes of a device's memory that are one's own until this is dropped.
pub(crate) struct Claim<T> {
    ledger: Arc<Ledger<T>>,
    bytes: u64,
    /// The first, by number, that this went past.
    past: Option<u64>,
}

/// What becomes of a task that asks.
pub(crate) enum Asked<T> {
    Granted(T, Claim<T>),
    /// It has been kept, and will be handed on.
    Waits,
    /// It would wait for ever: more than there is.
    Never(T),
}

/// How much of the memory is claimed and how it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LedgerLevel {
    pub(crate) claimed: u64,
    pub(crate) waiting: usize,
    pub(crate) waits: u64,
    pub(crate) refusals: u64,
}

impl<T> Book<T> {
    /// Claims `bytes` for the next in line, or for who may go past it.
    fn grant(&mut self, capacity: u64, bytes: u64) -> Option<Option<u64>> {
        let free = capacity.saturating_sub(self.claimed);
        let past = match self.waiting.front() {
            _ if bytes > free => return None,
            None => None,
            Some((first, _)) if self.passed + bytes <= capacity.saturating_sub(*first) => Some(self.first),
            Some(_) => return None,
        };
        self.claimed += bytes;
        if past.is_some() {
            self.passed += bytes;
        }
        Some(past)
    }

    /// The first has gone, one way or another.
    fn next_first(&mut self) {
        self.first += 1;
        self.passed = 0;
    }
}

impl<T> Ledger<T> {
    pub(crate) fn new(capacity: u64) -> Arc<Self> {
        let book = Book { claimed: 0, passed: 0, waiting: VecDeque::new(), first: 0, ended: false };
        Arc::new(Self {
            capacity,
            book: Mutex::new(book),
            changed: Condvar::new(),
            next: OnceLock::new(),
            waits: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        })
    }

    /// Who takes those that have waited. Asked once, before anybody waits.
    pub(super) fn hand_on_to(&self, next: impl Fn(T, Claim<T>) + Send + Sync + 'static) {
        let _ = self.next.set(Box::new(next));
    }

    fn book(&self) -> MutexGuard<'_, Book<T>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be claimed in all.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    fn claim(self: &Arc<Self>, bytes: u64, past: Option<u64>) -> Claim<T> {
        Claim { ledger: Arc::clone(self), bytes, past }
    }

    /// Claims `bytes` for `task`, now or later.
    pub(super) fn ask(self: &Arc<Self>, bytes: u64, task: T) -> Asked<T> {
        if bytes > self.capacity {
            self.refuse();
            return Asked::Never(task);
        }
        let mut book = self.book();
        if let Some(past) = book.grant(self.capacity, bytes) {
            drop(book);
            return Asked::Granted(task, self.claim(bytes, past));
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        book.waiting.push_back((bytes, task));
        drop(book);
        self.changed.notify_one();
        Asked::Waits
    }

    /// Claims `bytes` for who runs already and must not wait, which could be for itself.
    pub(crate) fn ask_now(self: &Arc<Self>, bytes: u64) -> Option<Claim<T>> {
        let mut book = self.book();
        if bytes > self.capacity.saturating_sub(book.claimed) {
            return None;
        }
        book.claimed += bytes;
        drop(book);
        Some(self.claim(bytes, None))
    }

    /// Counts one more that did not get what it wanted.
    pub(crate) fn refuse(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands on whom there is room for now.
    fn settle(self: &Arc<Self>, mut book: MutexGuard<'_, Book<T>>) {
        let mut granted = Vec::new();
        let mut at = 0;
        while let Some(&(bytes, _)) = book.waiting.get(at) {
            // The first one itself goes past nobody.
            let past = if at > 0 {
                book.grant(self.capacity, bytes)
            } else if bytes <= self.capacity.saturating_sub(book.claimed) {
                book.claimed += bytes;
                book.next_first();
                Some(None)
            } else {
                None
            };
            match past {
                Some(past) => granted.extend(book.waiting.remove(at).map(|(_, task)| (task, bytes, past))),
                None => at += 1,
            }
        }
        drop(book);
        for (task, bytes, past) in granted {
            let claim = self.claim(bytes, past);
            if let Some(next) = self.next.get() {
                next(task, claim);
            }
        }
    }

    /// Takes out those that wait in vain, each with the reason.
    pub(super) fn take_out<E>(self: &Arc<Self>, mut in_vain: impl FnMut(&T) -> Option<E>) -> Vec<(T, E)> {
        let mut book = self.book();
        let mut out = Vec::new();
        let mut at = 0;
        while let Some((_, task)) = book.waiting.get(at) {
            if let Some(reason) = in_vain(task) {
                out.extend(book.waiting.remove(at).map(|(_, task)| (task, reason)));
                if at == 0 {
                    book.next_first();
                }
            } else {
                at += 1;
            }
        }
        if !out.is_empty() {
            self.settle(book);
        }
        out
    }

    /// Sleeps until somebody waits; `false` once the ledger has ended.
    pub(super) fn someone_waits(&self) -> bool {
        let mut book = self.book();
        while book.waiting.is_empty() && !book.ended {
            book = self.changed.wait(book).unwrap_or_else(PoisonError::into_inner);
        }
        !book.ended
    }

    /// Drops all that wait, and ends who looks after them. Nobody asks any more.
    pub(super) fn end(&self) {
        let mut book = self.book();
        book.ended = true;
        let waiting = std::mem::take(&mut book.waiting);
        drop(book);
        self.changed.notify_all();
        drop(waiting);
    }

    pub(crate) fn level(&self) -> LedgerLevel {
        let book = self.book();
        LedgerLevel {
            claimed: book.claimed,
            waiting: book.waiting.len(),
            waits: self.waits.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed),
        }
    }
}

impl<T> fmt::Debug for Ledger<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, .. } = self;
        f.debug_struct("Ledger").field("capacity", capacity).field("level", &self.level()).finish_non_exhaustive()
    }
}

impl<T> Claim<T> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it as large as `bytes`, if there is room for that now.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut book = self.ledger.book();
        // Whoever waits comes before what is only good to have.
        if more > 0 && (!book.waiting.is_empty() || more > self.ledger.capacity.saturating_sub(book.claimed)) {
            return false;
        }
        book.claimed += more;
        self.bytes += more;
        true
    }
}

impl<T> Drop for Claim<T> {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        book.claimed -= self.bytes;
        if self.past == Some(book.first) {
            book.passed -= self.bytes;
        }
        if !book.waiting.is_empty() {
            self.ledger.settle(book);
        }
    }
}

impl<T> fmt::Debug for Claim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim[{}]", self.bytes)
    }
}
