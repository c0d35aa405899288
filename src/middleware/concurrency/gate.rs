//! How many are inside, how many may be, and who waits: first come, first served.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::task::Waker;

use super::shared::Places;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// One word says it all while nobody waits: entering and leaving are a compare-and-swap each.
///
/// Whoever waits sets [`QUEUED`], under the lock. While it is set nobody enters past the queue, and whoever leaves takes
/// the lock and hands the place to the first in the queue. So a place is never free while somebody waits for it, and each
/// place wakes one.
#[derive(Debug)]
pub(super) struct Gate {
    /// From the lowest bit: how many are inside (32), the limit (31), and whether anybody waits.
    word: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The number of the next who waits.
    next: u64,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waker>,
    /// Those who have been let in and have not come to see it yet. They count as inside.
    granted: BTreeSet<u64>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Ticket(u64);

const INSIDE: u64 = u32::MAX as u64;
const LIMIT_SHIFT: u32 = 32;
const MOST: u64 = (1 << 31) - 1;
const QUEUED: u64 = 1 << 63;

fn inside(word: u64) -> u64 {
    word & INSIDE
}

fn limit(word: u64) -> u64 {
    (word & !QUEUED) >> LIMIT_SHIFT
}

fn has_room(word: u64) -> bool {
    inside(word) < limit(word)
}

fn limit_bits(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(MOST).min(MOST) << LIMIT_SHIFT
}

impl Gate {
    pub(super) fn new(limit: usize) -> Self {
        Self { word: AtomicU64::new(limit_bits(limit)), queue: Mutex::default() }
    }

