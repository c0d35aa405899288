//! The order of the tasks that wait for the workers of a pool: fair among shares by the time that their tasks run, and by
//! priority within a share.
//!
//! This is start-time fair queueing, as in the [priority queue](crate::middleware::priority_queue), with time in place of
//! turns: taking a task moves its share's tag on by what the task is expected to run over the share's weight, and once it
//! has run by what it took instead. A share that comes back starts at virtual time, so it is owed nothing for the time in
//! which it asked for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::request::{Priority, Share};

/// What decides when a task is next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    pub(super) share: Share,
    pub(super) priority: Priority,
    /// What it is expected to run.
    pub(super) expected: Duration,
}

/// What a share has been charged for a task that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge {
    share: Share,
    /// Nanoseconds.
    expected: u64,
}

#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// The shares with something waiting or running, and those whose tag is ahead of virtual time. Looked through one by
    /// one: there are no more of them than tasks in the pool, mostly.
    flows: Vec<Flow<T>>,
    /// Nanoseconds that a share of weight 1 has been given.
    virtual_time: u64,
    len: usize,
}

#[derive(Debug)]
struct Flow<T> {
    key: u32,
    weight: u64,
    tag: u64,
    running: usize,
    /// By priority, from the lowest on.
    waiting: [VecDeque<(T, u64)>; 3],
    /// Turns of higher priorities since the last of this one, while it had something waiting.
    passed_over: [u32; 3],
}

/// Turns of higher priorities in a row, after which one goes to a lower one of the same share that waits.
const PATIENCE: u32 = 16;

/// How many shares with nothing to do are remembered because they are ahead of the others.
const MAX_RESTING: usize = 1024;

impl<T> Flow<T> {
    fn new(share: Share, tag: u64) -> Self {
        let weight = share.weight().get().into();
        Self { key: share.key(), weight, tag, running: 0, waiting: Default::default(), passed_over: [0; 3] }
    }

    fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// Whether it has nothing to do.
    fn rests(&self) -> bool {
        self.running == 0 && !self.has_waiting()
    }

    fn pop(&mut self) -> Option<(T, u64)> {
        let has_some = |priority: &usize| !self.waiting[*priority].is_empty();
        let first = (0..3).rev().find(has_some)?;
        let due = (0..first).rev().filter(has_some).find(|&lower| self.passed_over[lower] >= PATIENCE);
        let priority = due.unwrap_or(first);
        for lower in 0..priority {
            self.passed_over[lower] = if self.waiting[lower].is_empty() { 0 } else { self.passed_over[lower] + 1 };
        }
        self.passed_over[priority] = 0;
        self.waiting[priority].pop_front()
    }
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self { flows: Vec::new(), virtual_time: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, task: T, turn: Turn) {
        let virtual_time = self.virtual_time;
        let flow = self.flow(turn.share);
        if !flow.has_waiting() {
            flow.tag = flow.tag.max(virtual_time);
        }
        flow.waiting[turn.priority as usize].push_back((task, nanos(turn.expected)));
        self.len += 1;
    }

    /// The next task, whose share is charged for it until [`done`](Self::done) says what it took.
    pub(super) fn pop(&mut self) -> Option<(T, Charge)> {
        let waiting = self.flows.iter_mut().filter(|flow| flow.has_waiting());
        let flow = waiting.min_by_key(|flow| flow.tag)?;
        let (task, expected) = flow.pop()?;
        self.len -= 1;
        self.virtual_time = self.virtual_time.max(flow.tag);
        flow.tag = flow.tag.saturating_add(expected / flow.weight);
        flow.running += 1;
        let weight = u16::try_from(flow.weight).ok().and_then(std::num::NonZeroU16::new);
        let share = Share::new(flow.key, weight.unwrap_or(std::num::NonZeroU16::MIN));
        Some((task, Charge { share, expected }))
    }

    /// A task of the share is run that has not been taken from here, and is charged for once it is [done](Self::done).
    pub(super) fn begin(&mut self, share: Share) -> Charge {
        self.flow(share).running += 1;
        Charge { share, expected: 0 }
    }

    /// The task took so long.
    pub(super) fn done(&mut self, charge: Charge, took: Duration) {
        let flow = self.flow(charge.share);
        flow.running = flow.running.saturating_sub(1);
        let charged = charge.expected / flow.weight;
        flow.tag = flow.tag.saturating_add(nanos(took) / flow.weight).saturating_sub(charged);
        let virtual_time = self.virtual_time;
        if self.len == 0 && self.flows.iter().all(Flow::rests) {
            self.flows.clear();
            self.virtual_time = 0;
        } else {
            self.flows.retain(|flow| !flow.rests() || flow.tag > virtual_time);
        }
    }

    fn flow(&mut self, share: Share) -> &mut Flow<T> {
        let known = self.flows.iter().position(|flow| flow.key == share.key());
        let at = known.unwrap_or_else(|| {
            if self.flows.iter().filter(|flow| flow.rests()).count() >= MAX_RESTING {
                let resting = self.flows.iter().enumerate().filter(|(_, flow)| flow.rests());
                let least = resting.min_by_key(|(_, flow)| flow.tag).map(|(at, _)| at);
                least.map(|at| self.flows.swap_remove(at));
            }
            self.flows.push(Flow::new(share, self.virtual_time));
            self.flows.len() - 1
        });
        let flow = &mut self.flows[at];
        flow.weight = share.weight().get().into();
        flow
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    const MILLI: Duration = Duration::from_millis(1);

    fn share(key: u32, weight: u16) -> Share {
        Share::new(key, NonZeroU16::new(weight).unwrap())
    }

    fn turn(share: Share, expected: Duration) -> Turn {
        Turn { share, expected, ..Turn::default() }
    }

    /// Runs tasks, which are the time that they take and their share, on so many workers until `until`.
    fn run(queue: &mut FairQueue<(Duration, u32)>, workers: usize, until: Duration) -> Vec<Duration> {
        let mut given = vec![Duration::ZERO; 5];
        let mut running: Vec<(Duration, Charge, Duration)> = Vec::new();
        let mut now = Duration::ZERO;
        loop {
            while running.len() < workers
                && let Some(((takes, share), charge)) = queue.pop()
            {
                given[share as usize] += takes;
                running.push((now + takes, charge, takes));
            }
            let next = running.iter().map(|(end, ..)| *end).min();
            let Some(next) = next.filter(|next| *next <= until) else { return given };
            now = next;
            let at = running.iter().position(|(end, ..)| *end == now).unwrap();
            let (_, charge, took) = running.swap_remove(at);
            queue.done(charge, took);
        }
    }

    #[test]
    fn shares_that_wait_are_given_time_by_their_weights_whatever_their_tasks_take_and_say() {
        let mut queue = FairQueue::new();
        // The first says that its tasks take next to nothing.
        for (key, weight, takes, says) in
            [(1, 1, MILLI * 50, MILLI / 1000), (2, 1, MILLI, MILLI), (3, 2, MILLI * 7, MILLI * 700)]
        {
            for _ in 0..10_000 {
                queue.push((takes, key), turn(share(key, weight), says));
            }
        }
        let given = run(&mut queue, 3, MILLI * 4000);
        for (key, expected) in [(1, 3000), (2, 3000), (3, 6000)] {
            let off = given[key].as_secs_f64() / (MILLI * expected).as_secs_f64() - 1.0;
            assert!(off.abs() < 0.1, "share {key} was given {:?} of {expected} ms", given[key]);
        }
    }

    #[test]
    fn one_who_comes_back_is_next_and_owed_nothing_for_the_time_before() {
        let mut queue = FairQueue::new();
        (0..100).for_each(|n| queue.push(n, turn(share(1, 1), MILLI)));
        for _ in 0..50 {
            let (_, charge) = queue.pop().unwrap();
            queue.done(charge, MILLI);
        }
        (100..104).for_each(|n| queue.push(n, turn(share(2, 1), MILLI)));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop().map(|(task, _)| task)).take(8).collect();
        let late = order.iter().filter(|&&task| task >= 100).count();
        assert_eq!(late, 4, "{order:?}");
        assert!(order[..2].contains(&100), "{order:?}");
    }

    #[test]
    fn within_a_share_the_higher_priority_is_next_and_the_lower_has_every_seventeenth_turn() {
        let mut queue = FairQueue::new();
        for priority in [Priority::Low, Priority::High] {
            (0..40).for_each(|_| queue.push(priority, Turn { priority, ..Turn::default() }));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop().map(|(priority, _)| priority)).collect();
        assert!(order[..16].iter().all(|&priority| priority == Priority::High));
        assert_eq!((order[16], order[17], order.len()), (Priority::Low, Priority::High, 80));
        // Another share's low priority does not wait for this one's high.
        let mut queue = FairQueue::new();
        (0..40).for_each(|_| queue.push(1, Turn { priority: Priority::High, ..turn(share(1, 1), MILLI) }));
        (0..40).for_each(|_| queue.push(2, Turn { priority: Priority::Low, ..turn(share(2, 1), MILLI) }));
        let first = std::iter::from_fn(|| queue.pop()).take(20).filter(|(share, _)| *share == 2).count();
        assert_eq!(first, 10);
    }

    #[test]
    fn shares_with_nothing_to_do_are_forgotten() {
        let mut queue = FairQueue::new();
        queue.push(0, turn(share(1, 1), MILLI));
        for key in 2..10_000 {
            queue.push(key, turn(share(key, 1), MILLI));
            let (_, charge) = queue.pop().unwrap();
            queue.done(charge, MILLI * 5);
        }
        assert!(queue.flows.len() <= MAX_RESTING + 2, "{} are known", queue.flows.len());
        while let Some((_, charge)) = queue.pop() {
            queue.done(charge, MILLI);
        }
        assert!(queue.flows.is_empty());
    }
}