    /// Enters if there is room and nobody waits.
    #[inline]
    pub(super) fn try_enter(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & QUEUED == 0 && has_room(word) {
            match self.word.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Enters, or waits in the queue, where `ticket` is kept meanwhile.
    pub(super) fn enter_or_wait(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> bool {
        // Dropped after the lock is: the last hold on a task may be its waker, and the task may hold a place here.
        let _old;
        let mut queue = self.queue();
        if let Some(Ticket(number)) = ticket {
            if queue.granted.remove(number) {
                *ticket = None;
                return true;
            }
            if let Some(known) = queue.waiting.get_mut(number)
                && !known.will_wake(waker)
            {
                _old = mem::replace(known, waker.clone());
            }
            return false;
        }
        // The flag first: from here on whoever leaves comes through the lock.
        let word = self.word.fetch_or(QUEUED, Ordering::AcqRel);
        if queue.waiting.is_empty() && has_room(word) {
            self.word.fetch_add(1, Ordering::Relaxed);
            self.word.fetch_and(!QUEUED, Ordering::Release);
            return true;
        }
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number, waker.clone());
        *ticket = Some(Ticket(number));
        false
    }

    /// Waits no longer. A place that has come meanwhile goes to the next.
    pub(super) fn give_up(&self, ticket: Ticket) {
        let mut queue = self.queue();
        // As above, dropped and woken after the lock is.
        let left = queue.waiting.remove(&ticket.0);
        let next = if left.is_none() && queue.granted.remove(&ticket.0) {
            self.word.fetch_sub(1, Ordering::Release);
            self.grant(&mut queue)
        } else {
            None
        };
        self.lower_flag(&queue);
        drop(queue);
        drop(left);
        if let Some(waker) = next {
            waker.wake();
        }
    }

    #[cold]
    fn leave_to_the_next(&self) {
        let mut queue = self.queue();
        self.word.fetch_sub(1, Ordering::AcqRel);
        let next = self.grant(&mut queue);
        drop(queue);
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// Lets the first in the queue in, if there is one and there is room.
    fn grant(&self, queue: &mut Queue) -> Option<Waker> {
        if !has_room(self.word.load(Ordering::Acquire)) {
            return None;
        }
        let (number, waker) = queue.waiting.pop_first()?;
        queue.granted.insert(number);
        // Nobody else adds or takes away while the flag is up and the lock is held.
        self.word.fetch_add(1, Ordering::Relaxed);
        self.lower_flag(queue);
        Some(waker)
    }

    fn lower_flag(&self, queue: &Queue) {
        if queue.waiting.is_empty() {
            self.word.fetch_and(!QUEUED, Ordering::Release);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

impl Places for Gate {
    type Held = ();

    #[inline]
    fn leave(&self, (): ()) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & QUEUED == 0 {
            match self.word.compare_exchange_weak(word, word - 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
        self.leave_to_the_next();
    }

    fn resize(&self, limit: usize) {
        let bits = limit_bits(limit);
        let resized = |word| Some(word & (INSIDE | QUEUED) | bits);
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, resized);
        debug_assert!(before.is_ok());
    }

    fn let_in(&self) {
        // One at a time, each woken without the lock.
        while self.word.load(Ordering::Acquire) & QUEUED != 0 {
            let next = self.grant(&mut self.queue());
            match next {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    fn limit(&self) -> usize {
        limit(self.word.load(Ordering::Relaxed)) as usize
    }

    #[inline]
    fn inside(&self) -> usize {
        inside(self.word.load(Ordering::Relaxed)) as usize
    }

    fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Wake, Waker};

    use loom::sync::Arc;
    use loom::thread;

    use super::{Gate, Places, Ticket};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Enters, waiting for it where it has to; a wake that is never given hangs the model, which loom reports.
    fn enter(gate: &Gate, woken: &std::sync::Arc<Woken>) {
        let waker = Waker::from(std::sync::Arc::clone(woken));
        let mut ticket: Option<Ticket> = None;
        let mut seen = 0;
        while !gate.try_enter_or_wait(&mut ticket, &waker) {
            while woken.0.load(SeqCst) == seen {
                thread::yield_now();
            }
            seen = woken.0.load(SeqCst);
        }
    }

    impl Gate {
        fn try_enter_or_wait(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> bool {
            ticket.is_none() && self.try_enter() || self.enter_or_wait(ticket, waker)
        }
    }

    #[test]
    fn loom_no_more_inside_than_may_be_and_nobody_is_forgotten() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(1));
            let most = std::sync::Arc::new(AtomicUsize::new(0));
            let run = |gate: Arc<Gate>, now: std::sync::Arc<AtomicUsize>| {
                move || {
                    enter(&gate, &std::sync::Arc::default());
                    assert_eq!(now.fetch_add(1, SeqCst), 0, "two inside where one may be");
                    now.fetch_sub(1, SeqCst);
                    gate.leave(());
                }
            };
            let other = thread::spawn(run(Arc::clone(&gate), std::sync::Arc::clone(&most)));
            run(Arc::clone(&gate), most)();
            other.join().unwrap();
            assert_eq!((gate.inside(), gate.waiting()), (0, 0));
            assert!(gate.try_enter(), "the flag of the queue was left up");
        });
    }

    #[test]
    fn loom_a_limit_that_is_raised_while_they_wait_lets_them_in() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(0));
            let waits = {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    enter(&gate, &std::sync::Arc::default());
                    gate.leave(());
                })
            };
            gate.resize(1);
            gate.let_in();
            waits.join().unwrap();
            assert_eq!((gate.inside(), gate.limit()), (0, 1));
            assert!(gate.try_enter());
        });
    }

    #[test]
    fn loom_a_limit_that_is_lowered_while_they_leave_holds_afterwards() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(2));
            assert!(gate.try_enter() && gate.try_enter());
            let leaves = {
                let gate = Arc::clone(&gate);
                thread::spawn(move || gate.leave(()))
            };
            gate.resize(1);
            gate.let_in();
            let entered = gate.try_enter();
            assert!(!entered, "one has not left, and one may be inside");
            leaves.join().unwrap();
            assert_eq!(gate.inside(), 1);
            assert!(!gate.try_enter());
            gate.leave(());
            assert!(gate.try_enter());
        });
    }

    #[test]
    fn loom_who_gives_up_while_a_place_is_handed_over_passes_it_on() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(1));
            assert!(gate.try_enter());
            let mut ticket = None;
            assert!(!gate.enter_or_wait(&mut ticket, Waker::noop()));
            let leaves = {
                let gate = Arc::clone(&gate);
                thread::spawn(move || gate.leave(()))
            };
            let second = {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    enter(&gate, &std::sync::Arc::default());
                    gate.leave(());
                })
            };
            gate.give_up(ticket.unwrap());
            leaves.join().unwrap();
            second.join().unwrap();
            assert_eq!((gate.inside(), gate.waiting()), (0, 0));
            assert!(gate.try_enter());
        });
    }
}
